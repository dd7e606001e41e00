package jobs

import (
	"context"
	crand "crypto/rand"
	"io"
	"iter"
	"log/slog"
	"math/rand/v2"
	"time"
)

// Ledger keeps jobs, splits and chunks.
//
// Save* stores a record if nobody saved it since it was read (Revision 0: if it is absent), sets its new Revision (always
// higher than every earlier one of that record) and returns nil; else it returns ErrConflict and changes nothing. A save
// whose answer was lost may have happened: read again. Reads are consistent with every save that returned before they
// began. Absent is ErrNotFound. Iterators end at their first error. Safe for concurrent use, also while an iterator of
// the same caller is half read; retries belong to the caller.
type Ledger interface {
	Job(ctx context.Context, job JobID) (Job, error)
	SaveJob(ctx context.Context, j *Job) error
	// Jobs yields the jobs of a tenant, newest first, or with q.Open those that the sweep still visits, in any order.
	Jobs(ctx context.Context, q JobQuery) iter.Seq2[Job, error]
	Split(ctx context.Context, job JobID, n int) (Split, error)
	Splits(ctx context.Context, job JobID) iter.Seq2[Split, error] // in order of n; absent ones are skipped
	SaveSplit(ctx context.Context, s *Split) error
	Chunks(ctx context.Context, job JobID, split int, r OffsetRange) iter.Seq2[Chunk, error] // in order of offset
	SaveChunk(ctx context.Context, c *Chunk) error
}

// JobQuery selects jobs.
type JobQuery struct {
	Tenant string // of this tenant, newest first
	Open   bool   // instead: every job whose Closed is false, of all tenants, in any order
	After  JobID  // only what follows this one, with Tenant
	Limit  int    // at most so many; 0 = all
}

// OffsetRange is a half-open range of byte offsets, From ≤ offset < To. To 0 means no end.
type OffsetRange struct{ From, To int64 }

// At is the range that holds one offset.
func At(offset int64) OffsetRange { return OffsetRange{From: offset, To: offset + 1} }

// Registry keeps the small things beside the work, by kind, owner and id. SaveEntry and DropEntry compare revisions as
// Ledger's saves do. Safe for concurrent use.
type Registry interface {
	Entry(ctx context.Context, kind Kind, owner, id string) (Entry, error)
	Entries(ctx context.Context, kind Kind, owner string) iter.Seq2[Entry, error] // by id; owner "" = of all owners, by owner and id
	// Listed yields the entries of an owner that have a Created, newest first, those of one instant by falling id; with
	// q.Oldest the other way round. An entry that was saved or dropped a moment ago may still be missed, or shown.
	// ErrNotFound if q.After is absent.
	Listed(ctx context.Context, q EntryQuery) iter.Seq2[Entry, error]
	SaveEntry(ctx context.Context, e *Entry) error
	DropEntry(ctx context.Context, e Entry) error // of that revision; an absent entry is fine
}

// EntryQuery selects entries of one owner, by time.
type EntryQuery struct {
	Kind   Kind
	Owner  string
	Oldest bool   // oldest first
	After  string // only what follows this entry
	Limit  int    // at most so many; 0 = all
}

// Kind is a kind of registry entry.
type Kind string

// KindGate entries hold what is known of an upstream+model: owner = upstream, id = model.
const KindGate Kind = "gate"

// Entry is one thing in the registry. Body is JSON of the kind.
type Entry struct {
	Kind      Kind
	Owner, ID string
	Revision  int64
	Body      []byte
	Created   time.Time // zero = not listed by time; set by the first save and never changed afterwards
	Expires   time.Time // may be dropped by the store after this; zero = kept
}

// Queue moves messages: at least once, in any order, each hidden for a while after it was received. Safe for concurrent
// use.
type Queue interface {
	// Send takes messages (Body alone counts); what was not taken comes back in Unsent. An error means that nothing is
	// known of any of them.
	Send(ctx context.Context, q QueueName, bodies ...[]byte) ([]Unsent, error)
	// Defer hides received messages until then, or shows them at once if then has passed. It errors, and hides nothing,
	// past the transport's limit. A message whose receipt is stale is left alone, without error.
	Defer(ctx context.Context, until time.Time, m ...Message) error
	// Bury puts a copy into the dead letters of the message's queue, with the reason as attributes. The caller then acks.
	Bury(ctx context.Context, m Message, why Burial) error
	// Depth is approximate.
	Depth(ctx context.Context, q QueueName) (Depth, error)
}

// QueueName names one of the four queues.
type QueueName string

// The queues.
const (
	QueueIngest    QueueName = "ingest"
	QueueWork      QueueName = "work"
	QueueAggregate QueueName = "aggregate"
	QueueNotify    QueueName = "notify"
)

// Message is one delivery of a message.
type Message struct {
	ID       string // of the message; the same in each delivery
	Receipt  string // of this delivery
	Queue    QueueName
	Body     []byte
	Receives int // deliveries so far, this one included
	Sent     time.Time
}

// Unsent is a message that Send could not place: its index among the arguments, and why.
type Unsent struct {
	At  int
	Err error
}

// Burial is why a message was sent to the dead letters.
type Burial struct {
	Number   int // the chunk's burial number; 0 for a message that could not be read
	Job      JobID
	Code     string // of the commonest last error
	Message  string
	Attempts int
}

// Depth is how much a queue holds.
type Depth struct {
	Waiting, InFlight, Delayed, Dead int64
	Oldest                           time.Duration // age of the oldest waiting message
}

// DeadLetters is what operators do to buried messages. Safe for concurrent use, but a letter may be missed while somebody else
// peeks at it or moves it.
type DeadLetters interface {
	// Peek yields the letters of a queue, in any order, and leaves them there.
	Peek(ctx context.Context, q QueueName) iter.Seq2[Letter, error]
	// Discard removes letters, which is for the loop over Peek that yielded them. One that is gone is fine.
	Discard(ctx context.Context, q QueueName, l ...Letter) error
	// Move begins to move the letters of a queue back into it, all of them, at most so many a second (0 = as fast as it
	// goes; SQS takes up to MaxMoveRate). A move that is under way is ErrConflict.
	Move(ctx context.Context, q QueueName, perSecond int) error
	// Moves tells of the last moves of a queue, newest first.
	Moves(ctx context.Context, q QueueName) ([]Move, error)
	// StopMove ends the move that is under way, or is ErrNotFound. What was moved stays moved.
	StopMove(ctx context.Context, q QueueName) error
}

// MaxMoveRate is the most messages a second that a move can be asked for.
const MaxMoveRate = 500

// Letter is a buried message.
type Letter struct {
	ID      string
	Receipt string // of this look at it
	Body    []byte
	Burial  Burial // zero if the queue itself gave the message up
	At      time.Time
}

// Move is a move of a queue's letters back into it.
type Move struct {
	State        MoveState
	Began        time.Time
	Moved, Total int64  // approximate
	Why          string // it failed
}

// MoveState is how a move stands.
type MoveState string

// How moves stand.
const (
	MoveRunning   MoveState = "running"
	MoveCompleted MoveState = "completed"
	MoveStopped   MoveState = "stopped"
	MoveFailed    MoveState = "failed"
)

// Files keeps objects. An object is seen whole or not at all, and is never changed afterwards. Safe for concurrent use.
type Files interface {
	Stat(ctx context.Context, name string) (FileInfo, error)
	// Read opens length bytes from offset (length < 0: to the end; less is there at the end of the object). ErrChanged if
	// f.Version is set and is no longer there, ErrNotFound if the object is absent.
	Read(ctx context.Context, f FileRef, offset, length int64) (io.ReadCloser, error)
	// Create begins an object that nobody sees before Commit.
	Create(ctx context.Context, name string) (FileWriter, error)
	// Concat makes an object of others, one after the other, in constant memory; ErrExists as Commit.
	Concat(ctx context.Context, name string, parts []FileRef) (FileInfo, error)
	// Copy makes an object of another that strangers may write to, or delete, at any time: all of it and of exactly that
	// version, or nothing. ErrChanged and ErrNotFound speak of from, ErrExists of the copy, whose name is taken.
	Copy(ctx context.Context, from FileRef, to string) (FileInfo, error)
	List(ctx context.Context, prefix string) iter.Seq2[FileInfo, error] // by name
	Delete(ctx context.Context, names ...string) error                  // absent names are fine
}

// FileWriter is an object that is being made.
type FileWriter interface {
	io.Writer
	// Commit makes the object visible; ErrExists, and no change, if the name is taken.
	Commit(ctx context.Context) (FileInfo, error)
	// Abort drops it. After Commit it does nothing.
	Abort() error
}

// FileRef points at one version of an object. An empty Version is any.
type FileRef struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
}

// FileInfo describes an object.
type FileInfo struct {
	FileRef
	Bytes int64     `json:"bytes"`
	At    time.Time `json:"at,omitzero"`
}

// Upstream answers one request: one call, no retry (the worker counts calls). A failed call is a *Fault that says what
// was seen; what follows from it is Judge's to say. Safe for concurrent use.
type Upstream interface {
	Call(ctx context.Context, r Request) (Answer, error)
}

// Request is one call.
type Request struct {
	URL            string // the item's url, a path such as /v1/chat/completions
	Model          string
	IdempotencyKey string
	Body           []byte // JSON, as it came in the input; not to be changed or kept
}

// Answer is a 2xx answer. Body is valid JSON on one line.
type Answer struct {
	Status    int
	RequestID string // as the upstream said; may be empty
	Body      []byte
	Usage     Usage
}

// Handler is the one shape of ingest, worker, aggregate and notify. It returns the messages that are to come again; all others
// are done with. It never panics for what a message says. Safe for concurrent use.
type Handler interface {
	Handle(ctx context.Context, m []Message) []Failure
}

// Failure is a message that is to be delivered again, and why.
type Failure struct {
	ID  string
	Err error // a *Deferred where that was expected
}

// Deferred says that work was put off on purpose: weather, a live lease, a step that is not due.
type Deferred struct {
	Until time.Time
	Why   string
}

func (d *Deferred) Error() string { return "deferred: " + d.Why }

// Ports is what the handlers stand on. Time, ids and jitter are fields so that a run can be repeated exactly.
type Ports struct {
	Ledger   Ledger
	Registry Registry
	Queue    Queue
	Files    Files

	Now    func() time.Time
	NewID  func() string                       // random, unique, without "/"
	Jitter func(d time.Duration) time.Duration // a random duration in [d/2, d]
	// Yield, if set, is called by a loop that was woken, before it decides anything. A simulation puts those in order here
	// that wake at the same instant.
	Yield func(ctx context.Context)

	// Process names this process. With Sole set no other process ever opens the same ledger at the same time, so a lease
	// that another one took has died with it.
	Process string
	Sole    bool

	Log   *slog.Logger
	Watch Watch
}

// WithDefaults fills in what a process wants unless it is a test: the clock, random ids and jitter, a log that says
// nothing.
func (p Ports) WithDefaults() Ports {
	if p.Now == nil {
		p.Now = time.Now
	}
	if p.NewID == nil {
		p.NewID = crand.Text
	}
	if p.Jitter == nil {
		p.Jitter = func(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }
	}
	if p.Process == "" {
		p.Process = p.NewID()
	}
	if p.Log == nil {
		p.Log = slog.New(slog.DiscardHandler)
	}
	return p
}

// Watch is told what happens while it happens, for progress lines and metrics; the ledger has the truth. Any may be nil.
// They are called inline, by many goroutines at once, and must not block.
type Watch struct {
	CallStarted func(upstream, model string)
	CallEnded   func(upstream, model string, fault *Fault, took time.Duration) // fault nil = answered
	Outcome     func(job JobID, answered bool)                                 // an item has its outcome, not yet saved
	JobSaved    func(j Job)
	Limited     func(upstream, model string, calls int) // where the limit of calls in flight stands, after an attempt
	Folded      func(job JobID, lag time.Duration)      // a split was folded with news, so long after it was last
	JobEnded    func(j Job)                             // a job came to an end, or to one anew
	Pinged      func(q QueueName, age time.Duration)    // a ping came through a queue, so long after it was sent
}
