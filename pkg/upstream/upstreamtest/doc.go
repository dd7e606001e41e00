// Package upstreamtest is an upstream for tests and benchmarks: an http.Handler that answers chat completions, or misbehaves
// as a request asks it to, and counts what it was asked.
//
// A request asks by a weather between double brackets, anywhere in its body: in the text, or as its model. A weather is
// words apart by spaces, some with a value:
//
//	[[status=500]]                        an OpenAI error object of that status
//	[[status=404 bare]]                   the status with a line of plain text, as from something before the API
//	[[status=429 retry-after=1 times=2]]  so for the first two calls of this request, then a fair answer
//	[[status=429 retry-after-ms=5]]       the other header
//	[[status=400 code=context_length_exceeded]]
//	[[status=307 location=http://other.example/]]
//	[[delay=20ms]]                        a fair answer, later; goes with any other word
//	[[hang]]                              no answer until the client leaves
//	[[trickle]]                           a byte every 10 ms, without end, until the client leaves
//	[[reset]]                             the connection is reset before any byte of an answer
//	[[drop]]                              the connection is closed before any byte of an answer
//	[[cut]]                               the connection is closed in the middle of a fair answer
//	[[huge]]                              100 MiB of one JSON string; with gzip, compressed
//	[[gzip]]                              a fair answer, compressed
//	[[html]]                              200 with a page
//	[[empty]]  [[array]]  [[broken]]  [[latin1]]   200 with what is no JSON object in UTF-8
//	[[pretty]]                            a fair answer over many lines
//	[[nousage]]                           a fair answer without usage
//	[[exit]]                              Server.Exit, by default the end of the process
//
// Server.SetWeather takes the same words, without brackets, for every request that asks for none: "status=401", "drop",
// "delay=20ms". A word that is not known is answered with 400 and a sentence, so that a test's mistake shows.
//
// A request is told from another by its Idempotency-Key, or by its text if it has none. Answers are deterministic: an
// answer repeats the text of the last user message, and equal requests have equal answers.
package upstreamtest
