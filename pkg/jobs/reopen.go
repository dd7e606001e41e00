package jobs

import (
	"context"
	"errors"
	"fmt"
	"maps"
)

// Reopen makes a job that has completed, or has expired, ask again for what was given up: its dead chunks, and the items
// that ran out of time. It goes top down (rule 3): the chunks are named in their splits, the job is set in progress, and
// only then the messages are sent, from the ledger.
func Reopen(ctx context.Context, p Ports, id JobID) error {
	j, err := p.Ledger.Job(ctx, id)
	if err != nil {
		return fmt.Errorf("reopen job %s: %w", id, err)
	}
	if err := j.mayReopen(); err != nil {
		return err
	}
	for n := range j.Splits() {
		if err := p.nameDead(ctx, id, n); err != nil {
			return fmt.Errorf("reopen job %s, split %d: %w", id, n, err)
		}
	}
	err = untilSaved(func() (err error) {
		if j, err = p.Ledger.Job(ctx, id); err != nil {
			return err
		}
		if err := j.mayReopen(); err != nil {
			return err
		}
		j.Stop = nil
		j.reopen(p.Now())
		return p.saveJob(ctx, &j)
	})
	if err != nil {
		return fmt.Errorf("reopen job %s: %w", id, err)
	}
	return p.resend(ctx, &j)
}

// mayReopen refuses what cannot be reopened. A job in progress can: an earlier reopening may have been interrupted.
func (j *Job) mayReopen() error {
	switch j.Phase {
	case PhaseCompleted, PhaseExpired, PhaseInProgress:
		return nil
	default:
		return Errorf(CodeConflict, "reopen job %s: it is %s; only a completed or an expired job can be reopened", j.ID, j.Phase)
	}
}

// Resend sends every message of a job that the ledger says is missing.
func Resend(ctx context.Context, p Ports, id JobID) error {
	j, err := p.Ledger.Job(ctx, id)
	if err == nil {
		err = p.resend(ctx, &j)
	}
	if err != nil {
		return fmt.Errorf("send the messages of job %s again: %w", id, err)
	}
	return nil
}

// nameDead names a split's dead chunks as reopening, and takes the split for unsettled until it is folded again.
func (p *Ports) nameDead(ctx context.Context, id JobID, n int) error {
	return untilSaved(func() error {
		s, err := p.Ledger.Split(ctx, id, n)
		if errors.Is(err, ErrNotFound) || err == nil && s.Scanned == nil {
			return nil // it expired before it was scanned
		}
		if err != nil {
			return err
		}
		named := maps.Clone(s.Reopening)
		if named == nil {
			named = map[int64]int{}
		}
		open := false
		seen := 0
		for c, err := range p.Ledger.Chunks(ctx, id, n, OffsetRange{}) {
			if err != nil {
				return err
			}
			seen++
			open = open || !c.Done()
			if c.Dead && !c.Done() && !c.Purged {
				named[c.ID.Offset] = c.Burial
			}
		}
		if !open && seen == s.Scanned.Chunks {
			return nil
		}
		s.Reopening, s.Settled = named, false
		return p.Ledger.SaveSplit(ctx, &s)
	})
}

// Progress sums up a job from its chunks as they are now, for who cannot wait for the next fold.
func Progress(ctx context.Context, p Ports, j *Job) (Totals, error) {
	var sum Totals
	for s, err := range p.Ledger.Splits(ctx, j.ID) {
		if err != nil {
			return sum, fmt.Errorf("sum up job %s: %w", j.ID, err)
		}
		if s.Scanned == nil {
			continue
		}
		sum.Items += s.Scanned.Items
		for c, err := range p.Ledger.Chunks(ctx, j.ID, s.N, OffsetRange{}) {
			if err != nil {
				return sum, fmt.Errorf("sum up job %s, split %d: %w", j.ID, s.N, err)
			}
			sum = sum.Add(c.Totals)
		}
	}
	return sum, nil
}

// Folded sums up a job from the last folds of its splits, which are newer than its own: one list, whatever its size.
func Folded(ctx context.Context, l Ledger, j *Job) (Totals, error) {
	all, err := survey(j, l.Splits(ctx, j.ID))
	if err != nil {
		return Totals{}, fmt.Errorf("sum up job %s: %w", j.ID, err)
	}
	return all.Totals, nil
}

// resend sends every message that the ledger says is missing. Those that are not missing after all change nothing.
func (p *Ports) resend(ctx context.Context, j *Job) error {
	for n := range j.Splits() {
		s, err := p.Ledger.Split(ctx, j.ID, n)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("read split %d: %w", n, err)
		}
		if step := NextForSplit(j, &s, false); step != StepNone {
			if err := send(ctx, p.Queue, step.Owner(), encodeMessage(AdvanceMessage{SchemaVersion, j.ID, n})); err != nil {
				return err
			}
		}
		if s.Dispatched {
			if err := p.resendChunks(ctx, j, &s); err != nil {
				return fmt.Errorf("split %d: %w", n, err)
			}
		}
	}
	return send(ctx, p.Queue, QueueIngest, encodeMessage(AdvanceMessage{SchemaVersion, j.ID, WholeJob}))
}

// resendChunks sends the messages of those chunks of a split that nobody holds and that are not settled. They carry the
// record's burial number; that of an interrupted burial one less, so that it is finished and not taken for a redrive.
func (p *Ports) resendChunks(ctx context.Context, j *Job, s *Split) error {
	messages, err := p.messagesOf(ctx, j, s)
	if err != nil {
		return err
	}
	for c, err := range p.Ledger.Chunks(ctx, j.ID, s.N, OffsetRange{}) {
		if err != nil {
			return fmt.Errorf("read its chunks: %w", err)
		}
		m := messages[c.ID.Offset]
		reopening := s.reopens(&c)
		switch {
		case m == nil:
		case c.Done(), p.alive(&c), c.Waits != "", c.Dead && c.Buried && !reopening:
			delete(messages, c.ID.Offset)
		case c.Dead && !reopening:
			m.Burial = c.Burial - 1
		default:
			m.Burial = c.Burial
		}
	}
	return sendChunks(ctx, p.Queue, messages)
}
