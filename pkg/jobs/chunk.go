package jobs

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ChunkID names a chunk: the byte offset of its first line sorts it into input order.
type ChunkID struct {
	Job    JobID
	Split  int
	Offset int64
}

func (c ChunkID) String() string { return fmt.Sprintf("%s/%d/%d", c.Job, c.Split, c.Offset) }

// Ref is the name as it stands in URLs. A job's id has no ".".
func (c ChunkID) Ref() string { return fmt.Sprintf("%s.%d.%d", c.Job, c.Split, c.Offset) }

// ParseChunkRef reads what Ref wrote; anything else is CodeInvalid.
func ParseChunkRef(s string) (ChunkID, error) {
	parts := strings.Split(s, ".")
	if len(parts) == 3 && parts[0] != "" {
		split, err := strconv.Atoi(parts[1])
		offset, err2 := strconv.ParseInt(parts[2], 10, 64)
		c := ChunkID{JobID(parts[0]), split, offset}
		if err == nil && err2 == nil && split >= 0 && split < MaxJobSplits && offset >= 0 && c.Ref() == s {
			return c, nil
		}
	}
	return ChunkID{}, Errorf(CodeInvalid, "%.80q names no chunk: it is JOB.SPLIT.OFFSET", s)
}

// Chunk is what is known of a run of items inside one split. It is born by its first claim.
//
// An ordinal is the physical line within the chunk, from 0; blank lines are no items. Resolved bits only turn on, and the
// masks of Parts are disjoint and make up Resolved: so an item has exactly one outcome (rule 1).
type Chunk struct {
	V        int
	ID       ChunkID
	Revision int64 `json:"-"`

	Length int64
	Lines  int
	Blank  Bits `json:",omitempty"` // lines that are no items

	Attempt   int       // of the last claim; never reset, since parts are named by it
	Owner     string    `json:",omitempty"` // of the last claim, random; "" = it was given up properly
	Lease     time.Time `json:",omitzero"`
	NotBefore time.Time `json:",omitzero"`  // deferred until then
	Waits     string    `json:",omitempty"` // parked: the gate it waits for, or "job"; its message was acked

	Resolved Bits           `json:",omitempty"`
	Failed   Bits           `json:",omitempty"` // of Resolved: with an error
	Accused  Bits           `json:",omitempty"` // open items that failed although others were answered
	Passed   Bits           `json:",omitempty"` // open items that have failed, and others were answered since
	Calls    map[int]int    `json:",omitempty"` // counted calls of accused items
	Failures map[int]int    `json:",omitempty"` // of open items: suspect failures so far, counted or not
	Spent    Bits           `json:",omitempty"` // open items that are not called again
	Felled   map[int]Felled `json:",omitempty"` // items that were in hand when their process died
	InHand   *int           `json:",omitempty"` // while the chunk runs alone: the item that is being called
	Crashes  int            `json:",omitempty"` // expired leases in a row without progress
	Idle     int            `json:",omitempty"` // attempts in a row without progress; picks the back-off

	Burial int  `json:",omitempty"` // number of the last burial
	Dead   bool `json:",omitempty"` // every open item is spent
	Buried bool `json:",omitempty"` // the dead letters have it, with that number
	Purged bool `json:",omitempty"` // somebody has cleared it out of the dead letters

	DiedAt time.Time `json:",omitzero"` // when it was found dead last

	Parts  []Part       `json:",omitempty"`
	Totals Totals       // of Resolved
	Errors []ErrorGroup `json:",omitempty"` // last errors of open and failed items
}

// Felled counts how often a process died with one item in hand.
type Felled struct {
	Times   int // in all
	Strong  int // with another item answered since the last time: the process was well otherwise
	Settled int // Resolved.Count() at the last time
}

// MarshalJSON writes three numbers: a chunk may have thousands of these.
func (f Felled) MarshalJSON() ([]byte, error) {
	return json.Marshal([3]int{f.Times, f.Strong, f.Settled})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (f *Felled) UnmarshalJSON(text []byte) error {
	var n [3]int
	err := json.Unmarshal(text, &n)
	*f = Felled{n[0], n[1], n[2]}
	return err
}

// Part is the outcomes that one attempt at a chunk produced: object jobs/<job>/parts/<split>/<offset>-<attempt>-<seq>.
type Part struct {
	Attempt int  `json:"a"` // short names: a chunk that ran alone has one part an item
	Seq     int  `json:"s"`
	Mask    Bits `json:"m"`           // the items whose outcome is taken from here
	Samples Bits `json:"x,omitempty"` // spent items whose last error stands here
}

// ErrorGroup is the items of a chunk whose last error was alike.
type ErrorGroup struct {
	Code    string
	Status  int    `json:",omitempty"` // HTTP status; 0 = there was no answer
	Message string // normalised and cut
	Items   Bits
}

// Items are the lines that are items.
func (c *Chunk) Items() Bits { return AllBits(c.Lines).Without(c.Blank) }

// Open are the items without an outcome.
func (c *Chunk) Open() Bits { return c.Items().Without(c.Resolved) }

// Done tells whether every item has its outcome.
func (c *Chunk) Done() bool { return c.Open().Empty() }

// Settled tells whether nothing is left to do for the chunk: every item has its outcome, or it is dead and buried.
func (c *Chunk) Settled() bool { return c.Done() || c.Dead && c.Buried }
