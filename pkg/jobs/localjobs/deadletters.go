package localjobs

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

const (
	deadPage  = 256 // letters that a look has in memory at once, and that a move takes at once
	movesKept = 10  // of a queue, as SQS tells of
)

// Peek yields the dead letters of a queue, oldest first.
func (q *Queue) Peek(ctx context.Context, name jobs.QueueName) iter.Seq2[jobs.Letter, error] {
	return walk("list dead letters of queue "+string(name), deadPage, 0, func(after *jobs.Letter, limit int) ([]jobs.Letter, error) {
		var last int64
		if after != nil {
			last, _ = strconv.ParseInt(after.Receipt, 10, 64)
		}
		return collect(ctx, q.dead, func(rows *sql.Rows) (l jobs.Letter, err error) {
			var id, buried int64
			var why []byte
			if err := rows.Scan(&id, &buried, &why, &l.Body); err != nil {
				return l, err
			}
			l.ID = strconv.FormatInt(id, 10)
			l.Receipt, l.At = l.ID, fromNanos(buried)
			return l, json.Unmarshal(why, &l.Burial)
		}, string(name), last, limit)
	})
}

// Discard removes letters, all or none.
func (q *Queue) Discard(ctx context.Context, name jobs.QueueName, letters ...jobs.Letter) error {
	if len(letters) == 0 {
		return nil
	}
	err := q.db.write(ctx, func() error {
		for _, l := range letters {
			id, err := strconv.ParseInt(l.Receipt, 10, 64)
			if err != nil {
				continue // of no letter that was ever here
			}
			if _, err := q.discard.Exec(string(name), id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("discard %d dead letters of queue %s: %w", len(letters), name, err)
	}
	return nil
}

// move is a move of this process: what it has not moved when the process ends stays where it is.
type move struct {
	jobs.Move
	stop context.CancelFunc
	over chan struct{}
}

// Move begins to move the letters that are there now; one that is buried again meanwhile is not moved a second time.
func (q *Queue) Move(ctx context.Context, name jobs.QueueName, perSecond int) error {
	if perSecond < 0 || perSecond > jobs.MaxMoveRate {
		return jobs.Errorf(jobs.CodeInvalid, "move the dead letters of queue %s: %d a second is not from 0 to %d", name, perSecond, jobs.MaxMoveRate)
	}
	var last int64
	m := &move{Move: jobs.Move{State: jobs.MoveRunning, Began: q.now()}, over: make(chan struct{})}
	if err := q.lastDead.QueryRowContext(ctx, string(name)).Scan(&m.Total, &last); err != nil {
		return fmt.Errorf("move the dead letters of queue %s: %w", name, sentence(err))
	}
	ctx, m.stop = context.WithCancel(context.WithoutCancel(ctx))
	q.mu.Lock()
	defer q.mu.Unlock()
	if all := q.moves[name]; len(all) > 0 && all[len(all)-1].State == jobs.MoveRunning {
		m.stop()
		return fmt.Errorf("move the dead letters of queue %s: they are being moved: %w", name, jobs.ErrConflict)
	}
	all := append(q.moves[name], m)
	q.moves[name] = all[max(0, len(all)-movesKept):]
	go func() { // ended by StopMove and endMoves
		defer close(m.over)
		defer m.stop()
		q.run(ctx, m, name, perSecond, last)
	}()
	return nil
}

// run moves letters up to the last one, a second's worth at a time.
func (q *Queue) run(ctx context.Context, m *move, name jobs.QueueName, perSecond int, last int64) {
	limit := deadPage
	if perSecond > 0 {
		limit = perSecond
	}
	for {
		moved, err := q.unburyOldest(ctx, name, last, limit)
		q.mu.Lock()
		m.Moved += moved
		switch {
		case ctx.Err() != nil:
			m.State = jobs.MoveStopped
		case err != nil:
			m.State, m.Why = jobs.MoveFailed, err.Error()
		case moved < int64(limit):
			m.State = jobs.MoveCompleted
		}
		running := m.State == jobs.MoveRunning
		q.mu.Unlock()
		if !running {
			return
		}
		if perSecond > 0 {
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
	}
}

func (q *Queue) unburyOldest(ctx context.Context, name jobs.QueueName, last int64, limit int) (moved int64, err error) {
	err = q.db.write(ctx, func() error {
		result, err := q.unbury.Exec(string(name), nanos(q.now()), last, limit)
		if err != nil {
			return err
		}
		if moved, err = result.RowsAffected(); err != nil {
			return err
		}
		_, err = q.discardOldest.Exec(string(name), last, limit)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("move dead letters of queue %s: %w", name, err)
	}
	q.stir(name)
	return moved, nil
}

// Moves tells of the moves of this process.
func (q *Queue) Moves(_ context.Context, name jobs.QueueName) ([]jobs.Move, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var told []jobs.Move
	for _, m := range slices.Backward(q.moves[name]) {
		told = append(told, m.Move)
	}
	return told, nil
}

// StopMove ends the move that is under way, and waits until it has ended.
func (q *Queue) StopMove(_ context.Context, name jobs.QueueName) error {
	q.mu.Lock()
	all := q.moves[name]
	if len(all) == 0 || all[len(all)-1].State != jobs.MoveRunning {
		q.mu.Unlock()
		return fmt.Errorf("stop the move of the dead letters of queue %s: none is under way: %w", name, jobs.ErrNotFound)
	}
	m := all[len(all)-1]
	q.mu.Unlock()
	m.stop()
	<-m.over
	return nil
}

// endMoves ends all moves, before the database is closed under them.
func (q *Queue) endMoves() {
	q.mu.Lock()
	var all []*move
	for _, of := range q.moves {
		all = append(all, of...)
	}
	q.mu.Unlock()
	for _, m := range all {
		m.stop()
		<-m.over
	}
}
