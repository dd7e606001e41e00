package jobs

import (
	"context"
	"time"
)

// launch starts as many items as gates, pauses and the deadline allow.
func (a *attempt) launch(ctx context.Context) error {
	a.opensAt = time.Time{}
	for a.stop == stopNot {
		ordinal, ok := a.peek()
		if !ok {
			a.leaveGate()
			return nil
		}
		it := &a.items[ordinal]
		if it.gate == nil {
			it.gate = a.use(ctx, it.line.Model)
			it.mark = it.gate.mark
		}
		if !a.mayStart(ctx, it.gate) {
			a.leaveGate()
			return nil
		}
		if a.gate != it.gate.Gate {
			a.leaveGate()
			a.gate = it.gate.Gate
		}
		ok, opens := it.gate.enter(&a.turn, a.w.Now())
		if !opens.IsZero() {
			a.opensAt = opens.Add(a.w.Jitter(openSpread)) // not all at the same instant
		}
		if !ok {
			return nil
		}
		if a.isolated() {
			if err := a.take(ctx, ordinal); err != nil || a.stop != stopNot || a.overslept() || a.mustLook {
				it.gate.giveBack()
				return err
			}
		}
		a.pop()
		a.start(ctx, ordinal)
	}
	return nil
}

// LeastTime is how long a context must last for a worker to call anything, if a call takes up to callTimeout.
func LeastTime(callTimeout time.Duration) time.Duration { return callTimeout + saveMargin }

// mayStart tells whether another item may start at the gate now; it may find that none may any more.
func (a *attempt) mayStart(ctx context.Context, g *gateUse) bool {
	if err := a.w.gates.refresh(ctx, g.Gate, gateReadAge); err != nil { // a hold may have begun while items wait for another try
		a.w.Log.WarnContext(ctx, "look at the gate", "gate", g.ID.String(), "error", err)
	}
	if deadline, ok := ctx.Deadline(); ok && a.w.Now().Add(LeastTime(a.w.opt.CallTimeout)).After(deadline) {
		a.stop = stopDrain
		return false
	}
	if a.overslept() || a.mustLook {
		return false // renew the claim first, and look at the job
	}
	if a.isolated() && a.inFlight > 0 {
		return false
	}
	p := g.pause()
	if p != nil && !probes(p, a.m.ID()) {
		a.stop, a.stopGate = stopPaused, g.ID
		return false
	}
	if a.probing(g) && a.inFlight > 0 {
		return false // one by one, until an answer ends the pause
	}
	if len(a.held) > 0 { // wait for what is in flight: perhaps another is answered
		if a.inFlight == 0 {
			a.judgeHeld()
		}
		return false
	}
	return true
}

// overslept tells whether the lease has run out: the process stood still, and the claim may be another's by now.
func (a *attempt) overslept() bool { return !a.w.Now().Before(a.c.Lease) }

// probing tells whether the chunk is let through a pause to see whether it can end.
func (a *attempt) probing(g *gateUse) bool { return g.pause() != nil || a.job.Pause != nil }

// peek is the item to be started next: a retry that is due, else the next fresh one.
func (a *attempt) peek() (ordinal int, ok bool) {
	if len(a.later) > 0 && !a.now.Before(a.later[0].at) {
		return a.later[0].ordinal, true
	}
	if len(a.fresh) > 0 {
		return a.fresh[0], true
	}
	return 0, false
}

func (a *attempt) pop() {
	if len(a.later) > 0 && !a.now.Before(a.later[0].at) {
		a.later = a.later[1:]
		return
	}
	a.fresh = a.fresh[1:]
}

// use is the gate of a model, as this attempt uses it.
func (a *attempt) use(ctx context.Context, model string) *gateUse {
	name, upstream := a.w.opt.Route(model)
	id := GateID{name, model}
	g, err := a.w.gates.at(ctx, id)
	if err != nil { // what is known of it will do until the next look
		a.w.Log.WarnContext(ctx, "look at the gate", "gate", id.String(), "error", err)
	}
	for _, u := range a.touched {
		if u.Gate == g {
			return u
		}
	}
	u := &gateUse{Gate: g, upstream: upstream, mark: g.mark()}
	a.touched = append(a.touched, u)
	return u
}

func (a *attempt) leaveGate() {
	if a.gate != nil {
		a.gate.quit(&a.turn)
		a.gate = nil
	}
}

// take records the item in hand before its call, so that a death of the process can be told from a death by this item.
func (a *attempt) take(ctx context.Context, ordinal int) error {
	a.inHand = &ordinal
	return a.save(ctx, nil)
}

// start calls an item.
func (a *attempt) start(ctx context.Context, ordinal int) {
	it := &a.items[ordinal]
	a.inFlight++
	r := Request{URL: a.job.Endpoint, Model: it.line.Model, Body: it.line.Body,
		IdempotencyKey: idempotencyKey(a.m.Job, it.offset, a.c.Burial)}
	call := call{ordinal: ordinal, request: r, use: it.gate, mark: it.mark, failures: a.failures[ordinal], accused: a.accused.Has(ordinal),
		id: lineID(a.m.Job, it.offset), customID: it.line.CustomID}
	go func() { // joined by the loop, which waits until inFlight is 0
		res := a.w.do(ctx, &call)
		a.mu.Lock()
		a.results = append(a.results, res)
		a.mu.Unlock()
		a.rouse()
	}()
}
