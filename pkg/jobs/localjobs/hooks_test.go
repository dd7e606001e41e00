package localjobs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/webhooks"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// receiver is whom hooks tell. Every post is held to what the official client accepts.
type receiver struct {
	t      *testing.T
	secret map[string]jobs.Secret // by URL
	answer func(nth int) (status int, err error)
	posts  []post
}

type post struct {
	url, event, kind, job string
	at                    time.Time
}

func (r *receiver) Post(_ context.Context, n *jobs.NoticeMessage) (int, error) {
	header := http.Header{}
	header.Set("webhook-id", n.EventID)
	header.Set("webhook-timestamp", strconv.FormatInt(n.Timestamp, 10))
	header.Set("webhook-signature", n.Signature)
	client := webhooks.NewWebhookService(option.WithWebhookSecret(string(r.secret[n.URL])))
	event, err := client.UnwrapWithToleranceAndTime([]byte(n.Body), header, 5*time.Minute, time.Now())
	if err != nil {
		r.t.Errorf("the official client refuses %s: %v", n.Body, err)
		return 0, err
	}
	if event.ID != n.EventID {
		r.t.Errorf("event %s has the header of %s", event.ID, n.EventID)
	}
	r.posts = append(r.posts, post{n.URL, event.ID, event.Type, event.Data.ID, time.Now()})
	if r.answer == nil {
		return 200, nil
	}
	return r.answer(len(r.posts))
}

// told runs a test in a bubble where "tenant" has a hook at https://mine, another that wants failed jobs only, and another
// tenant has one.
func told(t *testing.T, test func(t *testing.T, s *stepwise, r *receiver)) {
	t.Helper()
	inSteps(t, answerAll, func(t *testing.T, s *stepwise) {
		r := &receiver{t: t, secret: map[string]jobs.Secret{}}
		s.courier = r
		s.start()
		for _, h := range []jobs.Hook{
			{Tenant: "tenant", URL: "https://mine"},
			{Tenant: "tenant", URL: "https://failures", Events: []string{"batch.failed"}},
			{Tenant: "other", URL: "https://others"},
		} {
			h, err := jobs.CreateHook(t.Context(), s.Ports, h, jobs.HookOptions{})
			s.must(err)
			r.secret[h.URL] = h.Secret
		}
		test(t, s, r)
	})
}

func (r *receiver) kinds() (all []string) {
	for _, p := range r.posts {
		all = append(all, strings.TrimPrefix(p.url, "https://")+" "+p.kind)
	}
	slices.Sort(all)
	return all
}

func (r *receiver) want(kinds ...string) {
	r.t.Helper()
	if diff := cmp.Diff(kinds, r.kinds()); diff != "" {
		r.t.Errorf("told (-want +got):\n%s", diff)
	}
}

func (s *stepwise) deliveries() []jobs.Delivery {
	s.t.Helper()
	all, err := jobs.Deliveries(s.t.Context(), s.local.Store, jobs.DeliveryQuery{Tenant: "tenant"})
	s.must(err)
	return all
}

// delivery is the one that there is.
func (s *stepwise) delivery() jobs.Delivery {
	s.t.Helper()
	all := s.deliveries()
	if len(all) != 1 {
		s.t.Fatalf("there are %d deliveries, want one", len(all))
	}
	return all[0]
}

// wantDelivery says how the one delivery must have ended, and that nothing is left of it for the sweep.
func (s *stepwise) wantDelivery(state jobs.DeliveryState, attempts int) {
	s.t.Helper()
	d := s.delivery()
	if d.State != state || len(d.Attempts) != attempts {
		s.t.Errorf("the delivery is %s (%s), with attempts %+v; want it %s with %d", d.State, d.Why, d.Attempts, state, attempts)
	}
	s.sweeps(15)
	for e, err := range s.local.Store.Entries(s.t.Context(), jobs.KindDue, "") {
		s.must(err)
		s.t.Errorf("delivery %s is still to be looked at", e.ID)
	}
}

// hours lets hours pass, and sweeps every ten minutes only, which is often enough and takes less long.
func (s *stepwise) hours(n int) {
	s.t.Helper()
	for range 6 * n {
		time.Sleep(10 * time.Minute)
		s.sweep()
	}
}

// lose takes what is visible in a queue away.
func (s *stepwise) lose(q jobs.QueueName) (lost int) {
	s.t.Helper()
	for batch := s.receive(q); len(batch) > 0; batch = s.receive(q) {
		s.must(s.local.Queue.Ack(s.t.Context(), batch...))
		lost += len(batch)
	}
	return lost
}

func TestTheEndOfAJobIsToldToTheHooksOfItsTenant(t *testing.T) {
	told(t, func(t *testing.T, s *stepwise, r *receiver) {
		s.must(s.submit(3, nil))
		s.settle()
		s.wantEnd(3)
		r.want("mine batch.completed")
		if p := r.posts[0]; p.job != string(theJob) || p.at.Sub(s.job().Entered[jobs.PhaseCompleted]) > time.Minute {
			t.Errorf("told was %+v", p)
		}
		d := s.delivery()
		if d.Event != r.posts[0].event || d.Job != theJob || d.Type != "batch.completed" || d.URL != "https://mine" {
			t.Errorf("the log has %+v", d)
		}
		s.wantDelivery(jobs.DeliveryDelivered, 1)
		s.sweeps(120)
		if r.want("mine batch.completed"); !s.job().Closed {
			t.Error("the job is not closed")
		}
	})
}

// TestEveryEndIsToldWithoutASweep: also of jobs that fail before anything of aggregate's was to be done.
func TestEveryEndIsToldWithoutASweep(t *testing.T) {
	for _, row := range []struct {
		name, kind string
		phase      jobs.Phase
		do         func(s *stepwise)
	}{
		{"cancelled before its check", "cancelled", jobs.PhaseCancelled, func(s *stepwise) {
			s.must(s.submit(3, nil))
			_, err := jobs.CancelJob(s.t.Context(), s.Ports, theJob, "enough")
			s.must(err)
		}},
		{"expired", "expired", jobs.PhaseExpired, func(s *stepwise) {
			s.must(s.submit(3, nil))
			s.dispatch()
			s.must(jobs.ExpireJob(s.t.Context(), s.Ports, theJob, "late"))
		}},
		{"forbidden by its check", "failed", jobs.PhaseFailed, func(s *stepwise) {
			s.must(s.submit(3, func(j *jobs.Job) { j.OnInvalid, j.Endpoint = jobs.InvalidFails, "/v1/embeddings" }))
		}},
		{"its input was changed", "failed", jobs.PhaseFailed, func(s *stepwise) {
			s.must(s.submit(3, func(j *jobs.Job) { j.Input.Version = "another" }))
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			told(t, func(t *testing.T, s *stepwise, r *receiver) {
				row.do(s)
				s.settle()
				if j := s.job(); j.Phase != row.phase {
					t.Fatalf("the job is %s, %+v", j.Phase, j.Stop)
				}
				want := []string{"mine batch." + row.kind}
				if row.phase == jobs.PhaseFailed {
					want = []string{"failures batch.failed", "mine batch.failed"}
				}
				r.want(want...)
			})
		})
	}
}

// TestUploadThatFailsAtOnceIsTold: its job is opened as one that has failed.
func TestUploadThatFailsAtOnceIsTold(t *testing.T) {
	told(t, func(t *testing.T, s *stepwise, r *receiver) {
		s.send(jobs.QueueIngest, jobs.UploadBody(jobs.UploadMessage{Upload: jobs.FileRef{Name: "inbox/tenant/a.jsonl", Version: "gone"}}))
		s.settle()
		r.want("failures batch.failed", "mine batch.failed")
	})
}

// TestWhatFailsWhileNobodyHearsIsToldByTheSweep: the message that an end is to be told is lost.
func TestWhatFailsWhileNobodyHearsIsToldByTheSweep(t *testing.T) {
	told(t, func(t *testing.T, s *stepwise, r *receiver) {
		s.must(s.submit(3, func(j *jobs.Job) { j.Input.Version = "another" }))
		s.settle(jobs.QueueIngest)
		if n := s.lose(jobs.QueueAggregate); n != 1 {
			t.Fatalf("%d messages are lost, want one", n)
		}
		s.settle()
		r.want()
		s.sweep()
		r.want("failures batch.failed", "mine batch.failed")
	})
}

func TestJobThatEndsAgainIsToldAgain(t *testing.T) {
	told(t, func(t *testing.T, s *stepwise, r *receiver) {
		s.must(s.submit(3, func(j *jobs.Job) { j.Window = time.Hour }))
		s.dispatch()
		s.must(jobs.ExpireJob(t.Context(), s.Ports, theJob, "late"))
		s.lose(jobs.QueueWork)
		s.settle()
		time.Sleep(time.Minute)
		s.must(jobs.Reopen(t.Context(), s.Ports, theJob))
		s.run(time.Hour)
		s.settle()
		r.want("mine batch.completed", "mine batch.expired")
		if r.posts[0].event == r.posts[1].event {
			t.Error("both ends are the same event")
		}
	})
}

// TestReceiverThatIsDownIsToldLater: each attempt is signed anew, or the official client would refuse the later ones.
func TestReceiverThatIsDownIsToldLater(t *testing.T) {
	const down = 5
	told(t, func(t *testing.T, s *stepwise, r *receiver) {
		r.answer = func(nth int) (int, error) {
			switch {
			case nth == 1:
				return 0, errors.New("connect to mine: refused")
			case nth <= down:
				return 503, nil
			default:
				return 200, nil
			}
		}
		s.must(s.submit(3, nil))
		s.settle()
		s.sweeps(5 * 60)
		if len(r.posts) != down+1 {
			t.Fatalf("%d attempts were made, want %d", len(r.posts), down+1)
		}
		for i, most := range []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 3 * time.Hour} {
			if wait := r.posts[i+1].at.Sub(r.posts[i].at); wait < most/2 || wait > most+time.Minute {
				t.Errorf("attempt %d came after %s, want from %s to %s", i+2, wait, most/2, most+time.Minute)
			}
			if r.posts[i].event != r.posts[i+1].event {
				t.Error("an attempt has another event")
			}
		}
		if a := s.delivery().Attempts[:2]; a[0].Error != "connect to mine: refused" || a[1].Status != 503 {
			t.Errorf("the log has %+v", a)
		}
		s.wantDelivery(jobs.DeliveryDelivered, down+1)
	})
}

func TestReceiverThatIsNeverThereIsGivenUpAfterADay(t *testing.T) {
	told(t, func(t *testing.T, s *stepwise, r *receiver) {
		r.answer = func(int) (int, error) { return 500, nil }
		s.must(s.submit(3, nil))
		s.settle()
		s.hours(30)
		d := s.delivery()
		if last := d.Attempts[len(d.Attempts)-1].At.Sub(d.At); d.State != jobs.DeliveryFailed || d.Why == "" || last > 24*time.Hour || last < 8*time.Hour {
			t.Errorf("it is %s (%s), the last attempt was %s after the event", d.State, d.Why, last)
		}
		s.wantDelivery(jobs.DeliveryFailed, len(r.posts))
	})
}

func TestReceiverThatIsGoneIsGivenUpAtOnceAndCanBeReplayed(t *testing.T) {
	told(t, func(t *testing.T, s *stepwise, r *receiver) {
		r.answer = func(nth int) (int, error) { return map[bool]int{true: 410, false: 200}[nth == 1], nil }
		s.must(s.submit(3, nil))
		s.settle()
		s.wantDelivery(jobs.DeliveryFailed, 1)
		time.Sleep(48 * time.Hour)
		d, err := jobs.Replay(t.Context(), s.Ports, "tenant", s.delivery().ID)
		s.must(err)
		if d.State != jobs.DeliveryPending {
			t.Errorf("after a replay it is %s", d.State)
		}
		s.settle()
		r.want("mine batch.completed", "mine batch.completed")
		s.wantDelivery(jobs.DeliveryDelivered, 2)
		if _, err := jobs.Replay(t.Context(), s.Ports, "other", d.ID); !errors.Is(err, jobs.ErrNotFound) {
			t.Errorf("another tenant replays it: %v, want not found", err)
		}
	})
}

func TestReplayGivesAnotherDay(t *testing.T) {
	told(t, func(t *testing.T, s *stepwise, r *receiver) {
		r.answer = func(nth int) (int, error) { return 500, nil }
		s.must(s.submit(3, nil))
		s.settle()
		s.hours(30)
		before := len(r.posts)
		_, err := jobs.Replay(t.Context(), s.Ports, "tenant", s.delivery().ID)
		s.must(err)
		s.settle()
		s.sweeps(10)
		if n := len(r.posts) - before; n != 3 {
			t.Errorf("%d attempts in the ten minutes after a replay, want 3", n)
		}
	})
}

func TestWhatIsLostOnItsWayIsSentAgain(t *testing.T) {
	for name, row := range map[string]struct {
		lose  func(s *stepwise)
		posts int
	}{
		"a notice": {func(s *stepwise) {
			s.settle(jobs.QueueIngest, jobs.QueueWork, jobs.QueueAggregate)
			if n := s.lose(jobs.QueueNotify); n != 1 {
				s.t.Fatalf("%d notices are lost, want one", n)
			}
		}, 1},
		"a report": {func(s *stepwise) {
			s.settle(jobs.QueueIngest, jobs.QueueWork, jobs.QueueAggregate)
			s.handle(s.t.Context(), s.notify, s.receive(jobs.QueueNotify))
			if n := s.lose(jobs.QueueAggregate); n != 1 {
				s.t.Fatalf("%d reports are lost, want one", n)
			}
		}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			told(t, func(t *testing.T, s *stepwise, r *receiver) {
				s.must(s.submit(3, nil))
				row.lose(s)
				s.sweeps(9)
				if n := len(r.posts); n != row.posts-1 {
					t.Errorf("after nine minutes %d posts, want %d", n, row.posts-1)
				}
				s.sweeps(2)
				if n := len(r.posts); n != row.posts {
					t.Errorf("%d posts, want %d", n, row.posts)
				}
				s.wantDelivery(jobs.DeliveryDelivered, 1)
			})
		})
	}
}

// TestReportsThatComeTwiceOrLateChangeNothing: what is told of an attempt counts once, and only of the last.
func TestReportsThatComeTwiceOrLateChangeNothing(t *testing.T) {
	told(t, func(t *testing.T, s *stepwise, r *receiver) {
		r.answer = func(nth int) (int, error) { return 500, nil }
		s.must(s.submit(3, nil))
		s.settle(jobs.QueueIngest, jobs.QueueWork, jobs.QueueAggregate)
		notices := s.receive(jobs.QueueNotify)
		s.handle(t.Context(), s.notify, notices)
		report := s.receive(jobs.QueueAggregate)
		again := func() {
			for range 3 {
				for _, m := range report {
					s.send(jobs.QueueAggregate, m.Body)
				}
				s.settle(jobs.QueueAggregate)
			}
		}
		again()
		first := s.delivery()
		if first.Failed != 1 || len(first.Attempts) != 1 {
			t.Errorf("told thrice it counts %d times: %+v", first.Failed, first.Attempts)
		}
		s.sweeps(2)
		second := s.delivery()
		again()
		if diff := cmp.Diff(second, s.delivery()); diff != "" || second.Failed != 2 {
			t.Errorf("an old report changes (-before +after):\n%s", diff)
		}
	})
}

// TestNoticeThatWaitedTooLongIsSignedAnew: receivers would refuse it. It counts for nothing.
func TestNoticeThatWaitedTooLongIsSignedAnew(t *testing.T) {
	told(t, func(t *testing.T, s *stepwise, r *receiver) {
		s.must(s.submit(3, nil))
		s.settle(jobs.QueueIngest, jobs.QueueWork, jobs.QueueAggregate)
		time.Sleep(4*time.Minute + time.Second)
		s.settle()
		r.want()
		s.sweeps(2)
		r.want("mine batch.completed")
		if d := s.delivery(); d.Failed != 0 || d.Sent != 2 {
			t.Errorf("it counts as a failure: %+v", d)
		}
		s.wantDelivery(jobs.DeliveryDelivered, 1)
	})
}

func TestWhatIsForAHookThatWasDroppedIsGivenUp(t *testing.T) {
	told(t, func(t *testing.T, s *stepwise, r *receiver) {
		r.answer = func(int) (int, error) { return 500, nil }
		s.must(s.submit(3, nil))
		s.settle()
		s.must(jobs.DropHook(t.Context(), s.Ports, "tenant", s.delivery().Hook))
		s.sweeps(20)
		r.want("mine batch.completed")
		s.wantDelivery(jobs.DeliveryFailed, 1)
		if _, err := jobs.Replay(t.Context(), s.Ports, "tenant", s.delivery().ID); jobs.CodeOf(err) != jobs.CodeConflict {
			t.Errorf("it is replayed: %v, want a conflict", err)
		}
	})
}

// TestEndsAreNotedWhereThereAreNoWebhooks: nobody even looks for hooks.
func TestEndsAreNotedWhereThereAreNoWebhooks(t *testing.T) {
	inSteps(t, answerAll, func(t *testing.T, s *stepwise) {
		s.must(s.submit(3, nil))
		s.settle()
		if j := s.job(); !j.Notified.Equal(j.Entered[jobs.PhaseCompleted]) {
			t.Errorf("it ended at %s, and was noted at %s", j.Entered[jobs.PhaseCompleted], j.Notified)
		}
	})
}

func TestDeliveriesAreListedNewestFirst(t *testing.T) {
	told(t, func(t *testing.T, s *stepwise, r *receiver) {
		for n := range 5 {
			s.must(s.submit(1, func(j *jobs.Job) { j.ID = jobs.JobID(fmt.Sprint("batch_", n)); j.Input.Version = "another" }))
			s.settle()
			s.must(s.local.Files.Delete(t.Context(), "files/tenant/input"))
			time.Sleep(time.Second)
		}
		all := s.deliveries()
		if len(all) != 10 || !slices.IsSortedFunc(all, func(a, b jobs.Delivery) int { return b.Created.Compare(a.Created) }) {
			t.Fatalf("%d deliveries, newest first: %+v", len(all), all)
		}
		var paged []jobs.Delivery
		for after := ""; ; after = paged[len(paged)-1].ID {
			page, err := jobs.Deliveries(t.Context(), s.local.Store, jobs.DeliveryQuery{Tenant: "tenant", After: after, Limit: 3})
			s.must(err)
			if len(page) == 0 {
				break
			}
			paged = append(paged, page...)
		}
		if diff := cmp.Diff(all, paged); diff != "" {
			t.Errorf("by pages (-whole +paged):\n%s", diff)
		}
		for tenant, after := range map[string]string{"tenant": "dlv_x", "other": all[0].ID} {
			if _, err := jobs.Deliveries(t.Context(), s.local.Store, jobs.DeliveryQuery{Tenant: tenant, After: after}); !errors.Is(err, jobs.ErrNotFound) {
				t.Errorf("%s after %s: %v, want not found", tenant, after, err)
			}
		}
		if others, err := jobs.Deliveries(t.Context(), s.local.Store, jobs.DeliveryQuery{}); err != nil || len(others) != 0 {
			t.Errorf("of no tenant: %d, %v", len(others), err)
		}
	})
}
