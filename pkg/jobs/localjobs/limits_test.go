package localjobs

import (
	"context"
	"io"
	"iter"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// dear makes the worker of a stepwise know prices: the upstream of these tests uses a hundred tokens a call.
func (s *stepwise) dear() {
	s.worker = jobs.NewWorker(s.Ports, jobs.WorkerOptions{
		Concurrency: 4, Prices: jobs.Prices{{Models: "m", Input: 10_000}}, // a dollar for a hundred tokens
		Route: func(string) (string, jobs.Upstream) { return "upstream", usingTokens{steppedUpstream{s}} },
	})
}

func TestAJobIsHeldAtWhatItMayCost(t *testing.T) {
	inSteps(t, takingASecond, func(t *testing.T, s *stepwise) {
		s.dear()
		s.must(s.submit(400, func(j *jobs.Job) {
			chunksOf(4)(j)
			j.MaxCost = jobs.USD(50)
		}))
		s.pass(time.Hour, false)
		j := s.job()
		if j.Pause == nil || j.Pause.Reason != jobs.PauseSpend || !strings.Contains(j.Pause.Message, "may cost $50.00") {
			t.Fatalf("its pause is %+v, with %+v", j.Pause, j.Totals)
		}
		called := s.calls()
		if called < 50 || called > 250 { // a fold is up to ten seconds late, and so is the look of a worker
			t.Errorf("%d calls at a dollar each were made", called)
		}
		s.redeliver(time.Hour)
		if s.calls() != called {
			t.Error("it went on by itself")
		}
		_, err := s.inspector().Resume(t.Context(), theJob, "key k")
		s.must(err)
		s.run(time.Hour)
		if got := s.job().Outputs.Totals; got.Answered != 400 || got.Cost != jobs.USD(400) {
			t.Errorf("when it was resumed it came to %+v", got)
		}
	})
}

func TestATenantIsHeldAtWhatItMaySpendInAMonth(t *testing.T) {
	inSteps(t, takingASecond, func(t *testing.T, s *stepwise) {
		s.dear()
		s.must(s.inspector().SetLimits(t.Context(), jobs.Limits{Tenant: "tenant", MaxCost: jobs.USD(60)}, "key k"))
		s.must(s.submit(400, func(j *jobs.Job) { chunksOf(4)(j) }))
		s.dispatch()
		for s.job().Pause == nil && s.calls() < 400 { // a sweep for each ten chunks
			s.handle(t.Context(), s.worker, s.receive(jobs.QueueWork))
			time.Sleep(time.Minute)
			s.send(jobs.QueueAggregate, jobs.TickBody())
			s.settle(jobs.QueueAggregate, jobs.QueueIngest)
		}
		j := s.job()
		if j.Pause == nil || j.Pause.Reason != jobs.PauseSpend || !strings.Contains(j.Pause.Message, "tenant tenant has spent") {
			t.Fatalf("its pause is %+v, with %+v", j.Pause, j.Totals)
		}
		time.Sleep(31 * 24 * time.Hour)
		_, err := s.inspector().Resume(t.Context(), theJob, "key k")
		s.must(err)
	})
}

func TestATenantWithManyOpenItemsIsRefusedAnotherJob(t *testing.T) {
	inSteps(t, answerAll, func(t *testing.T, s *stepwise) {
		s.must(s.submit(40, chunksOf(4)))
		s.dispatch()
		s.must(s.inspector().SetLimits(t.Context(), jobs.Limits{Tenant: "tenant", OpenItems: 40}, "key k"))
		if err := jobs.Admit(t.Context(), s.Ports, "tenant"); jobs.CodeOf(err) != jobs.CodeLimit || !strings.Contains(err.Error(), "has 40 open items") {
			t.Errorf("another job: %v", err)
		}
		s.must(jobs.Admit(t.Context(), s.Ports, "another"))
		s.must(s.put("inbox/tenant/more.jsonl", `{"custom_id":"c0","method":"POST","url":"/v1/chat/completions","body":{"model":"m","N":0}}`+"\n"))
		jobsOf := func() (n int) {
			for _, err := range s.local.Store.Jobs(t.Context(), jobs.JobQuery{Tenant: "tenant"}) {
				s.must(err)
				n++
			}
			return n
		}
		s.settle(jobs.QueueIngest)
		if n := jobsOf(); n != 1 {
			t.Errorf("an upload was taken in all the same: %d jobs", n)
		}
		s.run(time.Hour)
		time.Sleep(10 * time.Minute)
		s.settle()
		if n := jobsOf(); n != 2 {
			t.Errorf("the upload was not taken in when there was room: %d jobs", n)
		}
		s.must(jobs.Admit(t.Context(), s.Ports, "tenant"))
		for _, l := range []jobs.Limits{{Tenant: "a/b"}, {Tenant: "tenant", OpenItems: -1}, {Tenant: "tenant", MaxCost: -1}} {
			if err := s.inspector().SetLimits(t.Context(), l, "key k"); jobs.CodeOf(err) != jobs.CodeInvalid {
				t.Errorf("limits %+v: %v", l, err)
			}
		}
	})
}

func TestAnUpstreamThatIsHeldStartsNothingAndGoesOnWhenLet(t *testing.T) {
	inSteps(t, takingASecond, func(t *testing.T, s *stepwise) {
		s.worker = s.newWorker(s.Ports, 1)
		s.must(s.submit(40, chunksOf(20)))
		s.dispatch()
		id := jobs.GateID{Upstream: "upstream", Model: "m"}
		held := make(chan int, 1)
		go func() {
			time.Sleep(10 * time.Second) // of the bubble
			u, err := s.inspector().PauseUpstream(t.Context(), id, "key k", "it is moved")
			if err != nil || u.Pause == nil || !strings.Contains(u.Pause.Message, "it is moved") {
				t.Errorf("held as %+v, %v", u, err)
			}
			held <- s.calls()
		}()
		s.redeliver(time.Hour)
		before := <-held
		if after := s.calls(); after > before+6 || after == 40 { // seen within five seconds, and the call in flight
			t.Errorf("%d calls when it was held, %d an hour later", before, after)
		}
		if j := s.job(); j.Pause != nil {
			t.Errorf("the job itself has a pause: %+v", j.Pause)
		}
		all, err := s.inspector().Upstreams(t.Context())
		s.must(err)
		if len(all) != 1 || all[0].ID != id || all[0].Pause == nil || all[0].Pause.Reason != jobs.PauseOperator {
			t.Errorf("listed as %+v", all)
		}
		s.sweeps(5) // nobody probes what an operator holds
		after := s.calls()
		s.sweeps(5)
		if s.calls() != after {
			t.Error("it was probed")
		}
		if u, err := s.inspector().ResumeUpstream(t.Context(), id, "key k"); err != nil || u.Pause != nil {
			t.Errorf("let go as %+v, %v", u, err)
		}
		s.run(time.Hour)
		s.wantEnd(40)
		for item, n := range s.called {
			if n != 1 {
				t.Errorf("item %d was called %d times", item, n)
			}
		}
	})
}

func takingASecond(int, int) *jobs.Fault {
	time.Sleep(time.Second) // of the bubble
	return nil
}

// usingTokens has each answer use a hundred tokens.
type usingTokens struct{ jobs.Upstream }

func (u usingTokens) Call(ctx context.Context, r jobs.Request) (jobs.Answer, error) {
	answer, err := u.Upstream.Call(ctx, r)
	answer.Usage = jobs.Usage{Input: 100, Total: 100}
	return answer, err
}

// put puts an object into the inbox, and tells of it.
func (s *stepwise) put(name, content string) error {
	w, err := s.local.Files.Create(s.t.Context(), name)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, content); err != nil {
		return err
	}
	info, err := w.Commit(s.t.Context())
	if err == nil {
		s.send(jobs.QueueIngest, jobs.UploadBody(jobs.UploadMessage{Upload: info.FileRef, Bytes: info.Bytes}))
	}
	return err
}

func TestAnOperatorsPauseWaivesNoLimit(t *testing.T) {
	inSteps(t, takingASecond, func(t *testing.T, s *stepwise) {
		s.dear()
		s.must(s.submit(400, func(j *jobs.Job) { chunksOf(4)(j); j.MaxCost = jobs.USD(50) }))
		_, err := s.inspector().Pause(t.Context(), theJob, "key k", "a new model is put in place")
		s.must(err)
		_, err = s.inspector().Resume(t.Context(), theJob, "key k")
		s.must(err)
		s.pass(time.Hour, true)
		if j := s.job(); j.Pause == nil || j.Pause.Limit != jobs.LimitCost {
			t.Errorf("a job that may cost $50 has cost $%.0f, and is held by %+v", j.Totals.Cost.USD(), j.Pause)
		}
	})
}

func TestAnOperatorHoldsWhatIsHeldAlready(t *testing.T) {
	inSteps(t, func(int, int) *jobs.Fault { return failure(401) }, func(t *testing.T, s *stepwise) {
		s.must(s.submit(40, chunksOf(4)))
		s.pass(5*time.Minute, true)
		if j := s.job(); j.Pause == nil || j.Pause.Reason != jobs.PauseCredential {
			t.Fatalf("the job is %s, held by %+v", j.Phase, j.Pause)
		}
		for range 2 {
			j, err := s.inspector().Pause(t.Context(), theJob, "key k", "the key is rotated at noon")
			s.must(err)
			for _, word := range []string{"rotated at noon", "before: upstream/m refuses every call"} {
				if j.Pause.Reason != jobs.PauseOperator || !strings.Contains(j.Pause.Message, word) {
					t.Errorf("it is held by %+v, which does not say %q", j.Pause, word)
				}
			}
		}
		log, err := jobs.AuditLog(t.Context(), s.Registry, "", 10)
		s.must(err)
		if len(log) != 1 {
			t.Errorf("the log has %d records of one hold", len(log))
		}
		s.upstream = answerAll
		before := s.calls()
		s.sweeps(5)
		if s.calls() != before || s.job().Pause == nil {
			t.Errorf("it went on by itself: %d calls", s.calls()-before)
		}
		_, err = s.inspector().Resume(t.Context(), theJob, "key k")
		s.must(err)
		s.run(time.Hour)
		s.wantEnd(40)
	})
}

// TestACostIsNoticedWhileChunksAreDeferred: what is deferred with news is folded too.
func TestACostIsNoticedWhileChunksAreDeferred(t *testing.T) {
	quarterFails := func(item, _ int) *jobs.Fault {
		if item%4 == 0 {
			return failure(500)
		}
		return takingASecond(item, 1)
	}
	inSteps(t, quarterFails, func(t *testing.T, s *stepwise) {
		s.dear()
		s.must(s.submit(2000, func(j *jobs.Job) { chunksOf(20)(j); j.MaxCost = jobs.USD(50) }))
		s.dispatch()
		for range 200 {
			s.settle(jobs.QueueAggregate, jobs.QueueIngest)
			batch := s.receive(jobs.QueueWork)
			if len(batch) == 0 || s.job().Pause != nil {
				break
			}
			s.handle(t.Context(), s.worker, batch)
		}
		t0, err := jobs.Progress(t.Context(), s.Ports, new(s.job()))
		s.must(err)
		if j := s.job(); j.Pause == nil || t0.Cost > jobs.USD(400) {
			t.Errorf("$%.0f of $50 are spent, and the job is held by %+v", t0.Cost.USD(), j.Pause)
		}
	})
}

func TestNoJobIsTakenBesideOneThatIsNotCounted(t *testing.T) {
	inSteps(t, answerAll, func(t *testing.T, s *stepwise) {
		s.must(s.submit(40, nil))
		s.must(s.inspector().SetLimits(t.Context(), jobs.Limits{Tenant: "tenant", OpenItems: 1000}, "key k"))
		if err := jobs.Admit(t.Context(), s.Ports, "tenant"); jobs.CodeOf(err) != jobs.CodeLimit || !strings.Contains(err.Error(), "not counted yet") {
			t.Errorf("another job: %v", err)
		}
		s.dispatch()
		s.must(jobs.Admit(t.Context(), s.Ports, "tenant"))
	})
}

func TestAnUpstreamIsHeldByItsName(t *testing.T) {
	inSteps(t, takingASecond, func(t *testing.T, s *stepwise) {
		hold := func(name string) error {
			_, err := s.inspector().PauseUpstream(t.Context(), jobs.GateID{Upstream: name, Model: "m"}, "key k", "")
			return err
		}
		if err := hold("upstream"); jobs.CodeOf(err) != jobs.CodeInvalid || !strings.Contains(err.Error(), "no upstream has been called yet") {
			t.Errorf("before any call: %v", err)
		}
		s.must(s.submit(40, nil))
		s.run(time.Hour)
		all, err := s.inspector().Upstreams(t.Context())
		s.must(err)
		if len(all) != 1 || all[0].ID != (jobs.GateID{Upstream: "upstream", Model: "m"}) || all[0].ToldAt.IsZero() || all[0].Pause != nil {
			t.Errorf("one that answers is listed as %+v", all)
		}
		if err := hold("https://upstream/v1"); jobs.CodeOf(err) != jobs.CodeInvalid || !strings.Contains(err.Error(), "known are upstream") {
			t.Errorf("by its address: %v", err)
		}
		s.must(hold("upstream"))
	})
}

// TestItemsThatWaitForAnotherTrySeeTheHold: a hold holds them within five seconds, not only those that were never called.
func TestItemsThatWaitForAnotherTrySeeTheHold(t *testing.T) {
	var last atomic.Pointer[time.Time]
	throttled := func(item, call int) *jobs.Fault {
		last.Store(new(time.Now()))
		if item > 0 && call == 1 {
			f := failure(429)
			f.RetryAfter = 20 * time.Second
			return f
		}
		return nil
	}
	inSteps(t, throttled, func(t *testing.T, s *stepwise) {
		s.must(s.submit(6, chunksOf(1))) // the first is answered by itself, so that the upstream is known
		s.dispatch()
		s.handle(t.Context(), s.worker, s.receive(jobs.QueueWork))
		held := make(chan time.Time, 1)
		go func() {
			time.Sleep(5 * time.Second) // of the bubble
			if _, err := s.inspector().PauseUpstream(t.Context(), jobs.GateID{Upstream: "upstream", Model: "m"}, "key k", ""); err != nil {
				t.Error(err)
			}
			held <- time.Now()
		}()
		s.redeliver(5 * time.Minute)
		if at := <-held; last.Load().After(at.Add(5 * time.Second)) {
			t.Errorf("an item was called %s after the hold", last.Load().Sub(at))
		}
	})
}

// listsOf counts how often the jobs of a tenant are listed.
type listsOf struct {
	jobs.Ledger
	n      int
	closes jobs.JobID // by somebody else, before a tenant's jobs are listed
}

func (l *listsOf) Jobs(ctx context.Context, q jobs.JobQuery) iter.Seq2[jobs.Job, error] {
	if q.Tenant != "" {
		l.n++
		if j, err := l.Job(ctx, l.closes); err == nil {
			j.Closed = true
			if err := l.SaveJob(ctx, &j); err != nil {
				panic(err)
			}
		}
	}
	return l.Ledger.Jobs(ctx, q)
}

// TestWhatClosedJobsHaveCostIsSummedUpNowAndThen: a month may have very many, and the sweep comes each minute.
func TestWhatClosedJobsHaveCostIsSummedUpNowAndThen(t *testing.T) {
	inSteps(t, answerAll, func(t *testing.T, s *stepwise) {
		time.Sleep(10 * 24 * time.Hour) // into a month
		s.must(s.inspector().SetLimits(t.Context(), jobs.Limits{Tenant: "tenant", MaxCost: jobs.USD(60)}, "key k"))
		save := func(id string, cost float64, closed bool) jobs.Job {
			j := jobs.Job{V: 1, ID: jobs.JobID(id), Tenant: "tenant", Phase: jobs.PhaseCompleted, Created: s.Now(), Closed: closed, Totals: jobs.Totals{Cost: jobs.USD(cost)},
				Entered: map[jobs.Phase]time.Time{jobs.PhaseInProgress: s.Now(), jobs.PhaseCompleted: s.Now()}}
			s.must(s.local.Store.SaveJob(t.Context(), &j))
			return j
		}
		save("batch_a", 20, true)
		b := save("batch_b", 30, true)
		s.must(s.submit(40, nil))
		time.Sleep(time.Second)
		ledger := &listsOf{Ledger: s.Ledger}
		p := s.Ports
		p.Ledger = ledger
		a := jobs.NewAggregate(p, jobs.AggregateOptions{})
		sweep := func(wantLists int, wantHeld bool) {
			t.Helper()
			if failed := a.Handle(t.Context(), []jobs.Message{{ID: "1", Queue: jobs.QueueAggregate, Body: jobs.TickBody()}}); len(failed) > 0 {
				t.Fatal(failed)
			}
			if held := s.job().Pause != nil; held != wantHeld || ledger.n != wantLists {
				t.Errorf("held: %t, after %d lists; want %t and %d", held, ledger.n, wantHeld, wantLists)
			}
		}
		sweep(1, false)
		sweep(1, false)
		b.Phase, b.Closed = jobs.PhaseInProgress, false // it is redriven, and does not count twice
		time.Sleep(time.Second)
		b.Entered[jobs.PhaseInProgress] = s.Now()
		s.must(s.local.Store.SaveJob(t.Context(), &b))
		time.Sleep(time.Second)
		sweep(2, false)
		save("batch_c", 45, false)
		sweep(2, true)
		j := s.job()
		j.Pause = nil
		s.must(s.local.Store.SaveJob(t.Context(), &j))
		ledger.closes = "batch_c" // between the list of the open jobs and that of the closed ones
		s.must(s.inspector().SetLimits(t.Context(), jobs.Limits{Tenant: "tenant", MaxCost: jobs.USD(70)}, "key k"))
		time.Sleep(16 * time.Minute)
		sweep(3, false)
		ledger.closes = ""
		time.Sleep(16 * time.Minute)
		s.must(s.inspector().SetLimits(t.Context(), jobs.Limits{Tenant: "tenant", MaxCost: jobs.USD(60)}, "key k"))
		sweep(4, true)
	})
}
