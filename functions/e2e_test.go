// Package functions holds the mains of the Lambda functions, each in a directory of its own. Here they are tested together:
// the real binaries, pumped from SQS, as they run on AWS.
package functions

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/fanout-inference/fanout/internal/lambdatest"
	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/upstream/upstreamtest"
)

const items = 500

// TestAnUploadComesOutAsAnswersAndErrors: S3 tells of it twice, since it may, and it is one job.
func TestAnUploadComesOutAsAnswersAndErrors(t *testing.T) {
	t.Parallel()
	s := newStage(t, plan{upstream: (&upstreamtest.Server{}).Start(t)})
	s.start(t)
	input := ask(items, map[int]string{7: "[[400]]", 300: "[[400]]"}) + "this is no item\n"
	n := s.upload(t, "inbox/acme/of today.jsonl", input)
	s.send(t, "ingest", strings.Replace(n, "of today", "of+today", 1)) // as S3 encodes keys
	s.send(t, "ingest", strings.Replace(n, "of today", "of+today", 1))

	j := s.job(t, "acme")
	if j.Phase != "completed" || j.Outputs == nil {
		t.Fatalf("the job is %s: %+v", j.Phase, j.Stop)
	}
	answered(t, s.outcomes(t, j.Outputs.Answers), items, "c7", "c300")
	failed := s.outcomes(t, j.Outputs.Errors)
	if len(failed) != 3 || failed[0].ID != "c7" || failed[1].ID != "c300" || failed[2].Error == nil || failed[2].Error.Code != "invalid_json_line" {
		t.Errorf("the errors are %+v", failed)
	}
	s.nothingDead(t)
}

// TestKillsAndDuplicatesLoseAndRepeatNothing: every batch of chunks is delivered twice at once, and binaries are killed in
// the middle of a batch.
func TestKillsAndDuplicatesLoseAndRepeatNothing(t *testing.T) {
	t.Parallel()
	upstream := &upstreamtest.Server{}
	s := newStage(t, plan{upstream: upstream.Start(t)})
	var calls atomic.Int64
	upstream.OnCall = func(c upstreamtest.Call) {
		switch calls.Add(1) {
		case 50, 250:
			s.worker.Kill(environment(t, c))
		}
	}
	work := s.mappings["work"]
	work.Arrange = func(batch []types.Message) [][]types.Message {
		again := slices.Clone(batch)
		slices.Reverse(again)
		return [][]types.Message{batch, again}
	}
	work.OnResult = s.soon(t, "work")
	s.mappings["work"] = work
	s.start(t)
	s.send(t, "ingest", s.upload(t, "inbox/acme/a.jsonl", ask(items, nil)))

	j := s.job(t, "acme")
	if j.Phase != "completed" || j.Outputs == nil || j.Outputs.Errors != nil {
		t.Fatalf("the job is %s: %+v, %+v", j.Phase, j.Stop, j.Outputs)
	}
	answered(t, s.outcomes(t, j.Outputs.Answers), items)
	s.nothingDead(t)
	t.Logf("%d calls for %d items, %d worker environments", calls.Load(), items, s.worker.Started())
}

// TestAnItemThatCrashesItsWorkerFailsAlone: whichever process calls it is killed. Everything else is answered.
func TestAnItemThatCrashesItsWorkerFailsAlone(t *testing.T) {
	t.Parallel()
	upstream := &upstreamtest.Server{}
	s := newStage(t, plan{upstream: upstream.Start(t)})
	var crashes atomic.Int64
	upstream.OnCall = func(c upstreamtest.Call) {
		if c.Text == "crash" {
			crashes.Add(1)
			s.worker.Kill(environment(t, c))
		}
	}
	work := s.mappings["work"]
	work.OnResult = s.atOnce(t, "work")
	s.mappings["work"] = work
	s.start(t)
	s.send(t, "ingest", s.upload(t, "inbox/acme/a.jsonl", ask(items, map[int]string{123: "crash"})))

	j := s.job(t, "acme")
	if j.Phase != "completed" || j.Outputs == nil {
		t.Fatalf("the job is %s: %+v", j.Phase, j.Stop)
	}
	answered(t, s.outcomes(t, j.Outputs.Answers), items, "c123")
	failed := s.outcomes(t, j.Outputs.Errors)
	if len(failed) != 1 || failed[0].ID != "c123" || failed[0].Error == nil || failed[0].Error.Code != "worker_crash" {
		t.Errorf("the errors are %+v", failed)
	}
	s.nothingDead(t)
	t.Logf("%d crashes", crashes.Load())
}

// environment is the worker's environment that made a call.
func environment(t *testing.T, c upstreamtest.Call) int {
	_, key, _ := strings.Cut(c.Header.Get("Authorization"), " ")
	nth, err := strconv.Atoi(key)
	if err != nil {
		t.Errorf("a call without the key of an environment: %v", err)
	}
	return nth
}

// soon shows the messages of an invocation that broke off at once, rather than a minute past its deadline. The ledger's lease
// still has to end.
func (s *stage) soon(t *testing.T, queue string) func(lambdatest.Delivery) {
	var mu sync.Mutex // what is shown twice by two invocations at once is shown once
	return func(d lambdatest.Delivery) {
		if d.Err == nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		s.show(t, queue, d.Messages)
	}
}

// atOnce is soon without the wait for leases: those of the chunks that the invocation had end too. No other may have one of
// them, so each chunk has to be delivered to one worker at a time.
func (s *stage) atOnce(t *testing.T, queue string) func(lambdatest.Delivery) {
	show := s.soon(t, queue)
	return func(d lambdatest.Delivery) {
		for _, m := range d.Messages {
			if d.Err == nil {
				break
			}
			if b, err := jobs.DecodeMessage([]byte(*m.Body)); err != nil || b.Chunk == nil {
				t.Errorf("a message that is no chunk: %s", *m.Body)
			} else {
				s.endLease(t, b.Chunk.ID())
			}
		}
		show(d)
	}
}
