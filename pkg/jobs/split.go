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

// Tries counts how often steps were begun without having ended, and who is at them.
type Tries map[Step]Try

// Try is the last try of a step.
type Try struct {
	Count int
	Died  int       `json:",omitempty"` // of these, how many of the last, in a row, ended in a panic or with their process
	Why   string    `json:",omitempty"` // how the last one that said so failed
	First time.Time // when the first of them was begun
	At    time.Time // when the last was
	Owner string    `json:",omitempty"` // who is at it; "" = nobody: the step failed, and said so
}

// A step stops its job as failed when so many tries in a row have ended in a panic or with their process; and when so many have
// failed, but not before so much time: what they need may be down, and come back.
const (
	MaxTries   = 5
	MaxTryTime = 6 * time.Hour
)

// worn tells whether the step has had its last try; the one that is noted has ended.
func (t Try) worn(now time.Time) bool {
	return t.died() >= MaxTries || t.Count >= MaxTries && now.Sub(t.First) >= MaxTryTime
}

// died counts the try that is noted too: it has not said how it ended.
func (t Try) died() int {
	if t.Owner != "" {
		return t.Died + 1
	}
	return t.Died
}
