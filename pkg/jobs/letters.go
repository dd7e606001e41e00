package jobs

import (
	"context"
	"errors"
	"fmt"
)

// LetterStanding is what the ledger says to a letter.
type LetterStanding string

// What the ledger says to a letter.
const (
	LetterDead       LetterStanding = "dead"       // a dead chunk, which it would redrive
	LetterStale      LetterStanding = "stale"      // it would do nothing: its chunk is not dead, or was buried again since
	LetterUnreadable LetterStanding = "unreadable" // no message of fanout
	LetterOther      LetterStanding = "other"      // a message that the queue itself gave up: nobody could take it
)

// Letters looks at up to limit letters of a queue as they are, with what the ledger says to each.
func (i *Inspector) Letters(ctx context.Context, q QueueName, limit int) ([]Letter, []LetterStanding, error) {
	var all []Letter
	var standings []LetterStanding
	for l, err := range i.dead.Peek(ctx, q) {
		if err != nil {
			return nil, nil, err
		}
		all = append(all, l)
		if len(all) == limit {
			break
		}
	}
	for n := range all {
		s, err := i.letterStanding(ctx, &all[n])
		if err != nil {
			return nil, nil, fmt.Errorf("list dead letters of queue %s: %w", q, err)
		}
		standings = append(standings, s)
	}
	return all, standings, nil
}

func (i *Inspector) letterStanding(ctx context.Context, l *Letter) (LetterStanding, error) {
	b, err := DecodeMessage(l.Body)
	switch {
	case err != nil && !errors.Is(err, ErrNewer):
		return LetterUnreadable, nil
	case err != nil || b.Chunk == nil:
		return LetterOther, nil
	}
	id := b.Chunk.ID()
	for c, err := range i.ports.Ledger.Chunks(ctx, id.Job, id.Split, At(id.Offset)) {
		switch {
		case err != nil:
			return "", err
		case c.Dead && b.Chunk.Burial == c.Burial && !c.Purged:
			return LetterDead, nil
		case !c.Dead && !c.Done() && l.Burial.Number == 0:
			return LetterOther, nil // it was never judged
		}
		return LetterStale, nil
	}
	return LetterOther, nil
}

// Move begins to move all dead letters of a queue back into it, as they are: at the transport's own pace, or at most so many
// a second. What its job does not take back comes back here, with the reason.
func (i *Inspector) Move(ctx context.Context, q QueueName, perSecond int, by string) error {
	d, err := i.ports.Queue.Depth(ctx, q)
	if err == nil {
		err = i.dead.Move(ctx, q, perSecond)
	}
	if err != nil {
		return err
	}
	return Audit(ctx, i.ports, AuditRecord{By: by, What: "dlq.move", Of: string(q), Count: d.Dead})
}

// Moves tells of the last moves of a queue, newest first.
func (i *Inspector) Moves(ctx context.Context, q QueueName) ([]Move, error) {
	return i.dead.Moves(ctx, q)
}

// StopMove ends a move.
func (i *Inspector) StopMove(ctx context.Context, q QueueName, by string) error {
	if err := i.dead.StopMove(ctx, q); err != nil {
		return err
	}
	return Audit(ctx, i.ports, AuditRecord{By: by, What: "dlq.move_stop", Of: string(q)})
}
