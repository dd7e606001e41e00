package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// Worker takes chunk messages: claim, read the lines, run the items, write a part, save the chunk, nudge aggregate,
// acknowledge. In that order, so that a crash anywhere repeats work but loses nothing.
type Worker struct {
	Ports
	opt       WorkerOptions
	gates     *Gates
	parts     *parts
	room      *room
	drain     chan struct{}
	once      sync.Once
	unwritten atomic.Int64 // bytes of answers held

	mu   sync.Mutex
	seen map[JobID]sighting
}

// WorkerOptions are the knobs of a worker. Zero values are the defaults named.
type WorkerOptions struct {
	// Route finds where a model is served: the name under which it is known, and the upstream itself.
	Route func(model string) (name string, u Upstream)

	Prices Prices // of tokens; none = nothing costs anything

	// RequestIDs gives an answer whose upstream gave it no id one of ours: the wire has no answer without.
	RequestIDs bool

	Concurrency     int           // calls in flight for each upstream+model, at most; 64
	HeldBytes       int64         // bytes of input held by claimed chunks; 64 MiB
	CallTimeout     time.Duration // an item starts only if this fits before the context's deadline; 120 s
	Lease           time.Duration // of a claim where the context has no deadline, renewed every third of it; 120 s
	Patience        time.Duration // how long an item may wait in place for weather to pass; 30 s
	CheckpointAge   time.Duration // a part is written when its oldest outcome is this old …; 60 s
	CheckpointBytes int           // … or it holds so many bytes; 8 MiB
	DeferFirst      time.Duration // back-off of a chunk, doubling with each attempt without progress; 5 s
	DeferMost       time.Duration // … up to this; 15 min
}

// DefaultMaxCalls is how many counted calls use an item up, unless its job says otherwise.
const DefaultMaxCalls = 8

const (
	lookAge     = 5 * time.Second  // a stop or a pause is seen within this
	leaseGrace  = 10 * time.Second // a lease outlasts the context's deadline by this
	saveMargin  = 5 * time.Second  // of the context's deadline, kept for writing the last part
	saveTries   = 16               // compare-and-swaps against others before an attempt gives up; its lease then ends
	insistTries = 3                // of what ends an attempt
	isolateFrom = 2                // crashes in a row after which a chunk runs alone
	strongFells = 3                // deaths with one item in hand and another answered between them: it is the item
	weakFells   = 5                // deaths with one item in hand and no other left to answer: likewise
)

var errDraining = errors.New("the worker is draining")

// NewWorker makes a worker.
func NewWorker(p Ports, opt WorkerOptions) *Worker {
	opt.Concurrency = cmp.Or(opt.Concurrency, 64)
	opt.HeldBytes = cmp.Or(opt.HeldBytes, 64<<20)
	opt.CallTimeout = cmp.Or(opt.CallTimeout, 120*time.Second)
	opt.Lease = cmp.Or(opt.Lease, 120*time.Second)
	opt.Patience = cmp.Or(opt.Patience, 30*time.Second)
	opt.CheckpointAge = cmp.Or(opt.CheckpointAge, 60*time.Second)
	opt.CheckpointBytes = cmp.Or(opt.CheckpointBytes, 8<<20)
	opt.DeferFirst = cmp.Or(opt.DeferFirst, 5*time.Second)
	opt.DeferMost = cmp.Or(opt.DeferMost, 15*time.Minute)
	return &Worker{
		Ports: p,
		opt:   opt,
		gates: newGates(p.Registry, p.Now, opt.Concurrency, p.Sole),
		parts: newParts(p.Files),
		room:  &room{items: opt.Concurrency, bytes: opt.HeldBytes},
		drain: make(chan struct{}),
		seen:  map[JobID]sighting{},
	}
}

// Ready waits until the worker has room for another chunk.
func (w *Worker) Ready(ctx context.Context) error { return w.room.ready(ctx) }

// Drain makes the worker start no more items. Calls in flight are finished, what they bring is saved, and chunks that are
// not done go back to the queue at once. Handle then returns.
func (w *Worker) Drain() { w.once.Do(func() { close(w.drain) }) }

func (w *Worker) draining() bool {
	select {
	case <-w.drain:
		return true
	default:
		return false
	}
}

// Handle runs chunks. Each is let in when there is room, in the order of the messages.
func (w *Worker) Handle(ctx context.Context, messages []Message) []Failure {
	errs := make([]error, len(messages))
	var running sync.WaitGroup
	for i, d := range messages {
		body, err := DecodeMessage(d.Body)
		if err == nil && body.Ping != nil {
			errs[i] = w.passPing(ctx, d, body.Ping, QueueWork, QueueAggregate)
			continue
		}
		if err == nil && body.Chunk == nil {
			err = Errorf(CodeInvalid, "decode message: a worker takes chunks and pings only")
		}
		if err != nil {
			errs[i] = buryUnreadable(ctx, w.Ports, d, err)
			continue
		}
		m := body.Chunk
		s, err := w.room.take(ctx, w.drain, m.Lines, w.hold(m), false)
		if err != nil || w.draining() {
			s.leave()
			errs[i] = w.giveBack(ctx, d)
			continue
		}
		running.Go(func() {
			defer func() {
				if r := recover(); r != nil {
					errs[i] = fmt.Errorf("run chunk %s: panic: %v\n%s", m.ID(), r, debug.Stack())
				}
			}()
			errs[i] = w.chunk(ctx, d, m, s)
		})
	}
	running.Wait()
	var failures []Failure
	for i, err := range errs {
		if err != nil {
			failures = append(failures, Failure{messages[i].ID, err})
		}
	}
	return failures
}

// hold is how many bytes of input a chunk holds: of a line over the limit only the beginning is ever read.
func (w *Worker) hold(m *ChunkMessage) int64 { return min(m.Length, w.opt.HeldBytes) }

// giveBack shows the message to others at once.
func (w *Worker) giveBack(ctx context.Context, d Message) error {
	now := w.Now()
	if err := w.Queue.Defer(context.WithoutCancel(ctx), now, d); err != nil {
		return fmt.Errorf("give a message back: %w", err)
	}
	return &Deferred{Until: now, Why: errDraining.Error()}
}

// buryUnreadable sends a message that nobody can read to the dead letters. One of a newer fanout is left for a newer one.
func buryUnreadable(ctx context.Context, p Ports, d Message, err error) error {
	if errors.Is(err, ErrNewer) {
		return err
	}
	why := Burial{Code: string(CodeInvalid), Message: err.Error(), Attempts: d.Receives}
	if err := p.Queue.Bury(ctx, d, why); err != nil {
		return fmt.Errorf("bury a message that cannot be read: %w", err)
	}
	p.Log.WarnContext(ctx, "buried a message that cannot be read", "queue", d.Queue, "message", d.ID, "error", err)
	return nil
}

// sighting is a job as it was seen.
type sighting struct {
	job *Job
	at  time.Time
}

// look returns the job, as it was at most five seconds ago.
func (w *Worker) look(ctx context.Context, id JobID) (*Job, error) {
	w.mu.Lock()
	s, ok := w.seen[id]
	w.mu.Unlock()
	if ok && w.Now().Sub(s.at) < lookAge {
		return s.job, nil
	}
	return w.lookAgain(ctx, id)
}

// lookAgain returns the job as it is now.
func (w *Worker) lookAgain(ctx context.Context, id JobID) (*Job, error) {
	j, err := w.Ledger.Job(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("read job %s: %w", id, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.seen) > 256 {
		clear(w.seen)
	}
	w.seen[id] = sighting{&j, w.Now()}
	return &j, nil
}

// nudge tells aggregate to look at a split.
func nudge(ctx context.Context, p Ports, job JobID, split int) error {
	return send(ctx, p.Queue, QueueAggregate, encodeMessage(AdvanceMessage{SchemaVersion, job, split}))
}

// send sends messages and tries once more what was not taken.
func send(ctx context.Context, q Queue, name QueueName, bodies ...[]byte) error {
	for range 3 {
		unsent, err := q.Send(ctx, name, bodies...)
		if err != nil {
			return fmt.Errorf("send to %s: %w", name, err)
		}
		if len(unsent) == 0 {
			return nil
		}
		again := make([][]byte, len(unsent))
		for i, u := range unsent {
			again[i], err = bodies[u.At], u.Err
		}
		bodies = again
		if CodeOf(err) == CodeLimit {
			return fmt.Errorf("send to %s: %w", name, err)
		}
	}
	return Errorf(CodeInternal, "send to %s: %d messages were not taken", name, len(bodies))
}
