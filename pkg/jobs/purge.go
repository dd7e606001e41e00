package jobs

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// PurgeQuery is which dead chunks are purged.
type PurgeQuery struct {
	DeadQuery
	DryRun bool // nothing is purged, only counted
}

// Purged is what a purge has cleared out, or would.
type Purged struct {
	Chunks  int64   // or letters, where it is these that are purged
	Cleared int64   // letters taken out of the queue; those that are left do nothing
	Next    ChunkID // where to go on, if More
	More    bool
}

// Purge clears dead chunks out of the dead letters: nobody lists or redrives them any more, and their items stay failed.
func (i *Inspector) Purge(ctx context.Context, q PurgeQuery, by string) (Purged, error) {
	p := purge{i: i, q: q, gone: map[ChunkID]int{}}
	err := p.run(ctx)
	if len(p.gone) > 0 { // also what was done before something went wrong
		p.done.Cleared = i.clear(ctx, p.gone)
		what := AuditRecord{By: by, What: "dlq.purge", Tenant: q.Tenant, Of: string(q.Job), Count: p.done.Chunks, Why: q.String()}
		err = errors.Join(err, p.foldAgain(ctx), Audit(context.WithoutCancel(ctx), i.ports, what))
	}
	if err != nil {
		return p.done, fmt.Errorf("purge: %w", err)
	}
	return p.done, nil
}

// purge is one call of Purge.
type purge struct {
	i    *Inspector
	q    PurgeQuery
	done Purged
	gone map[ChunkID]int // burial numbers
}

func (p *purge) run(ctx context.Context) error {
	all := p.q.DeadQuery
	all.Max = 0 // of those that are purged, not of those that are looked at
	for d, err := range p.i.Dead(ctx, all) {
		switch {
		case err != nil:
			return err
		case d.State == DeadLater:
			p.done.More, p.done.Next = true, d.ID
			return nil
		case d.State == DeadOnItsWay:
			continue
		case p.q.Max > 0 && p.done.Chunks == int64(p.q.Max):
			return nil
		case !p.q.DryRun:
			c := d.chunk
			c.Purged = true
			if err := p.i.ports.Ledger.SaveChunk(ctx, &c); errors.Is(err, ErrConflict) {
				continue // somebody redrives it
			} else if err != nil {
				return fmt.Errorf("chunk %s: %w", d.ID, err)
			}
			p.gone[d.ID] = d.Burial
		}
		p.done.Chunks++
	}
	return nil
}

// foldAgain has the counts of what was purged made anew.
func (p *purge) foldAgain(ctx context.Context) error {
	splits := map[splitKey]bool{}
	for id := range p.gone {
		splits[splitKey{id.Job, id.Split}] = true
	}
	bodies := make([][]byte, 0, len(splits))
	for s := range splits {
		bodies = append(bodies, encodeMessage(AdvanceMessage{SchemaVersion, s.job, s.n}))
	}
	slices.SortFunc(bodies, bytes.Compare)
	return send(context.WithoutCancel(ctx), p.i.ports.Queue, QueueAggregate, bodies...)
}

// LettersQuery is which letters of a queue are purged.
type LettersQuery struct {
	Queue     QueueName
	OnlyStale bool      // those that would do nothing
	DryRun    bool      // nothing is purged, only counted
	Until     time.Time // it ends then, with More; the same call again goes on. Zero = when all is done
}

// PurgeLetters removes the letters of a queue as they are.
func (i *Inspector) PurgeLetters(ctx context.Context, q LettersQuery, by string) (Purged, error) {
	var done Purged
	var failed error
	n, err := i.discard(ctx, q.Queue, func(l *Letter) verdictOnLetter {
		if !q.Until.IsZero() && !i.ports.Now().Before(q.Until) {
			done.More = true
			return letterEnds
		}
		if q.OnlyStale {
			s, err := i.letterStanding(ctx, l)
			if err != nil {
				failed = err
				return letterEnds
			}
			if s != LetterStale {
				return letterStays
			}
		}
		done.Chunks++
		if q.DryRun {
			return letterStays
		}
		return letterGoes
	})
	if !q.DryRun {
		done.Chunks, done.Cleared = n, n
	}
	err = cmp.Or(err, failed)
	if n > 0 {
		err = errors.Join(err, Audit(context.WithoutCancel(ctx), i.ports, AuditRecord{By: by, What: "dlq.purge", Of: string(q.Queue), Count: n}))
	}
	if err != nil {
		return done, fmt.Errorf("purge the dead letters of queue %s: %w", q.Queue, err)
	}
	return done, nil
}
