package jobs

import (
	"cmp"
	"slices"
	"time"
)

// takeResults applies what calls brought, in the order in which they ended.
func (a *attempt) takeResults() {
	a.mu.Lock()
	results := a.results
	a.results = nil
	a.mu.Unlock()
	for _, r := range results {
		a.inFlight--
		a.inHand = nil
		if r.fault == nil {
			a.items[r.ordinal].gate.answered = true
			a.settle(r.outcome)
			continue
		}
		a.judge(r)
	}
	a.retryHeld()
	if len(results) > 0 {
		a.seat.shrink(a.inFlight + len(a.later) + len(a.fresh))
	}
}

// judge applies the verdict on a failed call.
func (a *attempt) judge(r result) {
	it := &a.items[r.ordinal]
	f := r.fault
	v := Judge(f, r.evidence, Tally{
		FailedBefore: it.failed, Passed: it.passed, Tail: a.job.inTail(), Accused: a.accused.Has(r.ordinal), Calls: a.calls[r.ordinal], Attempt: a.c.Attempt,
		Retries: it.retries, Room: a.w.opt.Patience - it.waited, MaxCalls: cmp.Or(a.job.MaxCalls, DefaultMaxCalls),
	})
	if f.Class() != ClassAborted {
		it.fault, it.mark, it.failed, it.passed = f, r.mark, true, false
		it.gate.why = f.Error()
	}
	if f.Class() == ClassSuspect {
		a.failures[r.ordinal]++
	}
	a.charge(r.ordinal, v)
	switch v.Action {
	case ActSettle:
		a.settleFault(r.ordinal)
	case ActHold:
		a.held = append(a.held, heldItem{r.ordinal, r.mark})
	case ActRetry:
		wait := a.w.Jitter(v.Wait)
		it.retries++
		it.waited += wait
		a.retryAt(a.w.Now().Add(wait), r.ordinal)
	case ActDeferAll:
		if a.stop == stopNot {
			a.stop, a.stopWhy = stopWeather, f
		}
	}
	if a.probing(it.gate) && a.stop == stopNot && v.Action != ActSettle && v.Action != ActHold {
		a.stop = stopPaused // the probe has its answer: not yet
		if it.gate.pause() != nil {
			a.stopGate = it.gate.ID
		}
	}
	if v.Spent {
		a.add(outcome{Ordinal: r.ordinal, Kind: outSample, line: a.faultLine(r.ordinal)})
	}
}

// mostTail is how many open items are the tail of a job.
const mostTail = 3

// inTail tells whether so few items are open, as far as the last fold knows, that none may be left to be answered. Those that
// wait in the dead letters are called by nobody.
func (j *Job) inTail() bool {
	t := j.Totals
	return t.Answered > 0 && t.Items-t.Answered-t.Failed-t.DeadItems-t.PurgedItems <= mostTail
}

// charge notes what a verdict counts against an item. It is saved with the next part, or at the end.
func (a *attempt) charge(ordinal int, v Verdict) {
	if v.Accused {
		a.accused = a.accused.Or(BitsOf(ordinal))
	}
	if v.Counted {
		a.calls[ordinal]++
	}
	if v.Spent {
		a.spent = a.spent.Or(BitsOf(ordinal))
	}
}

// retryHeld calls held items again once others were answered after them: a refusal among answers is the item's own. That they
// were answered says nothing of the refusal before, as the credential may have been mended in between.
func (a *attempt) retryHeld() {
	a.held = slices.DeleteFunc(a.held, func(h heldItem) bool {
		if !a.items[h.ordinal].gate.answeredSince(h.mark) {
			return false
		}
		a.retryAt(a.now, h.ordinal)
		return true
	})
}

// retryAt has an item called again at that time.
func (a *attempt) retryAt(at time.Time, ordinal int) {
	next := retry{at, ordinal}
	i, _ := slices.BinarySearchFunc(a.later, next, func(x, y retry) int {
		return cmp.Or(x.at.Compare(y.at), cmp.Compare(x.ordinal, y.ordinal))
	})
	a.later = slices.Insert(a.later, i, next)
}

// judgeHeld stops the attempt if there are still held items when nothing is in flight: all are refused.
func (a *attempt) judgeHeld() {
	if len(a.held) > 0 && (a.stop == stopNot || a.stop == stopWeather) {
		it := a.items[a.held[0].ordinal]
		a.stop, a.stopGate, a.stopWhy = stopHeld, it.gate.ID, it.fault
	}
}

func (a *attempt) faultLine(ordinal int) []byte {
	it := &a.items[ordinal]
	return append(appendFault(nil, lineID(a.m.Job, it.offset), it.line.CustomID, it.fault), '\n')
}

// settleFault makes the item's last fault its outcome.
func (a *attempt) settleFault(ordinal int) {
	f := a.items[ordinal].fault
	a.settle(outcome{Ordinal: ordinal, Kind: outError, Code: f.Code, Status: f.Status, Message: normalise(f.Message), line: a.faultLine(ordinal)})
}

// settleError makes an error without an HTTP answer the item's outcome.
func (a *attempt) settleError(ordinal int, code, message string) {
	it := &a.items[ordinal]
	line := append(appendError(nil, lineID(a.m.Job, it.offset), it.line.CustomID, code, message), '\n')
	a.settle(outcome{Ordinal: ordinal, Kind: outError, Code: code, Message: normalise(message), line: line})
}

func (a *attempt) settle(o outcome) {
	a.add(o)
	if a.w.Watch.Outcome != nil {
		a.w.Watch.Outcome(a.m.Job, o.Kind == outAnswer)
	}
}

func (a *attempt) add(o outcome) {
	if len(a.outcomes) == 0 {
		a.since = a.w.Now()
	}
	o.Bytes = len(o.line)
	a.bytes += o.Bytes
	a.w.unwritten.Add(int64(o.Bytes))
	a.outcomes = append(a.outcomes, o)
}
