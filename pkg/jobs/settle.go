package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// save merges what this attempt knows into the record: parts that are not in it yet, the evidence, the lease; change may
// do more, and must be repeatable. Whoever loses the compare-and-swap reads again and merges again, lease or no lease; who
// does not hold the lease only turns bits on (rule 1).
func (a *attempt) save(ctx context.Context, change func(c *Chunk)) error {
	began, until := a.w.Now(), a.c.Lease
	lease := a.w.leaseEnd(ctx) // by the context's deadline, if it has one
	ctx = context.WithoutCancel(ctx)
	err := untilSaved(func() error {
		c := *a.c
		for _, part := range a.unsaved {
			c.merge(part, a.w.Now())
		}
		if c.Owner == a.owner {
			a.updateHeld(lease, &c)
			if change != nil {
				change(&c)
			}
		} else if a.stop = stopLost; len(a.unsaved) == 0 {
			return nil
		}
		err := a.w.Ledger.SaveChunk(ctx, &c)
		if errors.Is(err, ErrConflict) {
			return errors.Join(err, a.w.readChunk(ctx, c.ID, a.c))
		}
		if err == nil {
			a.c, a.unsaved = &c, nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("save chunk %s: %w", a.c.ID, err)
	}
	a.renewAt = began.Add(a.w.opt.Lease / 3)
	if !a.w.Now().Before(until) && a.stop == stopNot {
		a.mustLook = true // this is as good as a claim: whoever stopped the job meanwhile took ours for dead (rule 3)
		a.rouse()
	}
	return nil
}

// updateHeld writes what only the holder of the lease may.
func (a *attempt) updateHeld(lease time.Time, c *Chunk) {
	open := c.Open()
	c.Lease = lease
	c.Accused, c.Spent = a.accused.And(open), a.spent.And(open)
	c.Passed = a.passed(c).And(open)
	c.Calls = maps.Clone(a.calls)
	maps.DeleteFunc(c.Calls, func(i, _ int) bool { return !open.Has(i) })
	c.Failures = maps.Clone(a.failures)
	maps.DeleteFunc(c.Failures, func(i, _ int) bool { return !open.Has(i) })
	c.Felled = maps.Clone(c.Felled)
	maps.DeleteFunc(c.Felled, func(i int, _ Felled) bool { return !open.Has(i) })
	c.InHand = a.inHand
	if c.Resolved.Count() > a.resolvedAtClaim {
		c.Idle = 0
		if !a.isolated() {
			c.Crashes = 0
		}
	}
	c.Errors = a.lastErrors(c)
}

// passed are the items after whose last failure others were answered.
func (a *attempt) passed(c *Chunk) Bits {
	if len(a.items) == 0 {
		return c.Passed // none was called
	}
	var b Bits
	for ordinal := range a.items {
		it := &a.items[ordinal]
		if it.passed || it.fault != nil && it.gate.answeredSince(it.mark) {
			b.Set(ordinal)
		}
	}
	return b
}

// lastErrors are the error groups of the record, with what this attempt saw.
func (a *attempt) lastErrors(c *Chunk) []ErrorGroup {
	groups := keepErrors(c.Errors, c.Open().Or(c.Failed))
	for ordinal := range a.items {
		it := &a.items[ordinal]
		if it.fault == nil || c.Resolved.Has(ordinal) && !c.Failed.Has(ordinal) {
			continue
		}
		groups = addError(groups, ordinal, it.fault.Code, it.fault.Status, normalise(it.fault.Message))
	}
	return groups
}

// merge takes the outcomes of a part that the record does not have yet. It is idempotent, and any order of parts gives
// every item one outcome (rule 1).
func (c *Chunk) merge(h *partHeader, now time.Time) {
	for _, p := range c.Parts {
		if p.Attempt == h.Attempt && p.Seq == h.Seq {
			return // our save happened, its answer was lost
		}
	}
	mask := h.mask(outAnswer, outError).Without(c.Resolved).And(c.Items())
	samples := h.mask(outSample)
	if mask.Empty() && samples.Empty() {
		return
	}
	c.Parts = append(slices.Clone(c.Parts), Part{h.Attempt, h.Seq, mask, samples})
	c.Resolved = c.Resolved.Or(mask)
	c.Errors = keepErrors(c.Errors, c.Items().Without(mask))
	for _, o := range h.Outcomes {
		switch {
		case !mask.Has(o.Ordinal):
		case o.Kind == outError:
			c.Failed = c.Failed.Or(BitsOf(o.Ordinal))
			c.Totals.Failed++
			c.Errors = addError(c.Errors, o.Ordinal, o.Code, o.Status, o.Message)
		case o.Kind == outAnswer:
			c.Totals.Answered++
			c.Totals.LastAnswer = now
			c.Totals.Seconds += o.Seconds
			c.Totals.Latencies = c.Totals.Latencies.observe(o.Seconds)
			c.Totals.Cost += o.Cost
			if o.Usage != nil {
				c.Totals.Usage = c.Totals.Usage.Add(*o.Usage)
			}
		}
	}
}

// keepErrors is the groups with only some items in them; empty ones go.
func keepErrors(groups []ErrorGroup, keep Bits) []ErrorGroup {
	var kept []ErrorGroup
	for _, g := range groups {
		if g.Items = g.Items.And(keep); !g.Items.Empty() {
			kept = append(kept, g)
		}
	}
	return kept
}

// addError makes an item's last error this one. Kinds above the limit are one group, "other".
func addError(groups []ErrorGroup, ordinal int, code string, status int, message string) []ErrorGroup {
	groups = keepErrors(groups, AllBits(MaxChunkLines).Without(BitsOf(ordinal)))
	alike := func(g ErrorGroup) bool { return g.Code == code && g.Status == status && g.Message == message }
	i := slices.IndexFunc(groups, alike)
	if i < 0 && len(groups) >= MaxErrorGroups-1 {
		code, status, message = otherCode, 0, otherMessage
		i = slices.IndexFunc(groups, alike)
	}
	if i >= 0 {
		groups[i].Items = groups[i].Items.Or(BitsOf(ordinal))
		return groups
	}
	return append(groups, ErrorGroup{code, status, message, BitsOf(ordinal)})
}

// errorItems are the items that have a last error.
func errorItems(groups []ErrorGroup) Bits {
	var b Bits
	for _, g := range groups {
		b = b.Or(g.Items)
	}
	return b
}

// adopt merges parts that an attempt before this one wrote and did not live to save.
func (a *attempt) adopt(ctx context.Context) error {
	if !a.orphan {
		return nil
	}
	known := map[string]bool{}
	for _, p := range a.c.Parts {
		known[partName(a.c.ID, p.Attempt, p.Seq)] = true
	}
	for f, err := range a.w.Files.List(ctx, partPrefix(a.c.ID)) {
		if err != nil {
			return fmt.Errorf("adopt parts of chunk %s: %w", a.c.ID, err)
		}
		if known[f.Name] {
			continue
		}
		r, err := a.w.parts.open(ctx, f.Name)
		if err != nil {
			return fmt.Errorf("adopt parts of chunk %s: %w", a.c.ID, err)
		}
		header := r.header
		r.close()
		if header.Attempt == a.c.Attempt {
			continue
		}
		before := a.c.Totals
		a.unsaved = append(a.unsaved, &header)
		if err := a.save(ctx, nil); err != nil {
			return err
		}
		a.announce(before)
	}
	return nil
}

// announce tells who watches of outcomes that were adopted.
func (a *attempt) announce(before Totals) {
	if a.w.Watch.Outcome == nil {
		return
	}
	for range a.c.Totals.Answered - before.Answered {
		a.w.Watch.Outcome(a.m.Job, true)
	}
	for range a.c.Totals.Failed - before.Failed {
		a.w.Watch.Outcome(a.m.Job, false)
	}
}

// fate is what becomes of a chunk at the end of an attempt.
type fate string

const (
	fateDone     fate = "done"     // every item has its outcome
	fateDead     fate = "dead"     // every open item is spent
	fateReleased fate = "released" // its job was stopped
	fateParked   fate = "parked"   // until a pause ends
	fateReturned fate = "returned" // to the queue, at once
	fateDeferred fate = "deferred"
)

// fateOf is the table for who holds the claim; the first row that matches wins.
func (a *attempt) fateOf(c *Chunk) fate {
	switch open := c.Open(); {
	case open.Empty():
		return fateDone
	case a.stop == stopJob:
		return fateReleased
	case open.Without(c.Spent).Empty():
		return fateDead
	case a.stop == stopPaused:
		return fateParked
	case a.stop == stopHeld:
		return fateParked
	case a.stop == stopDrain:
		return fateReturned
	default:
		return fateDeferred
	}
}

// end writes the last part, gives the claim up, and does what the chunk's fate asks for. nil = the message is done with.
//
// It insists on both: a claim that is not given up is taken for a death of the process, and the item in hand for its cause.
// A part that cannot be written is lost with its answers, and its items are called again.
func (a *attempt) end(ctx context.Context) error {
	failed := insist(func() error { return a.writePart(ctx) })
	if a.stop == stopHeld {
		if err := insist(func() error { return a.pauseJob(ctx) }); err != nil {
			a.stop, failed = stopBroken, errors.Join(failed, err)
		}
	}
	f, err := a.letGo(ctx)
	if err == nil {
		a.reportGates(ctx)
		err = a.meet(ctx, f)
		a.tellLog(ctx, f)
	}
	return errors.Join(err, failed)
}

// tellLog writes the one line of a chunk: counts and its fate, and never what an item or its answer says.
func (a *attempt) tellLog(ctx context.Context, f fate) {
	a.w.Log.InfoContext(ctx, "worked at a chunk", "job", a.c.ID.Job, "chunk", a.c.ID.String(), "attempt", a.attempt, "fate", string(f), "items", a.c.Items().Count(),
		"resolved", a.c.Resolved.Count()-a.resolvedAtClaim, "failed", a.c.Failed.Count(), "open", a.c.Open().Count(), "seconds", a.w.Now().Sub(a.began).Round(time.Millisecond).Seconds())
}

// meet does what the chunk's fate asks for.
func (a *attempt) meet(ctx context.Context, f fate) error {
	id := a.c.ID
	switch f {
	case fateDone, fateReleased:
		return nudge(ctx, a.w.Ports, id.Job, id.Split)
	case fateParked:
		return a.w.parked(ctx, a.d, a.c, a.job.Pause)
	case fateDead:
		return a.w.bury(ctx, a.d, a.c)
	case fateReturned:
		a.tellOfWork(ctx)
		return a.w.giveBack(ctx, a.d)
	case fateDeferred:
		a.tellOfWork(ctx)
		return a.w.putOff(ctx, a.d, a.c.NotBefore, "chunk "+id.String()+" has open items: "+a.why())
	default: // another worker took the claim over: its delivery of the message counts
		return a.w.putOff(ctx, a.d, a.c.Lease, "another worker holds chunk "+id.String())
	}
}

// letGo saves what this attempt knows and gives its claim up, for the fate that it returns; none if another has the claim.
func (a *attempt) letGo(ctx context.Context) (f fate, err error) {
	first := a.w.Jitter(a.w.opt.DeferFirst)
	err = insist(func() error {
		f = ""
		err := a.save(ctx, func(c *Chunk) { f = a.giveUp(c, first) })
		if a.stop == stopLost {
			f = "" // while this tried to save, another took the claim: what was to become of the chunk is its to say
		}
		if err == nil {
			return nil
		}
		if a.w.readChunk(context.WithoutCancel(ctx), a.c.ID, a.c) == nil && a.c.Attempt == a.attempt && a.c.Owner == "" {
			return nil // it was saved, and its answer lost
		}
		return err
	})
	return f, err
}

// insist does something up to a few times, until it succeeds.
func insist(do func() error) (err error) {
	for range insistTries {
		if err = do(); err == nil {
			return nil
		}
	}
	return err
}

// tellOfWork has the split folded though the chunk is not settled: where it has news, since limits are heeded by folds, and
// while few of its items are open, since only folds can tell that they are the job's last.
func (a *attempt) tellOfWork(ctx context.Context) {
	if a.c.Resolved.Count() > a.resolvedAtClaim || a.c.Open().Count() <= mostTail {
		a.tellOfProgress(ctx)
	}
}

// tellOfProgress has the split folded. If that fails, the next attempt does it.
func (a *attempt) tellOfProgress(ctx context.Context) {
	if err := nudge(ctx, a.w.Ports, a.c.ID.Job, a.c.ID.Split); err != nil {
		a.w.Log.WarnContext(ctx, "tell of progress", "chunk", a.c.ID.String(), "error", err)
	}
}

// giveUp ends the claim in the record, and marks the record for its fate.
func (a *attempt) giveUp(c *Chunk, first time.Duration) fate {
	f := a.fateOf(c)
	c.Owner, c.Lease, c.Crashes = "", time.Time{}, 0
	switch f {
	case fateDead:
		c.Dead, c.Buried, c.Purged, c.DiedAt = true, false, false, a.w.Now()
		c.Burial++
	case fateParked:
		c.Waits = parkedByJob
		if a.stop == stopPaused && a.stopGate != (GateID{}) {
			c.Waits = a.stopGate.String()
		}
	case fateDeferred:
		c.NotBefore = a.w.Now().Add(a.deferral(c, first))
		if c.Resolved.Count() == a.resolvedAtClaim {
			c.Idle++
		}
	}
	return f
}

// deferral is how long the chunk is put off: doubling with each attempt without progress, and as long as an upstream asked
// that answered nobody.
func (a *attempt) deferral(c *Chunk, first time.Duration) time.Duration {
	wait := backOff(first, c.Idle, a.w.opt.DeferMost)
	if a.stop == stopWeather && c.Resolved.Count() == a.resolvedAtClaim {
		wait = max(wait, min(a.stopWhy.RetryAfter, a.w.opt.DeferMost))
	}
	return wait
}

// why is the commonest reason for open items, for the log.
func (a *attempt) why() string {
	if a.stopWhy != nil {
		return a.stopWhy.Error()
	}
	b := burialOf(a.c)
	return cmp.Or(b.Message, b.Code)
}

// reportGates tells each gate how the attempt went. What cannot be told now is told by the next one.
func (a *attempt) reportGates(ctx context.Context) {
	for _, u := range a.touched {
		why := u.why
		if u.answered {
			why = ""
		}
		if a.w.Watch.Limited != nil {
			a.w.Watch.Limited(u.ID.Upstream, u.ID.Model, u.limit())
		}
		if err := a.w.gates.report(context.WithoutCancel(ctx), u.Gate, u.answered, why); err != nil {
			a.w.Log.WarnContext(ctx, "report to the gate", "gate", u.ID.String(), "error", err)
		}
	}
}

// endPauses ends those pauses that this attempt probes as soon as it has an answer.
func (a *attempt) endPauses(ctx context.Context) error {
	for _, u := range a.touched {
		if !u.answered {
			continue
		}
		if u.pause() != nil {
			if err := a.w.gates.report(ctx, u.Gate, true, ""); err != nil {
				return err
			}
		}
		if p := a.job.Pause; p != nil && p.Reason == PauseCredential {
			return a.changePause(ctx, func(j *Job) bool {
				resume := j.Pause != nil && j.Pause.Reason == PauseCredential
				if resume {
					j.Pause = nil
				}
				return resume
			})
		}
	}
	return nil
}

// pauseJob holds the job: its calls are refused, and nobody's are answered.
func (a *attempt) pauseJob(ctx context.Context) error {
	return a.changePause(ctx, func(j *Job) bool {
		if j.Pause != nil || j.Stopped() || j.Resumed.After(a.began) {
			return false // it was resumed since: what was refused before says nothing
		}
		now := a.w.Now()
		j.Pause = &Pause{Reason: PauseCredential, At: now, ProbeAt: now.Add(probeEvery),
			Message: fmt.Sprintf("%s refuses every call: %s", a.stopGate, a.stopWhy.Error())}
		return true
	})
}

// changePause changes the job's pause, if change says that there is something to change.
func (a *attempt) changePause(ctx context.Context, change func(j *Job) bool) error {
	ctx = context.WithoutCancel(ctx)
	err := untilSaved(func() error {
		j, err := a.w.Ledger.Job(ctx, a.m.Job)
		if err != nil || !change(&j) {
			return err
		}
		return a.w.saveJob(ctx, &j)
	})
	if err != nil {
		return fmt.Errorf("change the pause of job %s: %w", a.m.Job, err)
	}
	a.job, err = a.w.lookAgain(ctx, a.m.Job)
	return err
}
