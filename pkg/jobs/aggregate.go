package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Aggregate advances splits and jobs from dispatch to the end: fold, compact, finalize, notify; it sweeps, and it records what
// came of notices.
type Aggregate struct {
	visitor
	opt   AggregateOptions
	parts *parts

	mu      sync.Mutex
	settled map[splitKey]prefix
	closed  map[string]closedSpending // by tenant
}

// AggregateOptions are the knobs of aggregate. Zero values are the defaults named.
type AggregateOptions struct {
	FoldEvery  time.Duration // a split that is not settled is folded at most so often; 10 s
	PieceBytes int64         // a piece is closed at this size …; 1 GiB
	PieceAge   time.Duration // … or after so much work, so that a step fits any function; 60 s
	Webhooks   bool          // somebody handles the notify queue: without, nobody is told of an end
}

const clockSkew = 2 * time.Second

type splitKey struct {
	job JobID
	n   int
}

// prefix is how far a split was seen to be settled without a gap. It is a hint to save reading, never a fact.
type prefix struct {
	chunks int
	offset int64 // the next chunk begins here
}

// NewAggregate makes an aggregate.
func NewAggregate(p Ports, opt AggregateOptions) *Aggregate {
	opt.FoldEvery = cmp.Or(opt.FoldEvery, 10*time.Second)
	opt.PieceBytes = cmp.Or(opt.PieceBytes, 1<<30)
	opt.PieceAge = cmp.Or(opt.PieceAge, 60*time.Second)
	a := &Aggregate{opt: opt, parts: newParts(p.Files), settled: map[splitKey]prefix{}, closed: map[string]closedSpending{}}
	a.visitor = visitor{
		Ports: p,
		queue: QueueAggregate,
		split: map[Step]func(context.Context, *Job, *Split) error{StepFold: a.fold, StepCompact: a.compact},
		job:   map[Step]func(context.Context, *Job, Survey) error{StepFold: a.foldJob, StepFinalize: a.finalize, StepNotify: a.tell},
	}
	return a
}

// Handle visits what the messages name, each split or job once however often it is named, splits first.
func (a *Aggregate) Handle(ctx context.Context, messages []Message) []Failure {
	type named struct {
		d Message
		b Body
	}
	var failures []Failure
	fail := func(d Message, err error) {
		if err != nil {
			failures = append(failures, Failure{d.ID, err})
		}
	}
	pingsTo := noQueue
	if a.opt.Webhooks {
		pingsTo = QueueNotify
	}
	var todo []named
	for _, d := range messages {
		b, err := DecodeMessage(d.Body)
		if err == nil && b.Ping != nil {
			fail(d, a.passPing(ctx, d, b.Ping, QueueAggregate, pingsTo))
			continue
		}
		if err == nil && b.Delivered != nil {
			fail(d, a.delivered(ctx, b.Delivered))
			continue
		}
		if err == nil && b.Advance == nil && b.Tick == nil {
			err = Errorf(CodeInvalid, "decode message: aggregate takes advances, reports of notices, ticks and pings only")
		}
		if err != nil {
			fail(d, buryUnreadable(ctx, a.Ports, d, err))
			continue
		}
		same := slices.IndexFunc(todo, func(n named) bool { return sameVisit(n.b, b) })
		switch {
		case same < 0:
			todo = append(todo, named{d, b})
		case d.Sent.After(todo[same].d.Sent):
			todo[same].d = d // the later one asks for the newer facts
		}
	}
	slices.SortStableFunc(todo, func(x, y named) int { return cmp.Compare(x.b.rank(), y.b.rank()) })
	for _, n := range todo {
		if n.b.Tick != nil {
			fail(n.d, a.sweep(ctx))
			continue
		}
		fail(n.d, a.visit(ctx, n.d, n.b.Advance))
	}
	return failures
}

func sameVisit(x, y Body) bool {
	if x.Tick != nil || y.Tick != nil {
		return x.Tick != nil && y.Tick != nil
	}
	return x.Advance.Job == y.Advance.Job && x.Advance.Split == y.Advance.Split
}

func (b Body) rank() int {
	switch {
	case b.Tick != nil:
		return 2
	case b.Advance.Split == WholeJob:
		return 1
	default:
		return 0
	}
}

// visit advances a split if that is worth it now: if it may be settled, or its last fold is old. A nudge that was sent
// before the last fold began has nothing new to say.
func (a *Aggregate) visit(ctx context.Context, d Message, m *AdvanceMessage) error {
	if m.Split == WholeJob {
		return a.advance(ctx, d, m)
	}
	s, err := a.Ledger.Split(ctx, m.Job, m.Split)
	if errors.Is(err, ErrNotFound) {
		return a.advance(ctx, d, m)
	}
	if err != nil {
		return fmt.Errorf("read split %d of job %s: %w", m.Split, m.Job, err)
	}
	next := s.FoldedAt.Add(a.opt.FoldEvery)
	old := d.Sent.Add(a.skew()).Before(s.FoldedAt)
	switch {
	case s.Settled && s.compacted() && old:
		return nil
	case !s.Dispatched || s.Settled || !a.Now().Before(next):
		return a.advance(ctx, d, m)
	}
	if j, err := a.Ledger.Job(ctx, m.Job); err == nil && j.Stop != nil {
		return a.advance(ctx, d, m)
	}
	whole, err := a.maybeSettled(ctx, &s)
	switch {
	case err != nil:
		return err
	case whole:
		return a.advance(ctx, d, m)
	case old:
		return nil
	}
	if err := a.Queue.Defer(ctx, next, d); err != nil {
		return fmt.Errorf("defer a message: %w", err)
	}
	return &Deferred{Until: next, Why: fmt.Sprintf("split %d of job %s was folded a moment ago", m.Split, m.Job)}
}

// skew is how far apart the clocks of the queue and of this process may be.
func (a *Aggregate) skew() time.Duration {
	if a.Sole {
		return 0
	}
	return clockSkew
}

// maybeSettled walks on from where the split was last seen to be settled, so that over a job's life each chunk is looked
// at about once for this.
func (a *Aggregate) maybeSettled(ctx context.Context, s *Split) (bool, error) {
	key := splitKey{s.Job, s.N}
	a.mu.Lock()
	p, known := a.settled[key]
	a.mu.Unlock()
	if !known {
		p.offset = s.Scanned.First
	}
	for c, err := range a.Ledger.Chunks(ctx, s.Job, s.N, OffsetRange{From: p.offset}) {
		if err != nil {
			return false, fmt.Errorf("read the chunks of split %d of job %s: %w", s.N, s.Job, err)
		}
		if !c.Settled() || c.ID.Offset != p.offset {
			break
		}
		p = prefix{p.chunks + 1, c.ID.Offset + c.Length}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if p.chunks >= s.Scanned.Chunks {
		delete(a.settled, key)
		return true, nil
	}
	if len(a.settled) > 10_000 {
		clear(a.settled)
	}
	a.settled[key] = p
	return false, nil
}

// fold recomputes a split's totals from its chunks. The split was read before them, so a save in between makes this one
// fail, and look again.
func (a *Aggregate) fold(ctx context.Context, j *Job, s *Split) error {
	began := a.Now()
	f, err := foldSplit(j, s, a.Ledger.Chunks(ctx, j.ID, s.N, OffsetRange{}), a.alive)
	if err != nil {
		return fmt.Errorf("read its chunks: %w", err)
	}
	news := f.Generation != s.Fold || f.Settled != s.Settled || f.Totals.Parked != s.Totals.Parked || f.Totals.Dead != s.Totals.Dead
	if !news && s.Settled {
		return nil // and nobody who compacts it is disturbed
	}
	if news {
		s.Tries = s.Tries.done(StepCompact) // what was tried was another
	}
	if f.Totals.Dead > 0 && s.Totals.Dead == 0 {
		if err := a.nameDeadJob(ctx, j); err != nil {
			return err
		}
	}
	lag := began.Sub(s.FoldedAt)
	if s.FoldedAt.IsZero() {
		lag = 0
	}
	s.Totals, s.Fold, s.Settled, s.Reopening, s.FoldedAt = f.Totals, f.Generation, f.Settled, f.Reopening, began
	if err := a.Ledger.SaveSplit(ctx, s); err != nil {
		return fmt.Errorf("save it: %w", err)
	}
	if news && a.Watch.Folded != nil {
		a.Watch.Folded(j.ID, lag)
	}
	if news && !s.Settled {
		if err := a.heedLimits(ctx, j); err != nil {
			return err
		}
	}
	if j.Stop != nil && !s.Settled {
		return &Deferred{Until: f.LeaseEnds.Add(time.Second), Why: "a worker still holds a chunk of the stopped job"}
	}
	if news && s.Settled && s.compacted() {
		return nudge(ctx, a.Ports, j.ID, WholeJob)
	}
	return nil
}

// foldJob sums up the splits.
func (a *Aggregate) foldJob(ctx context.Context, j *Job, all Survey) error {
	j.noteFold(all, a.Now())
	return a.saveJob(ctx, j)
}

func (j *Job) noteFold(all Survey, now time.Time) {
	if j.Fold != all.Fold {
		j.MovedAt, j.Resends = now, 0
		j.Tries = j.Tries.done(StepFinalize) // what was tried was another
	}
	j.Fold, j.Totals = all.Fold, all.Totals
	j.notePoint(now)
}
