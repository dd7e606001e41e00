package poll

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// How long messages stay away after something went wrong.
const (
	failureBackOff    = 5 * time.Second // times the receives …
	maxFailureBackOff = 15 * time.Minute
	panicBackOff      = 30 * time.Second
	sourceBackOff     = time.Second // doubling, while the queue itself does not answer …
	maxSourceBackOff  = 30 * time.Second
	settleTries       = 4
)

// defaultVisibility is many times what a renewal takes, so that a slow disk or network delivers nothing twice.
const defaultVisibility = 2 * time.Minute

// Pump drives handlers from the queues, as the event source does in the cloud: it receives, calls, acks what was handled
// and lets the rest come again.
type Pump struct {
	Source Source
	// Visibility is how long messages are hidden at a time; 0 = 2 minutes. It is renewed every third of it while their
	// handler runs. If the source does not hide them for longer, the handler's context ends while there is still time
	// to give the work back.
	Visibility time.Duration
	// OnFailure is told of each message that comes again and why (a *jobs.Deferred where that was expected), of panics,
	// and of what went wrong with the queue itself (then m may have a Queue only). It is called by many goroutines at
	// once; nil = nobody is told.
	OnFailure func(m jobs.Message, err error)
	// AskForSweep, if set, is called at the start and then every SweepEvery; 0 = a minute.
	AskForSweep func(ctx context.Context) error
	SweepEvery  time.Duration
	// Now is the source's clock; nil = time.Now.
	Now func() time.Time
}

var (
	errNoReason = errors.New("the handler gave no reason")
	errStopped  = errors.New("the pump was stopped")
)

// Run drives the lanes until stop closes or ctx ends. Then nothing more is received, handlers that run are waited for,
// and Run returns nil; ctx is what they see. It returns an error only if the lanes cannot work, or if the source was
// closed under it.
func (p *Pump) Run(ctx context.Context, stop <-chan struct{}, lanes ...Lane) error {
	lanes = slices.Clone(lanes)
	for i := range lanes {
		if err := lanes[i].check(); err != nil {
			return err
		}
	}
	receiving, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	var running sync.WaitGroup
	running.Go(func() {
		select {
		case <-stop:
			cancel(errStopped)
		case <-receiving.Done():
		}
	})
	for _, lane := range lanes {
		running.Go(func() {
			if err := p.drive(ctx, receiving, lane); err != nil {
				cancel(err)
			}
		})
	}
	if p.AskForSweep != nil {
		running.Go(func() { p.sweep(receiving) })
	}
	running.Wait()
	if err := context.Cause(receiving); errors.Is(err, ErrClosed) {
		return fmt.Errorf("pump: %w", err)
	}
	return nil
}

// handle calls the handler, and settles what it returned.
func (p *Pump) handle(ctx context.Context, lane Lane, batch []jobs.Message) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	stopRenewing := p.keepHidden(ctx, end, batch)
	failures, err := call(ctx, lane.Handler, batch)
	stopRenewing()

	if err != nil {
		err = fmt.Errorf("handle %d messages of queue %s: %w", len(batch), lane.Queue, err)
		p.comeAgain(ctx, panicBackOff, err, batch...)
		return
	}
	failed, err := byMessage(batch, failures)
	if err != nil {
		p.comeAgain(ctx, failureBackOff, fmt.Errorf("handle messages of queue %s: %w", lane.Queue, err), batch...)
		return
	}
	var done []jobs.Message
	for _, m := range batch {
		why, again := failed[m.ID]
		if !again {
			done = append(done, m)
			continue
		}
		p.comeAgain(ctx, BackOff(m, why, p.now()), why, m)
	}
	p.settle(ctx, func(ctx context.Context) error { return p.Source.Ack(ctx, done...) }, done)
}

// call turns a panic of the handler into an error with the stack. It is a bug there, but no reason to stop everything
// else.
func call(ctx context.Context, h jobs.Handler, batch []jobs.Message) (failures []jobs.Failure, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	return h.Handle(ctx, batch), nil
}

// byMessage sorts failures by message. As in the cloud, a failure of a message that was not in the batch means that
// nothing is known of any of them.
func byMessage(batch []jobs.Message, failures []jobs.Failure) (map[string]error, error) {
	failed := make(map[string]error, len(failures))
	for _, f := range failures {
		if !slices.ContainsFunc(batch, func(m jobs.Message) bool { return m.ID == f.ID }) {
			return nil, fmt.Errorf("a failure names message %q, which was not handed over", f.ID)
		}
		failed[f.ID] = cmp.Or(f.Err, errNoReason)
	}
	return failed, nil
}

// BackOff is how long a failed message stays away if its handler did not see to that.
func BackOff(m jobs.Message, why error, now time.Time) time.Duration {
	var deferred *jobs.Deferred
	if errors.As(why, &deferred) && !deferred.Until.IsZero() {
		return deferred.Until.Sub(now)
	}
	return min(time.Duration(m.Receives)*failureBackOff, maxFailureBackOff)
}

// comeAgain lets messages come again after a while, at once if it was our end that ended them. What the handler deferred
// itself keeps its time.
func (p *Pump) comeAgain(ctx context.Context, after time.Duration, why error, messages ...jobs.Message) {
	for _, m := range messages {
		p.tell(m, why)
	}
	if ctx.Err() != nil {
		after = 0
	}
	p.putOff(ctx, after, messages)
}

// giveBack shows messages that nobody has begun with to others at once.
func (p *Pump) giveBack(ctx context.Context, messages []jobs.Message) { p.putOff(ctx, 0, messages) }

func (p *Pump) putOff(ctx context.Context, after time.Duration, messages []jobs.Message) {
	p.settle(ctx, func(ctx context.Context) error {
		return p.Source.PutOff(ctx, p.now().Add(after), messages...)
	}, messages)
}

// settle writes down what became of messages, also when ctx has ended. If that cannot be done, they are delivered again
// when their visibility ends: that is what at least once means.
func (p *Pump) settle(ctx context.Context, write func(ctx context.Context) error, messages []jobs.Message) {
	if len(messages) == 0 {
		return
	}
	ctx = context.WithoutCancel(ctx)
	err := write(ctx)
	for i := 1; i < settleTries && err != nil && !errors.Is(err, ErrClosed); i++ {
		pause(ctx, sourceBackOff/10<<i)
		err = write(ctx)
	}
	if err == nil {
		return
	}
	for _, m := range messages {
		p.tell(m, err)
	}
}

// keepHidden renews the visibility of messages until the function that it returns is called. It calls end when the source
// hides them no longer: better to give back than to do what another will be doing too.
func (p *Pump) keepHidden(ctx context.Context, end context.CancelCauseFunc, batch []jobs.Message) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var renewing sync.WaitGroup
	renewing.Go(func() {
		for pause(ctx, p.visibility()/3) {
			err := p.Source.Renew(ctx, p.now().Add(p.visibility()), batch...)
			if err == nil || ctx.Err() != nil {
				continue
			}
			p.tell(batch[0], err)
			if jobs.CodeOf(err) == jobs.CodeLimit {
				end(err)
				return
			}
		}
	})
	return func() {
		cancel()
		renewing.Wait()
	}
}

// sweep asks for the sweep now and then.
func (p *Pump) sweep(receiving context.Context) {
	for {
		if err := p.AskForSweep(receiving); err != nil && receiving.Err() == nil {
			p.tell(jobs.Message{Queue: jobs.QueueAggregate}, fmt.Errorf("ask for the sweep: %w", err))
		}
		if !pause(receiving, cmp.Or(p.SweepEvery, time.Minute)) {
			return
		}
	}
}

func (p *Pump) visibility() time.Duration {
	if p.Visibility > 0 {
		return p.Visibility
	}
	return defaultVisibility
}

func (p *Pump) now() time.Time {
	if p.Now != nil {
		return p.Now()
	}
	return time.Now()
}

func (p *Pump) tell(m jobs.Message, err error) {
	if p.OnFailure != nil {
		p.OnFailure(m, err)
	}
}

// pause waits, and tells whether it was for the whole time.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
