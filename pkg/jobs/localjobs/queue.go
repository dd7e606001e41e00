package localjobs

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/poll"
)

// The limits of the cloud's queue hold here too, so that what works on one machine works there.
const (
	MaxBodyBytes = 1 << 20
	MaxReceive   = 10             // messages a Receive
	MaxHidden    = 12 * time.Hour // how far ahead a message can be hidden
)

// A message is in one of three states. Waiting and deferred ones are nobody's; only what is in hand when a process dies
// is given back at once. In every state a message is visible once its time has come.
const (
	stateWaiting  = 0
	stateInHand   = 1
	stateDeferred = 2
)

// Queue keeps the queues in SQLite. Beside the port it has what a poll.Pump needs. Who awaits messages is woken by sends and
// by the time of the next visible message; nobody polls.
type Queue struct {
	db  *database
	now func() time.Time

	send, sendUnlessWaiting, receive, ack, hide, bury *sql.Stmt
	next, waiting, hidden, deadCount, dead            *sql.Stmt
	discard, unbury, discardOldest, lastDead          *sql.Stmt

	mu    sync.Mutex
	stirs map[jobs.QueueName]chan struct{} // closed when a message may have become visible sooner than was known
	moves map[jobs.QueueName][]*move       // oldest first
}

var (
	_ jobs.Queue       = (*Queue)(nil)
	_ jobs.DeadLetters = (*Queue)(nil)
	_ poll.Source      = (*Queue)(nil)
)

func newQueue(ctx context.Context, db *database, now func() time.Time) (*Queue, error) {
	p := preparer{ctx: ctx, db: db}
	q := &Queue{
		db: db, now: now, stirs: map[jobs.QueueName]chan struct{}{}, moves: map[jobs.QueueName][]*move{},
		send: p.write(`INSERT INTO messages (queue, visible_at, state, receives, sent_at, body) VALUES (?1, ?2, 0, 0, ?2, ?3)`),
		sendUnlessWaiting: p.write(`INSERT INTO messages (queue, visible_at, state, receives, sent_at, body)
			SELECT ?1, ?2, 0, 0, ?2, ?3 WHERE NOT EXISTS
				(SELECT 1 FROM messages WHERE queue = ?1 AND body = ?3 AND NOT (state = 1 AND visible_at > ?2))`),
		receive: p.write(`UPDATE messages SET receives = receives + 1, visible_at = ?, state = 1 WHERE id IN
				(SELECT id FROM messages WHERE queue = ? AND visible_at <= ? ORDER BY visible_at, id LIMIT ?)
			RETURNING id, receives, sent_at, body`),
		ack:  p.write(`DELETE FROM messages WHERE id = ? AND receives = ?`),
		hide: p.write(`UPDATE messages SET visible_at = ?, state = ? WHERE id = ? AND receives = ? AND state IN (1, ?)`),
		bury: p.write(`INSERT INTO dead_letters (queue, message, receives, sent_at, buried_at, burial, body)
			VALUES (?, ?, ?, ?, ?, ?, ?)`),
		discard: p.write(`DELETE FROM dead_letters WHERE queue = ? AND id = ?`),
		unbury: p.write(`INSERT INTO messages (queue, visible_at, state, receives, sent_at, body)
			SELECT ?1, ?2, 0, 0, ?2, body FROM dead_letters WHERE queue = ?1 AND id <= ?3 ORDER BY id LIMIT ?4`),
		discardOldest: p.write(`DELETE FROM dead_letters WHERE id IN
			(SELECT id FROM dead_letters WHERE queue = ? AND id <= ? ORDER BY id LIMIT ?)`),
		lastDead: p.read(`SELECT count(*), coalesce(max(id), 0) FROM dead_letters WHERE queue = ?`),

		next:    p.read(`SELECT visible_at FROM messages WHERE queue = ? ORDER BY visible_at LIMIT 1`),
		waiting: p.read(`SELECT count(*), min(sent_at) FROM messages WHERE queue = ? AND visible_at <= ?`),
		hidden: p.read(`SELECT count(*) FILTER (WHERE state = 1), count(*) FILTER (WHERE state <> 1)
			FROM messages WHERE queue = ? AND visible_at > ?`),
		deadCount: p.read(`SELECT count(*) FROM dead_letters WHERE queue = ?`),
		dead:      p.read(`SELECT id, buried_at, burial, body FROM dead_letters WHERE queue = ? AND id > ? ORDER BY id LIMIT ?`),
	}
	giveBack := p.write(`UPDATE messages SET state = 0, visible_at = ? WHERE state = 1`)
	if p.err != nil {
		return nil, p.err
	}
	err := db.write(ctx, func() error {
		_, err := giveBack.Exec(nanos(now()))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("give back what a predecessor had in hand: %w", err)
	}
	return q, nil
}

// Send takes messages, those that keep the limits all or none, and wakes who waits for them.
func (q *Queue) Send(ctx context.Context, name jobs.QueueName, bodies ...[]byte) ([]jobs.Unsent, error) {
	var unsent []jobs.Unsent
	fit := make([][]byte, 0, len(bodies))
	for i, body := range bodies {
		if err := checkBody(body); err != nil {
			unsent = append(unsent, jobs.Unsent{At: i, Err: err})
			continue
		}
		fit = append(fit, body)
	}
	if len(fit) == 0 {
		return unsent, nil
	}
	err := q.db.write(ctx, func() error {
		at := nanos(q.now())
		for _, body := range fit {
			if _, err := q.send.Exec(string(name), at, body); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("send %d messages to queue %s: %w", len(fit), name, err)
	}
	q.stir(name)
	return unsent, nil
}

func checkBody(body []byte) error {
	switch {
	case len(body) == 0:
		return jobs.Errorf(jobs.CodeInvalid, "send message: it is empty")
	case len(body) > MaxBodyBytes:
		return jobs.Errorf(jobs.CodeLimit, "send message: %d bytes are more than a queue takes, which is %d", len(body), MaxBodyBytes)
	default:
		return nil
	}
}

// AskForSweep makes the sweep run, unless a request for it waits already.
func (q *Queue) AskForSweep(ctx context.Context) error {
	return q.sendOnce(ctx, jobs.QueueAggregate, jobs.TickBody())
}

// sendOnce sends a message unless one with the same body waits already.
func (q *Queue) sendOnce(ctx context.Context, name jobs.QueueName, body []byte) error {
	err := q.db.write(ctx, func() error {
		_, err := q.sendUnlessWaiting.Exec(string(name), nanos(q.now()), body)
		return err
	})
	if err != nil {
		return fmt.Errorf("send message to queue %s: %w", name, err)
	}
	q.stir(name)
	return nil
}

// Receive takes up to n messages (at most MaxReceive) that are visible, the longest visible first, and hides them for a
// while. It does not wait. Messages that it took are returned even if ctx ends meanwhile.
func (q *Queue) Receive(ctx context.Context, name jobs.QueueName, n int, visibility time.Duration) ([]jobs.Message, error) {
	n = min(n, MaxReceive)
	var received []jobs.Message
	err := q.db.writeLazily(ctx, func() (err error) {
		now := q.now()
		received, err = collect(context.Background(), q.receive, func(row *sql.Rows) (jobs.Message, error) {
			return scanMessage(row, name)
		}, nanos(now.Add(visibility)), string(name), nanos(now), n)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("receive from queue %s: %w", name, err)
	}
	slices.SortFunc(received, func(a, b jobs.Message) int { return cmp.Or(cmp.Compare(len(a.ID), len(b.ID)), cmp.Compare(a.ID, b.ID)) })
	return received, nil
}

// Await is Receive that waits for the first message, until ctx ends.
func (q *Queue) Await(ctx context.Context, name jobs.QueueName, n int, visibility time.Duration) ([]jobs.Message, error) {
	for {
		stirred := q.stirred(name) // before the look, so that no send falls between
		messages, err := q.Receive(ctx, name, n, visibility)
		if err != nil || len(messages) > 0 {
			return messages, err
		}
		var timer <-chan time.Time
		after, some, err := q.nextVisible(ctx, name)
		if err != nil {
			return nil, err
		}
		if some {
			timer = time.After(after)
		}
		select {
		case <-stirred:
		case <-timer:
		case <-ctx.Done():
			return nil, nil
		}
	}
}

func scanMessage(row *sql.Rows, name jobs.QueueName) (jobs.Message, error) {
	m := jobs.Message{Queue: name}
	var id, sent int64
	if err := row.Scan(&id, &m.Receives, &sent, &m.Body); err != nil {
		return m, err
	}
	m.ID, m.Sent = strconv.FormatInt(id, 10), fromNanos(sent)
	// The count of deliveries makes each receipt a new one.
	m.Receipt = m.ID + "." + strconv.Itoa(m.Receives)
	return m, nil
}

// parseReceipt reads what scanMessage wrote. What it did not write is as good as stale.
func parseReceipt(receipt string) (id, receives int64, ok bool) {
	a, b, _ := strings.Cut(receipt, ".")
	id, err := strconv.ParseInt(a, 10, 64)
	if err != nil {
		return 0, 0, false
	}
	receives, err = strconv.ParseInt(b, 10, 64)
	return id, receives, err == nil
}

// Ack removes messages that were received. One that was delivered again since, or is gone, is left alone, without error.
func (q *Queue) Ack(ctx context.Context, messages ...jobs.Message) error {
	err := q.each(ctx, messages, func(id, receives int64) error {
		_, err := q.ack.Exec(id, receives)
		return err
	})
	if err != nil {
		return fmt.Errorf("ack %d messages: %w", len(messages), err)
	}
	return nil
}

// Defer hides received messages until then, at most MaxHidden from now. They are nobody's meanwhile, but until they are
// delivered again their receipts hold: they can be acked or deferred once more.
func (q *Queue) Defer(ctx context.Context, until time.Time, messages ...jobs.Message) error {
	now := q.now()
	if until.Sub(now) > MaxHidden {
		return jobs.Errorf(jobs.CodeLimit, "defer %d messages until %s: that is more than %s from now", len(messages), until.Format(time.RFC3339), MaxHidden)
	}
	if err := q.hideUntil(ctx, later(until, now), stateDeferred, stateDeferred, messages); err != nil {
		return fmt.Errorf("defer %d messages: %w", len(messages), err)
	}
	return nil
}

// PutOff is Defer for messages that are still in hand: those that the handler deferred itself are left alone. It clamps
// where Defer errors.
func (q *Queue) PutOff(ctx context.Context, until time.Time, messages ...jobs.Message) error {
	now := q.now()
	if last := now.Add(MaxHidden); until.After(last) {
		until = last
	}
	if err := q.hideUntil(ctx, later(until, now), stateDeferred, stateInHand, messages); err != nil {
		return fmt.Errorf("put off %d messages: %w", len(messages), err)
	}
	return nil
}

// Renew hides messages that are still in hand for longer. There is no limit to that here.
func (q *Queue) Renew(ctx context.Context, until time.Time, messages ...jobs.Message) error {
	if err := q.hideUntil(ctx, until, stateInHand, stateInHand, messages); err != nil {
		return fmt.Errorf("renew the visibility of %d messages: %w", len(messages), err)
	}
	return nil
}

// hideUntil moves messages in hand, or of one other state, to a state.
func (q *Queue) hideUntil(ctx context.Context, until time.Time, to, from int, messages []jobs.Message) error {
	err := q.each(ctx, messages, func(id, receives int64) error {
		_, err := q.hide.Exec(nanos(until), to, id, receives, from)
		return err
	})
	if err == nil && to != stateInHand { // a renewal makes nothing visible sooner
		for _, m := range messages {
			q.stir(m.Queue)
		}
	}
	return err
}

// each does one thing to every message with a readable receipt, in one transaction.
func (q *Queue) each(ctx context.Context, messages []jobs.Message, do func(id, receives int64) error) error {
	if len(messages) == 0 {
		return nil
	}
	return q.db.writeLazily(ctx, func() error {
		for _, m := range messages {
			id, receives, ok := parseReceipt(m.Receipt)
			if !ok {
				continue
			}
			if err := do(id, receives); err != nil {
				return err
			}
		}
		return nil
	})
}

// Bury puts a copy of a message into the dead letters of its queue.
func (q *Queue) Bury(ctx context.Context, m jobs.Message, why jobs.Burial) error {
	reason, err := json.Marshal(why)
	if err == nil {
		err = q.db.write(ctx, func() error {
			_, err := q.bury.Exec(string(m.Queue), m.ID, m.Receives, nanos(m.Sent), nanos(q.now()), reason, m.Body)
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("bury message %s of queue %s: %w", m.ID, m.Queue, err)
	}
	return nil
}

// Depth counts what a queue holds.
func (q *Queue) Depth(ctx context.Context, name jobs.QueueName) (jobs.Depth, error) {
	var d jobs.Depth
	var oldest sql.NullInt64
	now := q.now()
	err := q.waiting.QueryRowContext(ctx, string(name), nanos(now)).Scan(&d.Waiting, &oldest)
	if err == nil {
		err = q.hidden.QueryRowContext(ctx, string(name), nanos(now)).Scan(&d.InFlight, &d.Delayed)
	}
	if err == nil {
		err = q.deadCount.QueryRowContext(ctx, string(name)).Scan(&d.Dead)
	}
	if err != nil {
		return jobs.Depth{}, fmt.Errorf("count queue %s: %w", name, sentence(err))
	}
	if oldest.Valid {
		d.Oldest = max(0, now.Sub(fromNanos(oldest.Int64)))
	}
	return d, nil
}

// stirred is closed when a message of the queue may have become visible sooner than a look at nextVisible told. Take it
// before the look.
func (q *Queue) stirred(name jobs.QueueName) <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	c, ok := q.stirs[name]
	if !ok {
		c = make(chan struct{})
		q.stirs[name] = c
	}
	return c
}

func (q *Queue) stir(name jobs.QueueName) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if c, ok := q.stirs[name]; ok {
		close(c)
		delete(q.stirs, name)
	}
}

// nextVisible is how long until a message of the queue is visible, at the latest news; false = it has none.
func (q *Queue) nextVisible(ctx context.Context, name jobs.QueueName) (time.Duration, bool, error) {
	var at int64
	err := q.next.QueryRowContext(ctx, string(name)).Scan(&at)
	switch {
	case err == nil:
		return fromNanos(at).Sub(q.now()), true, nil
	case errors.Is(absent(err), jobs.ErrNotFound):
		return 0, false, nil
	default:
		return 0, false, fmt.Errorf("look for the next message of queue %s: %w", name, sentence(err))
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
