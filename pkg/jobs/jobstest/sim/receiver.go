package sim

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// receiver is whom the tenant's hook tells. Now and then it is down.
type receiver struct {
	w     *World
	posts map[string]int // by event: how often it was posted
}

// hookURL is where the tenant wants to be told.
const hookURL = "https://receiver/"

// register puts the hook, as jobs.CreateHook does, but with a secret that is the same in each run.
func (r *receiver) register(to *registry) {
	e := jobs.Entry{Kind: jobs.KindHook, Owner: "t", ID: "hook_1", Body: []byte(`{"V":1,"ID":"hook_1","Tenant":"t","URL":"` + hookURL + `","Secret":"whsec_c2ltdWxhdGlvbg=="}`)}
	to.next++
	e.Revision = to.next
	to.entries[entryKey(e.Kind, e.Owner, e.ID)] = e
}

// Post is jobs.Courier's. Three in ten fail.
func (r *receiver) Post(ctx context.Context, n *jobs.NoticeMessage) (status int, err error) {
	a := actorOf(ctx)
	h := r.w.hash("receiver", n.EventID, n.Attempt)
	r.w.sleep(time.Duration(h % uint64(2*time.Second)))
	if a.proc.isDead() {
		return 0, errDead
	}
	r.w.world.Lock()
	defer r.w.world.Unlock()
	r.posts[n.EventID]++
	r.w.logf("%s: post %s, attempt %d", a.name, n.Body, n.Attempt)
	if time.Since(time.Unix(n.Timestamp, 0)) > 5*time.Minute {
		r.w.failf("event %s was signed %s before it came", n.EventID, time.Since(time.Unix(n.Timestamp, 0)))
	}
	switch {
	case chance(h, 2000):
		return 503, nil
	case chance(h>>16, 1000):
		return 0, errors.New("refused")
	default:
		return 200, nil
	}
}

// deliveries are those in a state. The world must stand still.
func (r *receiver) deliveries(state jobs.DeliveryState) (all []jobs.Delivery) {
	entries := r.w.fleet.registry.entries
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		if entries[key].Kind != jobs.KindDelivery {
			continue
		}
		var d jobs.Delivery
		if err := json.Unmarshal(entries[key].Body, &d); err != nil {
			r.w.failf("%s: %v", key, err)
		}
		if d.State == state {
			all = append(all, d)
		}
	}
	return all
}

// checkTold: the hook was told of the end that stands, and of nothing that was none.
func (w *World) checkTold(j *jobs.Job) {
	r := w.fleet.receiver
	told := false
	delivered := r.deliveries(jobs.DeliveryDelivered)
	for _, d := range slices.Concat(delivered, r.deliveries(jobs.DeliveryFailed)) {
		phase := jobs.Phase(d.Type[len("batch."):])
		if d.Job != j.ID || !slices.ContainsFunc(w.ended[phase], d.At.Equal) {
			w.failf("event %s says that the job came to be %s at %s, which it did not", d.Event, phase, d.At)
		}
		told = told || phase == j.Phase && d.At.Equal(j.Entered[phase])
	}
	for _, d := range delivered {
		if w.saw(Told); len(d.Attempts) > 1 {
			w.saw(ToldAgain)
		}
		if d.Sent > d.Attempts[len(d.Attempts)-1].N || d.Sent > len(d.Attempts) {
			w.saw(NoticeLost)
		}
		if r.posts[d.Event] == 0 {
			w.failf("event %s is said to be delivered, and was never posted", d.Event)
		}
	}
	if failed := r.deliveries(jobs.DeliveryFailed); len(failed) > 0 {
		w.failf("event %s was given up after %d attempts: %s", failed[0].Event, len(failed[0].Attempts), failed[0].Why)
	}
	if len(r.posts) != len(delivered) {
		w.failf("%d events were posted, of which %d are known", len(r.posts), len(delivered))
	}
	if w.plan.Hook != told {
		w.failf("the job is %s since %s; it was told: %t", j.Phase, j.Entered[j.Phase], told)
	}
}
