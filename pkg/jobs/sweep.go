package jobs

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// The sweep visits every open job once a minute. It is nothing but advance for whatever has not moved: it expires, lets
// probes through, releases what was parked, sends missing messages again from the ledger, and closes what has long ended. It
// also sends the notices that are due.

// resendAfter is how long nothing moves before everything that is missing is sent again; it doubles with each time.
// A job that is still validating has nothing in the ledger to wait for but its scans, so there it is a minute at first.
const (
	resendAfter     = time.Hour
	resendScanAfter = time.Minute
)

func (a *Aggregate) sweep(ctx context.Context) error {
	failed := []error{a.sweepJobs(ctx)}
	if a.opt.Webhooks {
		failed = append(failed, a.sweepDue(ctx))
	}
	return errors.Join(failed...)
}

func (a *Aggregate) sweepJobs(ctx context.Context) error {
	var failed []error
	spent := &spendings{held: map[string]*Pause{}}
	for j, err := range a.Ledger.Jobs(ctx, JobQuery{Open: true}) {
		if err != nil {
			return errors.Join(append(failed, fmt.Errorf("list the open jobs: %w", err))...)
		}
		if err := a.sweepJob(ctx, &j, spent); err != nil && !errors.Is(err, ErrConflict) { // who was faster moved it
			failed = append(failed, fmt.Errorf("sweep job %s: %w", j.ID, err))
		}
	}
	return errors.Join(failed...)
}

func (a *Aggregate) sweepJob(ctx context.Context, j *Job, spent *spendings) error {
	now := a.Now()
	switch {
	case j.untold():
		return nudge(ctx, a.Ports, j.ID, WholeJob)
	case j.Phase.Ended():
		if now.Sub(j.Entered[j.Phase]) < keepOpen {
			return nil
		}
		return a.close(ctx, j)
	case j.Stop == nil && !j.Deadline.IsZero() && !now.Before(j.Deadline):
		return ExpireJob(ctx, a.Ports, j.ID, "its completion window ended at "+j.Deadline.UTC().Format(time.RFC3339))
	case j.Stop != nil && now.Sub(j.MovedAt) >= time.Minute:
		return advanceAll(ctx, &a.Ports, j, QueueAggregate)
	}
	if held, err := a.heedSpending(ctx, j, spent); held || err != nil {
		return err
	}
	if err := a.release(ctx, j, now.Add(2*releaseFor), func(s *Split) bool { return s.Totals.Parked > 0 }); err != nil {
		return err
	}
	wait := backOff(resendAfter, j.Resends, 24*time.Hour)
	if j.Phase == PhaseValidating {
		wait = backOff(resendScanAfter, j.Resends, resendAfter)
	}
	if since := laterOf(j.MovedAt, j.ResentAt); j.Pause == nil && (j.Missing || now.Sub(since) >= wait) {
		if j.Missing { // before, not after: else what cannot be sent whole is begun anew each minute
			j.Missing = false
			if err := a.saveJob(ctx, j); err != nil {
				return err
			}
		}
		if err := a.resend(ctx, j); err != nil {
			return err
		}
		j.ResentAt, j.Resends = now, j.Resends+1
		return a.saveJob(ctx, j)
	}
	// The next step's owner is told, so that it need not be passed on.
	all, err := survey(j, a.Ledger.Splits(ctx, j.ID))
	if err != nil {
		return fmt.Errorf("read its splits: %w", err)
	}
	step := NextForJob(j, all)
	if step == StepNone {
		return nil
	}
	return send(ctx, a.Queue, step.Owner(), encodeMessage(AdvanceMessage{SchemaVersion, j.ID, WholeJob}))
}

// close takes a job that has ended for good out of the sweep, once its files are of the newest generation: it folds
// everything once more, and if that finds news the job stays for another visit, but not for ever.
func (a *Aggregate) close(ctx context.Context, j *Job) error {
	hasFiles := j.Phase != PhaseFailed && j.Checked != nil
	if hasFiles && a.Now().Sub(j.Entered[j.Phase]) < keepOpenMost {
		current, err := a.current(ctx, j)
		if err != nil {
			return err
		}
		switch {
		case !current && j.takesBack(a.Now()):
			return a.resend(ctx, j) // perhaps a redrive was lost on its way
		case !current:
			return nudge(ctx, a.Ports, j.ID, WholeJob)
		}
	}
	j.Closed = true
	return a.saveJob(ctx, j)
}

// current brings every split up to date and tells whether the files of the job are.
func (a *Aggregate) current(ctx context.Context, j *Job) (bool, error) {
	for n := range j.Splits() {
		if err := a.advance(ctx, Message{}, &AdvanceMessage{SchemaVersion, j.ID, n}); err != nil {
			return false, err
		}
	}
	// The next step's owner is told, so that it need not be passed on.
	all, err := survey(j, a.Ledger.Splits(ctx, j.ID))
	return err == nil && all.Ready && j.Outputs != nil && j.Outputs.Of == all.Fold, err
}
