package jobstest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Rig is a whole driver, with something that delivers its messages.
type Rig struct {
	Ports jobs.Ports
	// Drive delivers the queues' messages to the handlers until stop closes, and returns when they are done.
	Drive func(ctx context.Context, stop <-chan struct{}, ingest, aggregate jobs.Handler, worker *jobs.Worker)
	// Dead lists the bodies of the dead letters of the work queue.
	Dead func(t *testing.T) [][]byte
}

// RunPipeline runs whole jobs through ingest, worker and aggregate on a driver, and compares what comes out with what went
// in: every item one outcome, in the order of the input.
func RunPipeline(t *testing.T, open func(t *testing.T) Rig) {
	t.Run("EverySizeComesOutCompleteAndInOrder", func(t *testing.T) { testSizes(t, open) })
	t.Run("BadLinesFailAloneWithoutACall", func(t *testing.T) { testSkip(t, open) })
	t.Run("ABadLineFailsTheJobBeforeAnyCall", func(t *testing.T) { testFail(t, open) })
	t.Run("ASickItemDiesAloneAndIsRedriven", func(t *testing.T) { testRedrive(t, open) })
	t.Run("ThrottlingIsWaitedOut", func(t *testing.T) { testThrottling(t, open) })
	t.Run("FailingForAllBuriesNobody", func(t *testing.T) { testFailingForAll(t, open) })
	t.Run("ABrokenCredentialPausesTheJob", func(t *testing.T) { testCredential(t, open) })
	t.Run("ACancelledJobKeepsItsAnswers", func(t *testing.T) { testCancel(t, open) })
	t.Run("AnUploadIsAJob", func(t *testing.T) { testUpload(t, open) })
	t.Run("APingGoesThroughEveryQueue", func(t *testing.T) { testPing(t, open) })
	t.Run("AnExpiredJobSaysWhyItsItemsFailed", func(t *testing.T) { testExpire(t, open) })
}

// upstreamFunc is an upstream as a function of an item's number and of how often it was called, from 1.
type upstreamFunc func(item, call int) *jobs.Fault

// pipeline is one job on its way.
type pipeline struct {
	t     *testing.T
	rig   Rig
	saved chan jobs.Job

	mu    sync.Mutex
	calls map[int]int
}

func startPipeline(t *testing.T, rig Rig, upstream upstreamFunc, worker jobs.WorkerOptions) *pipeline {
	t.Helper()
	p := &pipeline{t: t, rig: rig, saved: make(chan jobs.Job, 10_000), calls: map[int]int{}}
	p.rig.Ports.Watch.JobSaved = func(j jobs.Job) { p.saved <- j }
	worker.Route = func(string) (string, jobs.Upstream) { return "test", pipelineUpstream{p, upstream} }
	worker.DeferFirst, worker.DeferMost = time.Millisecond, 20*time.Millisecond
	w := jobs.NewWorker(p.rig.Ports, worker)
	ingest := jobs.NewIngest(p.rig.Ports, jobs.IngestOptions{})
	aggregate := jobs.NewAggregate(p.rig.Ports, jobs.AggregateOptions{FoldEvery: time.Millisecond, PieceBytes: 2000})
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { // joined by the cleanup
		defer close(done)
		p.rig.Drive(context.WithoutCancel(t.Context()), stop, ingest, aggregate, w)
	}()
	t.Cleanup(func() {
		w.Drain()
		close(stop)
		<-done
	})
	return p
}

type pipelineUpstream struct {
	p *pipeline
	f upstreamFunc
}

func (u pipelineUpstream) Call(_ context.Context, r jobs.Request) (jobs.Answer, error) {
	var body struct{ N int }
	if err := json.Unmarshal(r.Body, &body); err != nil {
		return jobs.Answer{}, err
	}
	u.p.mu.Lock()
	u.p.calls[body.N]++
	call := u.p.calls[body.N]
	u.p.mu.Unlock()
	if fault := u.f(body.N, call); fault != nil {
		return jobs.Answer{}, fault
	}
	return jobs.Answer{Status: 200, Body: fmt.Appendf(nil, `{"answer":%d}`, body.N), Usage: jobs.Usage{Input: 2, Output: 1, Total: 3}}, nil
}

func (p *pipeline) called(item int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls[item]
}

func requestLine(n int) string {
	return fmt.Sprintf(`{"custom_id":"c%d","method":"POST","url":"/v1/chat/completions","body":{"model":"m","N":%d}}`+"\n", n, n)
}

func requestLines(n int) string {
	var s strings.Builder
	for i := range n {
		s.WriteString(requestLine(i))
	}
	return s.String()
}

// submit puts the input into the files and opens a job for it, with small splits and chunks.
func (p *pipeline) submit(input string, change func(j *jobs.Job)) jobs.JobID {
	p.t.Helper()
	ctx := p.t.Context()
	w, err := p.rig.Ports.Files.Create(ctx, "files/tenant/input")
	must(p.t, err)
	_, err = io.WriteString(w, input)
	must(p.t, err)
	info, err := w.Commit(ctx)
	must(p.t, err)
	j := jobs.Job{
		ID: "batch_1", Tenant: "tenant", Input: info.FileRef, InputBytes: info.Bytes, Endpoint: "/v1/chat/completions",
		Cut: jobs.Cut{SplitBytes: 1000, ChunkLines: 4, ChunkBytes: 4 << 20, LineBytes: 20 << 20}, OnInvalid: jobs.InvalidSkips,
	}
	if change != nil {
		change(&j)
	}
	_, err = jobs.Submit(ctx, p.rig.Ports, j)
	must(p.t, err)
	return j.ID
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fuse ends a test whose job hangs. A machine that is busy with -race and three servers takes a minute for the largest.
const fuse = 5 * time.Minute

// wait returns the job once it is as wanted.
func (p *pipeline) wait(what string, wanted func(j jobs.Job) bool) jobs.Job {
	p.t.Helper()
	timeout := time.NewTimer(fuse)
	defer timeout.Stop()
	var last jobs.Job
	for {
		select {
		case last = <-p.saved:
			if wanted(last) {
				return last
			}
		case <-timeout.C:
			body, _ := json.MarshalIndent(last, "", " ")
			p.t.Fatalf("the job is still not %s after %s; it was last saved as %s", what, fuse, body)
		}
	}
}

func (p *pipeline) waitEnded(phase jobs.Phase) jobs.Job {
	p.t.Helper()
	j := p.wait(string(phase), func(j jobs.Job) bool { return j.Phase.Ended() })
	if j.Phase != phase {
		p.t.Fatalf("the job ended %s (%+v), want %s", j.Phase, j.Stop, phase)
	}
	return j
}

// outputLine is a line of the output or of the errors.
type outputLine struct {
	ID       string `json:"id"`
	CustomID string `json:"custom_id"`
	Response *struct {
		Status int `json:"status_code"`
		Body   struct{ Answer int }
	} `json:"response"`
	Error *struct{ Code, Message string } `json:"error"`
}

func (p *pipeline) lines(f *jobs.FileInfo) []outputLine {
	p.t.Helper()
	if f == nil {
		return nil
	}
	r, err := p.rig.Ports.Files.Read(p.t.Context(), f.FileRef, 0, -1)
	must(p.t, err)
	defer r.Close()
	body, err := io.ReadAll(r)
	must(p.t, err)
	var lines []outputLine
	for raw := range bytes.Lines(body) {
		var l outputLine
		if err := json.Unmarshal(raw, &l); err != nil {
			p.t.Fatalf("output line %q: %v", raw, err)
		}
		lines = append(lines, l)
	}
	return lines
}

func customIDs(lines []outputLine) []string {
	var ids []string
	for _, l := range lines {
		ids = append(ids, l.CustomID)
	}
	return ids
}

func idsFrom(numbers ...int) []string {
	var ids []string
	for _, n := range numbers {
		ids = append(ids, fmt.Sprintf("c%d", n))
	}
	return ids
}

func upTo(n int, without ...int) []int {
	var numbers []int
	for i := range n {
		if !slices.Contains(without, i) {
			numbers = append(numbers, i)
		}
	}
	return numbers
}

// check compares the job's files with what they should hold, and its counts with its files.
func (p *pipeline) check(j jobs.Job, answered, failed []string) (errorLines []outputLine) {
	p.t.Helper()
	answers := p.lines(j.Outputs.Answers)
	errorLines = p.lines(j.Outputs.Errors)
	if got := customIDs(answers); !slices.Equal(got, answered) {
		p.t.Errorf("answered:\n got %v\nwant %v", got, answered)
	}
	if got := customIDs(errorLines); !slices.Equal(got, failed) {
		p.t.Errorf("failed:\n got %v\nwant %v", got, failed)
	}
	for _, l := range answers {
		if l.Error != nil || l.Response == nil || fmt.Sprintf("c%d", l.Response.Body.Answer) != l.CustomID {
			p.t.Errorf("%s was answered with %+v, %+v", l.CustomID, l.Response, l.Error)
		}
	}
	t := j.Outputs.Totals
	if t.Answered != int64(len(answers)) || t.Failed != int64(len(errorLines)) || t.Items != t.Answered+t.Failed {
		p.t.Errorf("counts are %d items, %d answered, %d failed; the files have %d and %d lines", t.Items, t.Answered, t.Failed, len(answers), len(errorLines))
	}
	return errorLines
}

func healthy(int, int) *jobs.Fault { return nil }

func statusFault(status int) *jobs.Fault {
	return &jobs.Fault{Cause: jobs.CauseStatus, Status: status, Code: fmt.Sprintf("http_%d", status), Message: fmt.Sprintf("answered %d", status)}
}

func testSizes(t *testing.T, open func(t *testing.T) Rig) {
	for _, n := range []int{0, 1, 3, 4, 5, 99, 100, 101, 1000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			p := startPipeline(t, open(t), healthy, jobs.WorkerOptions{})
			p.submit(requestLines(n), nil)
			j := p.waitEnded(jobs.PhaseCompleted)
			p.check(j, idsFrom(upTo(n)...), nil)
			if want := int64(3 * n); j.Totals.Usage.Total != want {
				t.Errorf("usage is %d tokens, want %d", j.Totals.Usage.Total, want)
			}
			for i := range n {
				if p.called(i) != 1 {
					t.Errorf("item %d was called %d times", i, p.called(i))
				}
			}
		})
	}
}

func testSkip(t *testing.T, open func(t *testing.T) Rig) {
	p := startPipeline(t, open(t), healthy, jobs.WorkerOptions{})
	lines := strings.SplitAfter(requestLines(60), "\n")
	lines[7] = "{oops\n"
	lines[11] = "\n"
	lines[50] = requestLine(3)
	lines[59] = strings.TrimSuffix(lines[59], "\n")
	p.submit("\ufeff"+strings.ReplaceAll(strings.Join(lines, ""), "\n", "\r\n"), nil)
	j := p.waitEnded(jobs.PhaseCompleted)
	failed := p.check(j, idsFrom(upTo(60, 7, 11, 50)...), []string{"", "c3"})
	if len(failed) == 2 && (failed[0].Error.Code != "invalid_json_line" || !strings.HasPrefix(failed[0].Error.Message, "line 8: ") ||
		failed[1].Error.Code != "duplicate_custom_id" || !strings.HasPrefix(failed[1].Error.Message, "line 51: ")) {
		t.Errorf("errors are %+v and %+v", failed[0].Error, failed[1].Error)
	}
	if p.called(3) != 1 {
		t.Errorf("the id that stands twice was called %d times", p.called(3))
	}
}

func testFail(t *testing.T, open func(t *testing.T) Rig) {
	p := startPipeline(t, open(t), healthy, jobs.WorkerOptions{})
	p.submit(requestLines(30)+requestLine(4), func(j *jobs.Job) { j.OnInvalid = jobs.InvalidFails })
	j := p.waitEnded(jobs.PhaseFailed)
	if j.Stop.Code != "duplicate_custom_id" || j.Outputs != nil {
		t.Errorf("the job failed with %+v and outputs %+v", j.Stop, j.Outputs)
	}
	kept, all, err := jobs.Violations(t.Context(), p.rig.Ports.Files, &j)
	if err != nil || all != 1 || len(kept) != 1 || kept[0].Line != 31 || !strings.Contains(kept[0].Message, "line 5") {
		t.Errorf("violations are %+v (%d in all), %v", kept, all, err)
	}
	if n := p.called(0); n != 0 {
		t.Errorf("item 0 was called %d times", n)
	}
}

func testRedrive(t *testing.T, open func(t *testing.T) Rig) {
	var healed sync.Map
	p := startPipeline(t, open(t), func(item, _ int) *jobs.Fault {
		if _, ok := healed.Load(0); !ok && item == 57 {
			return statusFault(500)
		}
		return nil
	}, jobs.WorkerOptions{Concurrency: 4})
	p.submit(requestLines(100), nil)
	j := p.waitEnded(jobs.PhaseCompleted)
	failed := p.check(j, idsFrom(upTo(100, 57)...), idsFrom(57))
	if len(failed) == 1 && (failed[0].Response == nil || failed[0].Response.Status != 500) {
		t.Errorf("the error line of the dead item has response %+v, error %+v", failed[0].Response, failed[0].Error)
	}
	if n := p.called(57); n < jobs.DefaultMaxCalls {
		t.Errorf("the sick item was given up after %d calls", n)
	}
	for i := range 100 {
		if n := p.called(i); i != 57 && n != 1 {
			t.Errorf("item %d, a neighbour, was called %d times", i, n)
		}
	}
	dead := p.rig.Dead(t)
	if len(dead) != 1 {
		t.Fatalf("there are %d dead letters, want 1", len(dead))
	}
	healed.Store(0, true)
	_, err := p.rig.Ports.Queue.Send(t.Context(), jobs.QueueWork, dead[0])
	must(t, err)
	before := j.Outputs.Of
	j = p.wait("completed with other files", func(j jobs.Job) bool { return j.Phase == jobs.PhaseCompleted && j.Outputs.Of != before })
	p.check(j, idsFrom(upTo(100)...), nil)
}

func testThrottling(t *testing.T, open func(t *testing.T) Rig) {
	p := startPipeline(t, open(t), func(item, call int) *jobs.Fault {
		if call <= 1 && item%3 == 0 {
			f := statusFault(429)
			f.RetryAfter = time.Millisecond
			return f
		}
		return nil
	}, jobs.WorkerOptions{})
	p.submit(requestLines(40), nil)
	p.check(p.waitEnded(jobs.PhaseCompleted), idsFrom(upTo(40)...), nil)
}

func testFailingForAll(t *testing.T, open func(t *testing.T) Rig) {
	p := startPipeline(t, open(t), func(_, call int) *jobs.Fault {
		if call <= jobs.DefaultMaxCalls+4 {
			return statusFault(500)
		}
		return nil
	}, jobs.WorkerOptions{Patience: time.Nanosecond})
	p.submit(requestLines(20), nil)
	p.check(p.waitEnded(jobs.PhaseCompleted), idsFrom(upTo(20)...), nil)
	if dead := p.rig.Dead(t); len(dead) != 0 {
		t.Errorf("there are %d dead letters", len(dead))
	}
}

func testCredential(t *testing.T, open func(t *testing.T) Rig) {
	var fixed sync.Map
	p := startPipeline(t, open(t), func(int, int) *jobs.Fault {
		if _, ok := fixed.Load(0); ok {
			return nil
		}
		return statusFault(401)
	}, jobs.WorkerOptions{})
	id := p.submit(requestLines(200), nil)
	j := p.wait("paused", func(j jobs.Job) bool { return j.Pause != nil })
	if j.Pause.Reason != jobs.PauseCredential || !strings.Contains(j.Pause.Message, "answered 401") {
		t.Errorf("the pause is %+v", j.Pause)
	}
	calls := 0
	for i := range 200 {
		calls += p.called(i)
	}
	if calls >= 200 {
		t.Errorf("a broken credential was tried %d times for 200 items", calls)
	}
	fixed.Store(0, true)
	must(t, jobs.Resume(t.Context(), p.rig.Ports, id))
	p.check(p.waitEnded(jobs.PhaseCompleted), idsFrom(upTo(200)...), nil)
}

func testCancel(t *testing.T, open func(t *testing.T) Rig) {
	started, release := make(chan struct{}), make(chan struct{})
	var calls atomic.Int64
	p := startPipeline(t, open(t), func(int, int) *jobs.Fault {
		if n := calls.Add(1); n == 9 {
			close(started)
		} else if n < 9 {
			return nil
		}
		<-release
		return nil
	}, jobs.WorkerOptions{Concurrency: 1})
	id := p.submit(requestLines(60), nil)
	<-started
	_, err := jobs.CancelJob(t.Context(), p.rig.Ports, id, "enough")
	must(t, err)
	close(release)
	j := p.waitEnded(jobs.PhaseCancelled)
	var answered, left []int
	for i := range 60 { // the queue may have taken chunks in any order
		if p.called(i) > 0 {
			answered = append(answered, i)
		} else {
			left = append(left, i)
		}
	}
	if len(answered) < 9 || len(left) == 0 {
		t.Fatalf("%d items were called", len(answered))
	}
	failed := p.check(j, idsFrom(answered...), idsFrom(left...))
	if failed[0].Error == nil || failed[0].Error.Code != jobs.ItemCancelled {
		t.Errorf("a cancelled item says %+v", failed[0].Error)
	}
}

func testExpire(t *testing.T, open func(t *testing.T) Rig) {
	failing := make(chan struct{})
	p := startPipeline(t, open(t), func(item, call int) *jobs.Fault {
		if item != 5 {
			return nil
		}
		if call == 4 { // the first attempt calls three times: its answers are saved
			close(failing)
		}
		return statusFault(502)
	}, jobs.WorkerOptions{Concurrency: 1})
	id := p.submit(requestLines(6), func(j *jobs.Job) { j.MaxCalls = 1_000_000 })
	<-failing
	must(t, jobs.ExpireJob(t.Context(), p.rig.Ports, id, "its time is up"))
	failed := p.check(p.waitEnded(jobs.PhaseExpired), idsFrom(upTo(5)...), idsFrom(5))
	if len(failed) == 1 && (failed[0].Error == nil || failed[0].Error.Code != jobs.ItemExpired || !strings.Contains(failed[0].Error.Message, "answered …")) {
		t.Errorf("an expired item says %+v", failed[0].Error)
	}
}
