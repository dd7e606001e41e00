package jobs

import (
	"context"
	"errors"
	"fmt"
)

// A chunk is dead when every open item is spent. Its message then goes to the dead letters with the burial number in its
// body, and the record notes that it is there. Each of the three can be interrupted; a message that still carries a lower
// number finishes it. So the dead letters hold only work that was tried and judged, and all of it.

// bury finishes the burial of a dead chunk.
func (w *Worker) bury(ctx context.Context, d Message, c *Chunk) error {
	if err := w.sendToDead(ctx, d, c, burialOf(c)); err != nil {
		return err
	}
	number := c.Burial
	err := untilSaved(func() error {
		if !c.Dead || c.Buried || c.Burial != number {
			return nil // it was noted, or redriven meanwhile
		}
		c.Buried = true
		err := w.Ledger.SaveChunk(ctx, c)
		if errors.Is(err, ErrConflict) {
			return errors.Join(err, w.readChunk(ctx, c.ID, c))
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("note the burial of chunk %s: %w", c.ID, err)
	}
	return nudge(ctx, w.Ports, c.ID.Job, c.ID.Split)
}

// buryAgain sends redriven work that its job does not take back to where it came from.
func (w *Worker) buryAgain(ctx context.Context, d Message, c *Chunk, no *refusedWork) error {
	why := burialOf(c)
	why.Code, why.Message = no.code, no.why
	return w.sendToDead(ctx, d, c, why)
}

func (w *Worker) sendToDead(ctx context.Context, d Message, c *Chunk, why Burial) error {
	body, err := DecodeMessage(d.Body)
	if err != nil || body.Chunk == nil {
		return Errorf(CodeInternal, "bury chunk %s: its message is gone: %w", c.ID, err)
	}
	m := *body.Chunk
	m.Burial = why.Number
	dead := d
	dead.Body = encodeMessage(m)
	if err := w.Queue.Bury(context.WithoutCancel(ctx), dead, why); err != nil {
		return fmt.Errorf("bury chunk %s: %w", c.ID, err)
	}
	return nil
}

// burialOf says why a dead chunk is buried: the commonest last error of its open items.
func burialOf(c *Chunk) Burial {
	why := Burial{Number: c.Burial, Job: c.ID.Job, Code: "unknown", Attempts: c.Attempt}
	most := 0
	for _, g := range c.Errors {
		if n := g.Items.And(c.Open()).Count(); n > most {
			most, why.Code, why.Message = n, g.Code, g.Message
		}
	}
	return why
}
