package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

// call is one call of one item, as its goroutine needs it.
type call struct {
	ordinal  int
	request  Request
	use      *gateUse
	mark     uint64
	failures int  // suspect ones of the item so far
	accused  bool // it was when the call began
	id       string
	customID []byte
}

// result is what a call brought: an outcome, or a fault with the evidence of its moment.
type result struct {
	ordinal  int
	outcome  outcome
	fault    *Fault
	evidence Evidence
	mark     uint64
}

// do makes the call and tells the gate. It runs beside the loop, so that lines are made on all cores.
func (w *Worker) do(ctx context.Context, c *call) result {
	growStack(0)
	g := c.use
	started := w.Now()
	if w.Watch.CallStarted != nil {
		w.Watch.CallStarted(g.ID.Upstream, g.ID.Model)
	}
	answer, fault := callOnce(ctx, g.upstream, c.request)
	if w.opt.RequestIDs {
		answer.RequestID = cmp.Or(answer.RequestID, requestID(c.id))
		if fault != nil && fault.RequestID == "" {
			own := *fault
			own.RequestID = requestID(c.id)
			fault = &own
		}
	}
	ended := w.Now()
	r := result{ordinal: c.ordinal, fault: fault}
	if fault == nil {
		g.Gate.answered(ended, c.failures)
		usage := answer.Usage
		r.outcome = outcome{Ordinal: c.ordinal, Kind: outAnswer, Usage: &usage, Seconds: ended.Sub(started).Round(time.Millisecond).Seconds(), Cost: w.opt.Prices.Of(c.request.Model, usage)}
		line := make([]byte, 0, len(answer.Body)+len(c.customID)+192)
		r.outcome.line = append(appendAnswer(line, c.id, c.customID, &answer), '\n')
	} else {
		g.failed(ended, started, fault, c.request.IdempotencyKey, c.accused)
		r.evidence, r.mark = g.evidence(c.request.IdempotencyKey, c.mark), g.Gate.mark()
	}
	if w.Watch.CallEnded != nil {
		w.Watch.CallEnded(g.ID.Upstream, g.ID.Model, fault, ended.Sub(started))
	}
	return r
}

// callOnce makes one call; whatever goes wrong is a fault.
func callOnce(ctx context.Context, u Upstream, r Request) (answer Answer, fault *Fault) {
	defer func() {
		if p := recover(); p != nil {
			fault = &Fault{Cause: CausePanic, Code: "internal_error", Message: "the call panicked", Err: fmt.Errorf("panic: %v\n%s", p, debug.Stack())}
		}
	}()
	answer, err := u.Call(ctx, r)
	switch {
	case err == nil:
		return answer, nil
	case errors.As(err, &fault):
		return Answer{}, fault
	case ctx.Err() != nil:
		return Answer{}, &Fault{Cause: CauseAborted, Code: "aborted", Message: "the call was ended by fanout", Err: err}
	default:
		return Answer{}, &Fault{Cause: CauseReset, Code: "upstream_error", Message: err.Error(), Err: err}
	}
}

// growStack makes the stack of a new goroutine large enough for a call by HTTP. Grown on the way it would be copied again
// and again, each time with more on it, for 4 µs an item: as long as the attempt's loop takes for it.
//
//go:noinline
func growStack(i int) byte {
	var room [6 << 10]byte
	return room[i]
}
