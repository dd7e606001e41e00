package jobs

import (
	"context"
	"fmt"
)

// leastOutcomes is how many outcomes it takes to judge by a job's share of failures.
const leastOutcomes = 100

// tooManyFail tells whether more of its outcomes are failures than the job tolerates. A job that somebody has resumed goes
// on: whoever did that has seen the failures.
func (j *Job) tooManyFail(t Totals) bool {
	outcomes := t.Answered + t.Failed
	return j.Tolerated != nil && j.Pause == nil && j.Resumed.IsZero() && !j.Stopped() &&
		outcomes >= leastOutcomes && outcomes < t.Items && 100*float64(t.Failed) > *j.Tolerated*float64(outcomes)
}

// heedTolerance pauses a job of whose outcomes too many are failures, so that the rest is not paid for before somebody has
// looked. A split of it was folded with news.
func (a *Aggregate) heedTolerance(ctx context.Context, j *Job) error {
	if j.Tolerated == nil || j.Pause != nil || !j.Resumed.IsZero() || j.Stopped() {
		return nil
	}
	all, err := survey(j, a.Ledger.Splits(ctx, j.ID))
	if err != nil {
		return fmt.Errorf("read its splits: %w", err)
	}
	return untilSaved(func() error {
		j, err := a.Ledger.Job(ctx, j.ID)
		if err != nil || !j.tooManyFail(all.Totals) {
			return err
		}
		t := all.Totals
		j.Pause = &Pause{Reason: PauseTolerated, At: a.Now(), Message: fmt.Sprintf(
			"%d of %d outcomes are failures, and the job tolerates %g %% of them; resume it, or cancel it", t.Failed, t.Answered+t.Failed, *j.Tolerated)}
		return a.saveJob(ctx, &j)
	})
}
