package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// attempt is one run of a chunk under one claim. Its loop owns everything in it but results, which the calls deliver to;
// a place at a gate is taken by the loop that launches, never by the call itself, so that a run can be repeated exactly.
type attempt struct {
	w     *Worker
	job   *Job
	d     Message
	m     *ChunkMessage
	c     *Chunk // as last read or saved
	owner string
	seat  *seat

	resolvedAtClaim int  // items that had their outcome
	orphan          bool // the attempt before did not give its claim up

	items    []item // by ordinal
	fresh    []int  // ordinals not yet called, in the order to call them
	later    []retry
	inFlight int
	inHand   *int // while alone: the item in flight
	mustLook bool // at the job, before anything is called
	stop     stopReason
	stopGate GateID // of stopPaused and stopHeld
	stopWhy  *Fault

	turn    turn
	gate    *Gate     // at which the turn waits
	opensAt time.Time // of that gate, if it is closed

	accused  Bits // evidence against open items, as of the claim and what this attempt adds
	spent    Bits
	calls    map[int]int
	failures map[int]int

	attempt  int
	seq      int           // of the last part written
	unsaved  []*partHeader // parts that are not in the record yet
	outcomes []outcome
	bytes    int
	since    time.Time // when the oldest outcome arrived
	renewAt  time.Time
	held     []heldItem
	touched  []*gateUse // gates used, in order of first use

	began   time.Time
	now     time.Time // as of this round of the loop
	wake    chan struct{}
	mu      sync.Mutex
	results []result
}

// item is what the loop knows of one line.
type item struct {
	line    Line
	offset  int64
	gate    *gateUse
	mark    uint64 // of the gate, at the claim or at the item's last failure
	retries int
	waited  time.Duration
	failed  bool // in this attempt or an earlier one
	passed  bool // since the last failure, in an earlier attempt, others were answered
	fault   *Fault
}

// gateUse is a gate as one attempt uses it.
type gateUse struct {
	*Gate
	upstream Upstream
	mark     uint64 // at first use
	answered bool
	why      string // what its last failure was
}

type retry struct {
	at      time.Time
	ordinal int
}

type heldItem struct {
	ordinal int
	mark    uint64
}

// stopReason is why an attempt starts no more items.
type stopReason string

const (
	stopNot     stopReason = ""
	stopDrain   stopReason = "drain"   // the process or its deadline ends
	stopJob     stopReason = "job"     // the job was stopped
	stopWeather stopReason = "weather" // the chunk's rest is put off
	stopPaused  stopReason = "paused"  // the job or a gate is
	stopHeld    stopReason = "held"    // credential or address, and nothing was answered
	stopLost    stopReason = "lost"    // another worker has the claim
	stopBroken  stopReason = "broken"  // a port failed
)

func newAttempt(w *Worker, j *Job, d Message, m *ChunkMessage, c *Chunk, orphan bool, s *seat) *attempt {
	a := &attempt{w: w, job: j, d: d, m: m, c: c, owner: c.Owner, attempt: c.Attempt, orphan: orphan, seat: s, wake: make(chan struct{}, 1),
		resolvedAtClaim: c.Resolved.Count(), accused: c.Accused, spent: c.Spent, calls: map[int]int{}, failures: map[int]int{}}
	maps.Copy(a.calls, c.Calls)
	maps.Copy(a.failures, c.Failures)
	a.turn.wake = a.rouse
	a.began = w.Now()
	a.renewAt = a.began.Add(w.opt.Lease / 3)
	return a
}

func (a *attempt) rouse() {
	select {
	case a.wake <- struct{}{}:
	default: // it is awake, and will look
	}
}

func (a *attempt) isolated() bool { return a.seat.alone }

// run calls every open item that is not spent, and returns when none is in flight and none is to be started. After an error
// it starts no more; what was answered is there to be saved.
func (a *attempt) run(ctx context.Context) (err error) {
	if err := a.readItems(ctx); err != nil {
		a.stop = stopBroken
		return err
	}
	defer a.leaveGate()
	for {
		a.now = a.w.Now()
		a.takeResults()
		if err == nil {
			err = a.keepUp(ctx)
		}
		if err == nil {
			err = a.launch(ctx)
		}
		if err != nil && a.stop == stopNot {
			a.stop = stopBroken
		}
		if a.stop != stopNot {
			a.leaveGate()
		}
		if a.inFlight == 0 && (a.stop != stopNot || len(a.fresh)+len(a.later) == 0) {
			a.judgeHeld()
			return err
		}
		a.wait(ctx)
	}
}

// wait sleeps until a call ends, a turn comes, or something falls due after this round began. All cases only wake: the
// loop then looks in an order of its own.
func (a *attempt) wait(ctx context.Context) {
	next := a.now.Add(lookAge)
	consider := func(t time.Time) {
		if t.After(a.now) { // what was due before waits for something else
			next = earlierOf(next, t)
		}
	}
	consider(a.renewAt)
	if a.stop == stopNot {
		consider(a.opensAt)
		if len(a.later) > 0 {
			consider(a.later[0].at)
		}
	}
	if len(a.outcomes) > 0 {
		consider(a.since.Add(a.w.opt.CheckpointAge))
	}
	timer := time.NewTimer(next.Sub(a.w.Now()))
	defer timer.Stop()
	drain, done := a.w.drain, ctx.Done()
	if a.stop != stopNot {
		drain, done = nil, nil // known already
	}
	select {
	case <-a.wake:
	case <-timer.C:
	case <-drain:
	case <-done:
	}
	if a.w.Yield != nil {
		a.w.Yield(ctx)
	}
	select {
	case <-a.wake: // whatever it was, this round sees it
	default:
	}
}

// keepUp does what is due besides calling: a look at the job, a checkpoint, the lease.
func (a *attempt) keepUp(ctx context.Context) error {
	a.lookAtJob(ctx)
	if err := a.endPauses(ctx); err != nil {
		a.w.Log.WarnContext(ctx, "end a pause", "chunk", a.c.ID.String(), "error", err)
	}
	due := len(a.outcomes) > 0 && (a.isolated() || a.tooMuch() || a.now.Sub(a.since) >= a.w.opt.CheckpointAge)
	switch _, bounded := ctx.Deadline(); {
	case due:
		if err := a.checkpoint(ctx); err != nil { // they are tried again with the next ones, or at the end
			a.w.Log.WarnContext(ctx, "checkpoint", "chunk", a.c.ID.String(), "error", err)
			a.since = a.now
		} else if !a.isolated() { // those save each item
			a.tellOfProgress(ctx)
		}
		return nil
	case !bounded && !a.now.Before(a.renewAt) && a.stop != stopLost:
		return a.save(ctx, nil)
	default:
		return nil
	}
}

// tooMuch tells whether the answers held are to be written: this attempt's, or its share of what the process holds.
func (a *attempt) tooMuch() bool {
	most := a.w.opt.CheckpointBytes
	return a.bytes >= most || a.bytes >= most/8 && a.w.unwritten.Load() >= 8*int64(most)
}

// lookAtJob notices that the process drains, or that the job was stopped or paused. A look that fails is tried again: it
// would be a pity to drop calls for it.
func (a *attempt) lookAtJob(ctx context.Context) {
	if a.stop != stopNot {
		return
	}
	if ctx.Err() != nil || a.w.draining() {
		a.stop = stopDrain
		return
	}
	look := a.w.look
	if a.mustLook {
		look = a.w.lookAgain
	}
	j, err := look(ctx, a.m.Job)
	if err != nil {
		a.w.Log.WarnContext(ctx, "look at the job", "job", a.m.Job, "error", err)
		return
	}
	a.job, a.mustLook = j, false
	switch {
	case j.Stopped():
		a.stop = stopJob
	case j.Pause != nil && !probes(j.Pause, a.m.ID()):
		a.stop = stopPaused
	}
}

// readItems reads the chunk's lines and lists what is to be called. Lines that fail without a call are settled at once.
func (a *attempt) readItems(ctx context.Context) error {
	data, err := readChunkBytes(ctx, a.w.Files, a.job, a.m)
	if errors.Is(err, ErrChanged) {
		if err := writeStop(ctx, &a.w.Ports, a.m.Job, inputModified(err)); err != nil {
			return err
		}
		a.stop = stopJob
		return nil
	}
	if err != nil {
		return err
	}
	a.items = make([]item, a.m.Lines)
	failedBefore := errorItems(a.c.Errors)
	open, blamed := a.c.Open(), a.c.blamed()
	parser := newLineParser(a.job.Endpoint, a.job.Cut.LineBytes)
	for ordinal, l := range splitLines(data, a.m.Offset, a.m.Lines) {
		number := a.m.Line + int64(ordinal)
		if !open.Has(ordinal) {
			continue
		}
		it := &a.items[ordinal]
		line, violation := parser.parse(l.content)
		it.line, it.offset, it.failed, it.passed = line, l.offset, failedBefore.Has(ordinal), a.c.Passed.Has(ordinal)
		switch {
		case violation != nil:
			a.settleError(ordinal, violation.Code, fmt.Sprintf("line %d: %s", number, violation.Message))
		case a.m.Skip.Has(ordinal):
			a.settleError(ordinal, ViolationDuplicate, fmt.Sprintf("line %d: custom_id is the same as in an earlier line; each line needs one of its own", number))
		case blamed.Has(ordinal):
			a.settleError(ordinal, ItemWorkerCrash, "the worker process died each time while it called this item")
		case !a.spent.Has(ordinal):
			a.fresh = append(a.fresh, ordinal)
		}
	}
	if a.isolated() {
		a.orderIsolated()
	}
	a.seat.shrink(len(a.fresh))
	return nil
}

// orderIsolated puts those with which the process died after one other item, whose answer shows that it is well otherwise.
func (a *attempt) orderIsolated() {
	var felled, others []int
	for _, o := range a.fresh {
		if _, ok := a.c.Felled[o]; ok {
			felled = append(felled, o)
		} else {
			others = append(others, o)
		}
	}
	if len(felled) > 0 && len(others) > 0 {
		a.fresh = slices.Concat(others[:1], felled, others[1:])
	}
}

// checkpoint writes what there is as a part and saves it.
func (a *attempt) checkpoint(ctx context.Context) error {
	if err := a.writePart(ctx); err != nil {
		return err
	}
	return a.save(ctx, nil)
}

// writePart writes the outcomes that have no part yet as one. The next save takes it into the record.
func (a *attempt) writePart(ctx context.Context) error {
	if len(a.outcomes) == 0 {
		return nil
	}
	slices.SortFunc(a.outcomes, func(x, y outcome) int { return cmp.Compare(x.Ordinal, y.Ordinal) })
	a.seq++ // also if this fails: it may be there all the same, and the next part has more in it
	h := &partHeader{V: SchemaVersion, Chunk: a.c.ID, Attempt: a.attempt, Seq: a.seq, Outcomes: a.outcomes}
	if err := a.w.parts.write(context.WithoutCancel(ctx), h); err != nil {
		return fmt.Errorf("save chunk %s: %w", a.c.ID, err)
	}
	a.unsaved = append(a.unsaved, h)
	a.w.unwritten.Add(-int64(a.bytes))
	a.outcomes, a.bytes = nil, 0
	return nil
}

func earlierOf(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
