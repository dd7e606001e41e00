package functions

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/fanout-inference/fanout/internal/awstest"
	"github.com/fanout-inference/fanout/pkg/batchapi"
	"github.com/fanout-inference/fanout/pkg/upstream/upstreamtest"
)

// sickly is an upstream that breaks on requests with the word "sick", until it is mended.
type sickly struct {
	upstreamtest.Server
	mended atomic.Bool
}

func (s *sickly) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err == nil && bytes.Contains(body, []byte("sick")) && !s.mended.Load() {
		http.Error(w, `{"error":{"code":"cuda_error","message":"the kernel did not launch"}}`, http.StatusInternalServerError)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	s.Server.ServeHTTP(w, r)
}

// TestOperatorsReachTheDeadLettersThroughTheFrontDoor: the real binaries, on the server of SQS that moves dead letters.
func TestOperatorsReachTheDeadLettersThroughTheFrontDoor(t *testing.T) {
	t.Parallel()
	model := &sickly{}
	server := httptest.NewServer(model)
	t.Cleanup(server.Close)
	s := newStage(t, plan{upstream: server.URL, sqs: awstest.LocalSQS, webhooks: true})
	url, _ := s.frontDoor(t, false)
	ctx := t.Context()
	for path, kind := range map[string]string{"/console/": "text/html", "/console/main.js": "text/javascript"} {
		r := get(t, strings.TrimSuffix(url, "/v1"), "", path)
		if r.StatusCode != http.StatusOK || !strings.HasPrefix(r.Header.Get("Content-Type"), kind) || !strings.HasPrefix(r.Header.Get("Content-Security-Policy"), "default-src 'none'; ") {
			t.Errorf("%s is %d, %v", path, r.StatusCode, r.Header)
		}
		must(t, r.Body.Close())
	}
	operator, err := batchapi.NewClient(url, operatorKey)
	must(t, err)
	long := strings.Repeat("hello ", 900) // four of these fill a chunk
	texts := map[int]string{anyItem: long}
	for i := range 40 { // neighbours are answered after the first failures of the sick ones, which shows that it is these
		texts[i] = fmt.Sprintf("[[delay=%dms]] %s", i%4*400, long)
	}
	texts[3], texts[21] = "sick "+long, "sick "+long
	f, err := operator.CreateFile(ctx, "in.jsonl", "batch", strings.NewReader(ask(40, texts)))
	must(t, err)
	made, err := operator.CreateBatch(ctx, batchapi.CreateBatchRequest{InputFileID: f.ID, Endpoint: "/v1/chat/completions", CompletionWindow: "24h",
		Metadata: map[string]string{"fanout_chunk_items": "4", "fanout_max_attempts": "1"}}, "")
	must(t, err)
	s.start(t)
	if b := waited(t, operator, made.ID); b.Status != "completed" || b.RequestCounts.Completed != 38 {
		t.Fatalf("it ended as %+v", b)
	}
	dead, err := operator.DeadChunks(ctx, batchapi.DeadQuery{DeadSelection: batchapi.DeadSelection{Code: "cuda_error"}})
	must(t, err)
	if len(dead.Data) != 2 || dead.Data[0].Line != 1 || dead.Data[1].Line != 21 || dead.Data[0].State != "waiting" {
		t.Fatalf("dead are %+v", dead.Data)
	}
	one, err := operator.DeadChunk(ctx, dead.Data[1].ID)
	must(t, err)
	if len(one.Items) != 1 || one.Items[0].CustomID != "c21" || one.Items[0].Status == nil || *one.Items[0].Status != 500 {
		t.Errorf("the second is %+v", one)
	}
	letters, err := operator.Letters(ctx, "work", 10)
	must(t, err)
	if len(letters.Data) != 2 || letters.Data[0].Standing != "dead" || *letters.Data[0].Code != "cuda_error" {
		t.Errorf("the letters are %+v", letters.Data)
	}
	for _, name := range []string{"ingest", "aggregate", "notify"} {
		if l, err := operator.Letters(ctx, name, 1); err != nil || len(l.Data) != 0 {
			t.Errorf("%s has dead letters %+v, %v", name, l.Data, err)
		}
	}
	model.mended.Store(true)
	moved, err := operator.Redrive(ctx, batchapi.RedriveRequest{DeadSelection: batchapi.DeadSelection{Max: 1}})
	must(t, err)
	if moved.Chunks != 1 || moved.Cleared != 1 {
		t.Errorf("a redrive moved %+v", moved)
	}
	if _, err := operator.MoveLetters(ctx, "work", 0); err != nil {
		t.Error(err)
	}
	err = s.sources["aggregate"].WaitFor(ctx, func(ctx context.Context) (bool, error) {
		b, err := operator.Batch(ctx, made.ID)
		return b.Status == "completed" && b.RequestCounts.Completed == 40, err
	})
	must(t, err)
	queues, err := operator.Queues(ctx)
	must(t, err)
	for _, q := range queues.Data {
		if q.Dead != 0 || (q.ID == "work") != (len(q.Moves) == 1) {
			t.Errorf("queue %+v", q)
		}
	}
	for _, name := range []string{"ingest", "work", "aggregate", "notify"} {
		for range 9 {
			s.send(t, name+"-dead", "not one of ours")
		}
		if l, err := operator.Letters(ctx, name, 20); err != nil || len(l.Data) != 9 || l.Data[0].Standing != "unreadable" {
			t.Errorf("%s has dead letters %+v, %v", name, l.Data, err)
		}
		if _, err := operator.MoveLetters(ctx, name, 1); err != nil {
			t.Error(err)
		}
		if q, err := operator.StopMove(ctx, name); err != nil || q.Moves[0].State != "stopped" {
			t.Errorf("a move of %s that was stopped: %+v, %v", name, q, err)
		}
		if done, err := operator.PurgeLetters(ctx, name, false, false); err != nil || done.Purged < 5 {
			t.Errorf("purge of %s: %+v, %v", name, done, err)
		}
	}
	log, err := operator.Audit(ctx, batchapi.ListQuery{Limit: 100})
	must(t, err)
	if n := len(log.Data); n != 2+3*4 || log.Data[n-1].Action != "dlq.redrive" || log.Data[n-2].Action != "dlq.move" || log.Data[0].Action != "dlq.purge" {
		t.Errorf("the audit log has %+v", log.Data)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
