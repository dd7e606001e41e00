package jobs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// standing is what a chunk's record says to a message about it.
type standing string

const (
	standDone     standing = "done"     // every item has its outcome
	standLeased   standing = "leased"   // somebody is at it
	standPutOff   standing = "put_off"  // deferred, and not due
	standOpen     standing = "open"     // claim it
	standRedriven standing = "redriven" // dead, and the message carries its burial number: reopen and claim it
	standUnburied standing = "unburied" // dead, and the burial was interrupted: finish it
	standStale    standing = "stale"    // dead, and the message is from before its burial, or it was purged
)

// standingOf is the table; the first row that matches wins.
func standingOf(c *Chunk, m *ChunkMessage, now time.Time, alive bool) standing {
	switch {
	case c.Done():
		return standDone
	case c.Dead && c.Purged:
		return standStale
	case c.Dead && m.Burial == c.Burial:
		return standRedriven
	case c.Dead && !c.Buried:
		return standUnburied
	case c.Dead:
		return standStale
	case alive:
		return standLeased
	case now.Before(c.NotBefore):
		return standPutOff
	default:
		return standOpen
	}
}

// alive tells whether the chunk's lease is live.
func (p *Ports) alive(c *Chunk) bool {
	if c.Owner == "" || !p.Now().Before(c.Lease) {
		return false
	}
	return !p.Sole || ownerProcess(c.Owner) == p.Process
}

// Owners are "<process>/<random>".
func (p *Ports) newOwner() string { return p.Process + "/" + p.NewID() }

func ownerProcess(owner string) string {
	return owner[:max(0, strings.LastIndexByte(owner, '/'))]
}

// chunk does what a message about a chunk asks for. nil = the message is done with.
func (w *Worker) chunk(ctx context.Context, d Message, m *ChunkMessage, s *seat) error {
	defer func() { s.leave() }()
	j, err := w.look(ctx, m.Job)
	switch {
	case errors.Is(err, ErrNotFound):
		w.Log.WarnContext(ctx, "dropped a message of an unknown job", "job", m.Job)
		return nil
	case err != nil:
		return err
	case !j.takesBack(w.Now()):
		return w.turnAway(ctx, d, m)
	case j.Pause != nil && !probes(j.Pause, m.ID()):
		return w.park(ctx, d, m)
	}
	c, orphan, err := w.claim(ctx, d, m, s.alone)
	if errors.Is(err, errAlone) {
		s.leave()
		if s, err = w.room.take(ctx, w.drain, m.Lines, w.hold(m), true); err != nil {
			return w.giveBack(ctx, d)
		}
		c, orphan, err = w.claim(ctx, d, m, true)
	}
	if c == nil || err != nil {
		return err
	}
	a := newAttempt(w, j, d, m, c, orphan, s)
	defer func() { w.unwritten.Add(-int64(a.bytes)) }() // of an attempt that could not write
	// The second look (rule 3): whoever stops a job writes the stop and then reads the chunks, so one of us sees the other.
	broken := a.secondLook(ctx)
	if broken == nil && a.stop == stopNot {
		broken = a.run(ctx)
	}
	err = a.end(ctx)
	if broken != nil {
		return broken
	}
	return err
}

// secondLook reads the job again, and takes over what an attempt before this one left.
func (a *attempt) secondLook(ctx context.Context) error {
	j, err := a.w.lookAgain(ctx, a.m.Job)
	if err == nil {
		a.job = j
		if j.Stopped() {
			a.stop = stopJob
			return nil
		}
		err = a.adopt(ctx)
	}
	if err != nil {
		a.stop = stopBroken
	}
	return err
}

var errAlone = errors.New("the chunk is to run alone")

// claim takes the chunk for one attempt, or does what else its record asks for and returns nil. orphan: the attempt before
// did not give its claim up, and may have left parts.
func (w *Worker) claim(ctx context.Context, d Message, m *ChunkMessage, alone bool) (_ *Chunk, orphan bool, err error) {
	owner := w.newOwner()
	c := newChunk(m)
	if d.Receives > 1 || m.Burial > 0 {
		if err := w.readChunk(ctx, m.ID(), c); err != nil {
			return nil, false, err
		}
	} // else it is most likely absent: put it without reading
	for range saveTries {
		if c.Owner == owner {
			return c, orphan, nil // our save happened, its answer was lost
		}
		switch stand := standingOf(c, m, w.Now(), w.alive(c)); stand {
		case standDone, standStale: // perhaps the nudge was all that was lost
			return nil, false, nudge(ctx, w.Ports, m.Job, m.Split)
		case standUnburied:
			return nil, false, w.bury(ctx, d, c)
		case standLeased:
			return nil, false, w.putOff(ctx, d, c.Lease, "another worker holds chunk "+m.ID().String())
		case standPutOff:
			return nil, false, w.putOff(ctx, d, c.NotBefore, "chunk "+m.ID().String()+" is not due")
		case standRedriven:
			if ok, err := w.redrive(ctx, d, c); !ok || err != nil {
				return nil, false, err
			}
			c.forgive()
		}
		orphan = c.Owner != ""
		if orphan {
			c.noteCrash()
		}
		if (c.Crashes >= isolateFrom || len(c.Felled) > 0) && !alone {
			return nil, false, errAlone
		}
		c.Attempt++
		c.Owner, c.Lease, c.NotBefore, c.Waits = owner, w.leaseEnd(ctx), time.Time{}, ""
		err := w.Ledger.SaveChunk(ctx, c)
		if err == nil {
			return c, orphan, nil
		}
		if !errors.Is(err, ErrConflict) {
			return nil, false, fmt.Errorf("claim chunk %s: %w", m.ID(), err)
		}
		if err := w.readChunk(ctx, m.ID(), c); err != nil {
			return nil, false, err
		}
	}
	return nil, false, fmt.Errorf("claim chunk %s: %w", m.ID(), ErrConflict)
}

func newChunk(m *ChunkMessage) *Chunk {
	return &Chunk{V: SchemaVersion, ID: m.ID(), Length: m.Length, Lines: m.Lines, Blank: m.Blank}
}

// readChunk reads the record into c, which stays as it is if there is none.
func (w *Worker) readChunk(ctx context.Context, id ChunkID, c *Chunk) error {
	for read, err := range w.Ledger.Chunks(ctx, id.Job, id.Split, At(id.Offset)) {
		if err != nil {
			return fmt.Errorf("read chunk %s: %w", id, err)
		}
		*c = read
	}
	return nil
}

// leaseEnd is when a lease taken or renewed now ends.
func (w *Worker) leaseEnd(ctx context.Context) time.Time {
	if deadline, ok := ctx.Deadline(); ok {
		return deadline.Add(leaseGrace)
	}
	return w.Now().Add(w.opt.Lease)
}

// putOff hides the message until then.
func (w *Worker) putOff(ctx context.Context, d Message, until time.Time, why string) error {
	if err := w.Queue.Defer(context.WithoutCancel(ctx), until, d); err != nil {
		return fmt.Errorf("defer a message: %w", err)
	}
	return &Deferred{Until: until, Why: why}
}

// noteCrash records that the last attempt ended without giving its claim up.
func (c *Chunk) noteCrash() {
	c.Crashes++
	if c.InHand == nil {
		return
	}
	f := c.Felled[*c.InHand]
	if f.Times == 0 || c.Resolved.Count() > f.Settled {
		f.Strong++
	}
	f.Times++
	f.Settled = c.Resolved.Count()
	felled := map[int]Felled{*c.InHand: f}
	for i, other := range c.Felled {
		if i != *c.InHand {
			felled[i] = other
		}
	}
	c.Felled, c.InHand = felled, nil
}

// blamed are the open items that brought down their process often enough.
func (c *Chunk) blamed() Bits {
	var b Bits
	for i, f := range c.Felled {
		if f.Strong >= strongFells || f.Times >= weakFells {
			b.Set(i)
		}
	}
	return b.And(c.Open())
}

// forgive opens a dead chunk: what was counted against its items is forgotten.
func (c *Chunk) forgive() {
	c.Dead, c.Buried, c.Purged, c.DiedAt = false, false, false, time.Time{}
	c.Accused, c.Passed, c.Spent, c.Calls, c.Failures, c.Felled, c.InHand = nil, nil, nil, nil, nil, nil, nil
	c.Crashes, c.Idle, c.NotBefore = 0, 0, time.Time{}
	c.Errors = keepErrors(c.Errors, c.Failed)
}

// redrive names the chunk as reopening in its split and sets the job in progress, in that order, before the chunk is opened
// and claimed: a redrive goes top down (rule 3). not ok: the job takes nothing back, and the message was buried again.
func (w *Worker) redrive(ctx context.Context, d Message, c *Chunk) (ok bool, err error) {
	j, err := w.Ledger.Job(ctx, c.ID.Job)
	var no *refusedWork
	if err == nil {
		no, err = w.refuses(ctx, &j, c, nil)
	}
	if err == nil && no == nil {
		no, err = w.reopening(ctx, c.ID.Job, c.ID.Split, c)
	}
	switch {
	case err != nil:
		return false, fmt.Errorf("redrive chunk %s: %w", c.ID, err)
	case no != nil:
		return false, w.buryAgain(ctx, d, c, no)
	default:
		return true, nil
	}
}

// takesBack tells whether redriven work of the job may run.
func (j *Job) takesBack(now time.Time) bool { return j.refusal(now) == nil }

// reopen sets the job in progress, with a new window if it had ended or its deadline has passed.
func (j *Job) reopen(now time.Time) {
	if j.hasDeadline() && (j.Phase.Ended() || !now.Before(j.Deadline)) {
		j.Deadline = laterOf(j.Deadline, earlierOf(now.Add(j.Window), j.sealedAt()))
	}
	if j.Phase != PhaseInProgress {
		j.moveTo(PhaseInProgress, now)
	}
	j.Closed, j.Resends, j.ResentAt = false, 0, time.Time{}
}

// turnAway deals with a message of a job that takes no more work: an interrupted burial is finished, redriven work goes
// back to the dead letters, anything else is done with.
func (w *Worker) turnAway(ctx context.Context, d Message, m *ChunkMessage) error {
	j, err := w.lookAgain(ctx, m.Job) // what was seen may be old, and a message dropped is gone
	if err != nil {
		return err
	}
	no := j.refusal(w.Now())
	if no == nil {
		return w.giveBack(ctx, d)
	}
	c := newChunk(m)
	if err := w.readChunk(ctx, m.ID(), c); err != nil {
		return err
	}
	switch standingOf(c, m, w.Now(), w.alive(c)) {
	case standUnburied:
		return w.bury(ctx, d, c)
	case standRedriven:
		return w.buryAgain(ctx, d, c, no)
	default:
		return nudge(ctx, w.Ports, m.Job, m.Split)
	}
}

// Gate names under which a chunk is parked by its job's own pause.
const parkedByJob = "job"

// probes tells whether the chunk is the one that is let through a pause to see whether it can end.
func probes(p *Pause, c ChunkID) bool { return p.Probe != nil && *p.Probe == c }

// park records that the chunk waits for a pause to end, and is done with the message: the sweep sends it again from the
// ledger. So one tenant's outage fills no queue and costs no receives.
func (w *Worker) park(ctx context.Context, d Message, m *ChunkMessage) error {
	c := newChunk(m)
	for range saveTries {
		if err := w.readChunk(ctx, m.ID(), c); err != nil {
			return err
		}
		switch standingOf(c, m, w.Now(), w.alive(c)) {
		case standLeased:
			return w.putOff(ctx, d, c.Lease, "another worker holds chunk "+m.ID().String())
		case standDone, standStale:
			return nudge(ctx, w.Ports, m.Job, m.Split)
		case standUnburied:
			return w.bury(ctx, d, c)
		case standRedriven:
			if ok, err := w.redrive(ctx, d, c); !ok || err != nil {
				return err
			}
			c.forgive()
		}
		if c.Owner != "" {
			c.noteCrash()
			c.Owner, c.Lease = "", time.Time{}
		}
		c.Waits = parkedByJob
		err := w.Ledger.SaveChunk(ctx, c)
		if err == nil {
			return w.parked(ctx, d, c, nil)
		}
		if !errors.Is(err, ErrConflict) {
			return fmt.Errorf("park chunk %s: %w", m.ID(), err)
		}
	}
	return fmt.Errorf("park chunk %s: %w", m.ID(), ErrConflict)
}

// parked ends the message of a chunk that was just parked. Whoever resumes a job writes that and then reads the chunks, so
// one of us sees the other (as in rule 3): a message that nobody would send again is given back. probed is the pause that
// this delivery has probed, if it has: the next probe of it is the sweep's to send.
func (w *Worker) parked(ctx context.Context, d Message, c *Chunk, probed *Pause) error {
	if c.Waits == parkedByJob {
		j, err := w.lookAgain(ctx, c.ID.Job)
		if err != nil {
			return err
		}
		if j.Pause == nil || probes(j.Pause, c.ID) && (probed == nil || !j.Pause.ProbeAt.Equal(probed.ProbeAt)) {
			return w.giveBack(ctx, d)
		}
	}
	return nudge(ctx, w.Ports, c.ID.Job, c.ID.Split)
}

// untilSaved repeats a read, change and save while others are faster.
func untilSaved(save func() error) error {
	var err error
	for range saveTries {
		if err = save(); !errors.Is(err, ErrConflict) {
			return err
		}
	}
	return err
}

// saveJob saves the job and tells who watches.
func (p *Ports) saveJob(ctx context.Context, j *Job) error {
	if err := p.Ledger.SaveJob(ctx, j); err != nil {
		return err
	}
	ended := j.Ending
	j.Ending = false
	if p.Watch.JobSaved != nil {
		p.Watch.JobSaved(*j)
	}
	if ended && p.Watch.JobEnded != nil {
		p.Watch.JobEnded(*j)
	}
	return nil
}
