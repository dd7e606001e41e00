// Package jobs is what fanout knows: the words, the records, the legal moves, and the logic that turns a file of
// inference requests into one file of answers with exactly one outcome an item, in input order.
//
// It stands on narrow ports (ports.go) and knows no queue service, database, HTTP server, clock or environment.
// Four rules carry its correctness; each is stated again where the code keeps it:
//
//  1. Bits only turn on: a save ORs in only bits that are off, so an item has one outcome (chunk.go).
//  2. Files carry the generation of the facts they were made from, and are never overwritten (fold.go).
//  3. Look, claim, look: a worker reads the job, claims, and reads the job again (claim.go).
//  4. The ledger is the truth, the queue is transport: a message says where to look, never what to do (next.go).
//
// The tables that only one place may know: the legal moves (job.go), the steps (next.go), the verdicts (judge.go) and
// the error codes (errors.go).
package jobs
