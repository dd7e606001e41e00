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
	maxSteps     = 64               // steps of one visit: more than any split needs
	firstStepTry = 30 * time.Second // doubling twice with each try: half an hour of tries in all
	mostStepTry  = 15 * time.Minute
	stepLease    = 2 * time.Minute // whoever began a step is taken to be at it for so long
)

// task is a step that is due, bound to the records that say so.
type task struct {
	step  Step
	where string // for errors: "scan split 3 of job x"
	try   Try    // the last one, without end
	run   func() error
}

// advance visits a split, or the job itself. nil = nothing is left to do here.
func (v *visitor) advance(ctx context.Context, d Message, m *AdvanceMessage) error {
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
		t, err := v.next(ctx, &j, m, folded)
		switch {
		case err != nil:
			return err
		case t.step == StepNone:
			return nil
		case t.step.Owner() != v.queue:
			return send(ctx, v.Queue, t.step.Owner(), encodeMessage(m))
		case t.try.under(&v.Ports):
			until := t.try.At.Add(stepLease)
			return v.comeAgain(ctx, d, until, &Deferred{Until: until, Why: "somebody is at it: " + t.where})
		case t.try.Count >= MaxTries:
			return v.giveUp(ctx, j.ID, t, errors.New("its process died each time"))
		}
		err = guard(t.run)
		switch {
		case err == nil:
			folded = folded || t.step == StepFold
		case errors.Is(err, errDone):
			return nil
		case errors.Is(err, ErrConflict): // somebody moved it meanwhile: look again
			folded = false
		default:
			return v.failed(ctx, d, m, t, err)
		}
	}
	return Errorf(CodeInternal, "advance job %s, split %d: still not at rest after %d steps", m.Job, m.Split, maxSteps)
}

// errDone ends a visit: others do what comes next.
var errDone = errors.New("done")

// guard makes an error of a panic, so that a step that panics uses up its tries.
func guard(step func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	return step()
}

// next reads what Next needs and binds the step to what it read.
func (v *visitor) next(ctx context.Context, j *Job, m *AdvanceMessage, folded bool) (task, error) {
	if m.Split == WholeJob {
		all, err := survey(j, v.Ledger.Splits(ctx, j.ID))
		if err != nil {
			return task{}, fmt.Errorf("read the splits of job %s: %w", j.ID, err)
		}
		step := NextForJob(j, all)
		run := func() error { return v.job[step](ctx, j, all) }
		return task{step, fmt.Sprintf("%s job %s", step, j.ID), j.Tries[step], run}, nil
	}
	if m.Split >= j.Splits() {
		return task{}, nil
	}
	s, err := v.Ledger.Split(ctx, j.ID, m.Split)
	if errors.Is(err, ErrNotFound) {
		s, err = Split{V: SchemaVersion, Job: j.ID, N: m.Split}, nil
	}
	if err != nil {
		return task{}, fmt.Errorf("read split %d of job %s: %w", m.Split, j.ID, err)
	}
	step := NextForSplit(j, &s, folded)
	run := func() error { return v.split[step](ctx, j, &s) }
	return task{step, fmt.Sprintf("%s split %d of job %s", step, m.Split, j.ID), s.Tries[step], run}, nil
}

// failed puts the message off, and stops the job when the step has had its last try.
func (v *visitor) failed(ctx context.Context, d Message, m *AdvanceMessage, t task, failure error) error {
	var off *Deferred
	if errors.As(failure, &off) {
		return v.comeAgain(ctx, d, off.Until, failure)
	}
	failure = fmt.Errorf("%s: %w", t.where, failure)
	switch {
	case ctx.Err() != nil: // it was cut short: that says nothing of the step
		return failure
	case t.step.counted() && t.try.Count+1 >= MaxTries:
		return v.giveUp(ctx, m.Job, t, failure)
	case t.step.counted():
		v.letGo(ctx, m, t.step)
	}
	return v.comeAgain(ctx, d, v.Now().Add(v.Jitter(backOff(firstStepTry, 2*t.try.Count, mostStepTry))), failure)
}

func (v *visitor) comeAgain(ctx context.Context, d Message, until time.Time, why error) error {
	if d.ID == "" {
		return why // nobody sent for it: the sweep looks by itself
	}
	if err := v.Queue.Defer(context.WithoutCancel(ctx), until, d); err != nil {
		return errors.Join(why, fmt.Errorf("defer a message: %w", err))
	}
	return why
}

// giveUp stops the job: a step of it does not end.
func (v *visitor) giveUp(ctx context.Context, id JobID, t task, why error) error {
	reason := fmt.Sprintf("%s: begun %d times without end; last: %v", t.where, MaxTries, why)
	v.Log.ErrorContext(ctx, "stop a job", "job", id, "reason", reason)
	return writeStop(ctx, &v.Ports, id, Stop{As: PhaseFailed, Code: string(CodeInternal), Reason: reason})
}

// counted tells whether the tries of a step are counted in the record before it is begun.
func (s Step) counted() bool {
	switch s {
	case StepScan, StepCheck, StepCompact, StepFinalize:
		return true
	default:
		return false
	}
}

// begun is the tries with one more of the step, by this process now.
func (t Tries) begun(step Step, p *Ports) Tries {
	t = maps.Clone(t)
	if t == nil {
		t = Tries{}
	}
	t[step] = Try{Count: t[step].Count + 1, Owner: p.newOwner(), At: p.Now()}
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

// under tells whether somebody is at the step, as far as can be known: two that do the same would only make each other
// begin again.
func (t Try) under(p *Ports) bool {
	return t.Owner != "" && p.Now().Before(t.At.Add(stepLease)) && (!p.Sole || ownerProcess(t.Owner) == p.Process)
}

// letGo notes that nobody is at the step any more, if that can be noted.
func (v *visitor) letGo(ctx context.Context, m *AdvanceMessage, step Step) {
	ctx = context.WithoutCancel(ctx)
	err := untilSaved(func() error {
		if m.Split == WholeJob {
			j, err := v.Ledger.Job(ctx, m.Job)
			if err != nil {
				return err
			}
			if j.Tries = j.Tries.left(step); j.Tries == nil {
				return nil
			}
			return v.saveJob(ctx, &j)
		}
		s, err := v.Ledger.Split(ctx, m.Job, m.Split)
		if err != nil {
			return err
		}
		if s.Tries = s.Tries.left(step); s.Tries == nil {
			return nil
		}
		return v.Ledger.SaveSplit(ctx, &s)
	})
	if err != nil {
		v.Log.WarnContext(ctx, "let go of a step", "step", step, "job", m.Job, "split", m.Split, "error", err)
	}
}

// left is the tries with nobody at the step; nil if nobody is.
func (t Tries) left(step Step) Tries {
	try := t[step]
	if try.Owner == "" {
		return nil
	}
	t = maps.Clone(t)
	try.Owner = ""
	t[step] = try
	return t
}
