package localjobs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// tooLong rejects every tenth item, one of them with another error.
func tooLong(item, _ int) *jobs.Fault {
	if item%10 != 3 {
		return nil
	}
	f := failure(400)
	f.Code, f.Message = "context_length_exceeded", "too long"
	if item == 23 {
		f.Code = "content_filter"
	}
	return f
}

func (s *stepwise) retry(q jobs.RetryQuery) jobs.Retried {
	s.t.Helper()
	q.Job = theJob
	done, err := s.inspector().Retry(s.t.Context(), q, "key k")
	s.must(err)
	return done
}

func (s *stepwise) input(j *jobs.Job) (lines []string) {
	s.t.Helper()
	r, err := s.local.Files.Read(s.t.Context(), j.Input, 0, -1)
	s.must(err)
	defer r.Close()
	all, err := io.ReadAll(r)
	s.must(err)
	return strings.Split(strings.TrimSpace(string(all)), "\n")
}

func TestARetryAsksAgainForItemsWithAnErrorChanged(t *testing.T) {
	inSteps(t, tooLong, func(t *testing.T, s *stepwise) {
		s.must(s.submit(40, func(j *jobs.Job) {
			smallSplits(j)
			j.Window = 48 * time.Hour
			j.Metadata = map[string]string{"project": "x"}
		}))
		s.run(time.Hour)
		q := jobs.RetryQuery{Codes: []string{"context_length_exceeded"}, Set: map[string]string{"body.max_tokens": "512", "body.model": `"m2"`}, DryRun: true}
		want := map[string]int64{"context_length_exceeded": 3}
		if got := s.retry(q); got.Items != 3 || !cmp.Equal(got.ByCode, want) || got.Job.ID != "" {
			t.Errorf("a dry run counts %+v", got)
		}
		q.DryRun = false
		got := s.retry(q)
		child := got.Job
		if got.Items != 3 || child.Parent != theJob || child.Tenant != "tenant" || child.Metadata["project"] != "x" || child.Window != 48*time.Hour {
			t.Errorf("it made %+v", got)
		}
		var asked []string
		for _, line := range s.input(&child) {
			var r struct {
				CustomID string `json:"custom_id"`
				URL      string
				Body     struct {
					Model     string
					N         int
					MaxTokens int `json:"max_tokens"`
				}
			}
			s.must(json.Unmarshal([]byte(line), &r))
			asked = append(asked, fmt.Sprintf("%s %s %s %d %d", r.CustomID, r.URL, r.Body.Model, r.Body.N, r.Body.MaxTokens))
		}
		if diff := cmp.Diff([]string{"c3 /v1/chat/completions m2 3 512", "c13 /v1/chat/completions m2 13 512", "c33 /v1/chat/completions m2 33 512"}, asked); diff != "" {
			t.Errorf("its requests (-want +got):\n%s", diff)
		}
		if c := s.job().Children; len(c) != 1 || c[0].ID != child.ID {
			t.Errorf("its parent is linked to %+v", c)
		}
		f, err := jobs.ReadFile(t.Context(), s.Ports, "tenant", child.InputFile())
		if err != nil || f.Name != "retry-of-batch_1.jsonl" || f.Purpose != jobs.PurposeBatch {
			t.Errorf("its input is file %+v, %v", f, err)
		}
		for _, again := range []jobs.RetryQuery{{Codes: q.Codes}, {}} {
			again.Job = theJob
			if _, err := s.inspector().Retry(t.Context(), again, "key k"); jobs.CodeOf(err) != jobs.CodeConflict || !strings.Contains(err.Error(), string(child.ID)) {
				t.Errorf("another retry of %v: %v", again.Codes, err)
			}
		}
		if other := s.retry(jobs.RetryQuery{Codes: []string{"content_filter"}}); other.Items != 1 {
			t.Errorf("a retry of another error asks for %d items", other.Items)
		}
		s.upstream = answerAll
		s.settle()
		for id := range map[jobs.JobID]bool{child.ID: true} {
			j, err := s.local.Store.Job(t.Context(), id)
			if err != nil || j.Phase != jobs.PhaseCompleted || j.Outputs.Totals.Answered != 3 {
				t.Errorf("job %s ended as %s with %+v, %v", id, j.Phase, j.Outputs, err)
			}
		}
		if n := s.calls(); n != 40+4 {
			t.Errorf("%d calls in all, want one for each item and one for each that was retried", n)
		}
	})
}

func TestWhatCannotBeRetriedIsRefused(t *testing.T) {
	inSteps(t, tooLong, func(t *testing.T, s *stepwise) {
		s.must(s.submit(40, smallSplits))
		retry := func(q jobs.RetryQuery) error {
			q.Job = theJob
			_, err := s.inspector().Retry(t.Context(), q, "key k")
			return err
		}
		if err := retry(jobs.RetryQuery{}); jobs.CodeOf(err) != jobs.CodeConflict {
			t.Errorf("before its end: %v", err)
		}
		s.run(time.Hour)
		for path, value := range map[string]string{
			"custom_id": `"x"`, "url": `"/v1/x"`, "body": "{}", "body.": "1", "body.a.*": "1", "body.stream": "true", "body.a.1000": "1", "body.a": "{", "body.b": "", "body.messages.#": "1",
		} {
			if err := retry(jobs.RetryQuery{Set: map[string]string{path: value}}); jobs.CodeOf(err) != jobs.CodeInvalid {
				t.Errorf("set %s to %s: %v", path, value, err)
			}
		}
		if err := retry(jobs.RetryQuery{Set: map[string]string{"body.model": "7"}}); jobs.CodeOf(err) != jobs.CodeInvalid || !strings.Contains(err.Error(), "line 4 would break") {
			t.Errorf("a request that breaks the rules: %v", err)
		}
		if err := retry(jobs.RetryQuery{Codes: []string{"none"}}); jobs.CodeOf(err) != jobs.CodeInvalid {
			t.Errorf("no such items: %v", err)
		}
		if n := len(s.job().Children); n != 0 {
			t.Errorf("the job has %d children", n)
		}
		for f, err := range s.local.Files.List(t.Context(), "files/tenant/file-") {
			s.must(err)
			if strings.Contains(f.Name, "tmp") || f.Bytes == 0 {
				t.Errorf("%s is left", f.Name)
			}
		}
	})
}

func TestItemsThatAreRetriedCannotBeRedriven(t *testing.T) {
	brokenJob(t, func(t *testing.T, s *stepwise, b *broken) {
		child := s.retry(jobs.RetryQuery{Codes: []string{"cuda_error"}}).Job
		if got := s.redrive(jobs.RedriveQuery{DryRun: true}); got.Chunks != 4 || got.Refused["job_retried"] != 4 {
			t.Errorf("a dry run counts %+v", got)
		}
		before := s.calls()
		s.must(s.inspector().Move(t.Context(), jobs.QueueWork, 0, "key k")) // and somebody moves them by hand
		b.mendedThrees, b.mendedSevens = true, true
		s.settle(jobs.QueueWork)
		if s.buried() == 0 {
			t.Error("no letter came back")
		}
		for l, err := range s.local.Queue.Peek(t.Context(), jobs.QueueWork) {
			s.must(err)
			if l.Burial.Code != "job_retried" || !strings.Contains(l.Burial.Message, string(child.ID)) {
				t.Errorf("a letter came back as %+v", l.Burial)
			}
		}
		s.pass(time.Hour, true)
		if got := s.calls() - before; got != 4+4 {
			t.Errorf("%d calls, want four of the child and four of what was moved", got)
		}
		if j, err := s.local.Store.Job(t.Context(), child.ID); err != nil || j.Phase != jobs.PhaseCompleted {
			t.Fatalf("the child is %s, %v", j.Phase, err)
		}
		if got := s.redrive(jobs.RedriveQuery{DryRun: true}); got.Chunks != 4 || len(got.Refused) != 0 {
			t.Errorf("when the child has ended a dry run counts %+v", got)
		}
	})
}

func TestItemsThatExpiredAreRetried(t *testing.T) {
	away := func(int, int) *jobs.Fault { return failure(503) }
	inSteps(t, away, func(t *testing.T, s *stepwise) {
		s.must(s.submit(40, func(j *jobs.Job) { smallSplits(j); j.Window = time.Hour }))
		s.run(3 * time.Hour)
		if j := s.job(); j.Phase != jobs.PhaseExpired {
			t.Fatalf("the job is %s", j.Phase)
		}
		s.upstream = answerAll
		got := s.retry(jobs.RetryQuery{Codes: []string{jobs.ItemExpired}})
		if got.Items != 40 || got.ByCode[jobs.ItemExpired] != 40 {
			t.Fatalf("a retry asks for %+v", got)
		}
		s.sweeps(60)
		if j, err := s.local.Store.Job(t.Context(), got.Job.ID); err != nil || j.Phase != jobs.PhaseCompleted || j.Outputs.Totals.Answered != 40 {
			t.Errorf("it ends as %s with %+v, %v", j.Phase, j.Outputs, err)
		}
	})
}

// TestARetryThatComesWhileARedriveBeginsIsSeenByIt: it is noted in the job after the redrive has looked, and named its chunks.
func TestARetryThatComesWhileARedriveBeginsIsSeenByIt(t *testing.T) {
	brokenJob(t, func(t *testing.T, s *stepwise, b *broken) {
		reads := 0
		var child jobs.Job
		s.before = func(verb, _ string) error {
			if verb != "read job" {
				return nil
			}
			if reads++; reads == 2 { // that before the job is reopened
				s.before = nil
				child = s.retry(jobs.RetryQuery{Codes: []string{"cuda_error"}}).Job
			}
			return nil
		}
		moved := s.redrive(jobs.RedriveQuery{DeadQuery: jobs.DeadQuery{Code: "cuda_error", Max: 1}})
		if child.ID == "" || moved.Chunks != 0 || moved.Refused["job_retried"] == 0 {
			t.Fatalf("moved %+v beside job %q", moved, child.ID)
		}
		before := s.calls()
		b.mendedThrees = true
		s.sweeps(180)
		if got := s.calls() - before; got != 4 {
			t.Errorf("%d calls, want the child's four", got)
		}
		if j := s.job(); j.Phase != jobs.PhaseCompleted || len(s.split().Reopening) != 0 {
			t.Errorf("the job is %s, and its split names %v", j.Phase, s.split().Reopening)
		}
	})
}

func TestOfTwoRetriesAtOnceOneIsMade(t *testing.T) {
	inSteps(t, tooLong, func(t *testing.T, s *stepwise) {
		s.must(s.submit(40, smallSplits))
		s.run(time.Hour)
		q := jobs.RetryQuery{Job: theJob, Codes: []string{"context_length_exceeded"}}
		s.before = func(verb, _ string) error {
			if verb == "create" { // the first has looked whether it may
				s.before = nil
				s.retry(q)
			}
			return nil
		}
		if _, err := s.inspector().Retry(t.Context(), q, "key k"); jobs.CodeOf(err) != jobs.CodeConflict || !strings.Contains(err.Error(), "which has not ended") {
			t.Errorf("the other retry: %v", err)
		}
		if n := len(s.job().Children); n != 1 {
			t.Errorf("%d children ask for the same items", n)
		}
	})
}

func TestNothingIsRedrivenThatAChildIsAboutToAskFor(t *testing.T) {
	brokenJob(t, func(t *testing.T, s *stepwise, b *broken) {
		cuda := jobs.DeadQuery{Code: "cuda_error"}
		s.before = func(verb, name string) error {
			if verb == "save job" && name != string(theJob) { // the child is linked, and not there yet
				s.before = nil
				if moved := s.redrive(jobs.RedriveQuery{DeadQuery: cuda}); moved.Chunks != 0 || moved.Refused["job_retried"] != 4 {
					t.Errorf("a redrive moved %+v", moved)
				}
				return errors.New("the process dies")
			}
			return nil
		}
		if _, err := s.inspector().Retry(t.Context(), jobs.RetryQuery{Job: theJob, Codes: []string{"cuda_error"}}, "key k"); err == nil {
			t.Fatal("the process did not die")
		}
		b.mendedThrees = true
		time.Sleep(6 * time.Minute) // a child that was never made holds nothing for ever
		if moved := s.redrive(jobs.RedriveQuery{DeadQuery: cuda}); moved.Chunks != 4 {
			t.Errorf("later a redrive moves %+v", moved)
		}
	})
}

func TestItemsOfAnOpenChildAreNotRetriedAgainWhenTheFilesAreNew(t *testing.T) {
	brokenJob(t, func(t *testing.T, s *stepwise, b *broken) {
		first := s.retry(jobs.RetryQuery{Codes: []string{"cuda_error"}}).Job
		_, err := s.inspector().Pause(t.Context(), first.ID, "key k", "")
		s.must(err)
		b.mendedSevens = true
		s.redrive(jobs.RedriveQuery{DeadQuery: jobs.DeadQuery{Code: "tokenizer_error"}})
		s.run(12 * time.Hour)
		if _, err := s.inspector().Retry(t.Context(), jobs.RetryQuery{Job: theJob, Codes: []string{"cuda_error"}}, "key k"); jobs.CodeOf(err) != jobs.CodeConflict {
			t.Errorf("they are asked for twice: %v", err)
		}
	})
}
