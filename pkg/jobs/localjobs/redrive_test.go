package localjobs

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// broken is an upstream where items 3, 13, 23 and 33 fail with one error and 7, 17, 27 and 37 with another, until each is
// mended. Those from 40 on take their time, and so show that it answers others meanwhile.
type broken struct{ mendedThrees, mendedSevens bool }

func (b *broken) call(item, _ int) *jobs.Fault {
	f := failure(500)
	switch {
	case item >= 40:
		time.Sleep(time.Duration(3000+item%13*100) * time.Millisecond) // of the bubble: an answer comes at every moment at which the others are judged
		return nil
	case item%10 == 3 && !b.mendedThrees:
		f.Code, f.Message = "cuda_error", "the kernel did not launch"
	case item%10 == 7 && !b.mendedSevens:
		f.Code, f.Message = "tokenizer_error", "unknown token"
	default:
		return nil
	}
	return f
}

// dead are the dead chunks that a query means, as "first item code state".
func (s *stepwise) dead(q jobs.DeadQuery) (all []string) {
	s.t.Helper()
	for d, err := range s.inspector().Dead(s.t.Context(), q) {
		s.must(err)
		all = append(all, strings.TrimSpace(fmt.Sprintf("line %d of %d: %d × %s %s %s", d.Line, d.Lines, d.Items, d.Code, d.State, d.Refused)))
	}
	return all
}

func (s *stepwise) inspector() *jobs.Inspector { return jobs.NewInspector(s.Ports, s.local.Queue) }

func (s *stepwise) redrive(q jobs.RedriveQuery) jobs.Redriven {
	s.t.Helper()
	done, err := s.inspector().Redrive(s.t.Context(), q, "key k")
	s.must(err)
	return done
}

// brokenJob runs a job of 400 items in chunks of 5, of which four die of each error.
func brokenJob(t *testing.T, test func(t *testing.T, s *stepwise, b *broken)) {
	b := &broken{}
	inSteps(t, b.call, func(t *testing.T, s *stepwise) {
		s.must(s.submit(400, func(j *jobs.Job) {
			chunksOf(5)(j)
			j.Window, j.MaxCalls = 48*time.Hour, 1
		}))
		s.run(12 * time.Hour)
		if got := s.buried(); got != 8 {
			t.Fatalf("%d chunks are dead, want 8", got)
		}
		test(t, s, b)
	})
}

func TestDeadChunksAreListedWithTheirReason(t *testing.T) {
	brokenJob(t, func(t *testing.T, s *stepwise, _ *broken) {
		want := []string{
			"line 1 of 5: 1 × cuda_error waiting", "line 6 of 5: 1 × tokenizer_error waiting",
			"line 11 of 5: 1 × cuda_error waiting", "line 16 of 5: 1 × tokenizer_error waiting",
			"line 21 of 5: 1 × cuda_error waiting", "line 26 of 5: 1 × tokenizer_error waiting",
			"line 31 of 5: 1 × cuda_error waiting", "line 36 of 5: 1 × tokenizer_error waiting",
		}
		if diff := cmp.Diff(want, s.dead(jobs.DeadQuery{})); diff != "" {
			t.Errorf("all (-want +got):\n%s", diff)
		}
		if got := s.dead(jobs.DeadQuery{Code: "cuda_error", Tenant: "tenant", Max: 2}); !slices.Equal(got, []string{want[0], want[2]}) {
			t.Errorf("two of a code: %v", got)
		}
		for _, q := range []jobs.DeadQuery{{Tenant: "another"}, {Code: "none"}, {Before: time.Now().Add(-24 * time.Hour)}} {
			if got := s.dead(q); got != nil {
				t.Errorf("%+v: %v", q, got)
			}
		}
		var third jobs.DeadChunk
		for d, err := range s.inspector().Dead(t.Context(), jobs.DeadQuery{Before: time.Now().Add(time.Second)}) {
			s.must(err)
			if third = d; d.Line == 11 {
				break
			}
		}
		if got := s.dead(jobs.DeadQuery{From: third.ID}); !slices.Equal(got, want[2:]) {
			t.Errorf("from the third: %v", got)
		}
		d, items, err := s.inspector().DeadChunk(t.Context(), third.ID)
		s.must(err)
		if d.Message != "the kernel did not launch" || d.Attempts == 0 || d.Burial != 1 || d.At.IsZero() {
			t.Errorf("the third is %+v", d)
		}
		if diff := cmp.Diff([]jobs.DeadItem{{Line: 14, CustomID: "c13", Code: "cuda_error", Message: "the kernel did not launch", Status: 500, Calls: 1}}, items, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("its items (-want +got):\n%s", diff)
		}
		if _, _, err := s.inspector().DeadChunk(t.Context(), jobs.ChunkID{Job: theJob, Offset: third.ID.Offset + 1}); jobs.CodeOf(err) != jobs.CodeNotFound {
			t.Errorf("a chunk that is not there: %v", err)
		}
	})
}

func TestRedriveByErrorMovesWhatItCountedAndTheJobIsWholeAgain(t *testing.T) {
	brokenJob(t, func(t *testing.T, s *stepwise, b *broken) {
		calls := slices.Clone(s.called)
		q := jobs.RedriveQuery{DeadQuery: jobs.DeadQuery{Code: "cuda_error"}, DryRun: true}
		if got := s.redrive(q); got.Chunks != 4 || got.Items != 4 || got.Jobs != 1 || got.More {
			t.Errorf("a dry run counts %+v", got)
		}
		if s.redeliver(time.Hour); !slices.Equal(calls, s.called) || s.buried() != 8 {
			t.Error("a dry run has moved something")
		}
		b.mendedThrees = true
		q.DryRun = false
		moved := s.redrive(q)
		if moved.Chunks != 4 || moved.Cleared != 4 || s.buried() != 4 {
			t.Errorf("moved %+v, and %d letters are left", moved, s.buried())
		}
		if again := s.redrive(q); again.Chunks != 0 {
			t.Errorf("a second redrive at once counts %+v", again)
		}
		if j := s.job(); j.Phase != jobs.PhaseInProgress {
			t.Errorf("the job is %s before anybody has taken up its chunks", j.Phase)
		}
		s.run(12 * time.Hour)
		states, err := s.inspector().Follow(t.Context(), moved.Followed)
		s.must(err)
		if diff := cmp.Diff(slices.Repeat([]jobs.FollowState{jobs.FollowAnswered}, 4), states); diff != "" {
			t.Errorf("what was moved (-want +got):\n%s", diff)
		}
		if o := s.job().Outputs; o == nil || o.Totals.Answered != 396 {
			t.Errorf("the files have %+v", o)
		}
		for item, n := range s.called {
			want := calls[item]
			if item < 40 && item%10 == 3 {
				want++
			}
			if n != want {
				t.Errorf("item %d was called %d times, %d before the redrive", item, n, calls[item])
			}
		}
		b.mendedSevens = true
		s.redrive(jobs.RedriveQuery{})
		s.run(12 * time.Hour)
		s.wantEnd(400)
		if s.buried() != 0 || s.dead(jobs.DeadQuery{}) != nil {
			t.Errorf("%d letters are left, and %v", s.buried(), s.dead(jobs.DeadQuery{}))
		}
		log, err := jobs.AuditLog(t.Context(), s.Registry, "", 10)
		s.must(err)
		if len(log) != 2 || log[1].What != "dlq.redrive" || log[1].Count != 4 || log[1].By != "key k" || log[1].Why != "code cuda_error" {
			t.Errorf("the audit log is %+v", log)
		}
	})
}

func TestARedriveOfWhatIsStillBrokenIsSeenToFail(t *testing.T) {
	brokenJob(t, func(t *testing.T, s *stepwise, b *broken) {
		b.mendedThrees = true
		moved := s.redrive(jobs.RedriveQuery{DeadQuery: jobs.DeadQuery{Max: 2}})
		follow := func() string {
			states, err := s.inspector().Follow(t.Context(), moved.Followed)
			s.must(err)
			return fmt.Sprint(states)
		}
		if got := follow(); got != "[pending pending]" {
			t.Errorf("at once: %s", got)
		}
		if next := s.redrive(jobs.RedriveQuery{DeadQuery: jobs.DeadQuery{Max: 2}, DryRun: true}); next.Chunks != 2 {
			t.Errorf("the next two are %+v, though two are on their way", next)
		}
		if p, err := s.inspector().Purge(t.Context(), jobs.PurgeQuery{DeadQuery: jobs.DeadQuery{Max: 3}, DryRun: true}, "key k"); p.Chunks != 3 || err != nil {
			t.Errorf("three would be purged: %+v, %v", p, err)
		}
		if got := s.dead(jobs.DeadQuery{})[:3]; !slices.Equal(got, []string{
			"line 1 of 5: 1 × cuda_error on_its_way", "line 6 of 5: 1 × tokenizer_error on_its_way", "line 11 of 5: 1 × cuda_error waiting",
		}) {
			t.Errorf("at once: %v", got)
		}
		s.run(12 * time.Hour)
		if got := follow(); got != "[answered failed]" {
			t.Errorf("in the end: %s", got)
		}
		if s.buried() != 7 {
			t.Errorf("%d letters, want 7", s.buried())
		}
	})
}

func TestARedriveKeepsItsPaceAndGoesOnWhereItEnded(t *testing.T) {
	brokenJob(t, func(t *testing.T, s *stepwise, _ *broken) {
		began := time.Now()
		q := jobs.RedriveQuery{DeadQuery: jobs.DeadQuery{Until: began.Add(1500 * time.Millisecond)}, Rate: 2}
		first := s.redrive(q)
		if first.Chunks != 3 || !first.More {
			t.Errorf("within a second and a half at two a second: %+v", first)
		}
		q.Until, q.From, q.DryRun = time.Time{}, first.Next, true
		if rest := s.redrive(q); rest.Chunks != 5 || rest.More || time.Since(began) > 3*time.Second {
			t.Errorf("the rest is %+v, after %s", rest, time.Since(began))
		}
		q.DryRun = false
		if s.redrive(q); time.Since(began) < 2*time.Second || s.buried() != 0 {
			t.Errorf("the rest took until %s, and %d letters are left", time.Since(began), s.buried())
		}
	})
}

func TestWhatAStoppedJobDoesNotTakeBackStaysInTheDeadLettersWithThatReason(t *testing.T) {
	brokenJob(t, func(t *testing.T, s *stepwise, b *broken) {
		b.mendedThrees, b.mendedSevens = true, true
		s.redrive(jobs.RedriveQuery{DeadQuery: jobs.DeadQuery{Max: 1}}) // the job is open again
		_, err := jobs.CancelJob(t.Context(), s.Ports, theJob, "no longer wanted")
		s.must(err)
		s.run(time.Hour)
		if got := s.dead(jobs.DeadQuery{Max: 1}); !slices.Equal(got, []string{"line 1 of 5: 1 × cuda_error refused job_cancelled"}) {
			t.Errorf("listed as %v", got)
		}
		if got := s.redrive(jobs.RedriveQuery{}); got.Chunks != 0 || got.Refused["job_cancelled"] != 8 {
			t.Errorf("a redrive says %+v", got)
		}
		s.must(s.inspector().Move(t.Context(), jobs.QueueWork, 0, "key k"))
		s.pass(time.Hour, false)
		back := 0
		for l, err := range s.local.Queue.Peek(t.Context(), jobs.QueueWork) {
			s.must(err)
			back++
			if l.Burial.Code != "job_cancelled" || !strings.Contains(l.Burial.Message, "no longer wanted") {
				t.Errorf("a letter came back as %+v", l.Burial)
			}
		}
		if back != 8 {
			t.Errorf("%d letters came back, want 8", back)
		}
	})
}

func TestAWholeQueueMovedByTheTransportIsRedriven(t *testing.T) {
	brokenJob(t, func(t *testing.T, s *stepwise, b *broken) {
		b.mendedThrees, b.mendedSevens = true, true
		s.must(s.inspector().Move(t.Context(), jobs.QueueWork, 0, "key k"))
		for moves := []jobs.Move(nil); len(moves) == 0 || moves[0].State == jobs.MoveRunning; {
			time.Sleep(time.Second) // of the bubble
			var err error
			moves, err = s.inspector().Moves(t.Context(), jobs.QueueWork)
			s.must(err)
		}
		s.settle()
		s.run(12 * time.Hour)
		s.wantEnd(400)
		if s.buried() != 0 {
			t.Errorf("%d letters are left", s.buried())
		}
	})
}

func TestPurgedChunksAreGoneFromTheDeadLettersAndStayFailed(t *testing.T) {
	brokenJob(t, func(t *testing.T, s *stepwise, _ *broken) {
		purge := func(q jobs.DeadQuery, dryRun bool) int64 {
			p, err := s.inspector().Purge(t.Context(), jobs.PurgeQuery{DeadQuery: q, DryRun: dryRun}, "key k")
			s.must(err)
			return p.Chunks
		}
		cuda := jobs.DeadQuery{Code: "cuda_error"}
		if n := purge(cuda, true); n != 4 || s.buried() != 8 {
			t.Errorf("a dry run counts %d, and %d letters are left", n, s.buried())
		}
		if n := purge(cuda, false); n != 4 || s.buried() != 4 || len(s.dead(jobs.DeadQuery{})) != 4 || s.dead(cuda) != nil {
			t.Errorf("purged %d, and %d letters are left, listed %v", n, s.buried(), s.dead(jobs.DeadQuery{}))
		}
		s.sweeps(3)
		if j := s.job(); j.Phase != jobs.PhaseCompleted || j.Outputs.Totals.Answered != 392 || j.Totals.Dead != 4 || j.Totals.DeadItems != 4 || j.Totals.PurgedItems != 4 {
			t.Errorf("the job is %s with %+v, of %+v", j.Phase, j.Totals, j.Outputs)
		}
	})
}

func TestALetterOfAPurgedChunkDoesNothing(t *testing.T) {
	brokenJob(t, func(t *testing.T, s *stepwise, _ *broken) {
		letters, _, err := s.inspector().Letters(t.Context(), jobs.QueueWork, 1)
		s.must(err)
		_, err = s.inspector().Purge(t.Context(), jobs.PurgeQuery{}, "key k")
		s.must(err)
		s.must(s.local.Queue.Bury(t.Context(), jobs.Message{ID: "1", Queue: jobs.QueueWork, Body: letters[0].Body}, letters[0].Burial)) // one that was not got at
		_, standings, err := s.inspector().Letters(t.Context(), jobs.QueueWork, 10)
		s.must(err)
		if !slices.Equal(standings, []jobs.LetterStanding{jobs.LetterStale}) {
			t.Errorf("the letters are %v", standings)
		}
		before := s.calls()
		s.must(s.inspector().Move(t.Context(), jobs.QueueWork, 0, "key k"))
		s.run(time.Hour)
		if n := s.calls() - before; n != 0 || s.job().Phase != jobs.PhaseCompleted {
			t.Errorf("%d calls, and the job is %s", n, s.job().Phase)
		}
	})
}

func TestAPurgeThatBreaksOffClearsAndTellsWhatItDid(t *testing.T) {
	brokenJob(t, func(t *testing.T, s *stepwise, _ *broken) {
		saves := 0
		s.before = func(verb, _ string) error {
			if verb == "save chunk" {
				if saves++; saves == 5 {
					return errors.New("throttled")
				}
			}
			return nil
		}
		p, err := s.inspector().Purge(t.Context(), jobs.PurgeQuery{}, "key k")
		s.before = nil
		log, failed := jobs.AuditLog(t.Context(), s.Registry, "", 10)
		s.must(failed)
		if err == nil || p.Chunks != 4 || p.Cleared != 4 || s.buried() != 4 || len(log) != 1 || log[0].Count != 4 {
			t.Errorf("purged %+v, %v; %d letters are left; the log says %+v", p, err, s.buried(), log)
		}
		p, err = s.inspector().Purge(t.Context(), jobs.PurgeQuery{DeadQuery: jobs.DeadQuery{Until: s.Now()}}, "key k")
		if err != nil || p.Chunks != 0 || !p.More {
			t.Errorf("in no time: %+v, %v", p, err)
		}
		if p, err = s.inspector().Purge(t.Context(), jobs.PurgeQuery{}, "key k"); err != nil || p.Chunks != 4 || s.buried() != 0 {
			t.Errorf("again: %+v, %v; %d letters are left", p, err, s.buried())
		}
	})
}

func TestARedriveThatBrokeOffIsDoneAgain(t *testing.T) {
	brokenJob(t, func(t *testing.T, s *stepwise, b *broken) {
		s.sweeps(120)
		if !s.job().Closed {
			t.Fatal("the job is not closed")
		}
		cuda := jobs.DeadQuery{Code: "cuda_error"}
		s.before = func(verb, _ string) error {
			if verb == "save job" { // its chunk is named already
				return errors.New("throttled")
			}
			return nil
		}
		if _, err := s.inspector().Redrive(t.Context(), jobs.RedriveQuery{DeadQuery: cuda}, "key k"); err == nil {
			t.Error("it did not break off")
		}
		s.before = nil
		b.mendedThrees = true
		s.sweeps(10)
		if moved := s.redrive(jobs.RedriveQuery{DeadQuery: cuda}); moved.Chunks != 4 {
			t.Errorf("again: %+v", moved)
		}
		s.run(12 * time.Hour)
		if j := s.job(); j.Phase != jobs.PhaseCompleted || j.Outputs.Totals.Answered != 396 {
			t.Errorf("the job is %s with %+v", j.Phase, j.Outputs)
		}
	})
}

func TestAJobThatIsReopenedHasANewWindow(t *testing.T) {
	brokenJob(t, func(t *testing.T, s *stepwise, _ *broken) {
		first := s.job().Deadline
		time.Sleep(time.Until(first.Add(-30 * time.Second)))
		s.redrive(jobs.RedriveQuery{})
		s.sweeps(10)
		j := s.job()
		if j.Stop != nil || !j.Deadline.After(first.Add(23*time.Hour)) {
			t.Errorf("the job is %s until %s: %+v", j.Phase, j.Deadline, j.Stop)
		}
		if got := s.redrive(jobs.RedriveQuery{DryRun: true}); len(got.Refused) > 0 {
			t.Errorf("it refuses what is redriven: %v", got.Refused)
		}
	})
}

func TestAJobIsSealedBeforeItsFirstRecordsGo(t *testing.T) {
	brokenJob(t, func(t *testing.T, s *stepwise, _ *broken) {
		first := s.job().Deadline
		time.Sleep(time.Until(first.Add(jobs.RecordsKept - 36*time.Hour)))
		s.redrive(jobs.RedriveQuery{})
		if j := s.job(); !j.Deadline.Equal(first.Add(jobs.RecordsKept - 24*time.Hour)) {
			t.Errorf("it is reopened until %s, %s after its first deadline", j.Deadline, j.Deadline.Sub(first))
		}
		s.run(11 * time.Hour)
		time.Sleep(time.Until(first.Add(jobs.RecordsKept - 24*time.Hour + time.Minute)))
		s.sweeps(5)
		if got := s.redrive(jobs.RedriveQuery{}); got.Chunks != 0 || got.Refused["job_sealed"]+got.Refused["job_expired"] == 0 {
			t.Errorf("it is redriven again: %+v", got)
		}
	})
}

func TestLettersSayWhatTheLedgerSaysToThem(t *testing.T) {
	brokenJob(t, func(t *testing.T, s *stepwise, b *broken) {
		bury := func(body string) {
			s.must(s.local.Queue.Bury(t.Context(), jobs.Message{ID: "1", Queue: jobs.QueueWork, Body: []byte(body)}, jobs.Burial{}))
		}
		letters, _, err := s.inspector().Letters(t.Context(), jobs.QueueWork, 8)
		s.must(err)
		letters = slices.DeleteFunc(letters, func(l jobs.Letter) bool { return l.Burial.Code != "cuda_error" })
		b.mendedThrees = true
		s.redrive(jobs.RedriveQuery{DeadQuery: jobs.DeadQuery{Code: "cuda_error"}})
		s.run(12 * time.Hour)
		bury(string(letters[0].Body)) // a copy of one that was answered
		bury("not one of ours")
		bury(`{"v":1,"advance":"batch_1","split":0}`)
		count := func() map[jobs.LetterStanding]int {
			_, standings, err := s.inspector().Letters(t.Context(), jobs.QueueWork, 100)
			s.must(err)
			n := map[jobs.LetterStanding]int{}
			for _, standing := range standings {
				n[standing]++
			}
			return n
		}
		want := map[jobs.LetterStanding]int{jobs.LetterDead: 4, jobs.LetterStale: 1, jobs.LetterUnreadable: 1, jobs.LetterOther: 1}
		if diff := cmp.Diff(want, count()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		for _, dry := range []bool{true, false} {
			if p, err := s.inspector().PurgeLetters(t.Context(), jobs.LettersQuery{Queue: jobs.QueueWork, OnlyStale: true, DryRun: dry}, "key k"); p.Chunks != 1 || err != nil {
				t.Errorf("purged %+v stale ones (dry: %t), %v", p, dry, err)
			}
		}
		delete(want, jobs.LetterStale)
		if diff := cmp.Diff(want, count()); diff != "" {
			t.Errorf("without stale ones (-want +got):\n%s", diff)
		}
		if p, err := s.inspector().PurgeLetters(t.Context(), jobs.LettersQuery{Queue: jobs.QueueWork, Until: s.Now()}, "key k"); p.Chunks != 0 || !p.More || err != nil {
			t.Errorf("in no time: %+v, %v", p, err)
		}
		if p, err := s.inspector().PurgeLetters(t.Context(), jobs.LettersQuery{Queue: jobs.QueueWork}, "key k"); p.Chunks != 6 || p.More || err != nil || s.buried() != 0 {
			t.Errorf("purged %+v, %v, and %d are left", p, err, s.buried())
		}
	})
}
