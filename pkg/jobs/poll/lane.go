package poll

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Lane is one queue and what handles its messages.
type Lane struct {
	Queue       jobs.QueueName
	Handler     jobs.Handler
	Concurrency int // calls of Handle at once; 0 = 1
	Batch       int // messages a call, at most MaxReceive; 0 = 1
	// Ready waits for room before anything is received; messages are then taken for one call. An error is told and
	// tried again. nil = there is always room.
	Ready func(ctx context.Context) error
}

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
		if receiving.Err() != nil { // nothing more is begun
			p.giveBack(ctx, messages)
			return nil
		}
		if err != nil {
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

// next waits for room and for messages, until receiving ends. A queue that does not answer (the disk is full, say) is told
// and tried again.
func (p *Pump) next(receiving context.Context, lane Lane, n int) ([]jobs.Message, error) {
	for backOff := sourceBackOff; ; backOff = min(2*backOff, maxSourceBackOff) {
		messages, err := p.await(receiving, lane, n)
		if err == nil || receiving.Err() != nil || errors.Is(err, ErrClosed) {
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
	return p.Source.Await(receiving, lane.Queue, n, p.visibility())
}
