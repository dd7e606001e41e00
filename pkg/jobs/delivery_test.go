package jobs

import (
	"testing"
	"time"
)

func aDelivery(now time.Time) *Delivery {
	j := &Job{ID: "batch_1", Tenant: "a", Phase: PhaseExpired, Entered: map[Phase]time.Time{PhaseExpired: now}}
	return newDelivery(j, &Hook{ID: "hook_1", URL: "https://x"}, now)
}

func whole(d time.Duration) time.Duration { return d }

func TestWhatFollowsFromAReport(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	for _, row := range []struct {
		name   string
		state  DeliveryState
		report DeliveredMessage // of notice 3, which is the last, unless it says another
		news   bool
		want   DeliveryState
		next   time.Duration // from now, of a pending one; 0 = as before
	}{
		{"delivered", DeliveryPending, DeliveredMessage{Status: 204}, true, DeliveryDelivered, 0},
		{"no content of ours", DeliveryPending, DeliveredMessage{Status: 302}, true, DeliveryPending, time.Minute},
		{"refused", DeliveryPending, DeliveredMessage{Status: 400}, true, DeliveryPending, time.Minute},
		{"down", DeliveryPending, DeliveredMessage{Status: 503}, true, DeliveryPending, time.Minute},
		{"no answer", DeliveryPending, DeliveredMessage{Error: "no"}, true, DeliveryPending, time.Minute},
		{"gone", DeliveryPending, DeliveredMessage{Status: 410}, true, DeliveryFailed, 0},
		{"stale", DeliveryPending, DeliveredMessage{Stale: true}, true, DeliveryPending, -1},
		{"stale, and given up meanwhile", DeliveryFailed, DeliveredMessage{Stale: true}, false, DeliveryFailed, 0},
		{"an older one failed", DeliveryPending, DeliveredMessage{Attempt: 2, Status: 410}, false, DeliveryPending, 0},
		{"an older one was stale", DeliveryPending, DeliveredMessage{Attempt: 2, Stale: true}, false, DeliveryPending, 0},
		{"an older one was delivered", DeliveryPending, DeliveredMessage{Attempt: 2, Status: 200}, true, DeliveryDelivered, 0},
		{"delivered though given up", DeliveryFailed, DeliveredMessage{Status: 200}, true, DeliveryDelivered, 0},
		{"failed though delivered", DeliveryDelivered, DeliveredMessage{Status: 500}, true, DeliveryDelivered, 0},
		{"of a notice that nobody has sent", DeliveryPending, DeliveredMessage{Attempt: 4, Status: 200}, false, DeliveryPending, 0},
	} {
		d := aDelivery(now)
		d.State, d.Sent = row.state, 3
		before := d.Next
		if row.report.Attempt == 0 {
			row.report.Attempt = 3
		}
		want := before
		switch {
		case row.next < 0:
			want = now
		case row.next > 0:
			want = now.Add(row.next)
		}
		if news := d.record(&row.report, now, whole); news != row.news || d.State != row.want || !d.Next.Equal(want) {
			t.Errorf("%s: news %t, %s, next %s; want %t, %s, %s", row.name, news, d.State, d.Next, row.news, row.want, want)
		}
		attempts := len(d.Attempts)
		if d.record(&row.report, now, whole) && !row.report.Stale || len(d.Attempts) != attempts {
			t.Errorf("%s: reported twice it counts twice", row.name)
		}
	}
}

func TestBackOffGrowsAndEndsWithinADay(t *testing.T) {
	for name, jitter := range map[string]func(time.Duration) time.Duration{"longest": whole, "shortest": func(d time.Duration) time.Duration { return d / 2 }} {
		now := time.Unix(1_000_000, 0)
		d := aDelivery(now)
		h := &Hook{URL: "https://x"}
		end := d.Until
		for i := 0; d.State == DeliveryPending; i++ {
			d.record(&DeliveredMessage{Attempt: d.Sent, Status: 500}, now, jitter)
			if wait := jitter(hookBackOff[min(i, len(hookBackOff)-1)]); d.State == DeliveryPending && d.Next.Sub(now) != wait {
				t.Errorf("%s: after attempt %d the next is in %s, want %s", name, i+1, d.Next.Sub(now), wait)
			}
			now = d.Next
			d.sendAgain(h, now)
		}
		if n := len(d.Attempts); n < 8 || n > 10 || d.Why != tooLate || d.Attempts[n-1].At.After(end) {
			t.Errorf("%s: it is given up after %d attempts: %q", name, n, d.Why)
		}
		d.replay(h, now)
		if d.record(&DeliveredMessage{Attempt: d.Sent, Status: 500}, now, jitter); d.State != DeliveryPending || d.Next.Sub(now) != jitter(time.Minute) {
			t.Errorf("%s: after a replay it is %s, next in %s", name, d.State, d.Next.Sub(now))
		}
	}
}

func TestOnlyTheLastAttemptsAreKept(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	d := aDelivery(now)
	for range 30 {
		d.replay(&Hook{}, now)
		d.record(&DeliveredMessage{Attempt: d.Sent, Status: 500}, now, whole)
	}
	if n := len(d.Attempts); n != keptAttempts || d.Attempts[n-1].N != 31 {
		t.Errorf("%d attempts are kept, the last is %+v", n, d.Attempts[n-1])
	}
}

// TestAnEventIsTheSameWhoeverDerivesIt: its id follows from the job and the end that it came to.
func TestAnEventIsTheSameWhoeverDerivesIt(t *testing.T) {
	now := time.Unix(1_000_000, 5)
	end := func(j JobID, p Phase, at time.Time) *Job {
		return &Job{ID: j, Tenant: "a", Phase: p, Entered: map[Phase]time.Time{p: at}}
	}
	one, two := &Hook{ID: "hook_1"}, &Hook{ID: "hook_2"}
	first := newDelivery(end("j", PhaseCompleted, now), one, now)
	if again := newDelivery(end("j", PhaseCompleted, now.In(time.FixedZone("x", 3600))), one, now.Add(time.Hour)); again.ID != first.ID || again.Event != first.Event {
		t.Error("derived again it is another")
	}
	if other := newDelivery(end("j", PhaseCompleted, now), two, now); other.Event != first.Event || other.ID == first.ID {
		t.Error("another hook has another event, or the same delivery")
	}
	for name, j := range map[string]*Job{
		"job": end("k", PhaseCompleted, now), "phase": end("j", PhaseExpired, now), "end": end("j", PhaseCompleted, now.Add(time.Second)),
	} {
		if other := newDelivery(j, one, now); other.Event == first.Event || other.ID == first.ID {
			t.Errorf("another %s has the same event", name)
		}
	}
}
