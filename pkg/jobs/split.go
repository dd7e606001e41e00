package jobs

import "time"

// Split is a byte range of the input that is scanned, folded and compacted as a unit: bytes N*Cut.SplitBytes up to the
// next one's. A line belongs to the split in which it starts.
type Split struct {
	V        int
	Job      JobID
	N        int
	Revision int64 `json:"-"`

	Scanned    *Scanned `json:",omitempty"` // nil = not scanned
	Dispatched bool

	Totals   Totals     // of the last fold
	Fold     Generation // of the chunks that Totals were made from
	FoldedAt time.Time  `json:",omitzero"`
	Settled  bool       // of that fold

	Reopening map[int64]int `json:",omitempty"` // chunk offset → burial number: dead with that number, it is open again

	Pieces    []Piece `json:",omitempty"`
	PiecesOf  Generation
	Compacted bool // Pieces are all there are of PiecesOf

	Tries Tries `json:",omitempty"`
}

// Scanned is what the scan of a split found.
type Scanned struct {
	Cuts       FileRef // jobs/<job>/splits/<n>
	Lines      int64   // physical lines that start here
	Chunks     int
	First      int64 // offset of the first chunk
	Items      int64
	Violations int
}

// Piece is compacted outcomes of a run of chunks of one split, in order.
type Piece struct {
	Errors bool // of the failed items, else of the answered
	File   FileRef
	Bytes  int64
	To     int // chunks below this index are in this piece or an earlier one
}

// Tries counts how often steps were begun without having ended, and who is at them. Five, and the job is stopped.
type Tries map[Step]Try

// Try is the last try of a step.
type Try struct {
	Count int
	Owner string    `json:",omitempty"` // who is at it; "" = nobody: the step failed, and said so
	At    time.Time // when it was begun
}

// MaxTries is how often a step is begun before its job is stopped as failed.
const MaxTries = 5
