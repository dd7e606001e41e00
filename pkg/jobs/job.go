package jobs

import (
	"slices"
	"time"
)

// SchemaVersion is the version of records and messages that this code writes. A reader leaves what is newer than itself.
const SchemaVersion = 1

// Phase is where a job is. The names are the wire's.
type Phase string

// The phases.
const (
	PhaseValidating Phase = "validating"
	PhaseInProgress Phase = "in_progress"
	PhaseFinalizing Phase = "finalizing"
	PhaseCompleted  Phase = "completed"
	PhaseCancelled  Phase = "cancelled"
	PhaseExpired    Phase = "expired"
	PhaseFailed     Phase = "failed"
)

// moves is the table of legal moves. A stop is a fact that may be written in any open phase; the way always leads through
// finalizing, and the fact picks the end. A job that fails, or is cancelled before it was checked, has no files and
// passes through finalizing within one save.
var moves = map[Phase][]Phase{
	"":              {PhaseValidating},
	PhaseValidating: {PhaseInProgress, PhaseFinalizing},
	PhaseInProgress: {PhaseFinalizing},
	PhaseFinalizing: {PhaseInProgress, PhaseCompleted, PhaseCancelled, PhaseExpired, PhaseFailed}, // back: a redrive
	PhaseCompleted:  {PhaseInProgress},                                                            // a redrive reopens
	PhaseExpired:    {PhaseInProgress},                                                            // so does a retry of what expired
	PhaseCancelled:  {},
	PhaseFailed:     {},
}

// CanMove tells whether a job may go from one phase to another.
func (p Phase) CanMove(to Phase) bool { return slices.Contains(moves[p], to) }

// Ended tells whether a job of this phase has its files, for now.
func (p Phase) Ended() bool {
	switch p {
	case PhaseCompleted, PhaseCancelled, PhaseExpired, PhaseFailed:
		return true
	default:
		return false
	}
}

// JobID names a job. On the wire it is the batch id.
type JobID string

// OnInvalid says what a line that breaks the input rules does to its job.
type OnInvalid string

// What an invalid line does.
const (
	InvalidFails OnInvalid = "fail" // to the whole job, before any call is paid for
	InvalidSkips OnInvalid = "skip" // to itself only: it becomes a failed item without a call
)

// Job is one input file and what was asked of it.
type Job struct {
	V        int
	ID       JobID
	Revision int64 `json:"-"`
	Tenant   string

	Input      FileRef
	InputBytes int64
	Endpoint   string // the url that every line must have
	Rules      int    // version of the input rules that the scan applied
	Cut        Cut
	OnInvalid  OnInvalid
	MaxCalls   int // counted calls of an item before it is given up
	HashKey    [16]byte

	Tolerated  *float64      `json:",omitempty"` // per cent of its outcomes that may be failures before it pauses; nil = any
	MaxCost    Cost          `json:",omitempty"` // that it may come to before it pauses; 0 = any
	KeepOutput time.Duration `json:",omitempty"` // its files, from when they are made; 0 = FileKept

	Phase    Phase
	Entered  map[Phase]time.Time // when it last entered each
	Stop     *Stop               `json:",omitempty"`
	Pause    *Pause              `json:",omitempty"` // of the whole job; those of an upstream+model are in their gate
	Waived   []Limit             `json:",omitempty"` // that it came to, and was resumed: it is not paused for these again
	Resumed  time.Time           `json:",omitzero"`  // when a pause of the whole job was last ended on demand
	Checked  *Checked            `json:",omitempty"` // nil = duplicates not looked for yet
	Totals   Totals              // of the last fold
	Fold     Generation          // of the splits' folds that Totals were made from
	History  []Point             `json:",omitempty"` // how Totals came to be, about evenly over its life
	Outputs  *Outputs            `json:",omitempty"`
	Tries    Tries               `json:",omitempty"`
	Created  time.Time
	SentAt   time.Time         `json:",omitzero"`  // when everybody was last sent to dispatch
	Deadline time.Time         `json:",omitzero"`  // zero = none
	Window   time.Duration     `json:",omitempty"` // from its creation, or a reopening, to its deadline
	MovedAt  time.Time         // of the last change of Fold or Phase
	ResentAt time.Time         `json:",omitzero"` // when the sweep last sent everything again
	Resends  int               `json:",omitempty"`
	Missing  bool              `json:",omitempty"` // somebody thinks that messages are lost: the next sweep sends everything again
	Parent   JobID             `json:",omitempty"` // whose failed items these are
	Children []Child           `json:",omitempty"` // jobs of its failed items, oldest first
	Notified time.Time         `json:",omitzero"`  // when it came to the end that its hooks were last told of
	Closed   bool              `json:",omitempty"` // ended long enough ago: no longer visited by the sweep
	Metadata map[string]string `json:",omitempty"`

	Ending bool `json:"-"` // this save is the one that ends it
}

// RecordsKept is how long the records of a job outlive its deadline; those of a job without one are kept. Its objects are
// kept for longer, its dead letters for less.
const RecordsKept = 45 * 24 * time.Hour

// sealedBefore the records of a job go, nothing of it is begun any more.
const sealedBefore = 24 * time.Hour

func (j *Job) hasDeadline() bool { return !j.Deadline.IsZero() }

// sealedAt is when nothing of the job is begun any more, since its first records are about to go: those that were saved last
// while it had the deadline that it was made with.
func (j *Job) sealedAt() time.Time {
	first := j.Deadline
	if j.Window > 0 && !j.Created.IsZero() {
		first = earlierOf(first, j.Created.Add(j.Window))
	}
	return first.Add(RecordsKept - sealedBefore)
}

// Splits is how many splits the input has; at least one.
func (j *Job) Splits() int {
	if j.InputBytes == 0 {
		return 1
	}
	return int((j.InputBytes + j.Cut.SplitBytes - 1) / j.Cut.SplitBytes)
}

// Stopped tells whether nothing more may be claimed for the job.
func (j *Job) Stopped() bool { return j.Stop != nil || j.Phase.Ended() }

// moveTo moves the job; a move that the table does not have is a bug of the caller.
func (j *Job) moveTo(p Phase, now time.Time) {
	if j.Phase != p && !j.Phase.CanMove(p) {
		panic("jobs: job " + string(j.ID) + " cannot move from " + string(j.Phase) + " to " + string(p))
	}
	j.Phase, j.MovedAt, j.Ending = p, now, p.Ended()
	if j.Entered == nil {
		j.Entered = map[Phase]time.Time{}
	}
	j.Entered[p] = now
}

// Stop is why a job ends early: a fact, written once.
type Stop struct {
	As     Phase  // cancelled, expired or failed
	Code   string // of a failed one: the commonest violation, input_modified, input_gone, input_unusable, internal
	Reason string // a sentence
	At     time.Time
}

// Pause is a recorded hold on a job or an upstream+model.
type Pause struct {
	Reason  string // outage, credential, operator, spend_cap, tolerated_failures
	Message string // a sentence
	At      time.Time
	ProbeAt time.Time `json:",omitzero"`  // when the next chunk is let through to see whether it can end; zero = never
	Probe   *ChunkID  `json:",omitempty"` // the chunk that is let through
	Limit   Limit     `json:",omitempty"` // that the job has come to; who resumes it waives that
}

// Limit is one of those that hold a job back before all of it is paid for.
type Limit string

// Limits that a job may come to.
const (
	LimitFailures   Limit = "failures"    // Job.Tolerated
	LimitCost       Limit = "cost"        // Job.MaxCost
	LimitTenantCost Limit = "tenant_cost" // Limits.MaxCost
)

// Reasons of a pause.
const (
	PauseOutage     = "outage"
	PauseCredential = "credential"
	PauseOperator   = "operator"
	PauseTolerated  = "tolerated_failures"
	PauseSpend      = "spend_cap"
)

// Cut says where chunks end. It is pinned in the job when it is opened.
type Cut struct {
	SplitBytes int64 // bytes of input a split covers
	ChunkLines int   // a chunk closes at so many physical lines …
	ChunkBytes int64 // … or so many bytes …
	FloorBytes int64 // … but not before it has this many bytes, unless MaxChunkLines are full
	LineBytes  int64 // a longer line is a violation
}

// Limits of the records, so that none outgrows its store.
const (
	MaxChunkLines  = 4096 // lines a chunk
	MaxSplitChunks = 4096 // chunks a split
	MaxJobSplits   = 8000 // splits a job
)

// DefaultCut is the cut of an input of so many bytes.
func DefaultCut(inputBytes int64) Cut {
	split := max(int64(64<<20), (inputBytes+MaxJobSplits-1)/MaxJobSplits)
	return Cut{SplitBytes: split, ChunkLines: 100, ChunkBytes: 4 << 20, FloorBytes: (split + MaxSplitChunks - 1) / MaxSplitChunks, LineBytes: 20 << 20}
}

// Checked is what the check of a whole job found.
type Checked struct {
	Summary    FileRef // jobs/<job>/check/summary: the violations kept, and the first line of each split
	Violations int     // all of them, kept or counted
	Items      int64
	Model      string `json:",omitempty"` // of all valid lines; "" = they have none, or several
}

// Point is how far a job was at a time.
type Point struct {
	At               time.Time
	Answered, Failed int64
}

// mostPoints are kept; of more every other one goes.
const mostPoints = 64

// notePoint adds where the job is now, unless that is no news.
func (j *Job) notePoint(now time.Time) {
	p := Point{now.Truncate(time.Second), j.Totals.Answered, j.Totals.Failed}
	if n := len(j.History); n > 0 && j.History[n-1].Answered == p.Answered && j.History[n-1].Failed == p.Failed {
		return
	}
	if len(j.History) >= mostPoints {
		var kept []Point
		for i := 0; i < len(j.History); i += 2 {
			kept = append(kept, j.History[i])
		}
		j.History = kept
	}
	j.History = append(j.History[:len(j.History):len(j.History)], p)
}

// Outputs are the files of one generation. A file without lines is nil.
type Outputs struct {
	Of              Generation
	Answers, Errors *FileInfo
	Totals          Totals
}
