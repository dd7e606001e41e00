package localjobs

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
	storeBackOff      = time.Second // doubling, while the queue itself does not answer …
	maxStoreBackOff   = 30 * time.Second
	settleTries       = 4
)

// defaultVisibility is many times what a renewal takes, so that a slow disk delivers nothing twice.
const defaultVisibility = 2 * time.Minute

// Pump drives handlers from the queues, as the event source does in the cloud: it receives, calls, acks what was handled
// and lets the rest come again. It is woken by sends and by the time of the next visible message; it never polls.
type Pump struct {
	Queue *Queue
	// Visibility is how long messages are hidden at a time; 0 = 2 minutes. It is renewed every third of it while their
	// handler runs.
	Visibility time.Duration
	// OnFailure is told of each message that comes again and why (a *jobs.Deferred where that was expected), of panics,
	// and of what went wrong with the queue itself (then m may have a Queue only). It is called by many goroutines at
	// once; nil = nobody is told.
	OnFailure func(m jobs.Message, err error)
	// SweepEvery is how often the sweep is asked for, at the start for the first time; 0 = never. One request waits at a
	// time.
	SweepEvery time.Duration
}

// Lane is one queue and what handles its messages.
type Lane struct {
	Queue       jobs.QueueName
	Handler     jobs.Handler
	Concurrency int // calls of Handle at once; 0 = 1
	Batch       int // messages a call, at most 10; 0 = 1
	// Ready waits for room before anything is received; messages are then taken for one call. An error is told and
	// tried again. nil = there is always room.
	Ready func(ctx context.Context) error
}

// Run drives the lanes until stop closes or ctx ends. Then nothing more is received, handlers that run are waited for,
// and Run returns nil; ctx is what they see. It returns an error only if the lanes cannot work, or if the data directory
// was closed under it.
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
	if p.SweepEvery > 0 {
		running.Go(func() { p.sweep(receiving) })
	}
	running.Wait()
	if err := context.Cause(receiving); errors.Is(err, errClosed) {
		return fmt.Errorf("pump: %w", err)
	}
	return nil
}

var errNoReason = errors.New("the handler gave no reason")

var errStopped = errors.New("the pump was stopped")

func (l *Lane) check() error {
	if l.Concurrency == 0 {
		l.Concurrency = 1
	}
	if l.Batch == 0 {
		l.Batch = 1
	}
	switch {
	case l.Queue == "" || l.Handler == nil:
		return jobs.Errorf(jobs.CodeInvalid, "pump queue %q: a lane needs a queue and a handler", l.Queue)
	case l.Concurrency < 0 || l.Batch < 0 || l.Batch > MaxReceive:
		return jobs.Errorf(jobs.CodeInvalid, "pump queue %s: %d handlers at once with %d messages each is not possible; at least 1, and 1 to %d",
			l.Queue, l.Concurrency, l.Batch, MaxReceive)
	}
	return nil
}

// drive launches handlers while there is room and there are messages. Places are taken here, before the launch.
func (p *Pump) drive(ctx, receiving context.Context, lane Lane) error {
	places := make(chan struct{}, lane.Concurrency)
	var handlers sync.WaitGroup
	defer handlers.Wait()
	for {
		select {
		case places <- struct{}{}:
		case <-receiving.Done():
			return nil
		}
		calls := 1
		for lane.Ready == nil && calls*lane.Batch < MaxReceive && tryPlace(places) {
			calls++
		}
		messages, err := p.next(receiving, lane, min(calls*lane.Batch, MaxReceive))
		if err != nil || len(messages) == 0 {
			return err
		}
		for batch := range slices.Chunk(messages, lane.Batch) {
			calls--
			handlers.Go(func() {
				defer func() { <-places }()
				p.handle(ctx, lane, batch)
			})
		}
		for range calls { // fewer came than there was room for
			<-places
		}
	}
}

func tryPlace(places chan<- struct{}) bool {
	select {
	case places <- struct{}{}:
		return true
	default:
		return false
	}
}

// next waits for room and for messages. It returns none when receiving ends. A queue that does not answer (the disk is
// full, say) is told and tried again.
func (p *Pump) next(receiving context.Context, lane Lane, n int) ([]jobs.Message, error) {
	for backOff := storeBackOff; ; backOff = min(2*backOff, maxStoreBackOff) {
		messages, err := p.await(receiving, lane, n)
		switch {
		case receiving.Err() != nil:
			return messages, nil //nolint:nilerr // that receiving ends is no error
		case err == nil, errors.Is(err, errClosed):
			return messages, err
		}
		p.tell(jobs.Message{Queue: lane.Queue}, err)
		pause(receiving, backOff)
	}
}

func (p *Pump) await(receiving context.Context, lane Lane, n int) ([]jobs.Message, error) {
	if lane.Ready != nil {
		if err := lane.Ready(receiving); err != nil {
			return nil, fmt.Errorf("wait for room for queue %s: %w", lane.Queue, err)
		}
	}
	for {
		stirred := p.Queue.stirred(lane.Queue) // before the look, so that no send falls between
		messages, err := p.Queue.Receive(receiving, lane.Queue, n, p.visibility())
		if err != nil || len(messages) > 0 {
			return messages, err
		}
		var timer <-chan time.Time
		after, some, err := p.Queue.nextVisible(receiving, lane.Queue)
		if err != nil {
			return nil, err
		}
		if some {
			timer = time.After(after)
		}
		select {
		case <-stirred:
		case <-timer:
		case <-receiving.Done():
			return nil, nil
		}
	}
}

// handle calls the handler, and settles what it returned.
func (p *Pump) handle(ctx context.Context, lane Lane, batch []jobs.Message) {
	stopRenewing := p.keepHidden(ctx, batch)
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
		p.comeAgain(ctx, p.backOff(m, why), why, m)
	}
	p.settle(ctx, func(ctx context.Context) error { return p.Queue.Ack(ctx, done...) }, done)
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

// backOff is how long a failed message stays away if its handler did not see to that.
func (p *Pump) backOff(m jobs.Message, why error) time.Duration {
	var deferred *jobs.Deferred
	if errors.As(why, &deferred) && !deferred.Until.IsZero() {
		return deferred.Until.Sub(p.Queue.now())
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
	p.settle(ctx, func(ctx context.Context) error {
		return p.Queue.putOff(ctx, p.Queue.now().Add(after), messages...)
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
	for i := 1; i < settleTries && err != nil && !errors.Is(err, errClosed); i++ {
		pause(ctx, storeBackOff/10<<i)
		err = write(ctx)
	}
	if err == nil {
		return
	}
	for _, m := range messages {
		p.tell(m, err)
	}
}

// keepHidden renews the visibility of messages until the function that it returns is called.
func (p *Pump) keepHidden(ctx context.Context, batch []jobs.Message) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var renewing sync.WaitGroup
	renewing.Go(func() {
		for pause(ctx, p.visibility()/3) {
			err := p.Queue.renew(ctx, p.Queue.now().Add(p.visibility()), batch...)
			if err != nil && ctx.Err() == nil {
				p.tell(batch[0], err)
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
		err := p.Queue.sendOnce(receiving, jobs.QueueAggregate, jobs.TickBody())
		if err != nil && receiving.Err() == nil {
			p.tell(jobs.Message{Queue: jobs.QueueAggregate}, fmt.Errorf("ask for the sweep: %w", err))
		}
		if !pause(receiving, p.SweepEvery) {
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
