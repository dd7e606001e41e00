package jobs

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// CancelJob stops a job on demand: what is in flight is finished, what was answered is published. Cancelling one that was
// stopped or has ended changes nothing. It returns the job as it then is.
func CancelJob(ctx context.Context, p Ports, id JobID, reason string) (Job, error) {
	if err := writeStop(ctx, &p, id, Stop{As: PhaseCancelled, Code: ItemCancelled, Reason: reason}); err != nil {
		return Job{}, err
	}
	return p.Ledger.Job(ctx, id)
}

// ExpireJob stops a job whose window has passed, or that was given up.
func ExpireJob(ctx context.Context, p Ports, id JobID, reason string) error {
	return writeStop(ctx, &p, id, Stop{As: PhaseExpired, Code: ItemExpired, Reason: reason})
}

// writeStop writes a stop as a fact of the job, unless one is written already or the job has ended, and sends everybody to
// look. A failed job ends at once, without files; it passes through finalizing within this one save.
func writeStop(ctx context.Context, p *Ports, id JobID, stop Stop) error {
	ctx = context.WithoutCancel(ctx)
	var j Job
	written := false
	err := untilSaved(func() (err error) {
		if j, err = p.Ledger.Job(ctx, id); err != nil {
			return err
		}
		if j.Phase.Ended() || j.Stop != nil && stop.As != PhaseFailed { // what cannot be published fails, whatever stopped it
			return nil
		}
		stop.At = p.Now()
		j.Stop, j.Pause = &stop, nil
		if j.Phase != PhaseFinalizing {
			j.moveTo(PhaseFinalizing, stop.At)
		}
		if stop.As == PhaseFailed {
			j.moveTo(PhaseFailed, stop.At)
		}
		written = true
		return p.saveJob(ctx, &j)
	})
	if err != nil {
		return fmt.Errorf("stop job %s: %w", id, err)
	}
	switch {
	case !written:
		return nil
	case stop.As == PhaseFailed:
		return nudge(ctx, *p, id, WholeJob) // it has ended: that is to be told
	}
	return advanceAll(ctx, p, &j, QueueAggregate)
}

// advanceAll sends everybody to look at the job and at each of its splits.
func advanceAll(ctx context.Context, p *Ports, j *Job, q QueueName) error {
	bodies := make([][]byte, 0, j.Splits()+1)
	for n := WholeJob; n < j.Splits(); n++ {
		bodies = append(bodies, encodeMessage(AdvanceMessage{SchemaVersion, j.ID, n}))
	}
	return send(ctx, p.Queue, q, bodies...)
}

// Resume ends the pause of a job, whoever set it, and sends what was parked. Who resumes has mended what was wrong: tries of
// steps are forgotten. What cannot be sent in a few seconds the sweep sends.
func Resume(ctx context.Context, p Ports, id JobID) error {
	j, was, err := p.unhold(ctx, id, false)
	if err == nil {
		err = p.release(ctx, &j, p.Now().Add(releaseFor), everySplit)
	}
	if err == nil && was != nil {
		err = send(ctx, p.Queue, QueueAggregate, TickBody())
	}
	if err != nil {
		return fmt.Errorf("resume job %s: %w", id, err)
	}
	return nil
}

// unhold takes the pause off a job, and tells which it was, nil if there was none. missing: if there was none, the sweep is to
// send everything again that the ledger misses.
func (p *Ports) unhold(ctx context.Context, id JobID, missing bool) (j Job, was *Pause, err error) {
	err = untilSaved(func() (err error) {
		if j, err = p.Ledger.Job(ctx, id); err != nil || j.Phase.Ended() {
			return err
		}
		was = j.Pause
		if was == nil && j.Tries == nil && !missing {
			return nil
		}
		if was != nil {
			j.Resumed = p.Now()
			for _, l := range was.limits() {
				if !slices.Contains(j.Waived, l) {
					j.Waived = append(slices.Clone(j.Waived), l)
				}
			}
		}
		j.Pause, j.Tries, j.Missing = nil, nil, j.Missing || missing && was == nil
		return p.saveJob(ctx, &j)
	})
	for s, failed := range p.Ledger.Splits(ctx, id) {
		if err = errors.Join(err, failed); err != nil {
			break
		}
		if s.Tries != nil {
			s.Tries = nil
			if err = p.Ledger.SaveSplit(ctx, &s); errors.Is(err, ErrConflict) {
				err = nil // it moves
			}
		}
	}
	return j, was, err
}

func everySplit(*Split) bool { return true }

// releaseNow sends what was parked as far as that is quickly done, and has the sweep do the rest.
func (p *Ports) releaseNow(ctx context.Context, j *Job) error {
	err := p.release(ctx, j, p.Now().Add(releaseFor), everySplit)
	return errors.Join(err, send(context.WithoutCancel(ctx), p.Queue, QueueAggregate, TickBody()))
}
