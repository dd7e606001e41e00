package localjobs

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Each of these claims was once untrue.

var errThrottled = errors.New("throttled")

func TestParkedChunkOfADeadWorkerIsSentAgainOnResume(t *testing.T) {
	for _, test := range []struct {
		name string
		park func(s *stepwise, m []jobs.Message)
	}{
		{"its record is freed when it is parked", func(s *stepwise, m []jobs.Message) {
			c := s.chunkOf(m[0])
			c.Attempt, c.Owner, c.Lease = 1, "dead/1", time.Now().Add(time.Hour)
			s.must(s.local.Store.SaveChunk(s.t.Context(), &c))
			m[0].Receives = 2
			if failures := s.handle(s.t.Context(), s.worker, m); len(failures) > 0 {
				s.t.Fatalf("park: %v", failures)
			}
			if c := s.chunk(); c.Waits == "" || c.Owner != "" || c.Crashes != 1 {
				s.t.Errorf("the parked chunk waits for %q, is held by %q, with %d crashes; want it free, with one", c.Waits, c.Owner, c.Crashes)
			}
		}},
		{"its record still names the dead worker", func(s *stepwise, m []jobs.Message) {
			c := s.chunkOf(m[0])
			c.Attempt, c.Owner, c.Lease, c.Waits = 1, "dead/1", time.Now().Add(time.Hour), "job"
			s.must(s.local.Store.SaveChunk(s.t.Context(), &c))
			s.must(s.local.Queue.Ack(s.t.Context(), m...))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			inSteps(t, answerAll, func(t *testing.T, s *stepwise) {
				s.must(s.submit(3, nil))
				s.dispatch()
				s.changeJob(func(j *jobs.Job) { j.Pause = &jobs.Pause{Reason: jobs.PauseOperator, At: time.Now()} })
				test.park(s, s.receive(jobs.QueueWork))
				s.must(jobs.Resume(s.t.Context(), s.Ports, theJob))
				s.settle()
				s.wantEnd(3)
			})
		})
	}
}

func TestSendThatFailsAfterTheCheckIsMadeUpForByTheNextDelivery(t *testing.T) {
	inSteps(t, answerAll, func(t *testing.T, s *stepwise) {
		lost := 0
		s.before = func(verb, name string) error {
			if verb != "send" || name != string(jobs.QueueIngest) || lost > 0 {
				return nil
			}
			if j, err := s.local.Store.Job(s.t.Context(), theJob); err != nil || j.Checked == nil {
				return err
			}
			lost++
			return errThrottled
		}
		s.must(s.submit(3, nil))
		s.redeliver(2 * time.Minute)
		if lost != 1 {
			t.Fatalf("%d sends failed, want 1", lost)
		}
		s.wantEnd(3)
	})
}

func TestSubmitWhoseSendsWereLostIsMadeUpFor(t *testing.T) {
	for _, test := range []struct {
		name   string
		repair func(s *stepwise)
	}{
		{"by two sweeps", func(s *stepwise) { s.sweeps(2) }},
		{"by submitting again", func(s *stepwise) {
			s.must(s.submitAgain(s.job()))
			s.settle()
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			inSteps(t, answerAll, func(t *testing.T, s *stepwise) {
				s.before = func(verb, _ string) error {
					if verb == "send" {
						return errThrottled
					}
					return nil
				}
				if err := s.submit(3, nil); !errors.Is(err, errThrottled) {
					t.Fatalf("submit: %v, want it to say that the sends failed", err)
				}
				s.before = nil
				test.repair(s)
				s.wantEnd(3)
			})
		})
	}
}

func TestReopeningWhoseSendsWereLostCanBeRepeated(t *testing.T) {
	inSteps(t, answerAll, func(t *testing.T, s *stepwise) {
		s.must(s.submit(3, nil))
		s.dispatch()
		s.must(jobs.ExpireJob(t.Context(), s.Ports, theJob, "given up"))
		s.settle()
		if j := s.job(); j.Phase != jobs.PhaseExpired || s.calls() > 0 {
			t.Fatalf("the job is %s after %d calls, want it expired before any", j.Phase, s.calls())
		}
		s.before = func(verb, _ string) error {
			if verb == "send" {
				return errThrottled
			}
			return nil
		}
		if err := jobs.Reopen(t.Context(), s.Ports, theJob); !errors.Is(err, errThrottled) {
			t.Fatalf("reopen: %v, want it to say that the sends failed", err)
		}
		s.before = nil
		s.must(jobs.Reopen(t.Context(), s.Ports, theJob))
		s.settle()
		s.wantEnd(3)
	})
}

// countedSteps each make a call of a port that no other step makes, and make it once.
var countedSteps = []struct {
	step       jobs.Step
	split      int
	verb, name string
}{
	{jobs.StepScan, 0, "create", "jobs/batch_1/splits/0.ids-"},
	{jobs.StepCheck, jobs.WholeJob, "create", "jobs/batch_1/check/summary"},
	{jobs.StepCompact, 0, "create", "jobs/batch_1/pieces/"},
	{jobs.StepFinalize, jobs.WholeJob, "concat", "files/tenant/"},
}

func TestStepThatNeverEndsStopsItsJobAfterFiveTries(t *testing.T) {
	for _, end := range []struct {
		name, says string
		meet       func()
	}{
		{"panics", "panic: out of luck", func() { panic("out of luck") }},
		{"its process dies", "its process died each time", die},
	} {
		for _, at := range countedSteps {
			t.Run(fmt.Sprintf("%s %s", at.step, end.name), func(t *testing.T) {
				inSteps(t, answerAll, func(t *testing.T, s *stepwise) {
					met := 0
					s.before = func(verb, name string) error {
						if verb == at.verb && strings.HasPrefix(name, at.name) {
							met++
							end.meet()
						}
						return nil
					}
					s.must(s.submit(3, nil))
					s.run(8 * time.Hour)
					j := s.job()
					if j.Phase != jobs.PhaseFailed || j.Stop.Code != string(jobs.CodeInternal) || met != jobs.MaxTries {
						t.Fatalf("after %d tries the job is %s, stopped by %+v; want it failed after %d", met, j.Phase, j.Stop, jobs.MaxTries)
					}
					for _, want := range []string{string(at.step) + " ", end.says} {
						if !strings.Contains(j.Stop.Reason, want) {
							t.Errorf("the reason is %q, want %q in it", j.Stop.Reason, want)
						}
					}
				})
			})
		}
	}
}

func TestResumeForgetsTries(t *testing.T) {
	for _, at := range countedSteps {
		t.Run(string(at.step), func(t *testing.T) {
			inSteps(t, answerAll, func(t *testing.T, s *stepwise) {
				met := 0
				s.before = func(verb, name string) error {
					if verb == at.verb && strings.HasPrefix(name, at.name) && met < 2*(jobs.MaxTries-1) {
						met++
						die()
					}
					return nil
				}
				s.must(s.submit(3, nil))
				for met < jobs.MaxTries-1 {
					s.redeliver(time.Minute)
				}
				s.must(jobs.Resume(t.Context(), s.Ports, theJob))
				s.run(time.Hour)
				s.wantEnd(3)
				if met != 2*(jobs.MaxTries-1) {
					t.Errorf("the step met its end %d times, want %d", met, 2*(jobs.MaxTries-1))
				}
			})
		})
	}
}

func TestSecondVisitLeavesTheFirstAtItsStep(t *testing.T) {
	for _, at := range countedSteps {
		t.Run(string(at.step), func(t *testing.T) {
			inSteps(t, answerAll, func(t *testing.T, s *stepwise) {
				met, begun, release := 0, make(chan struct{}), make(chan struct{})
				s.before = func(verb, name string) error {
					if verb == at.verb && strings.HasPrefix(name, at.name) {
						if met++; met == 1 {
							close(begun)
							<-release
						}
					}
					return nil
				}
				s.must(s.submit(3, nil))
				over := make(chan struct{})
				go func() {
					defer close(over)
					s.settle()
				}()
				<-begun
				q := at.step.Owner()
				s.send(q, fmt.Appendf(nil, `{"v":1,"advance":%q,"split":%d}`, theJob, at.split))
				second := s.receive(q)
				failures := s.handle(t.Context(), s.handler(q), second)
				var off *jobs.Deferred
				if len(failures) == 0 || !errors.As(failures[0].Err, &off) || !strings.Contains(off.Why, "somebody is at it") {
					t.Errorf("the second visit: %v, want it deferred since somebody is at it", failures)
				}
				close(release)
				<-over
				s.run(10 * time.Minute)
				s.wantEnd(3)
				if met != 1 || len(s.errs) > 0 {
					t.Errorf("the step was done %d times, with errors %v; want once, without", met, s.errs)
				}
			})
		})
	}
}

func TestRandomFailuresBuryNobody(t *testing.T) {
	for _, percent := range []uint32{50, 90} {
		t.Run(fmt.Sprintf("%d percent", percent), func(t *testing.T) {
			upstream := func(item, call int) *jobs.Fault {
				if odds(percent, 1, item, call) {
					return failure(500)
				}
				return nil
			}
			inSteps(t, upstream, func(t *testing.T, s *stepwise) {
				s.must(s.submit(300, nil))
				s.run(24 * time.Hour)
				if n := s.buried(); n > 0 {
					t.Errorf("%d chunks were buried: %v", n, s.job().Totals)
				}
				s.wantEnd(300)
			})
		})
	}
}

func TestItemThatIsAlwaysSickIsBuriedAmongRandomFailures(t *testing.T) {
	const sick = 150
	upstream := func(item, call int) *jobs.Fault {
		if item == sick || odds(10, 2, item, call) {
			return failure(500)
		}
		return nil
	}
	inSteps(t, upstream, func(t *testing.T, s *stepwise) {
		s.must(s.submit(300, nil))
		s.run(24 * time.Hour)
		s.wantEnd(299)
		if n := s.buried(); n != 1 {
			t.Errorf("%d chunks were buried, want that of the sick item", n)
		}
	})
}

func TestLastSickItemsOfAJobAreBuried(t *testing.T) {
	upstream := func(item, _ int) *jobs.Fault {
		if item == 7 || item == 8 {
			return failure(500)
		}
		return nil
	}
	inSteps(t, upstream, func(t *testing.T, s *stepwise) {
		s.must(s.submit(100, nil))
		s.run(24 * time.Hour)
		s.wantEnd(98)
		if n := s.buried(); n != 1 {
			t.Errorf("%d chunks were buried, want the one", n)
		}
	})
}

func TestOutageAfterARoughStartBuriesNobody(t *testing.T) {
	var s *stepwise
	heals := sync.OnceValue(func() time.Time { return time.Now().Add(time.Hour) })
	upstream := func(item, call int) *jobs.Fault {
		rough := s.calls() <= 200
		if rough && odds(25, 3, item, call) || !rough && time.Now().Before(heals()) {
			return failure(500)
		}
		return nil
	}
	inSteps(t, upstream, func(t *testing.T, stepwise *stepwise) {
		s = stepwise
		s.must(s.submit(300, nil))
		s.run(24 * time.Hour)
		if n := s.buried(); n > 0 {
			t.Errorf("%d chunks were buried in an outage", n)
		}
		s.wantEnd(300)
	})
}

func TestLongRetryAfterOfOneItemHoldsNobodyElseUp(t *testing.T) {
	const slow = 20
	var until time.Time
	upstream := func(item, _ int) *jobs.Fault {
		if item != slow || !time.Now().Before(until) {
			return nil
		}
		time.Sleep(2 * aCall) // others are answered meanwhile
		fault := failure(429)
		fault.RetryAfter = time.Hour
		return fault
	}
	inSteps(t, upstream, func(t *testing.T, s *stepwise) {
		began := time.Now()
		until = began.Add(time.Hour)
		s.worker = s.newWorker(s.Ports, 8)
		s.must(s.submit(100, chunksOf(50)))
		s.redeliver(25 * time.Second)
		j := s.job()
		done, err := jobs.Progress(t.Context(), s.Ports, &j)
		s.must(err)
		if took := done.LastAnswer.Sub(began); done.Answered != 99 || took > 25*time.Second {
			t.Errorf("%d items were answered in %s while one waits, want the 99 others within a few deferrals", done.Answered, took)
		}
		s.run(3 * time.Hour)
		s.wantEnd(100)
	})
}

func TestProbeIsOneCall(t *testing.T) {
	asked := failure(503)
	asked.RetryAfter = time.Second
	for _, test := range []struct {
		name  string
		fault *jobs.Fault
	}{
		{"500", failure(500)},
		{"timeout", &jobs.Fault{Cause: jobs.CauseTimeout, Code: "request_timeout", Message: "no"}},
		{"429", failure(429)},
		{"503 with Retry-After", asked},
		{"401", failure(401)},
	} {
		t.Run(test.name, func(t *testing.T) {
			inSteps(t, func(int, int) *jobs.Fault { return test.fault }, func(t *testing.T, s *stepwise) {
				s.must(s.submit(20, nil))
				s.dispatch()
				m := s.receive(jobs.QueueWork)
				id := s.chunkOf(m[0]).ID
				s.changeJob(func(j *jobs.Job) {
					j.Pause = &jobs.Pause{Reason: jobs.PauseCredential, At: time.Now(), Probe: &id, ProbeAt: time.Now().Add(time.Minute)}
				})
				s.handle(t.Context(), s.worker, m)
				if n := s.calls(); n != 1 {
					t.Errorf("the probe was %d calls, want 1", n)
				}
			})
		})
	}
}

func TestWindowOfAReopenedJobIsWhatItWas(t *testing.T) {
	const window = 24 * time.Hour
	inSteps(t, answerAll, func(t *testing.T, s *stepwise) {
		s.must(s.submit(3, func(j *jobs.Job) { j.Deadline = time.Now().Add(window) }))
		s.dispatch()
		for range 3 {
			time.Sleep(10 * window)
			s.send(jobs.QueueAggregate, jobs.TickBody())
			s.settle(jobs.QueueAggregate)
			if j := s.job(); j.Phase != jobs.PhaseExpired {
				t.Fatalf("the job is %s after its deadline, want it expired", j.Phase)
			}
			s.must(jobs.Reopen(t.Context(), s.Ports, theJob))
			if left := time.Until(s.job().Deadline); left != window {
				t.Errorf("the reopened job has %s, want %s", left, window)
			}
		}
	})
}

func TestExpiredJobWithAnUnscannedSplitCanBeReopened(t *testing.T) {
	inSteps(t, answerAll, func(t *testing.T, s *stepwise) {
		s.must(s.submit(30, func(j *jobs.Job) { j.Cut.SplitBytes, j.Cut.FloorBytes = 1000, 0 }))
		s.before = func(verb, name string) error {
			if verb == "create" && strings.HasPrefix(name, "jobs/batch_1/splits/1") {
				return errThrottled
			}
			return nil
		}
		s.settle()
		s.before = nil
		if unscanned, err := s.local.Store.Split(t.Context(), theJob, 1); err != nil || unscanned.Scanned != nil || s.split().Scanned == nil {
			t.Fatalf("split 0 is %+v, split 1 is %+v, %v; want only the first scanned", s.split(), unscanned, err)
		}
		s.must(jobs.ExpireJob(t.Context(), s.Ports, theJob, "given up"))
		s.settle()
		if j := s.job(); j.Phase != jobs.PhaseExpired {
			t.Fatalf("the job is %s, want it expired", j.Phase)
		}
		s.must(jobs.Reopen(t.Context(), s.Ports, theJob))
		s.run(10 * time.Minute)
		s.wantEnd(30)
	})
}

func TestErrorAtTheSecondLookGivesTheClaimBack(t *testing.T) {
	inSteps(t, answerAll, func(t *testing.T, s *stepwise) {
		s.must(s.submit(3, nil))
		s.dispatch()
		claimed := false
		s.before = func(verb, _ string) error {
			switch {
			case verb == "save chunk":
				claimed = true
			case verb == "read job" && claimed:
				return errThrottled
			}
			return nil
		}
		failures := s.handle(t.Context(), s.worker, s.receive(jobs.QueueWork))
		s.before = nil
		if len(failures) != 1 || !errors.Is(failures[0].Err, errThrottled) {
			t.Fatalf("failures %v, want the error of the second look", failures)
		}
		if c := s.chunk(); c.Owner != "" || c.Crashes > 0 {
			t.Errorf("the chunk is held by %q, with %d crashes; want its claim given back", c.Owner, c.Crashes)
		}
		s.run(10 * time.Minute)
		s.wantEnd(3)
		if c := s.chunk(); c.Crashes > 0 {
			t.Errorf("%d crashes were counted in the end, want none", c.Crashes)
		}
	})
}

func TestAttemptAloneThatLostItsClaimCallsNothing(t *testing.T) {
	inSteps(t, answerAll, func(t *testing.T, s *stepwise) {
		s.must(s.submit(3, nil))
		s.dispatch()
		m := s.receive(jobs.QueueWork)
		c := s.chunkOf(m[0])
		c.Attempt, c.Crashes = 2, 2
		s.must(s.local.Store.SaveChunk(t.Context(), &c))
		m[0].Receives = 3
		taken := false
		s.before = func(verb, name string) error {
			if verb == "read" && name == "files/tenant/input" && !taken {
				taken = true
				s.changeChunk(func(c *jobs.Chunk) {
					c.Attempt++
					c.Owner, c.Lease = "other/1", time.Now().Add(time.Minute)
				})
			}
			return nil
		}
		s.handle(t.Context(), s.worker, m)
		if n := s.calls(); n > 0 || !taken {
			t.Errorf("%d calls after the claim was lost, want none", n)
		}
		if c := s.chunk(); c.Owner != "other/1" {
			t.Errorf("the chunk is held by %q, want it left to the other worker", c.Owner)
		}
	})
}

func TestLateSaveThatCompletesADeadChunkLeavesNothingToRetry(t *testing.T) {
	inSteps(t, answerAll, func(t *testing.T, s *stepwise) {
		s.must(s.submit(2, nil))
		s.dispatch()
		saves, answered, release := 0, make(chan struct{}), make(chan struct{})
		s.before = func(verb, _ string) error {
			if verb == "save chunk" {
				if saves++; saves == 2 { // the first was the claim
					close(answered)
					<-release
				}
			}
			return nil
		}
		over := make(chan struct{})
		go func() {
			defer close(over)
			s.handle(t.Context(), s.worker, s.receive(jobs.QueueWork))
		}()
		<-answered
		s.changeChunk(func(c *jobs.Chunk) { // another worker judged them
			c.Owner, c.Lease, c.Attempt, c.Spent = "", time.Time{}, 2, jobs.BitsOf(0, 1)
			c.Dead, c.Buried, c.Burial = true, true, 1
		})
		s.send(jobs.QueueAggregate, fmt.Appendf(nil, `{"v":1,"advance":%q,"split":0}`, theJob))
		s.settle(jobs.QueueAggregate)
		if j := s.job(); j.Phase != jobs.PhaseCompleted || j.Totals.Dead != 1 || j.Outputs.Totals.Failed != 2 {
			t.Fatalf("the job is %s, with totals %+v; want it completed with a dead chunk", j.Phase, j.Totals)
		}
		close(release)
		<-over
		s.settle()
		s.wantEnd(2)
		if j := s.job(); j.Totals.Dead != 0 || j.Totals.Answered != 2 || j.Totals.Failed != 0 {
			t.Errorf("totals %+v, want two answers and nothing dead", j.Totals)
		}
		s.must(jobs.Reopen(t.Context(), s.Ports, theJob))
		s.run(10 * time.Minute)
		if n := s.calls(); n != 2 {
			t.Errorf("%d calls in all, want one for each item", n)
		}
	})
}

// odds decides by item and call, whatever their order: so each run draws the same.
func odds(percent uint32, seed, item, call int) bool {
	h := fnv.New32a()
	fmt.Fprintf(h, "%d/%d/%d", seed, item, call)
	return h.Sum32()%100 < percent
}

// TestEndOfAnAttemptInBadWeatherIsNoDeath: what ends an attempt is tried again, and the claim given up whatever fails. Else
// the next attempt would take it for the death of its process, and the item in hand for the cause.
func TestEndOfAnAttemptInBadWeatherIsNoDeath(t *testing.T) {
	for _, row := range []struct {
		name     string
		verb     string
		times    int
		answered bool // and its answer kept
	}{
		{"a save fails once", "save chunk", 1, true},
		{"a part fails once", "create", 1, true},
		{"no part can be written", "create", 3, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			ended := false
			refuses := func(int, int) *jobs.Fault {
				ended = true
				return nil
			}
			inSteps(t, refuses, func(t *testing.T, s *stepwise) {
				failed := 0
				s.before = func(verb, _ string) error {
					if verb == row.verb && ended && failed < row.times {
						failed++
						return errThrottled
					}
					return nil
				}
				s.must(s.submit(1, nil))
				s.dispatch()
				messages := s.receive(jobs.QueueWork)
				failures := s.handle(t.Context(), s.worker, messages)
				c := s.chunk()
				if c.Owner != "" || c.Crashes != 0 || len(c.Felled) > 0 {
					t.Errorf("the chunk is held by %q, with %d crashes and %v felled; want it free, with none", c.Owner, c.Crashes, c.Felled)
				}
				if c.Done() != row.answered || (len(failures) == 0) != row.answered {
					t.Errorf("after %d failures %d messages come again, and the chunk has %s", failed, len(failures), c.Resolved)
				}
				if failed != row.times {
					t.Errorf("%d calls failed, want %d", failed, row.times)
				}
				s.before = nil
				s.run(inTime)
				s.wantEnd(1)
			})
		})
	}
}

// TestAttemptThatLosesItsClaimBuriesNothing lets another worker take the claim over just before each of the saves in turn,
// the one among them that would give the chunk up.
func TestAttemptThatLosesItsClaimBuriesNothing(t *testing.T) {
	inSaves := true
	for at := 1; inSaves; at++ {
		inSteps(t, lastIsSick, func(t *testing.T, s *stepwise) {
			saves := 0
			s.before = func(verb, _ string) error {
				if verb != "save chunk" {
					return nil
				}
				if saves++; saves == at && at > 1 {
					s.changeChunk(func(c *jobs.Chunk) { c.Attempt, c.Owner, c.Lease = c.Attempt+1, "", time.Time{} })
				}
				return nil
			}
			s.must(s.submit(3, func(j *jobs.Job) { j.MaxCalls = 1 }))
			s.run(2 * inTime)
			s.wantEnd(2)
			inSaves = saves >= at
			for d, err := range s.local.Queue.Peek(t.Context(), jobs.QueueWork) {
				s.must(err)
				if m, err := jobs.DecodeMessage(d.Body); err != nil || m.Chunk.Burial != 1 {
					t.Errorf("taken over at save %d: a dead letter has burial number %d (error: %v), but nothing was buried but once", at, m.Chunk.Burial, err)
				}
			}
		})
	}
}

// TestLeaseOfABoundedAttemptEndsWithItsContext: a checkpoint leaves it at that, so that a crash costs seconds.
func TestLeaseOfABoundedAttemptEndsWithItsContext(t *testing.T) {
	inSteps(t, answerAll, func(t *testing.T, s *stepwise) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		deadline, _ := ctx.Deadline()
		s.upstream = func(item, _ int) *jobs.Fault {
			if item == 1 {
				time.Sleep(2 * time.Minute) // while a checkpoint is made for the others
			}
			return nil
		}
		checkpoints := 0
		s.before = func(verb, _ string) error {
			if c := s.record(); verb == "save chunk" && c != nil && c.Owner != "" && len(c.Parts) > 0 {
				checkpoints++
				if after := c.Lease.Sub(deadline); after < 0 || after > 30*time.Second {
					t.Errorf("the lease ends %s after the deadline, want some seconds", after)
				}
			}
			return nil
		}
		s.must(s.submit(3, nil))
		s.dispatch()
		s.handle(ctx, s.worker, s.receive(jobs.QueueWork))
		if checkpoints == 0 {
			t.Error("no save was seen after a checkpoint")
		}
	})
}
