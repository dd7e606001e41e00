package batchapi

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

func decode(t *testing.T, body []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(body, v); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
}

func TestWaitEndsWithTheNextChange(t *testing.T) {
	a := newAPI(t, Options{PollEvery: time.Millisecond})
	b := a.create(a.upload(lines(1)).ID, "")
	now := a.get("/v1/batches/" + b.ID)
	if r := a.get("/v1/batches/"+b.ID+"?wait=1ms", "If-None-Match", now.header.Get("ETag")); string(r.body) != string(now.body) {
		t.Errorf("nothing has changed, and it is %s", r.body)
	}
	if r := a.get("/v1/batches/"+b.ID+"?wait=1h", "If-None-Match", `"older"`); string(r.body) != string(now.body) {
		t.Errorf("who knows something older is told %s", r.body)
	}
	told := make(chan reply, 1)
	go func() {
		r, err := a.try("GET", "/v1/batches/"+b.ID+"?wait=1h", nil)
		if err != nil {
			t.Error(err)
		}
		told <- r
	}()
	if _, err := jobs.CancelJob(t.Context(), a.ports, jobs.JobID(b.ID), "test"); err != nil {
		t.Fatal(err)
	}
	// Whether the request came before the change or after: then it sees the batch as it is, and waits for more.
	a.work()
	if c := as[Batch](t, <-told, "Batch"); c.Status != "cancelling" && c.Status != "cancelled" {
		t.Errorf("it was told %s", c.Status)
	}
}

func TestWhoWaitsIsAnsweredWhenTheServerEnds(t *testing.T) {
	ending := make(chan struct{})
	a := newAPI(t, Options{Ending: ending})
	b := a.create(a.upload(lines(1)).ID, "")
	close(ending)
	if r := a.get("/v1/batches/" + b.ID + "?wait=1h"); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
}

func TestEventsTellEachChangeUntilTheEnd(t *testing.T) {
	a := newAPI(t, Options{PollEvery: time.Millisecond, Streams: true})
	b := a.create(a.upload(lines(3)).ID, "")
	r, err := http.NewRequestWithContext(t.Context(), "GET", a.server.URL+"/v1/batches/"+b.ID+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	out, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Body.Close()
	if kind := out.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Errorf("it is %s", kind)
	}
	var last Batch
	n := 0
	for lines := bufio.NewScanner(out.Body); lines.Scan(); {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		conform(t, "Batch", []byte(data))
		decode(t, []byte(data), &last)
		if n++; n == 1 {
			a.work() // only after the first event, so there is a change to tell
		}
	}
	if last.Status != "completed" || n < 2 {
		t.Errorf("after %d events it is %s", n, last.Status)
	}
}

func TestDryRunTellsEveryViolationAndMakesNothing(t *testing.T) {
	a := newAPI(t, Options{})
	content := lines(3) + strings.Repeat("bad\n", 1500) + lines(1)
	f := a.upload(content)
	run := as[DryRun](t, a.post("/v1/batches?dry_run=true", createBody(f.ID, "")), "")
	if run.ErrorsTotal != 1501 || len(run.Errors.Data) != 1501 || !run.WouldFail || run.RequestCounts.Total != 1504 || run.Models["builtin/sentiment"] != 4 || run.Estimate.Chunks < 1 || run.Bytes != int64(len(content)) {
		t.Errorf("it says %d errors, %d of them told, %+v, models %v", run.ErrorsTotal, len(run.Errors.Data), run.RequestCounts, run.Models)
	}
	clean := as[DryRun](t, a.post("/v1/batches?dry_run=true", createBody(a.upload(lines(2)).ID, "")), "")
	if clean.WouldFail || clean.ErrorsTotal != 0 || clean.Errors.Data == nil {
		t.Errorf("a clean file: %+v", clean)
	}
	skipping := as[DryRun](t, a.post("/v1/batches?dry_run=true", createBody(f.ID, `,"metadata":{"fanout_on_invalid":"skip"}`)), "")
	if skipping.WouldFail {
		t.Error("with bad lines skipped it would fail")
	}
	if l := as[List[Batch]](t, a.get("/v1/batches"), ""); len(l.Data) > 0 {
		t.Errorf("made: %v", l.Data)
	}
	for info, err := range a.ports.Files.List(t.Context(), "dry/") {
		t.Errorf("left: %v %v", info, err)
	}
}

func TestResultsComeWithTheirInput(t *testing.T) {
	a := newAPI(t, Options{PollEvery: time.Millisecond})
	a.work()
	b := a.ended(a.create(a.upload(lines(3)).ID, "").ID)
	r := a.get("/v1/batches/" + b.ID + "/results?include=input&limit=2&status=completed")
	n := 0
	for line := range strings.Lines(string(r.body)) {
		var l struct {
			CustomID string `json:"custom_id"`
			Input    struct {
				CustomID string `json:"custom_id"`
			} `json:"input"`
		}
		decode(t, []byte(line), &l)
		if l.CustomID != l.Input.CustomID {
			t.Errorf("line %d: %s", n, line)
		}
		n++
	}
	if n != 2 || r.header.Get(HeaderResultsState) != "more" {
		t.Errorf("%d lines, then %s", n, r.header.Get(HeaderResultsState))
	}
	if failed := a.get("/v1/batches/" + b.ID + "/results?status=failed"); len(failed.body) > 0 || failed.header.Get(HeaderResultsState) != "complete" {
		t.Errorf("failed ones: %s", failed.body)
	}
}

func TestAnswersKeepBelowWhatTheFrontDoorLetsPass(t *testing.T) {
	const most = 100_000
	a := newAPI(t, Options{PollEvery: time.Millisecond, MaxAnswer: most})
	a.work()
	big := func(id string, n int) string {
		return fmt.Sprintf(`{"custom_id":%q,"method":"POST","url":"/v1/chat/completions","body":{"model":"builtin/sentiment","messages":[{"role":"user","content":%q}]}}`+"\n", id, strings.Repeat("x", n))
	}
	b := a.ended(a.create(a.upload(big("small", 1)+big("fits", most/2)+big("too large", most)+big("last", 1)).ID, "").ID)
	page := func(after string) reply {
		return a.get("/v1/batches/" + b.ID + "/results?include=input&after=" + after)
	}
	first := page("")
	if first.status != 200 || strings.Count(string(first.body), "\n") != 2 || first.header.Get(HeaderResultsState) != "more" {
		t.Fatalf("the first page: %d %v %.300s", first.status, first.header, first.body)
	}
	if second := page(first.header.Get(HeaderResultsAfter)); second.status != 400 || !strings.Contains(string(second.body), "result_too_large") {
		t.Errorf("a result that is too large: %d %.300s", second.status, second.body)
	}
	f := a.upload(strings.Repeat("bad\n", 2000))
	r := a.post("/v1/batches?dry_run=true", createBody(f.ID, ""))
	run := as[DryRun](t, r, "")
	if told := len(run.Errors.Data); len(r.body) > most || run.ErrorsTotal != 2000 || told < 50 || told >= 2000 {
		t.Errorf("a dry run has %d bytes and tells %d of %d", len(r.body), told, run.ErrorsTotal)
	}
}

func TestADryRunThatTakesTooLongSaysWhatElseToDo(t *testing.T) {
	a := newAPI(t, Options{DryRunFor: time.Nanosecond})
	r := a.post("/v1/batches?dry_run=true", createBody(a.upload(lines(2)).ID, ""))
	if r.status != 400 || !strings.Contains(string(r.body), "fanout check") {
		t.Errorf("%d %s", r.status, r.body)
	}
}
