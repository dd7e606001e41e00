package inbox

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/localjobs"
	"github.com/fanout-inference/fanout/pkg/upstream"
)

// box is a watched folder, and the handlers that do what comes of it, stepped by the test on a clock of its own.
type box struct {
	t       *testing.T
	dir     string
	now     time.Time
	local   *localjobs.Local
	ports   jobs.Ports
	watcher *Watcher
	log     strings.Builder
}

func newBox(t *testing.T) *box {
	t.Helper()
	b := &box{t: t, dir: t.TempDir(), now: time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)}
	local, err := localjobs.Open(t.Context(), t.TempDir(), localjobs.Options{Now: func() time.Time { return b.now }, MountFolder: map[string]string{Folder("default"): b.dir}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = local.Close() })
	b.local = local
	b.ports = jobs.Ports{Ledger: local.Store, Registry: local.Store, Queue: local.Queue, Files: local.Files, Sole: true, Now: func() time.Time { return b.now }}.WithDefaults()
	b.restart()
	return b
}

// restart forgets whatever was not written down.
func (b *box) restart() {
	b.watcher = &Watcher{Dir: b.dir, Tenant: "default", Ports: b.ports, Files: b.local.Files, Log: slog.New(slog.NewTextHandler(&b.log, nil))}
}

// look lets some seconds pass, and looks.
func (b *box) look(seconds int) {
	b.now = b.now.Add(time.Duration(seconds) * time.Second)
	b.watcher.Look(b.t.Context())
}

// work does all that is to be done.
func (b *box) work() {
	b.t.Helper()
	builtin := upstream.NewBuiltin()
	worker := jobs.NewWorker(b.ports, jobs.WorkerOptions{Route: func(string) (string, jobs.Upstream) { return "builtin", builtin }})
	handlers := map[jobs.QueueName]jobs.Handler{
		jobs.QueueIngest: jobs.NewIngest(b.ports, jobs.IngestOptions{}), jobs.QueueWork: worker, jobs.QueueAggregate: jobs.NewAggregate(b.ports, jobs.AggregateOptions{}),
	}
	for busy := true; busy; {
		busy = false
		for q, h := range handlers {
			batch, err := b.local.Queue.Receive(b.t.Context(), q, 10, time.Minute)
			if err != nil {
				b.t.Fatal(err)
			}
			if len(batch) == 0 {
				continue
			}
			busy = true
			if failures := h.Handle(b.t.Context(), batch); len(failures) > 0 {
				b.t.Fatalf("%s: %v", q, failures[0].Err)
			}
			if err := b.local.Queue.Ack(b.t.Context(), batch...); err != nil {
				b.t.Fatal(err)
			}
		}
	}
}

func (b *box) put(name, content string) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, name), []byte(content), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) read(name string) string {
	body, err := os.ReadFile(filepath.Join(b.dir, name))
	if err != nil {
		return ""
	}
	return string(body)
}

func (b *box) report(name string) (r report) {
	b.t.Helper()
	if err := json.Unmarshal([]byte(b.read(name)), &r); err != nil {
		b.t.Fatalf("%s: %v", name, err)
	}
	return r
}

func (b *box) jobs() (found []jobs.Job) {
	b.t.Helper()
	for j, err := range b.ports.Ledger.Jobs(b.t.Context(), jobs.JobQuery{Tenant: "default"}) {
		if err != nil {
			b.t.Fatal(err)
		}
		found = append(found, j)
	}
	return found
}

func requests(n int) string {
	var s strings.Builder
	for i := range n {
		fmt.Fprintf(&s, `{"custom_id":"c%d","method":"POST","url":"/v1/chat/completions","body":{"model":"builtin/sentiment","messages":[{"role":"user","content":"good %d"}]}}`+"\n", i, i)
	}
	return s.String()
}

func TestFileBecomesAJobAndItsResultsStandBesideIt(t *testing.T) {
	b := newBox(t)
	b.put("reviews.jsonl", requests(3)+`{"custom_id":"bad"}`+"\n")
	b.look(0)
	b.look(2)
	b.work()
	if n := len(b.jobs()); n != 0 {
		t.Fatalf("before it has settled there are %d jobs", n)
	}
	b.look(2)
	b.work()
	b.look(1)
	if got := strings.Count(b.read("reviews.output.jsonl"), "\n"); got != 3 {
		t.Errorf("%d answers:\n%s", got, b.log.String())
	}
	if got := b.read("reviews.errors.jsonl"); !strings.Contains(got, `"custom_id":"bad"`) {
		t.Errorf("errors: %q", got)
	}
	if r := b.report("reviews.job.json"); r.Status != jobs.PhaseCompleted || r.Total != 4 || r.Answered != 3 || r.Failed != 1 || r.Job != b.jobs()[0].ID {
		t.Errorf("report: %+v", r)
	}
	for range 5 { // results make no jobs, and one file makes one
		b.look(70)
		b.work()
		b.restart()
	}
	if n := len(b.jobs()); n != 1 {
		t.Errorf("then there are %d jobs", n)
	}
}

func TestRestartAnywhereComesToTheSameEnd(t *testing.T) {
	b := newBox(t)
	b.put("a.jsonl", requests(2))
	for range 4 { // whole only once it was watched for long enough
		b.look(2)
		b.restart()
	}
	if n := len(b.jobs()); n != 0 {
		t.Errorf("%d jobs", n)
	}
	b.look(2)
	b.look(4)
	b.restart() // told, and nothing done
	b.look(0)
	b.look(4) // told again
	b.work()
	b.restart()
	b.look(0)
	if n := len(b.jobs()); n != 1 || strings.Count(b.read("a.output.jsonl"), "\n") != 2 {
		t.Errorf("%d jobs; output %q", n, b.read("a.output.jsonl"))
	}
	for _, name := range []string{"a.output.jsonl", "a.job.json"} { // a crash between the two, or somebody tidied up
		if err := os.Remove(filepath.Join(b.dir, "a.job.json")); err != nil && name == "a.output.jsonl" {
			t.Fatal(err)
		}
		b.restart()
		b.look(0)
		if b.report("a.job.json").Answered != 2 {
			t.Errorf("without %s it is not put there again", name)
		}
	}
}

func TestChangedFileIsAnotherJob(t *testing.T) {
	b := newBox(t)
	b.put("a.jsonl", requests(2)+"bad\n")
	b.look(0)
	b.look(4)
	b.work()
	b.look(1)
	first := b.report("a.job.json").Job
	b.put("a.jsonl", requests(5))
	b.look(1)
	b.look(4)
	b.work()
	b.look(1)
	r := b.report("a.job.json")
	if r.Job == first || r.Answered != 5 || b.read("a.errors.jsonl") != "" || strings.Count(b.read("a.output.jsonl"), "\n") != 5 {
		t.Errorf("report %+v, errors %q", r, b.read("a.errors.jsonl"))
	}
}

func TestFailedJobLeavesItsReason(t *testing.T) {
	b := newBox(t)
	b.put("empty.jsonl", "")
	b.put("packed.jsonl.gz", "\x1f\x8bno gzip")
	b.look(0)
	b.look(4)
	b.work()
	b.look(1)
	for name, reason := range map[string]string{"empty": "has no requests", "packed.gz": "gzip"} {
		r := b.report(name + ".job.json")
		if r.Status != jobs.PhaseFailed || !strings.Contains(r.Reason, reason) || b.read(name+".output.jsonl") != "" {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestFileThatIsBeingWrittenIsNotTaken(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells who writes")
	}
	b := newBox(t)
	f, err := os.Create(filepath.Join(b.dir, "slow.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(requests(1)); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		b.look(60)
		b.work()
	}
	if n := len(b.jobs()); n != 0 {
		t.Fatalf("a file that is half written became %d jobs", n)
	}
	if _, err := f.WriteString(`{"custom_id":"last","method":"POST","url":"/v1/chat/completions","body":{"model":"builtin/language","messages":[{"role":"user","content":"good"}]}}` + "\n"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	b.look(1)
	b.look(4)
	b.work()
	b.look(1)
	if got := strings.Count(b.read("slow.output.jsonl"), "\n"); got != 2 {
		t.Errorf("%d answers", got)
	}
}

func TestWhatIsNoOrdinaryFileIsLeftAlone(t *testing.T) {
	b := newBox(t)
	secret := filepath.Join(t.TempDir(), "secret.jsonl")
	if err := os.WriteFile(secret, []byte(requests(1)), 0o600); err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(b.dir, name) }
	if err := os.Symlink(secret, at("link.jsonl")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(at("pipe.jsonl"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(at("folder.jsonl"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".hidden.jsonl", "notes.txt", "a.output.jsonl", "a.errors.jsonl", "a.job.json", "bad-\xff.jsonl"} {
		b.put(name, requests(1))
	}
	for range 3 {
		b.look(4)
		b.work()
	}
	if n := len(b.jobs()); n != 0 {
		t.Errorf("%d jobs", n)
	}
	for _, name := range []string{"link.jsonl", "pipe.jsonl", "folder.jsonl"} {
		if n := strings.Count(b.log.String(), "file="+name); n != 1 {
			t.Errorf("%s is told %d times:\n%s", name, n, b.log.String())
		}
		if _, err := b.local.Files.Read(t.Context(), jobs.FileRef{Name: Folder("default") + "/" + name}, 0, -1); jobs.CodeOf(err) != jobs.CodeNotFound {
			t.Errorf("%s is read: %v", name, err)
		}
	}
	if !strings.Contains(b.log.String(), "is not plain text") {
		t.Errorf("the name that is no text is not told:\n%s", b.log.String())
	}
}

func TestStrangeNamesWork(t *testing.T) {
	b := newBox(t)
	names := []string{"with space", `quote"s`, "line\nbreak", "ü", "..dots..", "-dash"}
	for _, name := range names {
		if !strings.HasPrefix(name, ".") {
			b.put(name+".jsonl", requests(1))
		}
	}
	b.look(0)
	b.look(4)
	b.work()
	b.look(1)
	for _, name := range names {
		if got := strings.Count(b.read(name+".output.jsonl"), "\n"); got != 1 && !strings.HasPrefix(name, ".") {
			t.Errorf("%q: %d answers\n%s", name, got, b.log.String())
		}
	}
}

func TestFolderThatIsGoneIsToldOnce(t *testing.T) {
	b := newBox(t)
	if err := os.RemoveAll(b.dir); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		b.look(1)
	}
	if err := os.Mkdir(b.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	b.look(1)
	if got := strings.Count(b.log.String(), "\n"); got != 2 || !strings.Contains(b.log.String(), "all is well again") {
		t.Errorf("it is told so:\n%s", b.log.String())
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	b := newBox(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b.watcher.Run(ctx)
}
