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

// Run runs one seed to its end and checks it. What is broken is in Broken, and what happened in Log.
func Run(t *testing.T, seed uint64) *World {
	t.Helper()
	w := &World{Seed: seed, taken: map[int64]bool{}, seen: map[Behaviour]int{}, claims: map[string]jobs.Bits{}, owners: map[string]string{}}
	w.plan = newPlan(w)
	w.Odds = w.plan.Odds
	synctest.Test(t, func(t *testing.T) { w.run() })
	return w
}

// Broken is what the run has broken, a sentence each.
func (w *World) Broken() []string { return w.fail }

func (w *World) run() {
	w.began = time.Now()
	w.ledger = &ledger{w: w, records: map[string]record{}}
	f := &fleet{
		w: w, size: w.plan.Processes, lambda: w.plan.Lambda, ledger: w.ledger,
		registry: &registry{w: w, entries: map[string]jobs.Entry{}}, queue: &queue{w: w},
		files:    &files{w: w, objects: map[string][]byte{"files/t/in": []byte(w.plan.input)}},
		upstream: &upstream{w: w, weather: w.plan.Weather, calls: map[int]int{}, turns: map[string]int{}},
	}
	operator := &process{name: "operator", cancel: func() {}}
	ports := f.ports(operator)
	ctx := withActor(context.Background(), &actor{name: "operator", proc: operator, safe: true})
	w.logf("plan: %d items, %d processes, lambda %v, %s, %+v, window %s, events %v", w.plan.Items, w.plan.Processes, w.plan.Lambda,
		w.plan.Weather.Name, w.plan.Odds, w.plan.Window, w.plan.Events)
	j := jobs.Job{ID: jobID, Tenant: "t", Input: jobs.FileRef{Name: "files/t/in"}, InputBytes: int64(len(w.plan.input)), Endpoint: "/v1/x",
		Cut: w.plan.Cut, OnInvalid: jobs.InvalidSkips, Deadline: time.Now().Add(w.plan.Window)}
	if _, err := jobs.Submit(ctx, ports, j); err != nil {
		w.failf("submit: %v", err)
		return
	}
	events := slices.Clone(w.plan.Events)
	slices.SortStableFunc(events, func(a, b Event) int { return int(a.At - b.At) })
	limit := w.plan.Window + 12*time.Hour
	f.run(func() bool {
		since := time.Since(w.began)
		for len(events) > 0 && events[0].At <= since {
			e := events[0]
			events = events[1:]
			if err := w.happen(ctx, ports, f, e); err != nil {
				w.failf("%s: %v", e.What, err)
			}
		}
		if since > limit {
			w.failf("the job has not come to rest after %s: it is %s", since, w.phase)
			return true
		}
		return len(events) == 0 && w.closed()
	})
	w.check(f)
}

// closed tells whether the sweep has taken the job for ended.
func (w *World) closed() bool {
	w.world.Lock()
	defer w.world.Unlock()
	rec, ok := w.ledger.records[jobKey(jobID)]
	if !ok {
		return false
	}
	j, err := jobs.DecodeRecord[jobs.Job](rec.body, rec.revision)
	return err == nil && j.Closed
}

// happen makes an event happen.
func (w *World) happen(ctx context.Context, p jobs.Ports, f *fleet, e Event) error {
	w.logf("operator: %s %s", e.What, e.Arg)
	switch e.What {
	case "cancel":
		_, err := jobs.CancelJob(ctx, p, jobID, "enough")
		return err
	case "purge":
		w.world.Lock()
		defer w.world.Unlock()
		if n := f.queue.purge(e.Arg); n > 0 {
			w.saw(Purge)
			w.logf("%d messages are gone", n)
		}
		return nil
	case "heal":
		w.world.Lock()
		defer w.world.Unlock()
		f.upstream.heal()
		return nil
	case "redrive":
		w.world.Lock()
		defer w.world.Unlock()
		for _, d := range f.queue.dead {
			w.logf("by hand: %s", d.body)
			f.queue.add(jobs.QueueWork, d.body, 0)
		}
		f.queue.dead = nil
		return nil
	case "pause":
		j, err := p.Ledger.Job(ctx, jobID)
		if err != nil || j.Stopped() || j.Pause != nil {
			return err
		}
		j.Pause = &jobs.Pause{Reason: jobs.PauseOperator, Message: "wait", At: time.Now()}
		if err := p.Ledger.SaveJob(ctx, &j); err != nil {
			w.logf("not paused: %v", err)
		}
		return nil
	case "resume":
		return jobs.Resume(ctx, p, jobID)
	default:
		return fmt.Errorf("no such event: %s", e.What)
	}
}
