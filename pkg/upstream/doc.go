// Package upstream makes one call to the place where inference happens, and says what was seen when it failed.
//
// OpenAI calls any OpenAI-compatible URL. Builtin answers in this process, without weights or network. Both implement
// jobs.Upstream: they never retry, never count and never wait, since the worker does, and a failed call is a *jobs.Fault.
package upstream
