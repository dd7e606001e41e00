package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"
)

// How long messages stay away after something went wrong, unless their handler has put them off.
const (
	failureBackOff     = 5 * time.Second // times the receives …
	mostFailureBackOff = 15 * time.Minute
	panicBackOff       = 30 * time.Second
)

// HandlerPanic is a handler that panicked. It is a bug there, but no reason to stop everything else.
type HandlerPanic struct{ error }

var errNoReason = errors.New("the handler gave no reason")

// Deliver hands messages to a handler, as every pump does, and sorts its failures by message id: those messages come again,
// all others are done with. An error means that nothing is known of any of them: a *HandlerPanic, with the stack, or a
// failure that names a message which was not handed over.
func Deliver(ctx context.Context, h Handler, batch []Message) (failed map[string]error, err error) {
	defer func() {
		if r := recover(); r != nil {
			failed, err = nil, &HandlerPanic{fmt.Errorf("panic: %v\n%s", r, debug.Stack())}
		}
	}()
	failed = map[string]error{}
	for _, f := range h.Handle(ctx, batch) {
		if !slices.ContainsFunc(batch, func(m Message) bool { return m.ID == f.ID }) {
			return nil, fmt.Errorf("a failure names message %q, which was not handed over", f.ID)
		}
		failed[f.ID] = cmp.Or(f.Err, errNoReason)
	}
	return failed, nil
}

// BackOff is how long a message that comes again stays away, if its handler has not put it off.
func BackOff(m Message, why error, now time.Time) time.Duration {
	if off, ok := errors.AsType[*Deferred](why); ok && !off.Until.IsZero() {
		return off.Until.Sub(now)
	}
	if _, panicked := errors.AsType[*HandlerPanic](why); panicked {
		return panicBackOff
	}
	return min(time.Duration(m.Receives)*failureBackOff, mostFailureBackOff)
}
