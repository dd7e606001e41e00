package localjobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// crashInput is four chunks of three lines, two in each split.
var crashInput = []string{
	crashLine(0), "\n", `{"custom_id":"` + strings.Repeat("oops ", 50) + "\n",
	crashLine(3), crashLine(refusedItem), crashLine(5),
	crashLine(sickItem), crashLine(7), crashLine(lateItem),
	crashLine(9), crashLine(10), crashLine(11),
}

const (
	crashLines  = 3 // a chunk
	refusedItem = 4
	sickItem    = 6 // until it is healed
	lateItem    = 8 // answered at the second call
)

// inTime is long enough for leases to end and for steps to be tried again. What waits longer was lost, and waits for the
// sweep, which sends again what is missing after an hour.
const inTime = 30 * time.Minute

func crashLine(n int) string {
	return fmt.Sprintf(`{"custom_id":"c%d","method":"POST","url":"/v1/chat/completions","body":{"model":"m","N":%d}}`+"\n", n, n)
}

// crashRun is one life of the job: it completes with a dead chunk, is redriven by hand, completes again, and is closed an
// hour later; both ends are told to a webhook. On the way one call of a port goes wrong.
type crashRun struct {
	*stepwise
	dir    string
	first  *faultPorts // of the first process
	faults *faultPorts // of the one that lives
	ctx    context.Context
	kill   context.CancelFunc
	tickAt time.Time
	healed bool
	broken []string          // promises, a sentence each
	posts  map[string]string // event id → type, of what was posted

	ends [2]crashEnd
}

// crashEnd is what a completed job has come to.
type crashEnd struct {
	Answers, Errors string
	Totals          jobs.Totals
	Dead            map[string]int // chunks by id → burial number
}

func runCrash(t *testing.T, at int, how mishap) (r *crashRun) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r = &crashRun{stepwise: &stepwise{t: t, called: make([]int, len(crashInput))}, dir: t.TempDir(), posts: map[string]string{}}
		r.first = &faultPorts{at: at, how: how, die: func() { r.kill() }}
		r.begin(r.first)
		r.live()
		r.kill()
	})
	return r
}

// begin starts a process. One message is handled at a time, and one item called, so that every run makes the same calls of
// ports in the same order until one goes wrong.
func (r *crashRun) begin(faults *faultPorts) {
	r.faults = faults
	r.local = openAt(r.t, r.dir, Options{})
	r.processes++
	r.tickAt = time.Now()
	r.ctx, r.kill = context.WithCancel(r.t.Context())
	ids := 0
	r.Ports = faults.on(jobs.Ports{
		Ledger: r.local.Store, Registry: r.local.Store, Queue: r.local.Queue, Files: r.local.Files,
		Process: fmt.Sprintf("process-%d", r.processes), Sole: true,
		NewID: func() string {
			ids++
			return fmt.Sprint(ids)
		},
		Jitter: func(d time.Duration) time.Duration { return d },
	}).WithDefaults()
	r.ingest = jobs.NewIngest(r.Ports, jobs.IngestOptions{})
	r.aggregate = jobs.NewAggregate(r.Ports, jobs.AggregateOptions{PieceBytes: 200, Webhooks: true}) // a piece a chunk
	r.notify = jobs.NewNotify(r.Ports, crashCourier{r, r.ctx})
	r.worker = jobs.NewWorker(r.Ports, jobs.WorkerOptions{
		Concurrency: 1, CheckpointBytes: 250, // a part for two items
		Route: func(string) (string, jobs.Upstream) { return "upstream", crashUpstream{r, r.ctx} },
	})
}

// live is the job's life.
func (r *crashRun) live() {
	_, err := jobs.CreateHook(r.t.Context(), jobs.Ports{Registry: r.local.Store}.WithDefaults(), jobs.Hook{Tenant: "tenant", URL: "https://x"}, jobs.HookOptions{})
	r.must(err)
	r.open(theJob, crashInput)
	r.until("the job has completed, and that was told", func() bool { return r.job().Phase == jobs.PhaseCompleted && r.told() == 1 })
	r.ends[0] = r.end()
	first := r.job().Outputs.Of
	r.healed = true
	for _, body := range r.letters() {
		r.insist(func() error {
			_, err := r.Queue.Send(r.ctx, jobs.QueueWork, body)
			return err
		})
	}
	r.until("the job has completed again", func() bool {
		j := r.job()
		return j.Phase == jobs.PhaseCompleted && j.Outputs.Of != first
	})
	time.Sleep(time.Hour)
	r.tickAt = time.Now()
	r.until("the job is closed, and its second end was told", func() bool { return r.job().Closed && r.told() == 2 })
	r.ends[1] = r.end()
	if len(r.posts) != 2 {
		r.breaks("what was posted is %v, want both ends", r.posts)
	}
}

// told counts the deliveries that have come to an end.
func (r *crashRun) told() int {
	r.t.Helper()
	all, err := jobs.Deliveries(r.t.Context(), r.local.Store, jobs.DeliveryQuery{Tenant: "tenant"})
	r.must(err)
	n := 0
	for _, d := range all {
		if d.State == jobs.DeliveryDelivered {
			n++
		}
	}
	return n
}

// crashCourier posts what one process sends.
type crashCourier struct {
	r       *crashRun
	process context.Context
}

func (c crashCourier) Post(_ context.Context, n *jobs.NoticeMessage) (int, error) {
	if err := c.process.Err(); err != nil {
		return 0, err // the dead post nothing
	}
	var event struct{ Type string }
	if err := json.Unmarshal([]byte(n.Body), &event); err != nil {
		return 0, err
	}
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	c.r.posts[n.EventID] = event.Type
	return 200, nil
}

// open submits a job, as often as it takes.
func (r *crashRun) open(id jobs.JobID, input []string) {
	r.t.Helper()
	w, err := r.local.Files.Create(r.t.Context(), "files/tenant/"+string(id))
	r.must(err)
	_, err = io.WriteString(w, strings.Join(input, ""))
	r.must(err)
	info, err := w.Commit(r.t.Context())
	r.must(err)
	j := jobs.Job{
		ID: id, Tenant: "tenant", Input: info.FileRef, InputBytes: info.Bytes, Endpoint: "/v1/chat/completions", MaxCalls: 2,
		Cut: jobs.Cut{SplitBytes: crashOffset(sickItem), ChunkLines: crashLines, ChunkBytes: 4 << 20, LineBytes: 20 << 20}, OnInvalid: jobs.InvalidSkips,
	}
	r.insist(func() error { return r.submitAgain(j) })
}

// insist does what a person wants done until it succeeds.
func (r *crashRun) insist(do func() error) {
	r.t.Helper()
	for {
		err := do()
		switch {
		case r.restarted():
		case err == nil:
			return
		case !errors.Is(err, errMishap):
			r.t.Fatal(err)
		}
	}
}

// restarted puts a new process in the place of one that has died.
func (r *crashRun) restarted() bool {
	if !r.faults.isDead() {
		return false
	}
	r.must(r.local.Close())
	r.begin(&faultPorts{})
	return true
}

// until lets time pass as it does in production, with a sweep each minute, until it is so and nothing is to be handled now.
func (r *crashRun) until(what string, so func() bool) {
	r.t.Helper()
	limit := time.Now().Add(inTime)
	for handled := 0; ; {
		next := r.tickAt
		q, at, some := r.next()
		switch {
		case some && !time.Now().Before(at):
			if handled++; handled > 1000 {
				r.t.Fatalf("after %d messages it is not so that %s", handled, what)
			}
			r.deliver(q)
			continue
		case so():
			return
		case time.Now().After(limit):
			j := r.job()
			r.t.Fatalf("after %s it is not so that %s: the job is %s, with stop %+v, pause %+v, tries %v, totals %+v",
				inTime, what, j.Phase, j.Stop, j.Pause, j.Tries, j.Totals)
		case some:
			next = earliest(next, at)
		}
		time.Sleep(time.Until(next))
		if !time.Now().Before(r.tickAt) {
			r.tickAt = time.Now().Add(time.Minute)
			r.must(r.local.Queue.sendOnce(r.t.Context(), jobs.QueueAggregate, jobs.TickBody()))
		}
	}
}

// next is the queue whose next message is visible soonest, and when.
func (r *crashRun) next() (q jobs.QueueName, at time.Time, some bool) {
	r.t.Helper()
	for _, name := range allQueues {
		in, ok, err := r.local.Queue.nextVisible(r.t.Context(), name)
		r.must(err)
		if visible := time.Now().Add(max(0, in)); ok && (!some || visible.Before(at)) {
			q, at, some = name, visible, true
		}
	}
	return q, at, some
}

// deliver has one message handled as the pump does it. That receives and acks may go wrong like the ports.
func (r *crashRun) deliver(q jobs.QueueName) {
	var batch []jobs.Message
	err := r.faults.call("Receive", string(q), func() (err error) {
		batch, err = r.local.Queue.Receive(r.t.Context(), q, 1, 2*time.Minute)
		return err
	})
	if r.restarted() || err != nil || len(batch) == 0 {
		return
	}
	failures := r.handler(q).Handle(r.ctx, batch)
	if r.restarted() {
		return
	}
	if len(failures) > 0 {
		until := time.Now().Add(jobs.BackOff(batch[0], failures[0].Err, time.Now()))
		r.must(r.local.Queue.PutOff(r.t.Context(), until, batch...))
		return
	}
	_ = r.faults.call("Ack", string(q), func() error { return r.local.Queue.Ack(r.t.Context(), batch...) }) // else it comes again
	r.restarted()
}

func (r *crashRun) breaks(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken = append(r.broken, fmt.Sprintf(format, args...))
}

// end reads what the job has come to, and holds it against the records.
func (r *crashRun) end() crashEnd {
	r.t.Helper()
	j := r.job()
	if j.Phase != jobs.PhaseCompleted || j.Outputs == nil {
		r.t.Fatalf("the job is %s, with stop %+v and outputs %+v", j.Phase, j.Stop, j.Outputs)
	}
	e := crashEnd{Answers: r.content(j.Outputs.Answers), Errors: r.content(j.Outputs.Errors), Totals: j.Outputs.Totals, Dead: map[string]int{}}
	e.Totals.LastAnswer, e.Totals.Seconds = time.Time{}, 0
	if answered, failed := strings.Count(e.Answers, "\n"), strings.Count(e.Errors, "\n"); int64(answered) != e.Totals.Answered ||
		int64(failed) != e.Totals.Failed || int64(answered+failed) != e.Totals.Items {
		r.breaks("the files have %d and %d lines, the totals are %+v", answered, failed, e.Totals)
	}
	letters := map[string]int{} // the highest burial number of each chunk
	for _, body := range r.letters() {
		m, err := jobs.DecodeMessage(body)
		r.must(err)
		id := m.Chunk.ID().String()
		letters[id] = max(letters[id], m.Chunk.Burial)
	}
	for c := range r.chunks() {
		var resolved jobs.Bits
		for _, p := range c.Parts {
			if !resolved.And(p.Mask).Empty() {
				r.breaks("chunk %s has items with two outcomes: %+v", c.ID, c.Parts)
			}
			resolved = resolved.Or(p.Mask)
		}
		if !resolved.Equal(c.Resolved) {
			r.breaks("chunk %s says that %s have their outcome, its parts have %s", c.ID, c.Resolved, resolved)
		}
		if letters[c.ID.String()] != c.Burial {
			r.breaks("chunk %s was buried %d times, its dead letters say %d", c.ID, c.Burial, letters[c.ID.String()])
		}
		if c.Dead && !c.Done() {
			e.Dead[c.ID.String()] = c.Burial
			if !c.Buried {
				r.breaks("chunk %s is dead and not buried", c.ID)
			}
		}
		delete(letters, c.ID.String())
	}
	if len(letters) > 0 {
		r.breaks("nobody knows the chunks of the dead letters %v", letters)
	}
	return e
}

func (r *crashRun) content(f *jobs.FileInfo) string {
	r.t.Helper()
	if f == nil {
		return ""
	}
	file, err := r.local.Files.Read(r.t.Context(), f.FileRef, 0, -1)
	r.must(err)
	defer file.Close()
	body, err := io.ReadAll(file)
	r.must(err)
	return string(body)
}

// letters are the bodies of the dead letters of the work queue.
func (r *crashRun) letters() (bodies [][]byte) {
	r.t.Helper()
	for d, err := range r.local.Queue.Peek(r.t.Context(), jobs.QueueWork) {
		r.must(err)
		bodies = append(bodies, d.Body)
	}
	return bodies
}

// chunks yields the records of the job's chunks.
func (r *crashRun) chunks() func(yield func(jobs.Chunk) bool) {
	return func(yield func(jobs.Chunk) bool) {
		for n := range 2 {
			for c, err := range r.local.Store.Chunks(r.t.Context(), theJob, n, jobs.OffsetRange{}) {
				if err != nil {
					r.breaks("read the chunks: %v", err)
				}
				if err != nil || !yield(c) {
					return
				}
			}
		}
	}
}

// recorded tells whether a record has the item's outcome.
func (r *crashRun) recorded(item int) bool {
	for c := range r.chunks() {
		if c.ID.Offset == crashOffset(item) {
			return c.Resolved.Has(item % crashLines)
		}
	}
	return false
}

// crashOffset names the chunk of an item.
func crashOffset(item int) int64 {
	return int64(len(strings.Join(crashInput[:item-item%crashLines], "")))
}

// crashUpstream is the upstream as one process sees it.
type crashUpstream struct {
	r       *crashRun
	process context.Context
}

func (u crashUpstream) Call(_ context.Context, q jobs.Request) (jobs.Answer, error) {
	var body struct{ N int }
	if err := json.Unmarshal(q.Body, &body); err != nil {
		return jobs.Answer{}, err
	}
	if err := u.process.Err(); err != nil {
		return jobs.Answer{}, err // the dead call nobody
	}
	call := u.r.count(body.N)
	time.Sleep(aCall)
	switch n := body.N; {
	case n == refusedItem:
		return jobs.Answer{}, failure(400)
	case n == sickItem && !u.r.healed:
		return jobs.Answer{}, failure(500)
	case n == lateItem && call == 1:
		return jobs.Answer{}, &jobs.Fault{Cause: jobs.CauseTimeout, Code: "request_timeout", Message: "no"}
	}
	return jobs.Answer{Status: 200, Body: fmt.Appendf(nil, `{"answer":%d}`, body.N), Usage: jobs.Usage{Input: 2, Output: 1, Total: 3}}, nil
}

// count counts a call, from 1.
func (r *crashRun) count(item int) int {
	if r.recorded(item) {
		r.breaks("item %d is called though its outcome is recorded", item)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.called[item]++
	return r.called[item]
}

// TestCrashAtEveryStep lets every call of a port go wrong in every way, one a run, and compares what the job comes to. All
// of it takes minutes: only some are tried unless FANOUT_EVERY_STEP is 1.
func TestCrashAtEveryStep(t *testing.T) {
	want := runCrash(t, 0, "")
	checkUndisturbed(t, want)
	calls := want.first.calls
	for _, c := range crashCases(t, calls, os.Getenv("FANOUT_EVERY_STEP") == "1") {
		t.Run(fmt.Sprintf("%d %s %s", c.at, calls[c.at-1], c.how), func(t *testing.T) {
			t.Parallel()
			t.Logf("it is about %q", want.first.names[c.at-1])
			got := runCrash(t, c.at, c.how)
			if len(got.first.calls) < c.at || !slices.Equal(got.first.calls[:c.at], calls[:c.at]) {
				t.Fatal("its calls are not those of the undisturbed run")
			}
			if diff := cmp.Diff(want.ends, got.ends); diff != "" {
				t.Errorf("the job has not come to the same end (-undisturbed +this):\n%s", diff)
			}
			for _, b := range got.broken {
				t.Error(b)
			}
			again := 1 // is how often an item may be called once more: its answer may have been lost
			if c.keepsThePart(want.first) {
				again = 0
			}
			for item, n := range got.called {
				if item != sickItem && n > want.called[item]+again {
					t.Errorf("item %d was called %d times, and %d times if nothing goes wrong", item, n, want.called[item])
				}
			}
		})
	}
}

// checkUndisturbed holds the run that all are compared with to what it is made for.
func checkUndisturbed(t *testing.T, r *crashRun) {
	t.Helper()
	type end struct {
		Answers, Errors string
		Dead            map[string]int
	}
	var got [2]end
	for i, e := range r.ends {
		got[i] = end{customIDs(t, e.Answers), customIDs(t, e.Errors), e.Dead}
	}
	sick := jobs.ChunkID{Job: theJob, Split: 1, Offset: crashOffset(sickItem)}
	want := [2]end{
		{"c0 c3 c5 c7 c8 c9 c10 c11", " c4 c6", map[string]int{sick.String(): 1}},
		{"c0 c3 c5 c6 c7 c8 c9 c10 c11", " c4", map[string]int{}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("the undisturbed run (-want +got):\n%s", diff)
	}
	if len(r.broken) > 0 || r.called[lateItem] != 2 || r.called[refusedItem] != 1 {
		t.Fatalf("the undisturbed run has called %v, and has broken %v", r.called, r.broken)
	}
}

func customIDs(t *testing.T, lines string) string {
	t.Helper()
	var ids []string
	for line := range strings.Lines(lines) {
		var l struct {
			CustomID string `json:"custom_id"`
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, l.CustomID)
	}
	return strings.Join(ids, " ")
}

// crashCase is a call, from 1, and how it goes wrong.
type crashCase struct {
	at  int
	how mishap
}

// keepsThePart tells whether the last thing that was done is a part, which the next attempt takes over.
func (c crashCase) keepsThePart(f *faultPorts) bool {
	last := c.at - 1
	if c.how == mishapLies {
		last = c.at
	}
	return last > 0 && f.calls[last-1] == "Writer.Commit" && strings.Contains(f.names[last-1], "/parts/")
}

// crashCases walks through all cases by a stride that leads to each of them once, and picks the first ones and those that
// are the first of their kind of call; or all.
func crashCases(t *testing.T, calls []string, all bool) (picked []crashCase) {
	t.Helper()
	const some = 30
	n := len(calls) * len(mishaps)
	stride := int(float64(n) / math.Phi) // any number of steps of this length lies evenly
	for gcd(stride, n) != 1 {
		stride++
	}
	tried, left := map[string]int{}, map[string]int{}
	for i := range n {
		i = i * stride % n
		c := crashCase{i/len(mishaps) + 1, mishaps[i%len(mishaps)]}
		kind := calls[c.at-1]
		if all || len(picked) < some || tried[kind] == 0 {
			picked = append(picked, c)
			tried[kind]++
		} else {
			left[kind]++
		}
	}
	t.Logf("%d calls of ports, and so %d cases; tried are %d: %v", len(calls), n, len(picked), tried)
	if len(left) > 0 {
		t.Logf("left out without FANOUT_EVERY_STEP=1 are %d: %v", n-len(picked), left)
	}
	return picked
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// What it has found.

func TestNudgeThatFailsAfterABurialIsMadeUpForByTheNextDelivery(t *testing.T) {
	inSteps(t, lastIsSick, func(t *testing.T, s *stepwise) {
		lost := 0
		s.before = func(verb, name string) error {
			if verb == "send" && name == string(jobs.QueueAggregate) && lost == 0 && s.buried() > 0 {
				lost++
				return errThrottled
			}
			return nil
		}
		s.must(s.submit(3, func(j *jobs.Job) { j.MaxCalls = 1 }))
		s.run(inTime)
		s.wantEnd(2)
		if lost != 1 {
			t.Errorf("%d nudges were lost, want 1", lost)
		}
	})
}

func TestRestartedProcessGivesUpTheLastSickItem(t *testing.T) {
	inSteps(t, lastIsSick, func(t *testing.T, s *stepwise) {
		s.must(s.submit(3, nil))
		s.redeliver(time.Second)
		s.start()
		s.run(2 * time.Hour)
		s.wantEnd(2)
		if n := s.buried(); n != 1 {
			t.Errorf("%d chunks were buried, want the one", n)
		}
	})
}

func lastIsSick(item, _ int) *jobs.Fault {
	if item == 2 {
		return failure(500)
	}
	return nil
}
