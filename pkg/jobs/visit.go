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
	where string                   // for errors: "scan split 3 of job x"
	try   Try                      // the last one, without end
	begin func(owner string) error // notes a try
	run   func() error
	owner string // of the try that this visit has noted
}

// advance visits a split, or the job itself. nil = nothing is left to do here.
func (v *visitor) advance(ctx context.Context, d Message, m *AdvanceMessage) error {
	folded := false
	for range maxSteps {
		t, err := v.next(ctx, m, folded)
		switch {
		case errors.Is(err, errUnknown):
			v.Log.WarnContext(ctx, "dropped a message of an unknown job", "job", m.Job)
			return nil
		case err != nil:
			return err
		case t.step == StepNone:
			return nil
		case t.step.Owner() != v.queue && v.queue == QueueAggregate:
			return nil // it is under way there, or the sweep sends for it: a chain of messages never leads back up
		case t.step.Owner() != v.queue:
			return send(ctx, v.Queue, t.step.Owner(), encodeMessage(m))
		}
		if until := t.try.rests(&v.Ports); v.Now().Before(until) {
			why := "it was tried a moment ago: "
			if t.try.Owner != "" {
				why = "somebody is at it: "
			}
			return v.comeAgain(ctx, d, until, &Deferred{Until: until, Why: why + t.where})
		}
		if t.try.worn(v.Now()) {
			return v.giveUp(ctx, m.Job, t)
		}
		if t.step.counted() {
			t.owner = v.newOwner()
			err = t.begin(t.owner)
		}
		if err == nil {
			err = guard(t.run)
		}
		switch {
		case err == nil:
			folded = folded || t.step == StepFold
		case errors.Is(err, errDone):
			return nil
		case errors.Is(err, ErrConflict): // somebody moved it meanwhile: look again
			folded = false
			v.letGo(ctx, m, t, func(Try) Try { return t.try })
		default:
			return v.failed(ctx, d, m, t, err)
		}
	}
	return Errorf(CodeInternal, "advance job %s, split %d: still not at rest after %d steps", m.Job, m.Split, maxSteps)
}

// errDone ends a visit: others do what comes next.
var errDone = errors.New("done")

// stepPanic is a step that panicked.
type stepPanic struct{ error }

// guard makes an error of a panic, so that a step that panics uses up its tries.
func guard(step func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &stepPanic{fmt.Errorf("panic: %v\n%s", r, debug.Stack())}
		}
	}()
	return step()
}

// errUnknown is a message of a job that nobody knows.
var errUnknown = errors.New("no such job")

func (v *visitor) readJob(ctx context.Context, id JobID) (*Job, error) {
	j, err := v.Ledger.Job(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return nil, errUnknown
	}
	if err != nil {
		return nil, fmt.Errorf("read job %s: %w", id, err)
	}
	return &j, nil
}

// next reads what Next needs and binds the step to what it read. What a step will save is read first, and then the facts
// that it is made from, so that its save fails if another has seen newer ones: a split before its job, whose stop is one
// of the split's facts; the job before its splits.
func (v *visitor) next(ctx context.Context, m *AdvanceMessage, folded bool) (task, error) {
	if m.Split == WholeJob {
		return v.nextForJob(ctx, m.Job)
	}
	s, err := v.Ledger.Split(ctx, m.Job, m.Split)
	if errors.Is(err, ErrNotFound) {
		s, err = Split{V: SchemaVersion, Job: m.Job, N: m.Split}, nil
	}
	if err != nil {
		return task{}, fmt.Errorf("read split %d of job %s: %w", m.Split, m.Job, err)
	}
	j, err := v.readJob(ctx, m.Job)
	if err != nil || m.Split >= j.Splits() {
		return task{}, err
	}
	step := NextForSplit(j, &s, folded)
	return task{
		step: step, where: fmt.Sprintf("%s split %d of job %s", step, m.Split, j.ID), try: s.Tries[step],
		begin: func(owner string) error {
			s.Tries = s.Tries.begun(step, owner, v.Now())
			return v.Ledger.SaveSplit(ctx, &s)
		},
		run: func() error { return v.split[step](ctx, j, &s) },
	}, nil
}

func (v *visitor) nextForJob(ctx context.Context, id JobID) (task, error) {
	j, err := v.readJob(ctx, id)
	if err != nil {
		return task{}, err
	}
	all, err := survey(j, v.Ledger.Splits(ctx, id))
	if err != nil {
		return task{}, fmt.Errorf("read the splits of job %s: %w", id, err)
	}
	step := NextForJob(j, all)
	return task{
		step: step, where: fmt.Sprintf("%s job %s", step, id), try: j.Tries[step],
		begin: func(owner string) error {
			j.Tries = j.Tries.begun(step, owner, v.Now())
			return v.saveJob(ctx, j)
		},
		run: func() error { return v.job[step](ctx, j, all) },
	}, nil
}

// failed puts the message off, and stops the job when the step has had its last try.
func (v *visitor) failed(ctx context.Context, d Message, m *AdvanceMessage, t task, failure error) error {
	var off *Deferred
	if errors.As(failure, &off) {
		return v.comeAgain(ctx, d, off.Until, failure)
	}
	failure = fmt.Errorf("%s: %w", t.where, failure)
	if ctx.Err() != nil { // it was cut short: that says nothing of the step
		v.letGo(ctx, m, t, func(Try) Try { return t.try })
		return failure
	}
	v.letGo(ctx, m, t, func(noted Try) Try {
		noted.Owner, noted.Why = "", cutShort(failure.Error())
		if _, died := errors.AsType[*stepPanic](failure); died {
			noted.Died++
		} else {
			noted.Died = 0
		}
		return noted
	})
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
func (v *visitor) giveUp(ctx context.Context, id JobID, t task) error {
	why := t.try.Why
	if t.try.Owner != "" {
		why = "its process died each time"
	}
	reason := fmt.Sprintf("%s: begun %d times since %s without end; last: %s", t.where, t.try.Count, t.try.First.UTC().Format(time.RFC3339), why)
	v.Log.ErrorContext(ctx, "stop a job", "job", id, "reason", reason)
	return writeStop(ctx, &v.Ports, id, Stop{As: PhaseFailed, Code: string(CodeInternal), Reason: reason})
}

// cutShort keeps a record from growing with what an error says.
func cutShort(s string) string {
	const most = 300
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
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

// begun is the tries with one more of the step.
func (t Tries) begun(step Step, owner string, now time.Time) Tries {
	t = maps.Clone(t)
	if t == nil {
		t = Tries{}
	}
	try := Try{Count: t[step].Count + 1, Died: t[step].died(), Why: t[step].Why, First: t[step].First, At: now, Owner: owner}
	if try.First.IsZero() {
		try.First = now
	}
	t[step] = try
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

// rests is until when the step is left alone: while somebody is at it, as far as can be known (two that do the same would
// only make each other begin again), or until it is time for the next try. Both grow with the tries.
func (t Try) rests(p *Ports) time.Time {
	switch {
	case t.Count == 0, t.Owner != "" && p.Sole && ownerProcess(t.Owner) != p.Process:
		return time.Time{} // it died with its process
	case t.Owner != "":
		return t.At.Add(backOff(stepLease, t.Count-1, mostStepTry))
	default:
		return t.At.Add(backOff(firstStepTry, 2*(t.Count-1), mostStepTry))
	}
}

// letGo notes how the try that this visit began has ended.
func (v *visitor) letGo(ctx context.Context, m *AdvanceMessage, t task, end func(noted Try) Try) {
	if t.owner == "" {
		return
	}
	ctx = context.WithoutCancel(ctx)
	change := func(tries Tries) (Tries, bool) {
		noted := tries[t.step]
		if noted.Owner != t.owner {
			return tries, false // it is another's by now, or forgotten
		}
		tries = maps.Clone(tries)
		if tries[t.step] = end(noted); tries[t.step].Count == 0 {
			tries = tries.done(t.step)
		}
		return tries, true
	}
	err := untilSaved(func() error {
		if m.Split == WholeJob {
			j, err := v.Ledger.Job(ctx, m.Job)
			if err != nil {
				return err
			}
			tries, changed := change(j.Tries)
			if !changed {
				return nil
			}
			j.Tries = tries
			return v.saveJob(ctx, &j)
		}
		s, err := v.Ledger.Split(ctx, m.Job, m.Split)
		if err != nil {
			return err
		}
		tries, changed := change(s.Tries)
		if !changed {
			return nil
		}
		s.Tries = tries
		return v.Ledger.SaveSplit(ctx, &s)
	})
	if err != nil {
		v.Log.WarnContext(ctx, "note the end of a try", "step", t.step, "job", m.Job, "split", m.Split, "error", err)
	}
}
