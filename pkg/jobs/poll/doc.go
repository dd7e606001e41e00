// Package poll drives handlers by polling a queue.
//
// It does in a long-running process what the event source does for a function: it receives, calls, acks what was handled
// and lets the rest come again. A Source is the queue that it polls; each driver has one.
package poll
