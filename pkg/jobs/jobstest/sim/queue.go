package sim

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// queue keeps messages with the promises of SQS, and no more.
type queue struct {
	w        *World
	messages []*message // in the order in which they were sent
	dead     []deadLetter
	sent     int
	lost     map[string]bool // advances that were lost once
}

type message struct {
	jobs.Message
	visible time.Time
}

type deadLetter struct {
	body []byte
	why  jobs.Burial
}

func (q *queue) Send(ctx context.Context, name jobs.QueueName, bodies ...[]byte) (unsent []jobs.Unsent, err error) {
	a := actorOf(ctx)
	err = q.w.step(ctx, fmt.Sprintf("send %d to %s", len(bodies), name), func() error {
		for i, body := range bodies {
			h := q.w.hash(a.name, a.steps, "send", i)
			if !a.safe && chance(h, q.w.plan.Odds.Unsent) {
				unsent = append(unsent, jobs.Unsent{At: i, Err: errInjected})
				continue
			}
			if !a.safe && name != jobs.QueueWork && q.loses(h>>16, body) {
				q.w.saw(LostMessage)
				q.w.logf("%s: %s is lost", a.name, body)
				continue
			}
			q.add(name, body, time.Duration(h%uint64(300*time.Millisecond)))
		}
		return nil
	})
	return unsent, err
}

// loses tells whether a message is lost, as if its queue were purged.
func (q *queue) loses(h uint64, body []byte) bool {
	if since := time.Since(q.w.began); since >= q.w.plan.Deaf[0] && since < q.w.plan.Deaf[1] {
		return true
	}
	if !q.w.plan.LoseFirst {
		return chance(h, q.w.plan.Odds.LoseAdvance)
	}
	what := string(body)
	if b, err := jobs.DecodeMessage(body); err == nil && b.Notice != nil { // no two of a delivery are the same
		what = "notice " + b.Notice.Notice
	} else if err == nil && b.Delivered != nil {
		what = "report " + b.Delivered.Delivered
	}
	again := q.lost[what]
	q.lost[what] = true
	return !again
}

func (q *queue) add(name jobs.QueueName, body []byte, delay time.Duration) {
	q.sent++
	now := time.Now()
	q.messages = append(q.messages, &message{
		Message: jobs.Message{ID: fmt.Sprintf("m%d", q.sent), Queue: name, Body: bytes.Clone(body), Sent: now},
		visible: now.Add(delay),
	})
}

// receipt finds the message of a delivery, unless it was delivered again since.
func (q *queue) receipt(m jobs.Message) *message {
	for _, k := range q.messages {
		if k.ID == m.ID && k.Receipt == m.Receipt {
			return k
		}
	}
	return nil
}

func (q *queue) Defer(ctx context.Context, until time.Time, messages ...jobs.Message) error {
	a := actorOf(ctx)
	return q.w.step(ctx, fmt.Sprintf("defer to %s", until.Sub(q.w.began).Truncate(time.Millisecond)), func() error {
		if _, owns := q.w.owners[a.name]; owns && !until.After(time.Now()) {
			q.w.saw(GivenBack)
		}
		if time.Until(until) > 12*time.Hour {
			return jobs.Errorf(jobs.CodeLimit, "past the limit")
		}
		for _, m := range messages {
			if k := q.receipt(m); k != nil {
				k.visible = until
			}
		}
		return nil
	})
}

func (q *queue) Bury(ctx context.Context, m jobs.Message, why jobs.Burial) error {
	return q.w.step(ctx, "bury "+string(m.Body), func() error {
		q.dead = append(q.dead, deadLetter{bytes.Clone(m.Body), why})
		return nil
	})
}

func (q *queue) Depth(ctx context.Context, name jobs.QueueName) (d jobs.Depth, err error) {
	err = q.w.step(ctx, "depth", func() error {
		for _, m := range q.messages {
			if m.Queue == name {
				d.Waiting++
			}
		}
		return nil
	})
	return d, err
}

// take delivers a visible message, chosen by a hash; nil if there is none. of "" is any queue.
func (q *queue) take(h uint64, hide time.Duration, of jobs.QueueName) *jobs.Message {
	now := time.Now()
	var visible []*message
	for _, m := range q.messages {
		if !m.visible.After(now) && (of == "" || m.Queue == of) {
			visible = append(visible, m)
		}
	}
	if len(visible) == 0 {
		return nil
	}
	m := visible[h%uint64(len(visible))]
	m.Receives++
	m.Receipt = fmt.Sprintf("%s-%d", m.ID, m.Receives)
	m.visible = now.Add(hide)
	d := m.Message
	d.Body = bytes.Clone(d.Body)
	return &d
}

// next is when the next message is visible.
func (q *queue) next() (at time.Time, ok bool) {
	for _, m := range q.messages {
		if !ok || m.visible.Before(at) {
			at, ok = m.visible, true
		}
	}
	return at, ok
}

func (q *queue) ack(m jobs.Message) {
	q.messages = slices.DeleteFunc(q.messages, func(k *message) bool { return k.ID == m.ID && k.Receipt == m.Receipt })
}

func (q *queue) purge(name jobs.QueueName) int {
	before := len(q.messages)
	q.messages = slices.DeleteFunc(q.messages, func(k *message) bool { return k.Queue == name })
	return before - len(q.messages)
}
