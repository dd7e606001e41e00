package poll

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// How long the pump waits for a queue that does not answer, and how often it tries.
const (
	sourceBackOff    = time.Second // doubling, while the queue itself does not answer …
	maxSourceBackOff = 30 * time.Second
	settleTries      = 4
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

var errStopped = errors.New("the pump was stopped")

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
	failed, err := jobs.Deliver(ctx, lane.Handler, batch)
	stopRenewing()

	if err != nil {
		err = fmt.Errorf("handle %d messages of queue %s: %w", len(batch), lane.Queue, err)
		for _, m := range batch {
			p.comeAgain(ctx, m, err)
		}
		return
	}
	var done []jobs.Message
	for _, m := range batch {
		why, again := failed[m.ID]
		if !again {
			done = append(done, m)
			continue
		}
		p.comeAgain(ctx, m, why)
	}
	p.settle(ctx, func(ctx context.Context) error { return p.Source.Ack(ctx, done...) }, done)
}

// comeAgain lets a message come again after a while, at once if it was our end that ended it. What the handler deferred
// itself keeps its time.
func (p *Pump) comeAgain(ctx context.Context, m jobs.Message, why error) {
	p.tell(m, why)
	after := time.Duration(0)
	if ctx.Err() == nil {
		after = jobs.BackOff(m, why, p.now())
	}
	p.putOff(ctx, after, []jobs.Message{m})
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
