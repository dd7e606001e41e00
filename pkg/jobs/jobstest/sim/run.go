package sim

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

const jobID jobs.JobID = "batch_sim"

// Times within which a job must come to rest.
const (
	endWithin   = 2 * time.Hour  // of its deadline
	closeWithin = 25 * time.Hour // of its end, for the sweep to take it for ended
)

// Run runs one seed to its end and checks it.
func Run(t *testing.T, seed uint64) *World {
	t.Helper()
	return start(t, seed, false, nil)
}

// RunLogged runs one seed and keeps a log of what happens.
func RunLogged(t *testing.T, seed uint64) *World {
	t.Helper()
	return start(t, seed, true, nil)
}

// start runs a seed; change, if given, makes its plan another.
func start(t *testing.T, seed uint64, keepLog bool, change func(p *Plan)) *World {
	t.Helper()
	w := &World{Seed: seed, keepLog: keepLog, taken: map[int64]bool{}, seen: map[Behaviour]int{}, witness: newWitness()}
	w.plan = newPlan(w)
	if change != nil {
		change(w.plan)
		w.plan.write()
	}
	synctest.Test(t, func(*testing.T) { w.run() })
	return w
}

func (w *World) run() {
	w.began = time.Now()
	f := &fleet{
		w: w, ledger: &ledger{w: w, records: map[string]record{}}, registry: &registry{w: w, entries: map[string]jobs.Entry{}},
		queue:    &queue{w: w, lost: map[string]bool{}},
		files:    &files{w: w, objects: map[string][]byte{inputName: []byte(w.plan.input)}},
		upstream: &upstream{w: w, weather: w.plan.Weather, calls: map[int]int{}, answers: map[int]int{}, got: map[int]*actor{}, turns: map[string]int{}},
		receiver: &receiver{w: w, posts: map[string]int{}},
	}
	if w.plan.Hook {
		f.receiver.register(f.registry)
	}
	w.fleet = f
	operator := &process{name: "operator", cancel: func() {}}
	ports := f.ports(operator)
	ctx := withActor(context.Background(), &actor{name: "operator", proc: operator, safe: true})
	w.logf("plan: %d items, %d processes, lambda %v, %s, %+v, window %s, events %v", w.plan.Items, w.plan.Processes, w.plan.Lambda,
		w.plan.Weather.Name, w.plan.Odds, w.plan.Window, w.plan.Events)
	j := jobs.Job{ID: jobID, Tenant: "t", Input: f.files.input(), InputBytes: int64(len(w.plan.input)), Endpoint: "/v1/x",
		Cut: w.plan.Cut, OnInvalid: jobs.InvalidSkips, Deadline: time.Now().Add(w.plan.Window)}
	if _, err := jobs.Submit(ctx, ports, j); err != nil {
		w.failf("submit: %v", err)
		return
	}
	events := slices.Clone(w.plan.Events)
	slices.SortStableFunc(events, func(a, b Event) int { return int(a.At - b.At) })
	f.run(func() bool {
		for _, e := range slices.Concat(w.takePending(), w.due(&events)) {
			if err := w.happen(ctx, ports, e); err != nil {
				w.failf("%s: %v", e.What, err)
			}
		}
		return w.isBroken() || w.restless() || len(events) == 0 && w.quiet()
	})
	if !w.isBroken() {
		w.check()
	}
}

// due takes out the events whose time has come.
func (w *World) due(events *[]Event) []Event {
	n := 0
	for n < len(*events) && (*events)[n].At <= time.Since(w.began) {
		n++
	}
	due := (*events)[:n]
	*events = (*events)[n:]
	return due
}

func (w *World) takePending() []Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	due := w.pending
	w.pending = nil
	return due
}

// quiet tells whether the sweep has taken the job for ended, nobody is still to be told, and no work is on its way.
func (w *World) quiet() bool {
	w.world.Lock()
	defer w.world.Unlock()
	return w.job.Closed && len(w.fleet.receiver.deliveries(jobs.DeliveryPending)) == 0 && !slices.ContainsFunc(w.fleet.queue.messages, func(m *message) bool { return m.Queue == jobs.QueueWork })
}

// rough tells whether so many calls of ports fail, one in twenty, that every second try at a step of fifteen does. Drivers
// try their calls again; these ports do not.
func (p *Plan) rough() bool { return p.Odds.FailBefore+p.Odds.FailAfter > 400 }

// patience is how long after its deadline a job may take to end: tries at a step are up to 15 minutes apart.
func (p *Plan) patience() time.Duration {
	if p.rough() {
		return 2 * endWithin
	}
	return endWithin
}

// restless tells whether the job should have come to rest long ago.
func (w *World) restless() bool {
	w.world.Lock()
	defer w.world.Unlock()
	switch j := w.job; {
	case !j.Phase.Ended() && time.Since(j.Deadline) > w.plan.patience():
		w.failf("the job is %s %s after its deadline", j.Phase, time.Since(j.Deadline))
	case j.Phase.Ended() && !j.Closed && time.Since(j.MovedAt) > closeWithin:
		w.failf("the sweep still visits the job %s after it was %s", time.Since(j.MovedAt), j.Phase)
	default:
		return false
	}
	return true
}

// happen makes an event happen.
func (w *World) happen(ctx context.Context, p jobs.Ports, e Event) error {
	w.logf("operator: %s %s", e.What, e.Arg)
	switch e.What {
	case Cancel:
		_, err := jobs.CancelJob(ctx, p, jobID, "enough")
		return err
	case PauseJob:
		return w.pauseJob(ctx, p)
	case ResumeJob:
		return jobs.Resume(ctx, p, jobID)
	case Reopen:
		err := jobs.Reopen(ctx, p, jobID)
		if jobs.CodeOf(err) == jobs.CodeConflict {
			return nil // it cannot be, now
		}
		return err
	}
	w.world.Lock()
	defer w.world.Unlock()
	switch e.What {
	case PurgeOf:
		if n := w.fleet.queue.purge(e.Arg); n > 0 {
			w.saw(Purge)
			w.logf("%d messages are gone", n)
		}
	case Redrive:
		w.redrive()
	case Heal:
		w.fleet.upstream.heal()
	case Overwrite, Replace:
		w.fleet.files.overwrite(e.What == Replace)
	default:
		return fmt.Errorf("no such event: %s", e.What)
	}
	return nil
}

// redrive sends every dead letter back to its queue, as an operator does by hand.
func (w *World) redrive() {
	for l := range w.letters() {
		w.redriven[l] = true
	}
	for _, d := range w.fleet.queue.dead {
		w.logf("by hand: %s", d.body)
		w.fleet.queue.add(jobs.QueueWork, d.body, 0)
	}
	w.fleet.queue.dead = nil
}

func (w *World) pauseJob(ctx context.Context, p jobs.Ports) error {
	j, err := p.Ledger.Job(ctx, jobID)
	if err != nil || j.Stopped() || j.Pause != nil {
		return err
	}
	j.Pause = &jobs.Pause{Reason: jobs.PauseOperator, Message: "wait", At: time.Now()}
	if err := p.Ledger.SaveJob(ctx, &j); err != nil {
		w.logf("not paused: %v", err)
	}
	return nil
}
