package localjobs

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// stepwise drives ingest, worker and aggregate over one data directory by hand: a batch is received and handled when the
// test says so, on the clock of its bubble. before is asked ahead of every call of a port that changes or reads something
// of weight, and may fail it, hold it up, or change the records under it.
type stepwise struct {
	t     *testing.T
	local *Local
	jobs.Ports

	before func(verb, name string) error // verbs: send, read, create, concat, copy, read job, save job, save chunk
	errs   []error                       // what handlers returned other than deferrals
	called []int                         // by item: calls of the upstream so far
	mu     sync.Mutex

	upstream  func(item, call int) *jobs.Fault // nil = answered; call counts from 1
	courier   jobs.Courier                     // nil = there are no webhooks
	processes int
	ingest    jobs.Handler
	aggregate jobs.Handler
	worker    *jobs.Worker
	notify    jobs.Handler
}

var allQueues = []jobs.QueueName{jobs.QueueIngest, jobs.QueueAggregate, jobs.QueueWork, jobs.QueueNotify}

const (
	theJob = jobs.JobID("batch_1")
	hidden = time.Minute           // how long a received message stays so
	aCall  = 10 * time.Millisecond // how long the upstream takes, unless a test takes longer
)

// inSteps runs a test in a bubble.
func inSteps(t *testing.T, upstream func(item, call int) *jobs.Fault, test func(t *testing.T, s *stepwise)) {
	t.Helper()
	emptyPools()
	defer emptyPools()
	synctest.Test(t, func(t *testing.T) {
		s := &stepwise{t: t, local: openAt(t, t.TempDir(), Options{}), upstream: upstream}
		s.start()
		test(t, s)
	})
}

// emptyPools drops what the pools of the process keep. A decompressor has a channel, and one that was made in a bubble may
// not be used outside it. A pool gives up what two collections in a row found unused.
func emptyPools() {
	runtime.GC()
	runtime.GC()
}

func answerAll(int, int) *jobs.Fault { return nil }

func failure(status int) *jobs.Fault {
	return &jobs.Fault{Cause: jobs.CauseStatus, Status: status, Code: "upstream_error", Message: "no", IsObject: true}
}

// start makes the handlers of a new process; of an earlier one nothing is left but what it saved.
func (s *stepwise) start() {
	s.processes++
	s.Ports = s.portsOf(fmt.Sprintf("process-%d", s.processes))
	s.ingest = jobs.NewIngest(s.Ports, jobs.IngestOptions{})
	s.aggregate = jobs.NewAggregate(s.Ports, jobs.AggregateOptions{Webhooks: s.courier != nil})
	s.worker = s.newWorker(s.Ports, 64)
	s.notify = jobs.NewNotify(s.Ports, s.courier)
}

func (s *stepwise) portsOf(process string) jobs.Ports {
	return jobs.Ports{
		Ledger: askedLedger{s.local.Store, s}, Registry: s.local.Store, Queue: askedQueue{s.local.Queue, s},
		Files: askedFiles{s.local.Files, s}, Process: process, Sole: true,
	}.WithDefaults()
}

func (s *stepwise) newWorker(p jobs.Ports, concurrency int) *jobs.Worker {
	return jobs.NewWorker(p, jobs.WorkerOptions{
		Concurrency: concurrency,
		Route:       func(string) (string, jobs.Upstream) { return "upstream", steppedUpstream{s} },
	})
}

// submit opens a job of so many items. The job's windows, cuts and rules are what change makes of them.
func (s *stepwise) submit(items int, change func(j *jobs.Job)) error {
	s.t.Helper()
	s.called = make([]int, items)
	var input strings.Builder
	for i := range items {
		fmt.Fprintf(&input, `{"custom_id":"c%d","method":"POST","url":"/v1/chat/completions","body":{"model":"m","N":%d}}`+"\n", i, i)
	}
	w, err := s.local.Files.Create(s.t.Context(), "files/tenant/input")
	s.must(err)
	_, err = io.WriteString(w, input.String())
	s.must(err)
	info, err := w.Commit(s.t.Context())
	s.must(err)
	j := jobs.Job{ID: theJob, Tenant: "tenant", Input: info.FileRef, InputBytes: info.Bytes, Endpoint: "/v1/chat/completions",
		Cut: jobs.DefaultCut(info.Bytes), OnInvalid: jobs.InvalidSkips}
	if change != nil {
		change(&j)
	}
	return s.submitAgain(j)
}

func (s *stepwise) submitAgain(j jobs.Job) error {
	_, err := jobs.Submit(s.t.Context(), s.Ports, j)
	return err
}

func chunksOf(lines int) func(j *jobs.Job) {
	return func(j *jobs.Job) { j.Cut.ChunkLines, j.Cut.FloorBytes = lines, 0 }
}

func (s *stepwise) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *stepwise) handler(q jobs.QueueName) jobs.Handler {
	switch q {
	case jobs.QueueIngest:
		return s.ingest
	case jobs.QueueWork:
		return s.worker
	case jobs.QueueNotify:
		return s.notify
	default:
		return s.aggregate
	}
}

func (s *stepwise) receive(q jobs.QueueName) []jobs.Message {
	s.t.Helper()
	batch, err := s.local.Queue.Receive(s.t.Context(), q, 10, hidden)
	s.must(err)
	return batch
}

// die ends the process of whoever calls it from a port: its handler never returns.
func die() { runtime.Goexit() }

// handle has a batch handled and acks what is done. A handler that dies acks nothing, and a new process takes its place.
func (s *stepwise) handle(ctx context.Context, h jobs.Handler, batch []jobs.Message) (failures []jobs.Failure) {
	dead := true
	over := make(chan struct{})
	go func() {
		defer close(over)
		failures = h.Handle(ctx, batch)
		dead = false
	}()
	<-over
	if dead {
		s.start()
		return nil
	}
	failed := map[string]bool{}
	for _, f := range failures {
		failed[f.ID] = true
		var off *jobs.Deferred
		if !errors.As(f.Err, &off) {
			s.errs = append(s.errs, f.Err)
		}
	}
	for _, m := range batch {
		if !failed[m.ID] {
			s.must(s.local.Queue.Ack(context.WithoutCancel(ctx), m))
		}
	}
	return failures
}

// settle handles what is visible in the queues, all if none is named, until nothing is.
func (s *stepwise) settle(queues ...jobs.QueueName) {
	s.t.Helper()
	if len(queues) == 0 {
		queues = allQueues
	}
	for busy := true; busy; {
		busy = false
		for _, q := range queues {
			if batch := s.receive(q); len(batch) > 0 {
				busy = true
				s.handle(s.t.Context(), s.handler(q), batch)
			}
		}
	}
}

// dispatch brings the job to where its chunks are to be worked at.
func (s *stepwise) dispatch() { s.settle(jobs.QueueIngest, jobs.QueueAggregate) }

// sweep makes the sweep run, and handles what comes of it.
func (s *stepwise) sweep() {
	s.t.Helper()
	s.send(jobs.QueueAggregate, jobs.TickBody())
	s.settle()
}

func (s *stepwise) send(q jobs.QueueName, body []byte) {
	s.t.Helper()
	if _, err := s.local.Queue.Send(s.t.Context(), q, body); err != nil {
		s.t.Fatal(err)
	}
}

// sweeps lets so many minutes pass, and sweeps at the end of each.
func (s *stepwise) sweeps(n int) {
	s.t.Helper()
	for range n {
		time.Sleep(time.Minute)
		s.sweep()
	}
}

// redeliver lets time pass without a sweep, and handles messages as they become visible again.
func (s *stepwise) redeliver(within time.Duration) {
	s.t.Helper()
	s.pass(within, false)
}

// run lets time pass as it does in production, with a sweep each minute, until the job has ended.
func (s *stepwise) run(within time.Duration) {
	s.t.Helper()
	s.pass(within, true)
	if j := s.job(); !j.Phase.Ended() {
		s.t.Fatalf("after %s the job is still %s: pause %+v, tries %v, totals %+v", within, j.Phase, j.Pause, j.Tries, j.Totals)
	}
}

func (s *stepwise) pass(within time.Duration, sweeping bool) {
	s.t.Helper()
	end := time.Now().Add(within)
	tick := end
	if sweeping {
		tick = time.Now().Add(time.Minute)
	}
	for s.settle(); time.Now().Before(end) && !s.job().Phase.Ended(); s.settle() {
		next := earliest(end, tick)
		for _, q := range allQueues {
			in, ok, err := s.local.Queue.nextVisible(s.t.Context(), q)
			s.must(err)
			if ok {
				next = earliest(next, time.Now().Add(in))
			}
		}
		time.Sleep(time.Until(next))
		if sweeping && !time.Now().Before(tick) {
			tick = tick.Add(time.Minute)
			s.sweep()
		}
	}
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// What the records say.

func (s *stepwise) job() jobs.Job {
	s.t.Helper()
	j, err := s.local.Store.Job(s.t.Context(), theJob)
	s.must(err)
	return j
}

func (s *stepwise) split() jobs.Split {
	s.t.Helper()
	split, err := s.local.Store.Split(s.t.Context(), theJob, 0)
	s.must(err)
	return split
}

// chunk is the first chunk of the first split.
func (s *stepwise) chunk() jobs.Chunk {
	s.t.Helper()
	for c, err := range s.local.Store.Chunks(s.t.Context(), theJob, 0, jobs.OffsetRange{}) {
		s.must(err)
		return c
	}
	s.t.Fatal("no chunk has a record")
	return jobs.Chunk{}
}

// record is the first chunk of the first split, or nil before its first claim.
func (s *stepwise) record() *jobs.Chunk {
	s.t.Helper()
	for c, err := range s.local.Store.Chunks(s.t.Context(), theJob, 0, jobs.OffsetRange{}) {
		s.must(err)
		return &c
	}
	return nil
}

func (s *stepwise) changeJob(change func(j *jobs.Job)) {
	s.t.Helper()
	j := s.job()
	change(&j)
	s.must(s.local.Store.SaveJob(s.t.Context(), &j))
}

func (s *stepwise) changeChunk(change func(c *jobs.Chunk)) {
	s.t.Helper()
	c := s.chunk()
	change(&c)
	s.must(s.local.Store.SaveChunk(s.t.Context(), &c))
}

// chunkOf reads the chunk that a work message is about; it has no record before its first claim.
func (s *stepwise) chunkOf(m jobs.Message) jobs.Chunk {
	s.t.Helper()
	body, err := jobs.DecodeMessage(m.Body)
	s.must(err)
	return jobs.Chunk{V: jobs.SchemaVersion, ID: body.Chunk.ID(), Length: body.Chunk.Length, Lines: body.Chunk.Lines}
}

func (s *stepwise) buried() int {
	s.t.Helper()
	n := 0
	for _, err := range s.local.Queue.Peek(s.t.Context(), jobs.QueueWork) {
		s.must(err)
		n++
	}
	return n
}

func (s *stepwise) calls() (sum int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.called {
		sum += n
	}
	return sum
}

// wantEnd says how the job must have ended: completed, and with an answer for so many items.
func (s *stepwise) wantEnd(answered int) {
	s.t.Helper()
	j := s.job()
	if j.Phase != jobs.PhaseCompleted || j.Outputs == nil {
		s.t.Fatalf("the job is %s, with stop %+v and outputs %+v; want it completed", j.Phase, j.Stop, j.Outputs)
	}
	var lines int
	if j.Outputs.Answers != nil {
		lines = s.linesOf(j.Outputs.Answers.FileRef)
	}
	if int(j.Outputs.Totals.Answered) != answered || lines != answered {
		s.t.Errorf("%d items were answered, and the file of answers has %d lines; want %d", j.Outputs.Totals.Answered, lines, answered)
	}
}

func (s *stepwise) linesOf(f jobs.FileRef) (n int) {
	s.t.Helper()
	r, err := s.local.Files.Read(s.t.Context(), f, 0, -1)
	s.must(err)
	defer r.Close()
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		n++
	}
	s.must(lines.Err())
	return n
}

// steppedUpstream asks the test what becomes of each call.
type steppedUpstream struct{ s *stepwise }

func (u steppedUpstream) Call(_ context.Context, r jobs.Request) (jobs.Answer, error) {
	var body struct{ N int }
	if err := json.Unmarshal(r.Body, &body); err != nil {
		return jobs.Answer{}, err
	}
	u.s.mu.Lock()
	u.s.called[body.N]++
	call := u.s.called[body.N]
	u.s.mu.Unlock()
	time.Sleep(aCall)
	if fault := u.s.upstream(body.N, call); fault != nil {
		return jobs.Answer{}, fault
	}
	return jobs.Answer{Status: 200, Body: []byte(`{}`)}, nil
}

func (s *stepwise) ask(verb, name string) error {
	if s.before == nil {
		return nil
	}
	return s.before(verb, name)
}

type askedQueue struct {
	jobs.Queue
	s *stepwise
}

func (q askedQueue) Send(ctx context.Context, name jobs.QueueName, bodies ...[]byte) ([]jobs.Unsent, error) {
	if err := q.s.ask("send", string(name)); err != nil {
		return nil, err
	}
	return q.Queue.Send(ctx, name, bodies...)
}

type askedFiles struct {
	jobs.Files
	s *stepwise
}

func (f askedFiles) Read(ctx context.Context, ref jobs.FileRef, offset, length int64) (io.ReadCloser, error) {
	if err := f.s.ask("read", ref.Name); err != nil {
		return nil, err
	}
	return f.Files.Read(ctx, ref, offset, length)
}

func (f askedFiles) Create(ctx context.Context, name string) (jobs.FileWriter, error) {
	if err := f.s.ask("create", name); err != nil {
		return nil, err
	}
	return f.Files.Create(ctx, name)
}

func (f askedFiles) Concat(ctx context.Context, name string, parts []jobs.FileRef) (jobs.FileInfo, error) {
	if err := f.s.ask("concat", name); err != nil {
		return jobs.FileInfo{}, err
	}
	return f.Files.Concat(ctx, name, parts)
}

func (f askedFiles) Copy(ctx context.Context, from jobs.FileRef, to string) (jobs.FileInfo, error) {
	if err := f.s.ask("copy", to); err != nil {
		return jobs.FileInfo{}, err
	}
	return f.Files.Copy(ctx, from, to)
}

type askedLedger struct {
	jobs.Ledger
	s *stepwise
}

func (l askedLedger) Job(ctx context.Context, id jobs.JobID) (jobs.Job, error) {
	if err := l.s.ask("read job", string(id)); err != nil {
		return jobs.Job{}, err
	}
	return l.Ledger.Job(ctx, id)
}

func (l askedLedger) SaveJob(ctx context.Context, j *jobs.Job) error {
	if err := l.s.ask("save job", string(j.ID)); err != nil {
		return err
	}
	return l.Ledger.SaveJob(ctx, j)
}

func (l askedLedger) SaveChunk(ctx context.Context, c *jobs.Chunk) error {
	if err := l.s.ask("save chunk", c.ID.String()); err != nil {
		return err
	}
	return l.Ledger.SaveChunk(ctx, c)
}
