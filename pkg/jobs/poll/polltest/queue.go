package polltest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/poll"
)

// MaxHidden is how long one receive from a Queue can hide a message.
const MaxHidden = 12 * time.Hour

// Queue is a queue in memory, for tests in a bubble, where time is virtual.
type Queue struct {
	// Fault, if set, is asked before each call by its name; an error is returned instead. Set it before the first use.
	Fault func(call string) error

	mu       sync.Mutex
	last     int
	messages []*message // in the order of their ids
	stirred  chan struct{}
}

var (
	_ jobs.Queue  = (*Queue)(nil)
	_ poll.Source = (*Queue)(nil)
)

// message is one that was sent and not acked.
type message struct {
	jobs.Message
	visible, received time.Time
	deferred          bool // by its handler, since the receive
}

// NewQueue makes an empty queue.
func NewQueue() *Queue { return &Queue{stirred: make(chan struct{})} }

// begin asks for a fault, and locks unless there is one.
func (q *Queue) begin(call string) error {
	if q.Fault != nil {
		if err := q.Fault(call); err != nil {
			return err
		}
	}
	q.mu.Lock()
	return nil
}

// stir wakes who waits.
func (q *Queue) stir() {
	close(q.stirred)
	q.stirred = make(chan struct{})
}

// Send takes messages.
func (q *Queue) Send(_ context.Context, name jobs.QueueName, bodies ...[]byte) ([]jobs.Unsent, error) {
	if err := q.begin("Send"); err != nil {
		return nil, err
	}
	defer q.mu.Unlock()
	for _, body := range bodies {
		q.last++
		now := time.Now()
		q.messages = append(q.messages, &message{Message: jobs.Message{ID: strconv.Itoa(q.last), Queue: name, Body: body, Sent: now}, visible: now})
	}
	q.stir()
	return nil, nil
}

// Await takes messages, and waits for the first.
func (q *Queue) Await(ctx context.Context, name jobs.QueueName, n int, visibility time.Duration) ([]jobs.Message, error) {
	for {
		if err := q.begin("Await"); err != nil {
			return nil, err
		}
		taken, next := q.take(name, n, visibility)
		stirred := q.stirred
		q.mu.Unlock()
		if len(taken) > 0 {
			return taken, nil
		}
		var timer <-chan time.Time
		if !next.IsZero() {
			timer = time.After(time.Until(next))
		}
		select {
		case <-stirred:
		case <-timer:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// take receives what is visible, and says when the next message will be; zero = there is none.
func (q *Queue) take(name jobs.QueueName, n int, visibility time.Duration) (taken []jobs.Message, next time.Time) {
	now := time.Now()
	for _, m := range q.messages {
		switch {
		case m.Queue != name || len(taken) == min(n, poll.MaxReceive):
		case m.visible.After(now):
			if next.IsZero() || m.visible.Before(next) {
				next = m.visible
			}
		default:
			m.Receives++
			m.visible, m.received, m.deferred = now.Add(visibility), now, false
			m.Receipt = fmt.Sprintf("%s.%d", m.ID, m.Receives)
			taken = append(taken, m.Message)
		}
	}
	return taken, next
}

// Ack removes messages.
func (q *Queue) Ack(_ context.Context, messages ...jobs.Message) error {
	if err := q.begin("Ack"); err != nil {
		return err
	}
	defer q.mu.Unlock()
	q.messages = slices.DeleteFunc(q.messages, func(m *message) bool { return m.in(messages) })
	return nil
}

// Defer hides messages for their handler.
func (q *Queue) Defer(_ context.Context, until time.Time, messages ...jobs.Message) error {
	return q.hide("Defer", messages, func(m *message) error {
		if until.Sub(m.received) > MaxHidden {
			return jobs.Errorf(jobs.CodeLimit, "defer message %s: it was received at %s", m.ID, m.received)
		}
		m.visible, m.deferred = until, true
		return nil
	})
}

// Renew hides messages in hand for longer.
func (q *Queue) Renew(_ context.Context, until time.Time, messages ...jobs.Message) error {
	return q.hide("Renew", messages, func(m *message) error {
		switch {
		case m.deferred:
		case until.Sub(m.received) > MaxHidden:
			return jobs.Errorf(jobs.CodeLimit, "renew message %s: it was received at %s", m.ID, m.received)
		default:
			m.visible = until
		}
		return nil
	})
}

// PutOff lets messages in hand come again then.
func (q *Queue) PutOff(_ context.Context, until time.Time, messages ...jobs.Message) error {
	return q.hide("PutOff", messages, func(m *message) error {
		if !m.deferred {
			m.visible, m.deferred = until, true
		}
		if last := m.received.Add(MaxHidden); m.visible.After(last) {
			m.visible = last
		}
		return nil
	})
}

func (q *Queue) hide(call string, messages []jobs.Message, change func(m *message) error) error {
	if err := q.begin(call); err != nil {
		return err
	}
	defer q.mu.Unlock()
	for _, m := range q.messages {
		if !m.in(messages) {
			continue
		}
		if err := change(m); err != nil {
			return err
		}
	}
	if call != "Renew" {
		q.stir()
	}
	return nil
}

// in tells whether the message's last delivery is among these.
func (m *message) in(messages []jobs.Message) bool {
	return m.Receipt != "" && slices.ContainsFunc(messages, func(o jobs.Message) bool { return o.Receipt == m.Receipt })
}

// Bury is not for pumps.
func (q *Queue) Bury(context.Context, jobs.Message, jobs.Burial) error {
	return jobs.Errorf(jobs.CodeInvalid, "this queue has no dead letters")
}

// Depth counts. Whatever is hidden and was put off is delayed, else in flight.
func (q *Queue) Depth(_ context.Context, name jobs.QueueName) (d jobs.Depth, err error) {
	if err := q.begin("Depth"); err != nil {
		return d, err
	}
	defer q.mu.Unlock()
	for _, m := range q.messages {
		switch {
		case m.Queue != name:
		case !m.visible.After(time.Now()):
			d.Waiting++
		case m.deferred:
			d.Delayed++
		default:
			d.InFlight++
		}
	}
	return d, nil
}
