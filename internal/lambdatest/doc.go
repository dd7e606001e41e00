// Package lambdatest runs Lambda functions' real binaries for tests: it is their Runtime API, and the event source that pumps
// them from SQS.
//
// Build makes a binary as it is made for Lambda. Deploy runs it as a Function: a process an environment, started when it is
// needed, each with a Runtime API of its own on 127.0.0.1; stopped (SIGSTOP) while it has nothing to do, as Lambda freezes
// it; killed at the invocation's deadline; replaced after it has ended. Map attaches a Source: it receives from a queue,
// invokes, and deletes what the response says is done. Nothing outlives the test, nor the test process however that ends.
//
// It follows what AWS documents; nobody has held it against AWS. It does not have: limits of memory, CPU and descriptors,
// IAM, throttling (an invocation waits for an environment until its messages' visibility has passed), scaling that takes
// minutes, extensions, and the guard against recursive loops, because no SQS server here carries the trace header.
package lambdatest
