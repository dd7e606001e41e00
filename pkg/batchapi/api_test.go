package batchapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/localjobs"
	"github.com/fanout-inference/fanout/pkg/jobs/poll"
	"github.com/fanout-inference/fanout/pkg/upstream"
)

// api is a server on a store of its own, and whoever calls it. Nothing is done for its batches until work.
type api struct {
	t       *testing.T
	local   *localjobs.Local
	ports   jobs.Ports
	server  *httptest.Server
	handler *Handler
	key     string       // sent with each request; "" = none
	courier jobs.Courier // posts to webhooks; nil = the ends of batches are not told
	log     *lockedBuffer
}

// lockedBuffer is a log that is written by a server and read by a test.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

const someTenant = "acme"

func newAPI(t *testing.T, opt Options) *api {
	t.Helper()
	local, err := localjobs.Open(t.Context(), t.TempDir(), localjobs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := local.Close(); err != nil {
			t.Error(err)
		}
	})
	a := &api{t: t, local: local, log: &lockedBuffer{}}
	opt.Log = slog.New(slog.NewTextHandler(a.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	a.ports = jobs.Ports{Ledger: local.Store, Registry: local.Store, Queue: local.Queue, Files: local.Files, Sole: true}.WithDefaults()
	if opt.OpenTenant == "" && opt.OperatorKey == "" {
		opt.OpenTenant = someTenant
	}
	opt.DeadLetters = local.Queue
	var h *Handler
	a.ports.Watch.JobSaved = func(j jobs.Job) { h.JobSaved(j) }
	h = New(a.ports, opt)
	a.handler = h
	a.server = httptest.NewServer(h)
	t.Cleanup(a.server.Close)
	return a
}

// work does what is to be done for the batches, until the test ends.
func (a *api) work() {
	a.t.Helper()
	builtin := upstream.NewBuiltin()
	worker := jobs.NewWorker(a.ports, jobs.WorkerOptions{Route: func(string) (string, jobs.Upstream) { return "builtin", builtin }, RequestIDs: true})
	pump := &poll.Pump{Source: a.local.Queue, AskForSweep: a.local.Queue.AskForSweep}
	stop, done := make(chan struct{}), make(chan error, 1)
	lanes := []poll.Lane{
		{Queue: jobs.QueueIngest, Handler: jobs.NewIngest(a.ports, jobs.IngestOptions{})},
		{Queue: jobs.QueueWork, Handler: worker, Concurrency: 8, Ready: worker.Ready},
		{Queue: jobs.QueueAggregate, Handler: jobs.NewAggregate(a.ports, jobs.AggregateOptions{Webhooks: a.courier != nil}), Batch: 10},
	}
	if a.courier != nil {
		lanes = append(lanes, poll.Lane{Queue: jobs.QueueNotify, Handler: jobs.NewNotify(a.ports, a.courier)})
	}
	go func() { done <- pump.Run(context.WithoutCancel(a.t.Context()), stop, lanes...) }()
	a.t.Cleanup(func() {
		worker.Drain()
		close(stop)
		if err := <-done; err != nil {
			a.t.Error(err)
		}
	})
}

// reply is an answer, read whole.
type reply struct {
	status int
	header http.Header
	body   []byte
}

func (a *api) call(method, path string, body io.Reader, header ...string) reply {
	a.t.Helper()
	r, err := a.try(method, path, body, header...)
	if err != nil {
		a.t.Fatalf("%s %s: %v", method, path, err)
	}
	return r
}

// try is call for any goroutine.
func (a *api) try(method, path string, body io.Reader, header ...string) (reply, error) {
	r, err := http.NewRequestWithContext(a.t.Context(), method, a.server.URL+path, body)
	if err != nil {
		return reply{}, err
	}
	if a.key != "" {
		r.Header.Set("Authorization", "Bearer "+a.key)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	out, err := client.Do(r)
	if err != nil {
		return reply{}, err
	}
	defer out.Body.Close()
	raw, err := io.ReadAll(out.Body)
	return reply{out.StatusCode, out.Header, raw}, err
}

func (a *api) get(path string, header ...string) reply { return a.call("GET", path, nil, header...) }

func (a *api) post(path, body string, header ...string) reply {
	return a.call("POST", path, strings.NewReader(body), append([]string{"Content-Type", "application/json"}, header...)...)
}

// as decodes an answer that must be 200, and conform to a schema unless that is "".
func as[T any](t *testing.T, r reply, schema string) (v T) {
	t.Helper()
	if r.status != http.StatusOK {
		t.Fatalf("status %d: %s", r.status, r.body)
	}
	if schema != "" {
		conform(t, schema, r.body)
	}
	if err := json.Unmarshal(r.body, &v); err != nil {
		t.Fatalf("%v: %s", err, r.body)
	}
	return v
}

// formOf writes a multipart form of fields and a file.
func formOf(fields map[string]string, file, content string) (io.Reader, string) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for k, v := range fields {
		_ = w.WriteField(k, v)
	}
	if file != "" {
		part, _ := w.CreateFormFile("file", file)
		_, _ = io.WriteString(part, content)
	}
	_ = w.Close()
	return &b, w.FormDataContentType()
}

func (a *api) upload(content string) File {
	a.t.Helper()
	body, kind := formOf(map[string]string{"purpose": "batch"}, "input.jsonl", content)
	return as[File](a.t, a.call("POST", "/v1/files", body, "Content-Type", kind), "OpenAIFile")
}

// lines are so many requests for the built-in model.
func lines(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"custom_id":"c%d","method":"POST","url":"/v1/chat/completions","body":{"model":"builtin/sentiment","messages":[{"role":"user","content":"I like %d"}]}}`+"\n", i, i)
	}
	return b.String()
}

func createBody(file string, more string) string {
	return fmt.Sprintf(`{"input_file_id":%q,"endpoint":"/v1/chat/completions","completion_window":"24h"%s}`, file, more)
}

func (a *api) create(file, more string, header ...string) Batch {
	a.t.Helper()
	return as[Batch](a.t, a.post("/v1/batches", createBody(file, more), header...), "Batch")
}

// ended waits for the end of a batch, by waiting for each of its changes.
func (a *api) ended(id string) Batch {
	a.t.Helper()
	tag := ""
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		r := a.get("/v1/batches/"+id+"?wait=20s", "If-None-Match", tag)
		b := as[Batch](a.t, r, "Batch")
		if b.Ended() {
			return b
		}
		tag = r.header.Get("ETag")
	}
	a.t.Fatalf("batch %s does not end", id)
	return Batch{}
}

func TestBatchFromUploadToAnswers(t *testing.T) {
	a := newAPI(t, Options{PollEvery: 5 * time.Millisecond})
	a.work()
	f := a.upload(lines(5) + `{"custom_id":"c5","method":"POST","url":"/v1/chat/completions","body":{"model":"builtin/none"}}` + "\n")
	b := a.create(f.ID, `,"metadata":{"team":"blue"}`)
	if b.Status != "validating" || b.RequestCounts != (RequestCounts{}) || b.Model != nil || b.Metadata["team"] != "blue" {
		t.Errorf("a new batch is %+v", b)
	}
	b = a.ended(b.ID)
	if b.Status != "completed" || b.RequestCounts != (RequestCounts{6, 5, 1}) || b.Usage.TotalTokens == 0 || b.OutputFileID == nil || b.ErrorFileID == nil {
		t.Fatalf("it ends as %+v", b)
	}
	output := a.get("/v1/files/" + *b.OutputFileID + "/content").body
	failures := a.get("/v1/files/" + *b.ErrorFileID + "/content").body
	n := 0
	for line := range strings.Lines(string(output) + string(failures)) {
		conform(t, "BatchRequestOutput", []byte(line))
		if !strings.Contains(line, fmt.Sprintf(`"custom_id":"c%d"`, n)) {
			t.Errorf("line %d is %s", n, line)
		}
		n++
	}
	if n != 6 {
		t.Errorf("%d lines", n)
	}
	results := a.get("/v1/batches/" + b.ID + "/results")
	if !bytes.Equal(results.body, append(output, failures...)) || results.header.Get(HeaderResultsState) != "complete" {
		t.Errorf("results (%s) are not the files:\n%s", results.header.Get(HeaderResultsState), results.body)
	}
	if rest := a.get("/v1/batches/" + b.ID + "/results?after=" + results.header.Get(HeaderResultsAfter)); len(rest.body) > 0 {
		t.Errorf("after the last there is %s", rest.body)
	}
	conform(t, "ListBatchesResponse", a.get("/v1/batches").body)
	conform(t, "ListFilesResponse", a.get("/v1/files").body)
	for _, id := range []string{*b.OutputFileID, *b.ErrorFileID} {
		if f := as[File](t, a.get("/v1/files/"+id), "OpenAIFile"); f.Purpose != "batch_output" || f.Status != "processed" {
			t.Errorf("output %+v", f)
		}
	}
	for _, secret := range []string{"I like", `"content"`} {
		if strings.Contains(a.log.String(), secret) {
			t.Errorf("the log has payload: %s", a.log)
		}
	}
}

func TestBatchOfAnInvalidFileIsMadeAndFails(t *testing.T) {
	a := newAPI(t, Options{PollEvery: 5 * time.Millisecond})
	a.work()
	b := a.create(a.upload(lines(1)+"no JSON\n"+lines(1)).ID, "")
	b = a.ended(b.ID)
	if b.Status != "failed" || b.FailedAt == nil || b.FinalizingAt != nil || b.OutputFileID != nil || len(b.Errors.Data) != 2 {
		t.Fatalf("it ends as %+v", b)
	}
	for i, want := range []struct {
		code string
		line int64
	}{{"invalid_json_line", 2}, {"duplicate_custom_id", 3}} {
		if e := b.Errors.Data[i]; e.Code != want.code || *e.Line != want.line {
			t.Errorf("error %d is %+v", i, e)
		}
	}
	if b := a.ended(a.create(a.upload("").ID, "").ID); b.Status != "failed" || b.Errors.Data[0].Code != "empty_file" {
		t.Errorf("an empty file: %+v", b.Errors)
	}
	skipped := a.ended(a.create(a.upload(lines(1)+"no JSON\n").ID, `,"metadata":{"fanout_on_invalid":"skip"}`).ID)
	if skipped.Status != "completed" || skipped.RequestCounts != (RequestCounts{2, 1, 1}) {
		t.Errorf("with bad lines skipped: %+v", skipped)
	}
}

// TestAListHasTheFirstErrorsOfABatchOnly: a hundred batches with a thousand each were more than a front door lets pass.
func TestAListHasTheFirstErrorsOfABatchOnly(t *testing.T) {
	a := newAPI(t, Options{PollEvery: 5 * time.Millisecond})
	a.work()
	b := a.ended(a.create(a.upload(strings.Repeat("no request\n", 50)).ID, "").ID)
	if b.Errors == nil || len(b.Errors.Data) != 50 {
		t.Fatalf("alone it has %+v", b.Errors)
	}
	for _, path := range []string{"/v1/batches", "/fanout/v1/jobs", "/fanout/v1/jobs?tenant=" + someTenant} {
		l := as[List[Batch]](t, a.get(path), "")
		if len(l.Data) != 1 || len(l.Data[0].Errors.Data) != 20 || *l.Data[0].Errors.Data[19].Line != 20 {
			t.Errorf("%s has %+v", path, l.Data)
		}
	}
	if one := as[Batch](t, a.get("/fanout/v1/jobs/"+b.ID), "Batch"); len(one.Errors.Data) != 50 {
		t.Errorf("alone an operator sees %d", len(one.Errors.Data))
	}
}

func TestCancelStopsABatchOnce(t *testing.T) {
	a := newAPI(t, Options{PollEvery: 5 * time.Millisecond})
	b := a.create(a.upload(lines(3)).ID, "")
	for range 2 { // cancelling what is being cancelled changes nothing
		c := as[Batch](t, a.post("/v1/batches/"+b.ID+"/cancel", ""), "Batch")
		if c.Status != "cancelling" || c.CancellingAt == nil || c.FinalizingAt != nil {
			t.Errorf("it is %+v", c)
		}
	}
	a.work()
	if c := a.ended(b.ID); c.Status != "cancelled" || c.CancelledAt == nil {
		t.Errorf("it ends as %+v", c)
	}
	if c := as[Batch](t, a.post("/v1/batches/"+b.ID+"/cancel", ""), "Batch"); c.Status != "cancelled" {
		t.Errorf("cancelled again it is %s", c.Status)
	}
	done := a.ended(a.create(a.upload(lines(1)).ID, "").ID)
	if r := a.post("/v1/batches/"+done.ID+"/cancel", ""); r.status != 400 || r.header.Get("X-Should-Retry") != "false" {
		t.Errorf("cancel of a completed batch: %d %s", r.status, r.body)
	}
	log := as[List[AuditRecord]](t, a.get("/fanout/v1/audit"), "") // three cancels of it stopped it once
	if len(log.Data) != 1 || log.Data[0].Action != "job.cancel" || *log.Data[0].Of != b.ID || *log.Data[0].Tenant != someTenant || log.Data[0].By != "somebody on this machine" {
		t.Errorf("the audit log has %+v", log.Data)
	}
}

func TestListsArePagedByTheLastID(t *testing.T) {
	a := newAPI(t, Options{})
	var files, batches []string // oldest first
	for range 7 {
		f := a.upload(lines(1))
		files = append(files, f.ID)
		batches = append(batches, a.create(f.ID, "").ID)
	}
	walk := func(path string, limit int) (ids []string) {
		after := ""
		for {
			r := a.get(fmt.Sprintf("%s&limit=%d&after=%s", path, limit, after))
			l := as[List[struct{ ID string }]](t, r, "")
			for _, o := range l.Data {
				ids = append(ids, o.ID)
			}
			if !l.HasMore {
				return ids
			}
			if len(l.Data) != limit || *l.LastID != l.Data[limit-1].ID || *l.FirstID != l.Data[0].ID {
				t.Fatalf("%s: a page is %+v", path, l)
			}
			after = *l.LastID
		}
	}
	reversed := func(ids []string) []string {
		var r []string
		for _, id := range ids {
			r = append([]string{id}, r...)
		}
		return r
	}
	for limit := 1; limit <= 8; limit++ {
		for path, want := range map[string][]string{
			"/v1/batches?": reversed(batches), "/v1/files?": reversed(files), "/v1/files?order=asc": files, "/v1/files?purpose=batch": reversed(files), "/v1/files?purpose=batch_output": nil,
		} {
			if got := walk(path, limit); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s in pages of %d: %v, want %v", path, limit, got, want)
			}
		}
	}
	empty := newAPI(t, Options{})
	for _, path := range []string{"/v1/batches", "/v1/files"} {
		if l := as[List[File]](t, empty.get(path), ""); l.FirstID != nil || l.HasMore || l.Data == nil {
			t.Errorf("an empty %s: %+v", path, l)
		}
	}
	for _, path := range []string{"/v1/batches?after=batch_none", "/v1/files?after=file-none", "/v1/batches?after=" + files[0]} {
		if r := a.get(path); r.status != 400 {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
	}
}
