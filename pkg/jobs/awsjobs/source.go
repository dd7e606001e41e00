package awsjobs

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/poll"
)

const (
	// answerWithin is how long SQS may take to answer (a Receive that waits may take so much longer than it waits). What
	// hangs would else hold up a lane, a renewal or the end of the process.
	answerWithin = 30 * time.Second
	// leastWait is how soon SQS is asked again that had nothing. With too many messages in flight it does not wait before it
	// says so.
	leastWait = time.Second
)

// Source is a Queue for a process that polls it with a poll.Pump. Its handlers must be given the Source as their Queue:
// SQS does not tell a message in hand from one that its handler deferred, so the Source keeps that in mind. Each process
// knows its own messages only, which are all that it has receipts of.
//
// A change that is under way while a handler defers a message may win over that. Then the message comes up to one visibility
// too late or too early, which the ledger bears.
type Source struct {
	*Queue
	mu       sync.Mutex
	deferred map[string]time.Time // by receipt: when its handler deferred it, until it is settled
}

var (
	_ jobs.Queue  = (*Source)(nil)
	_ poll.Source = (*Source)(nil)
)

// NewSource makes a Source of a queue, whose Wait should be MaxWait.
func NewSource(q *Queue) *Source { return &Source{Queue: q, deferred: map[string]time.Time{}} }

// Await takes messages, and waits for the first until ctx ends. What was on its way then stays hidden for that while.
func (s *Source) Await(ctx context.Context, name jobs.QueueName, n int, visibility time.Duration) ([]jobs.Message, error) {
	for {
		again := time.NewTimer(leastWait)
		messages, err := s.receive(ctx, name, n, visibility)
		if err != nil || len(messages) > 0 {
			again.Stop()
			return messages, err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return nil, nil
		}
	}
}

func (s *Source) receive(ctx context.Context, name jobs.QueueName, n int, visibility time.Duration) ([]jobs.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, s.Wait+answerWithin)
	defer cancel()
	return s.Receive(ctx, name, n, visibility)
}

// Defer hides messages for their handler: what it said then counts, whatever the pump does with them.
func (s *Source) Defer(ctx context.Context, until time.Time, messages ...jobs.Message) error {
	now := s.now()
	s.mu.Lock()
	maps.DeleteFunc(s.deferred, func(_ string, at time.Time) bool { return now.Sub(at) > MaxHidden }) // nobody's by now
	for _, m := range messages {
		s.deferred[m.Receipt] = now // before the call, so that no renewal begins meanwhile
	}
	s.mu.Unlock()
	err := s.Queue.Defer(ctx, until, messages...)
	if err != nil {
		s.forget(messages)
	}
	return err
}

// Ack removes messages.
func (s *Source) Ack(ctx context.Context, messages ...jobs.Message) error {
	s.forget(messages)
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	return s.Queue.Ack(ctx, messages...)
}

// Renew hides messages that are still in hand for longer, up to MaxHidden after their receive.
func (s *Source) Renew(ctx context.Context, until time.Time, messages ...jobs.Message) error {
	if err := s.hide(ctx, until, s.inHand(messages)); err != nil {
		return fmt.Errorf("renew the visibility of %d messages: %w", len(messages), err)
	}
	return nil
}

// PutOff is Defer for messages that are still in hand. It clamps where Defer errors.
func (s *Source) PutOff(ctx context.Context, until time.Time, messages ...jobs.Message) error {
	left, now := s.inHand(messages), s.now()
	for _, m := range left {
		_, since := parseReceipt(m.Receipt, now)
		until = earlier(until, earlier(since, now).Add(MaxHidden-time.Second)) // times are rounded up to seconds
	}
	if err := s.hide(ctx, until, left); err != nil {
		return fmt.Errorf("put off %d messages: %w", len(messages), err)
	}
	s.forget(messages)
	return nil
}

func (s *Source) hide(ctx context.Context, until time.Time, messages []jobs.Message) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	return s.Queue.Defer(ctx, until, messages...)
}

// inHand are those of the messages that no handler has deferred.
func (s *Source) inHand(messages []jobs.Message) []jobs.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(messages), func(m jobs.Message) bool {
		_, ok := s.deferred[m.Receipt]
		return ok
	})
}

func (s *Source) forget(messages []jobs.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range messages {
		delete(s.deferred, m.Receipt)
	}
}
