package jobstest

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// The story has 200 items. Some are refused for what they are, and three bring the upstream down.
const (
	storyItems    = 200
	storyRejected = "context_length_exceeded"
	storyCrash    = "connection_reset"
)

func rejectedInStory(item int) bool { return item%50 == 7 }
func crashesInStory(item int) bool  { return item == 21 || item == 61 || item == 141 }

// PlayStory plays what operators are there for, on a driver: an upstream that rejects one kind of item and crashes on another;
// the rest is answered; what is dead is listed with its reason, counted, tried with a canary that fails, and redriven once the
// upstream is mended, in part from the ledger and in part by the transport.
func PlayStory(t *testing.T, rig Rig, dead jobs.DeadLetters) {
	var mended atomic.Bool
	p := startPipeline(t, rig, func(item, _ int) *jobs.Fault {
		switch {
		case rejectedInStory(item):
			return &jobs.Fault{Cause: jobs.CauseStatus, Status: 400, Code: storyRejected, Message: "the request is too long", IsObject: true}
		case crashesInStory(item) && !mended.Load():
			return &jobs.Fault{Cause: jobs.CauseReset, Code: storyCrash, Message: "connection reset by peer"}
		default:
			return nil
		}
	}, jobs.WorkerOptions{Concurrency: 4, Patience: time.Nanosecond})
	s := &story{p, jobs.NewInspector(rig.Ports, dead), dead}
	p.submit(requestLines(storyItems), nil)
	j := p.waitEnded(jobs.PhaseCompleted)
	answered, rejected, crashed := storyKinds()
	p.check(j, idsFrom(answered...), idsFrom(slices.Sorted(slices.Values(slices.Concat(rejected, crashed)))...))
	calls := map[int]int{}
	for item := range storyItems {
		calls[item] = p.called(item)
	}

	s.wantLetters("the job has ended", 3)
	s.wantDead(crashed...)
	for code, want := range map[string]int64{"": 3, storyCrash: 3, storyRejected: 0} {
		if would := s.redrive(jobs.RedriveQuery{DeadQuery: jobs.DeadQuery{Code: code}, DryRun: true}); would.Chunks != want || would.Items != want {
			t.Errorf("a dry run by code %q counts %+v, want %d", code, would, want)
		}
	}

	before := j.Outputs.Of
	again := func(j jobs.Job) bool { return j.Phase == jobs.PhaseCompleted && j.Outputs.Of != before }
	canary := s.redrive(jobs.RedriveQuery{DeadQuery: jobs.DeadQuery{Code: storyCrash, Max: 1}})
	j = p.wait("completed after the canary", again)
	if states, err := s.inspector.Follow(t.Context(), canary.Followed); err != nil || !slices.Equal(states, []jobs.FollowState{jobs.FollowFailed}) {
		t.Errorf("the canary ends as %v, %v", states, err)
	}
	s.wantLetters("the canary has failed", 3)
	s.wantDead(crashed...)
	for _, item := range crashed[1:] {
		if p.called(item) != calls[item] {
			t.Errorf("item %d was called again, though the canary failed", item)
		}
	}

	mended.Store(true)
	before = j.Outputs.Of
	if moved := s.redrive(jobs.RedriveQuery{DeadQuery: jobs.DeadQuery{Max: 1}, Rate: 100}); moved.Chunks != 1 || moved.Cleared != 1 {
		t.Errorf("the first redrive moved %+v", moved)
	}
	j = p.wait("completed after the first redrive", again)
	s.wantLetters("one was redriven", 2)
	before = j.Outputs.Of
	must(t, s.inspector.Move(t.Context(), jobs.QueueWork, 0, "the story"))
	whole := int64(len(answered) + len(crashed))
	j = p.wait("whole after the move", func(j jobs.Job) bool { return again(j) && j.Outputs.Totals.Answered == whole })
	s.wantLetters("all were moved", 0)
	s.wantDead()
	p.check(j, idsFrom(slices.Sorted(slices.Values(slices.Concat(answered, crashed)))...), idsFrom(rejected...))
	for _, item := range slices.Concat(answered, rejected) {
		if p.called(item) != 1 {
			t.Errorf("item %d, which had its outcome at once, was called %d times", item, p.called(item))
		}
	}
	s.wantAudit("dlq.move", "dlq.redrive", "dlq.redrive")
}

func storyKinds() (answered, rejected, crashed []int) {
	for item := range storyItems {
		switch {
		case rejectedInStory(item):
			rejected = append(rejected, item)
		case crashesInStory(item):
			crashed = append(crashed, item)
		default:
			answered = append(answered, item)
		}
	}
	return answered, rejected, crashed
}

// story is a pipeline with an operator.
type story struct {
	*pipeline
	inspector *jobs.Inspector
	dead      jobs.DeadLetters
}

func (s *story) redrive(q jobs.RedriveQuery) jobs.Redriven {
	s.t.Helper()
	done, err := s.inspector.Redrive(s.t.Context(), q, "the story")
	must(s.t, err)
	return done
}

// wantLetters looks at the dead letters: each says why.
func (s *story) wantLetters(when string, want int) {
	s.t.Helper()
	letters := all(s.t, s.dead.Peek(s.t.Context(), jobs.QueueWork))
	if len(letters) != want {
		s.t.Errorf("when %s there are %d dead letters, want %d", when, len(letters), want)
	}
	for _, l := range letters {
		if why := l.Burial; why.Job != "batch_1" || why.Code != storyCrash || why.Message != "connection reset by peer" || why.Number == 0 || why.Attempts == 0 {
			s.t.Errorf("when %s a letter says %+v", when, why)
		}
	}
}

// wantDead looks at what the ledger lists as dead.
func (s *story) wantDead(items ...int) {
	s.t.Helper()
	var want, got []string
	for _, item := range items {
		want = append(want, fmt.Sprintf("line %d, c%d, %s, waiting", item+1, item, storyCrash))
	}
	for d, err := range s.inspector.Dead(s.t.Context(), jobs.DeadQuery{}) {
		must(s.t, err)
		_, open, err := s.inspector.DeadChunk(s.t.Context(), d.ID)
		must(s.t, err)
		for _, i := range open {
			got = append(got, fmt.Sprintf("line %d, %s, %s, %s", i.Line, i.CustomID, i.Code, d.State))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		s.t.Errorf("dead items (-want +got):\n%s", diff)
	}
}

func (s *story) wantAudit(want ...string) {
	s.t.Helper()
	log, err := jobs.AuditLog(s.t.Context(), s.rig.Ports.Registry, "", 10)
	must(s.t, err)
	var got []string
	for _, a := range log {
		got = append(got, a.What)
	}
	if !slices.Equal(got, want) {
		s.t.Errorf("the audit log has %v, want %v", got, want)
	}
}
