// Package jobstest is what every driver of fanout has to prove: one suite for each port.
//
// A driver's test calls a suite with a function that opens an empty store, and declares where the store is known to
// differ; a claim that cannot be made for that reason is skipped, and the skip says why.
package jobstest
