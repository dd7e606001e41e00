package localjobs

import (
	"context"
	"testing"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

func TestLostSaveUsesUpNoTry(t *testing.T) {
	inSteps(t, answerAll, func(t *testing.T, s *stepwise) {
		const races = 2 * jobs.MaxTries
		lost, joined := 0, false
		s.before = func(verb, _ string) error {
			switch {
			case verb == "concat":
				joined = true
			case verb == "save job" && joined && lost < races:
				joined = false
				lost++
				s.changeJob(func(*jobs.Job) {}) // somebody else is faster
			}
			return nil
		}
		s.must(s.submit(3, nil))
		s.settle() // and nobody waits for the end of a lease
		s.wantEnd(3)
		if lost != races {
			t.Errorf("%d saves were lost, want %d", lost, races)
		}
	})
}

func TestStepThatIsCutShortUsesUpNoTry(t *testing.T) {
	inSteps(t, answerAll, func(t *testing.T, s *stepwise) {
		s.must(s.submit(3, nil))
		s.settle(jobs.QueueIngest, jobs.QueueWork)
		cut := 0
		for range 2 * jobs.MaxTries {
			ctx, cancel := context.WithCancel(t.Context())
			s.before = func(verb, _ string) error {
				if verb == "concat" {
					cut++
					cancel()
					return ctx.Err()
				}
				return nil
			}
			for batch := s.receive(jobs.QueueAggregate); len(batch) > 0 && ctx.Err() == nil; batch = s.receive(jobs.QueueAggregate) {
				s.handle(ctx, s.aggregate, batch)
			}
			cancel()
			s.before = nil
			s.start()
			time.Sleep(hidden)
		}
		s.run(time.Hour)
		s.wantEnd(3)
		if cut < jobs.MaxTries {
			t.Errorf("the step was cut short %d times, want at least %d", cut, jobs.MaxTries)
		}
	})
}

func TestPausedJobCallsOnceAMinuteAndGoesOn(t *testing.T) {
	var heals time.Time
	upstream := func(int, int) *jobs.Fault {
		if time.Now().Before(heals) {
			return failure(401)
		}
		return nil
	}
	inSteps(t, upstream, func(t *testing.T, s *stepwise) {
		const outage = 20 * time.Minute
		heals = time.Now().Add(outage)
		s.worker = s.newWorker(s.Ports, 1)
		s.must(s.submit(20, nil))
		s.run(time.Hour)
		s.wantEnd(20)
		if n, most := s.calls(), 20+2+int(outage/time.Minute); n > most {
			t.Errorf("%d calls, want at most %d: one a minute while it is paused", n, most)
		}
	})
}
