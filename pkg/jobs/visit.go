package jobs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"time"
)

// visitor looks where a message says and does the steps that its queue owns, one after the other, until nothing is due or
// the next step is another's. Ingest and Aggregate are visitors with different steps.
type visitor struct {
	Ports
	queue QueueName
	split map[Step]func(ctx context.Context, j *Job, s *Split) error
	job   map[Step]func(ctx context.Context, j *Job, all Survey) error
}

const (
	maxSteps     = 64 // steps of one visit: more than any split needs
	firstStepTry = 10 * time.Second
	mostStepTry  = 15 * time.Minute
)

// advance visits a split, or the job itself. nil = nothing is left to do here.
func (v *visitor) advance(ctx context.Context, d Message, m *AdvanceMessage) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("advance job %s, split %d: panic: %v\n%s", m.Job, m.Split, r, debug.Stack())
		}
	}()
	folded := false
	for range maxSteps {
		j, err := v.Ledger.Job(ctx, m.Job)
		if errors.Is(err, ErrNotFound) {
			v.Log.WarnContext(ctx, "dropped a message of an unknown job", "job", m.Job)
			return nil
		}
		if err != nil {
			return fmt.Errorf("read job %s: %w", m.Job, err)
		}
		step, run, err := v.next(ctx, &j, m, folded)
		switch {
		case err != nil:
			return err
		case step == StepNone:
			return nil
		case step.Owner() != v.queue:
			return send(ctx, v.Queue, step.Owner(), encodeMessage(m))
		}
		err = run()
		switch {
		case err == nil:
			folded = folded || step == StepFold
		case errors.Is(err, ErrConflict): // somebody moved it meanwhile: look again
			folded = false
		default:
			return v.stepFailed(ctx, d, &j, m.Split, step, err)
		}
	}
	return Errorf(CodeInternal, "advance job %s, split %d: still not at rest after %d steps", m.Job, m.Split, maxSteps)
}

// next reads what Next needs and binds the step to what it read.
func (v *visitor) next(ctx context.Context, j *Job, m *AdvanceMessage, folded bool) (Step, func() error, error) {
	if m.Split == WholeJob {
		all, err := survey(j, v.Ledger.Splits(ctx, j.ID))
		if err != nil {
			return StepNone, nil, fmt.Errorf("read the splits of job %s: %w", j.ID, err)
		}
		step := NextForJob(j, all)
		return step, func() error { return v.job[step](ctx, j, all) }, nil
	}
	if m.Split >= j.Splits() {
		return StepNone, nil, nil
	}
	s, err := v.Ledger.Split(ctx, j.ID, m.Split)
	if errors.Is(err, ErrNotFound) {
		s, err = Split{V: SchemaVersion, Job: j.ID, N: m.Split}, nil
	}
	if err != nil {
		return StepNone, nil, fmt.Errorf("read split %d of job %s: %w", m.Split, j.ID, err)
	}
	step := NextForSplit(j, &s, folded)
	return step, func() error { return v.split[step](ctx, j, &s) }, nil
}

// stepFailed puts the message off, and stops the job when a step that counts its tries has had its last.
func (v *visitor) stepFailed(ctx context.Context, d Message, j *Job, split int, step Step, failure error) error {
	var off *Deferred
	if errors.As(failure, &off) {
		if err := v.Queue.Defer(context.WithoutCancel(ctx), off.Until, d); err != nil {
			return fmt.Errorf("defer a message: %w", err)
		}
		return failure
	}
	where := fmt.Sprintf("%s job %s", step, j.ID)
	if split != WholeJob {
		where = fmt.Sprintf("%s split %d of job %s", step, split, j.ID)
	}
	failure = fmt.Errorf("%s: %w", where, failure)
	tries := v.triesOf(ctx, j.ID, split, step)
	if tries >= MaxTries {
		stop := Stop{As: PhaseFailed, Code: string(CodeInternal), Reason: fmt.Sprintf("%s failed %d times, last: %v", where, tries, failure)}
		return stopJobAs(ctx, &v.Ports, j.ID, stop)
	}
	if ctx.Err() != nil {
		return failure
	}
	until := v.Now().Add(v.Jitter(backOff(firstStepTry, 2*max(0, tries-1), mostStepTry)))
	if err := v.Queue.Defer(context.WithoutCancel(ctx), until, d); err != nil {
		return errors.Join(failure, fmt.Errorf("defer a message: %w", err))
	}
	return failure
}

// triesOf reads how often the step was begun; what cannot be read counts as none.
func (v *visitor) triesOf(ctx context.Context, job JobID, split int, step Step) int {
	if split == WholeJob {
		j, err := v.Ledger.Job(ctx, job)
		if err != nil {
			return 0
		}
		return j.Tries[step]
	}
	s, err := v.Ledger.Split(ctx, job, split)
	if err != nil {
		return 0
	}
	return s.Tries[step]
}

// begun is the tries with one more of the step.
func (t Tries) begun(step Step) Tries {
	t = maps.Clone(t)
	if t == nil {
		t = Tries{}
	}
	t[step]++
	return t
}

// done is the tries without those of the step.
func (t Tries) done(step Step) Tries {
	t = maps.Clone(t)
	delete(t, step)
	if len(t) == 0 {
		return nil
	}
	return t
}
