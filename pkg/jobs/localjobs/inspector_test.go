package localjobs

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

func TestAJobThatIsHeldStopsWithinFiveSecondsAndGoesOnWhenLet(t *testing.T) {
	inSteps(t, func(int, int) *jobs.Fault {
		time.Sleep(2 * time.Second)
		return nil
	}, func(t *testing.T, s *stepwise) {
		i := jobs.NewInspector(s.Ports, s.local.Queue)
		s.must(s.submit(40, chunksOf(20)))
		s.worker = s.newWorker(s.Ports, 1)
		s.dispatch()
		held := make(chan time.Time, 1)
		go func() {
			time.Sleep(10 * time.Second) // of the bubble
			_, err := i.Pause(t.Context(), theJob, "key k", "the model is replaced")
			if err != nil {
				t.Error(err)
			}
			held <- time.Now()
		}()
		s.settle()
		if took := time.Since(<-held); took > 5*time.Second+4*time.Second { // and the call in flight, and what saves it
			t.Errorf("it went on for %s", took)
		}
		called := 0
		for _, n := range s.called {
			called += n
		}
		if called == 0 || called == 40 {
			t.Fatalf("%d of 40 items were called", called)
		}
		s.redeliver(time.Hour)
		again := 0
		for _, n := range s.called {
			again += n
		}
		if j := s.job(); again != called || j.Pause == nil || j.Pause.Reason != jobs.PauseOperator || !strings.Contains(j.Pause.Message, "the model is replaced") {
			t.Errorf("an hour later %d are called, and the pause is %+v", again, j.Pause)
		}
		if _, err := i.Pause(t.Context(), theJob, "key k", "again"); err != nil || strings.Contains(s.job().Pause.Message, "again") {
			t.Errorf("a second pause: %v, %+v", err, s.job().Pause)
		}
		_, err := i.Resume(t.Context(), theJob, "key k")
		s.must(err)
		s.run(time.Hour)
		for item, n := range s.called {
			if n != 1 {
				t.Errorf("item %d was called %d times", item, n)
			}
		}
		log, err := jobs.AuditLog(t.Context(), s.Registry, "", 10)
		s.must(err)
		var did []string
		for _, a := range log {
			did = append(did, a.By+" "+a.What+" "+a.Of+" "+a.Tenant+" "+a.Why)
		}
		if diff := cmp.Diff([]string{"key k job.resume batch_1 tenant operator", "key k job.pause batch_1 tenant the model is replaced"}, did); diff != "" {
			t.Errorf("the audit log (-want +got):\n%s", diff)
		}
		if _, err := i.Pause(t.Context(), theJob, "key k", ""); jobs.CodeOf(err) != jobs.CodeConflict {
			t.Errorf("a job that has ended is paused: %v", err)
		}
		if _, err := i.Resume(t.Context(), "batch_none", "key k"); err == nil {
			t.Error("a job that is not there is resumed")
		}
	})
}

func TestErrorsOfAJobAreGroupedWithSamples(t *testing.T) {
	inSteps(t, func(item, _ int) *jobs.Fault {
		switch {
		case item%10 == 3:
			f := failure(400)
			f.Code, f.Message = "context_length_exceeded", "the request is too long"
			return f
		case item == 7:
			return failure(500)
		}
		return nil
	}, func(t *testing.T, s *stepwise) {
		s.must(s.submit(40, smallSplits))
		s.run(3 * time.Hour)
		got, err := jobs.NewInspector(s.Ports, s.local.Queue).Troubles(t.Context(), theJob)
		s.must(err)
		want := []jobs.Trouble{
			{Code: "context_length_exceeded", Message: "the request is too long", Status: 400, Failed: 4, Samples: []jobs.Sample{{Line: 4, CustomID: "c3"}, {Line: 14, CustomID: "c13"}, {Line: 24, CustomID: "c23"}}},
			{Code: "upstream_error", Message: "no", Status: 500, Open: 1, Dead: 1, Samples: []jobs.Sample{{Line: 8, CustomID: "c7"}}},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestItemsThatWereNeverCalledHaveTheirErrorWhenTheirJobEnds(t *testing.T) {
	inSteps(t, answerAll, func(t *testing.T, s *stepwise) {
		s.must(s.submit(40, smallSplits))
		s.dispatch()
		_, err := jobs.CancelJob(t.Context(), s.Ports, theJob, "x")
		s.must(err)
		s.run(3 * time.Hour)
		all, err := s.inspector().Troubles(t.Context(), theJob)
		s.must(err)
		if len(all) != 1 || all[0].Code != jobs.ItemCancelled || all[0].Failed != 40 || all[0].Open != 0 || len(all[0].Samples) != 3 || all[0].Samples[0].Line != 1 {
			t.Errorf("the errors are %+v", all)
		}
	})
}

// TestEachErrorOfAnExpiredJobCanBeRetried: what is listed has the codes that its files have.
func TestEachErrorOfAnExpiredJobCanBeRetried(t *testing.T) {
	inSteps(t, func(int, int) *jobs.Fault { return failure(503) }, func(t *testing.T, s *stepwise) {
		s.must(s.submit(40, func(j *jobs.Job) { smallSplits(j); j.Window = time.Hour }))
		s.run(3 * time.Hour)
		all, err := s.inspector().Troubles(t.Context(), theJob)
		s.must(err)
		if len(all) != 1 || all[0].Code != jobs.ItemExpired || all[0].Failed != 40 || all[0].Open != 0 {
			t.Errorf("the errors of a job that is %s are %+v", s.job().Phase, all)
		}
		if done := s.retry(jobs.RetryQuery{Codes: []string{all[0].Code}}); done.Items != all[0].Failed {
			t.Errorf("retried %+v", done)
		}
	})
}

// TestErrorsOfAJobThatWasStoppedBeforeItWasCheckedAreNone: nobody knows its items.
func TestErrorsOfAJobThatWasStoppedBeforeItWasCheckedAreNone(t *testing.T) {
	inSteps(t, answerAll, func(t *testing.T, s *stepwise) {
		s.must(s.submit(40, smallSplits))
		_, err := jobs.CancelJob(t.Context(), s.Ports, theJob, "x")
		s.must(err)
		s.run(3 * time.Hour)
		if all, err := s.inspector().Troubles(t.Context(), theJob); err != nil || len(all) != 0 {
			t.Errorf("the errors of a job that is %s are %+v, %v", s.job().Phase, all, err)
		}
	})
}

func TestAResumeOfWhatIsNotPausedSendsWhatWasLost(t *testing.T) {
	inSteps(t, answerAll, func(t *testing.T, s *stepwise) {
		s.must(s.submit(40, chunksOf(4)))
		s.dispatch()
		for batch := s.receive(jobs.QueueWork); len(batch) > 0; batch = s.receive(jobs.QueueWork) {
			s.must(s.local.Queue.Ack(t.Context(), batch...)) // lost
		}
		_, err := s.inspector().Resume(t.Context(), theJob, "key k")
		s.must(err)
		s.settle()
		if s.calls() != 40 {
			t.Errorf("%d calls", s.calls())
		}
	})
}
