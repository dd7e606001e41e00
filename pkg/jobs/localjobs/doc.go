// Package localjobs keeps jobs on one machine: records and queues in one SQLite file, objects in a directory tree.
//
// It keeps the promises that the cloud driver keeps: saves compare revisions, a queue delivers at least once and hides
// what it delivered for a while, an object is seen whole or not at all. One process at a time has the directory open. So
// whatever a dead predecessor had in hand is known to be nobody's, and is delivered again at once. A poll.Pump drives the
// handlers; it is woken by sends and by the time of the next visible message, never by an interval.
//
// What is acknowledged is on disk: a save, a send and a commit return after the disk has it, and writes that wait for the
// disk at the same time share one transaction.
package localjobs
