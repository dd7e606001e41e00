package localjobs

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// inbox is a data directory whose inbox strangers write to, and an ingest that is told of it.
type inbox struct {
	t     *testing.T
	local *Local
	jobs.Ports
	opt jobs.IngestOptions
}

func openInbox(t *testing.T) *inbox {
	x := &inbox{t: t, local: openAt(t, t.TempDir(), Options{})}
	x.Ports = jobs.Ports{Ledger: x.local.Store, Registry: x.local.Store, Queue: x.local.Queue, Files: x.local.Files}.WithDefaults()
	return x
}

// write puts an object into the inbox as strangers do: in place, whatever was there. Each has a time of its own.
func (x *inbox) write(name, content string) {
	x.t.Helper()
	place := filepath.Join(x.local.Files.root, name)
	err := os.MkdirAll(filepath.Dir(place), 0o700)
	if err == nil {
		err = os.WriteFile(place, []byte(content), 0o600)
	}
	if err == nil {
		err = os.Chtimes(place, time.Time{}, time.Unix(1_700_000_000, int64(len(content))))
	}
	if err != nil {
		x.t.Fatal(err)
	}
}

func (x *inbox) remove(name string) {
	x.t.Helper()
	if err := os.Remove(filepath.Join(x.local.Files.root, name)); err != nil {
		x.t.Fatal(err)
	}
}

// upload writes an object and returns what is told of it.
func (x *inbox) upload(name, content string) jobs.UploadMessage {
	x.t.Helper()
	x.write(name, content)
	info, err := x.local.Files.Stat(x.t.Context(), name)
	if err != nil {
		x.t.Fatal(err)
	}
	return jobs.UploadMessage{Upload: info.FileRef, Sequencer: "1", Bytes: info.Bytes}
}

// tell tells ingest of an upload, as its n-th delivery. nil = the message is done with.
func (x *inbox) tell(ctx context.Context, m jobs.UploadMessage, n int) error {
	message := jobs.Message{ID: "m", Queue: jobs.QueueIngest, Body: jobs.UploadBody(m), Receives: n}
	for _, f := range jobs.NewIngest(x.Ports, x.opt).Handle(ctx, []jobs.Message{message}) {
		return f.Err
	}
	return nil
}

func (x *inbox) take(m jobs.UploadMessage) {
	x.t.Helper()
	if err := x.tell(x.t.Context(), m, 1); err != nil {
		x.t.Fatal(err)
	}
}

// jobs are those of the tenant, newest first.
func (x *inbox) jobs() (all []jobs.Job) {
	x.t.Helper()
	for j, err := range x.local.Store.Jobs(x.t.Context(), jobs.JobQuery{Tenant: "t"}) {
		if err != nil {
			x.t.Fatal(err)
		}
		all = append(all, j)
	}
	return all
}

func (x *inbox) onlyJob() jobs.Job {
	x.t.Helper()
	all := x.jobs()
	if len(all) != 1 {
		x.t.Fatalf("there are %d jobs, want 1", len(all))
	}
	return all[0]
}

func (x *inbox) input(j jobs.Job) string {
	x.t.Helper()
	r, err := x.local.Files.Read(x.t.Context(), j.Input, 0, -1)
	if err != nil {
		x.t.Fatal(err)
	}
	defer r.Close()
	body, err := io.ReadAll(r)
	if err != nil {
		x.t.Fatal(err)
	}
	return string(body)
}

// waiting is how many messages are in the ingest queue.
func (x *inbox) waiting() int64 {
	x.t.Helper()
	d, err := x.local.Queue.Depth(x.t.Context(), jobs.QueueIngest)
	if err != nil {
		x.t.Fatal(err)
	}
	return d.Waiting
}

func packed(t *testing.T, plain string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := io.WriteString(w, plain)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func uploadLine(n int, url string) string {
	return fmt.Sprintf(`{"custom_id":"c%d","method":"POST","url":%q,"body":{"model":"m","input":"x"}}`+"\n", n, url)
}

func TestAnUploadBecomesAJob(t *testing.T) {
	plain := uploadLine(0, "/v1/embeddings") + uploadLine(1, "/v1/embeddings")
	for name, c := range map[string]struct{ object, content, want, endpoint string }{
		"plain":                     {"inbox/t/a.jsonl", plain, plain, "/v1/embeddings"},
		"in a folder":               {"inbox/t/2026/03/a b+%.jsonl", plain, plain, "/v1/embeddings"},
		"gzip":                      {"inbox/t/a.jsonl.gz", packed(t, plain), plain, "/v1/embeddings"},
		"gzip under a plain name":   {"inbox/t/a.jsonl", packed(t, plain), plain, "/v1/embeddings"},
		"plain under gzip's name":   {"inbox/t/a.jsonl.gz", plain, plain, "/v1/embeddings"},
		"a bad line before a valid": {"inbox/t/a.jsonl", "\n{\n" + plain, "\n{\n" + plain, "/v1/embeddings"},
		"no valid line":             {"inbox/t/a.jsonl", "{\n", "{\n", "/v1/chat/completions"},
		"one byte":                  {"inbox/t/a.jsonl", "x", "x", "/v1/chat/completions"},
	} {
		t.Run(name, func(t *testing.T) {
			x := openInbox(t)
			x.take(x.upload(c.object, c.content))
			j := x.onlyJob()
			if got := x.input(j); got != c.want || j.InputBytes != int64(len(c.want)) || j.Endpoint != c.endpoint {
				t.Errorf("its input is %q of %d bytes for %s, want %q for %s", got, j.InputBytes, j.Endpoint, c.want, c.endpoint)
			}
			if !strings.HasPrefix(j.Input.Name, "files/t/file-") || j.Input.Version == "" || j.Phase != jobs.PhaseValidating || j.OnInvalid != jobs.InvalidSkips {
				t.Errorf("job %+v", j)
			}
			if j.Deadline.Sub(j.Created) != 24*time.Hour || j.Window != 24*time.Hour || j.HashKey == [16]byte{} || j.Cut != jobs.DefaultCut(j.InputBytes) {
				t.Errorf("window %s, deadline %s after it was opened, key %x, cut %+v", j.Window, j.Deadline.Sub(j.Created), j.HashKey, j.Cut)
			}
			if d := cmp.Diff(map[string]string{"inbox_key": c.object}, j.Metadata); d != "" {
				t.Errorf("metadata (-want +got):\n%s", d)
			}
			if n := x.waiting(); n != 2 {
				t.Errorf("%d messages were sent, want one for the job and one for its split", n)
			}
		})
	}
}

func TestAnUploadIsOneJobHoweverOftenItIsTold(t *testing.T) {
	x := openInbox(t)
	first := x.upload("inbox/t/a.jsonl", uploadLine(0, "/v1/a"))
	x.take(first)
	x.take(first)
	x.remove("inbox/t/a.jsonl")
	x.take(first)
	j := x.onlyJob()
	if n := x.waiting(); j.Phase != jobs.PhaseValidating || n != 6 {
		t.Errorf("the job is %s and %d messages were sent, want two each time: whoever opened it may have died before", j.Phase, n)
	}
	if _, err := jobs.CancelJob(t.Context(), x.Ports, j.ID, "enough"); err != nil {
		t.Fatal(err)
	}
	x.take(first)
	if n := x.waiting(); n != 6 {
		t.Errorf("a stopped job was sent for again: %d messages", n)
	}
	for _, change := range []func(m *jobs.UploadMessage){
		func(m *jobs.UploadMessage) { m.Sequencer = "2" },
		func(m *jobs.UploadMessage) { m.Bucket = "b" },
		func(m *jobs.UploadMessage) { *m = x.upload("inbox/t/b.jsonl", uploadLine(0, "/v1/a")) },
		func(m *jobs.UploadMessage) { *m = x.upload("inbox/t/a.jsonl", uploadLine(10, "/v1/a")) },
	} {
		again := x.upload("inbox/t/a.jsonl", uploadLine(0, "/v1/a"))
		change(&again)
		before := len(x.jobs())
		x.take(again)
		x.take(again)
		if n := len(x.jobs()); n != before+1 {
			t.Errorf("%+v made %d jobs, want 1", again, n-before)
		}
	}
}

func TestAnUploadThatCannotRunIsAJobThatFailedClearly(t *testing.T) {
	plain := uploadLine(0, "/v1/a")
	whole := packed(t, strings.Repeat(plain, 100))
	for name, c := range map[string]struct {
		content    string
		meanwhile  func(x *inbox)
		code, want string
	}{
		"empty":            {"", nil, "empty_file", "inbox/t/a.jsonl (ETag VERSION) has no requests"},
		"blank lines only": {"\n \r\n\n", nil, "empty_file", "inbox/t/a.jsonl (ETag VERSION) has no requests"},
		"gzip of nothing":  {packed(t, ""), nil, "empty_file", "inbox/t/a.jsonl (ETag VERSION) has no requests"},
		"deleted":          {plain, func(x *inbox) { x.remove("inbox/t/a.jsonl") }, "input_gone", "inbox/t/a.jsonl (ETag VERSION) was deleted before it was copied; upload it again"},
		"overwritten": {plain, func(x *inbox) { x.write("inbox/t/a.jsonl", plain+plain) }, "input_modified",
			"inbox/t/a.jsonl (ETag VERSION) was overwritten before it was copied; what it was overwritten with has a job of its own"},
		"gzip cut off": {whole[:len(whole)/2], nil, "input_unusable",
			"expand inbox/t/a.jsonl (ETag VERSION): the gzip data ends early; copy the file again; gzip -t tells whether it is whole"},
		"gzip damaged": {whole[:len(whole)-6] + "x" + whole[len(whole)-5:], nil, "input_unusable",
			"expand inbox/t/a.jsonl (ETag VERSION): the gzip data is damaged: gzip: invalid checksum; copy the file again; gzip -t tells whether it is whole"},
		"gzip of zeros": {packed(t, strings.Repeat("\x00", 100_000)), nil, "input_unusable",
			"expand inbox/t/a.jsonl (ETag VERSION): it grows more than 200-fold; expand it with gunzip if it is what you think it is"},
		"too large expanded": {whole, nil, "input_unusable",
			"read inbox/t/a.jsonl (ETag VERSION): it is larger than 5000 bytes; split it into several inputs"},
	} {
		t.Run(name, func(t *testing.T) {
			x := openInbox(t)
			if name == "too large expanded" {
				x.opt.Upload.Expand.Bytes = 5000
			}
			m := x.upload("inbox/t/a.jsonl", c.content)
			if c.meanwhile != nil {
				c.meanwhile(x)
			}
			x.take(m)
			x.take(m)
			j := x.onlyJob()
			want := strings.ReplaceAll(c.want, "VERSION", m.Upload.Version)
			if j.Phase != jobs.PhaseFailed || j.Stop == nil || j.Stop.As != jobs.PhaseFailed || j.Stop.Code != c.code || j.Stop.Reason != want {
				t.Errorf("the job is %s with stop %+v\nwant %s: %s", j.Phase, j.Stop, c.code, want)
			}
			if j.Deadline.IsZero() || j.Created.IsZero() || j.Tenant != "t" || j.Metadata["inbox_key"] != "inbox/t/a.jsonl" || x.waiting() != 0 {
				t.Errorf("job %+v, %d messages were sent", j, x.waiting())
			}
		})
	}
}

func TestObjectsThatAreNoInputsAreIgnoredOrBuried(t *testing.T) {
	x := openInbox(t)
	buried := map[string]string{
		"inbox/a.jsonl":      "it is in no tenant's folder",
		"inbox//a.jsonl":     `"" is no tenant`,
		"inbox/../a.jsonl":   `".." is no tenant`,
		"inbox/a b/a.jsonl":  `"a b" is no tenant`,
		"inbox/ü/a.jsonl.gz": `"ü" is no tenant`,
		"inbox/" + strings.Repeat("x", 65) + "/a.jsonl": "is no tenant",
		"inbox/t\x00/a.jsonl":                           "is no tenant",
	}
	ignored := []string{"inbox/t/", "inbox/t/folder/", "inbox/t/a.tmp", "inbox/t/a.jsonl.tmp", "inbox/t/a.JSONL", "inbox/t/a.json", "inbox/t/a.gz", "files/t/a.jsonl", "inbox", "a.jsonl"}
	tell := func(name string) {
		x.take(jobs.UploadMessage{Upload: jobs.FileRef{Name: name, Version: "v"}})
	}
	for _, name := range ignored {
		tell(name)
	}
	for name := range buried {
		tell(name)
	}
	for d, err := range x.local.Queue.Peek(t.Context(), jobs.QueueIngest) {
		if err != nil {
			t.Fatal(err)
		}
		b, err := jobs.DecodeMessage(d.Body)
		if err != nil {
			t.Fatal(err)
		}
		want, expected := buried[b.Upload.Upload.Name]
		if !expected || !strings.Contains(d.Burial.Message, want) || d.Burial.Code != "invalid" {
			t.Errorf("%q was buried for %+v, want %q", b.Upload.Upload.Name, d.Burial, want)
		}
		delete(buried, b.Upload.Upload.Name)
	}
	if len(buried) > 0 {
		t.Errorf("not buried: %v", buried)
	}
	for j, err := range x.local.Store.Jobs(t.Context(), jobs.JobQuery{Open: true}) {
		t.Errorf("job %+v was opened, %v", j, err)
	}
}

// TestAnUploadSurvivesEveryMishap lets each call of a port go wrong in each way, and tells of the upload again.
func TestAnUploadSurvivesEveryMishap(t *testing.T) {
	plain := uploadLine(0, "/v1/a") + uploadLine(1, "/v1/a")
	for name, content := range map[string]string{"plain": plain, "gzip": packed(t, plain)} {
		calls := 1
		for at := 0; at < calls+1; at++ {
			for _, how := range mishaps {
				x := openInbox(t)
				sound := x.Ports
				faults := &faultPorts{at: at, how: how, die: func() {}}
				x.Ports = faults.on(sound)
				m := x.upload("inbox/t/a.jsonl", content)
				err := x.tell(t.Context(), m, 1)
				if at == 0 {
					calls = len(faults.calls)
				}
				if err == nil && at > 0 && at <= calls && how == mishapDies {
					t.Errorf("%s: call %d %s, and the message is done with", name, at, how)
				}
				again := &faultPorts{}
				if x.Ports = again.on(sound); err != nil {
					x.take(m)
				}
				if slices.Contains(faults.calls, "Read") && slices.Contains(again.calls, "Copy") {
					t.Errorf("%s: call %d (%v) %s, and it was copied again", name, at, faults.calls, how)
				}
				if j := x.onlyJob(); j.Phase != jobs.PhaseValidating || x.input(j) != plain || j.Endpoint != "/v1/a" || x.waiting() < 2 {
					t.Errorf("%s: call %d (%v) %s: the job is %s with input %q, %d messages were sent", name, at, faults.calls, how, j.Phase, x.input(j), x.waiting())
				}
			}
		}
		if calls < 8 {
			t.Errorf("%s: only %d calls of ports", name, calls)
		}
	}
}

// meddling changes the inbox just before the n-th call of Files.
type meddling struct {
	jobs.Files
	at     int
	calls  int
	meddle func()
}

func (f *meddling) count() {
	if f.calls++; f.calls == f.at {
		f.meddle()
	}
}

func (f *meddling) Stat(ctx context.Context, name string) (jobs.FileInfo, error) {
	f.count()
	return f.Files.Stat(ctx, name)
}

func (f *meddling) Read(ctx context.Context, ref jobs.FileRef, offset, length int64) (io.ReadCloser, error) {
	f.count()
	return f.Files.Read(ctx, ref, offset, length)
}

func (f *meddling) Create(ctx context.Context, name string) (jobs.FileWriter, error) {
	f.count()
	return f.Files.Create(ctx, name)
}

func (f *meddling) Copy(ctx context.Context, from jobs.FileRef, to string) (jobs.FileInfo, error) {
	f.count()
	return f.Files.Copy(ctx, from, to)
}

func TestWhoMeddlesWithAnUploadNeverMakesAMixture(t *testing.T) {
	first, second := uploadLine(0, "/v1/first"), uploadLine(0, "/v1/second")+uploadLine(1, "/v1/second")
	const object = "inbox/t/a.jsonl"
	for name, c := range map[string]struct {
		code   string // of a job that failed
		meddle func(x *inbox)
	}{
		"overwrites":           {"input_modified", func(x *inbox) { x.write(object, packed(t, second)) }},
		"deletes":              {"input_gone", func(x *inbox) { x.remove(object) }},
		"deletes and replaces": {"input_modified", func(x *inbox) { x.remove(object); x.write(object, second) }},
	} {
		ran, failed := 0, 0
		for at := range 9 {
			x := openInbox(t)
			m := x.upload(object, packed(t, first))
			x.Files = &meddling{Files: x.local.Files, at: at + 1, meddle: func() { c.meddle(x) }}
			x.take(m)
			switch j := x.onlyJob(); {
			case j.Phase == jobs.PhaseFailed && j.Stop.Code == c.code:
				failed++
			case j.Phase == jobs.PhaseValidating && x.input(j) == first && j.Endpoint == "/v1/first":
				ran++
			default:
				t.Errorf("%s before call %d: the job is %s with stop %+v and input %s", name, at+1, j.Phase, j.Stop, j.Input.Name)
			}
		}
		if ran == 0 || failed == 0 {
			t.Errorf("%s: %d jobs ran and %d failed, want some of both", name, ran, failed)
		}
	}
}

func TestRacingDeliveriesOfAnUploadMakeOneJob(t *testing.T) {
	plain := strings.Repeat(uploadLine(0, "/v1/a"), 1000)
	x := openInbox(t)
	m := x.upload("inbox/t/a.jsonl.gz", packed(t, plain))
	x.opt.Upload.Expand.Ratio = 10_000
	var racing sync.WaitGroup
	for range 8 {
		racing.Go(func() {
			if err := x.tell(t.Context(), m, 1); err != nil {
				t.Error(err)
			}
		})
	}
	racing.Wait()
	if j := x.onlyJob(); x.input(j) != plain || j.Phase != jobs.PhaseValidating {
		t.Errorf("the job is %s, its input has %d bytes", j.Phase, j.InputBytes)
	}
}

// rivalLedger lets a rival be faster than the next save of a job.
type rivalLedger struct {
	jobs.Ledger
	rival func()
}

func (l *rivalLedger) SaveJob(ctx context.Context, j *jobs.Job) error {
	if rival := l.rival; rival != nil {
		l.rival = nil
		rival()
	}
	return l.Ledger.SaveJob(ctx, j)
}

func TestTheFasterOfTwoDeliveriesOpensTheJob(t *testing.T) {
	for _, found := range []jobs.Phase{jobs.PhaseValidating, jobs.PhaseFailed} {
		x := openInbox(t)
		m := x.upload("inbox/t/a.jsonl", uploadLine(0, "/v1/a"))
		copyName := ""
		x.Ledger = &rivalLedger{x.local.Store, func() { // the slower one has found the upload gone by now
			x.write("inbox/t/a.jsonl", uploadLine(0, "/v1/a"))
			if found == jobs.PhaseFailed {
				x.remove("inbox/t/a.jsonl")
			}
			x.take(m)
			copyName = x.onlyJob().Input.Name
		}}
		x.remove("inbox/t/a.jsonl")
		x.take(m)
		if j := x.onlyJob(); j.Phase != found || j.Input.Name != copyName {
			t.Errorf("the job is %s with input %s, want the faster one's, %s with %s", j.Phase, j.Input.Name, found, copyName)
		}
	}
}

// slowFiles takes all the time there is to copy.
type slowFiles struct{ jobs.Files }

func (slowFiles) Copy(ctx context.Context, _ jobs.FileRef, _ string) (jobs.FileInfo, error) {
	<-ctx.Done()
	return jobs.FileInfo{}, ctx.Err()
}

func TestAnUploadThatTakesTooLongIsGivenUpInASentence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := openInbox(t)
		x.Files = slowFiles{x.local.Files}
		m := x.upload("inbox/t/a.jsonl.gz", packed(t, uploadLine(0, "/v1/a")))
		began := time.Now()
		try := func(n int, messages ...jobs.Message) int {
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
			defer cancel()
			messages = append(messages, jobs.Message{ID: "m", Queue: jobs.QueueIngest, Body: jobs.UploadBody(m), Receives: n, Sent: began})
			failures := len(jobs.NewIngest(x.Ports, x.opt).Handle(ctx, messages))
			if ctx.Err() != nil {
				t.Error("there was no time left to say so")
			}
			return failures
		}
		for n := 1; n < 3; n++ {
			if failures := try(n); failures != 1 || len(x.jobs()) > 0 {
				t.Fatalf("try %d: %d failures, %d jobs; want it to come again", n, failures, len(x.jobs()))
			}
		}
		other := x.upload("inbox/t/b.jsonl", uploadLine(0, "/v1/a"))
		if failures := try(3, jobs.Message{ID: "o", Body: jobs.UploadBody(other), Receives: 1}); failures != 2 || len(x.jobs()) > 0 {
			t.Fatalf("behind another that took all the time: %d failures, %d jobs; want both to come again", failures, len(x.jobs()))
		}
		if failures := try(4); failures != 1 || len(x.jobs()) > 0 {
			t.Fatalf("within hours, which may be an outage: %d failures, %d jobs; want it to come again", failures, len(x.jobs()))
		}
		time.Sleep(jobs.MaxTryTime)
		if failures := try(5); failures != 0 {
			t.Fatalf("try 5: %d failures, want it given up", failures)
		}
		want := "inbox/t/a.jsonl.gz (ETag " + m.Upload.Version + ") could not be copied and expanded within the 15m0s that ingest has, in 5 tries; upload it without gzip, or in several files"
		if j := x.onlyJob(); j.Phase != jobs.PhaseFailed || j.Stop.Code != "input_unusable" || j.Stop.Reason != want {
			t.Errorf("the job is %s with stop %+v\nwant %s", j.Phase, j.Stop, want)
		}
	})
}

func TestAPingGoesOnceAroundAndIsToldByEveryQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, body := range map[string]func() []byte{
			"a ping":             func() []byte { return jobs.PingBody(time.Now()) },
			"one without a time": func() []byte { return []byte(`{"v":1,"ping":true}`) },
		} {
			s := &stepwise{t: t, local: openAt(t, t.TempDir(), Options{}), upstream: answerAll}
			var told []string
			s.start()
			s.Watch.Pinged = func(q jobs.QueueName, age time.Duration) { told = append(told, fmt.Sprintf("%s %s", q, age)) }
			s.ingest, s.worker = jobs.NewIngest(s.Ports, jobs.IngestOptions{}), s.newWorker(s.Ports, 64)
			s.aggregate = jobs.NewAggregate(s.Ports, jobs.AggregateOptions{})
			s.send(jobs.QueueIngest, body())
			for _, q := range []jobs.QueueName{jobs.QueueIngest, jobs.QueueWork, jobs.QueueAggregate} {
				time.Sleep(time.Second)
				s.settle(q)
			}
			s.settle()
			if d := cmp.Diff([]string{"ingest 1s", "work 2s", "aggregate 3s"}, told); d != "" || len(s.errs) > 0 {
				t.Errorf("%s: %v, told (-want +got):\n%s", name, s.errs, d)
			}
		}
	})
}

func TestAPingThatCannotBePassedOnComesAgain(t *testing.T) {
	x := openInbox(t)
	told := 0
	x.Watch.Pinged = func(jobs.QueueName, time.Duration) { told++ }
	faults := &faultPorts{at: 1, how: mishapFails}
	ping := []jobs.Message{{ID: "m", Body: jobs.PingBody(time.Now())}}
	handlers := func(p jobs.Ports) []jobs.Handler {
		return []jobs.Handler{jobs.NewIngest(p, x.opt), jobs.NewWorker(p, jobs.WorkerOptions{})}
	}
	for i := range handlers(x.Ports) {
		faults.calls = nil
		h := handlers(faults.on(x.Ports))[i]
		if f := h.Handle(t.Context(), ping); len(f) != 1 || f[0].ID != "m" || told != i {
			t.Errorf("handler %d: %v, told %d times", i, f, told)
		}
		if f := h.Handle(t.Context(), ping); len(f) != 0 || told != i+1 {
			t.Errorf("handler %d, again: %v, told %d times", i, f, told)
		}
	}
}

func TestACopyIsNoSecondName(t *testing.T) {
	x := openInbox(t)
	m := x.upload("inbox/t/a", "first")
	info, err := x.local.Files.Copy(t.Context(), m.Upload, "files/t/a")
	if err != nil {
		t.Fatal(err)
	}
	x.write("inbox/t/a", "other")
	if got := x.input(jobs.Job{Input: info.FileRef}); got != "first" {
		t.Errorf("whoever wrote to the source changed the copy to %q", got)
	}
}

func TestASourceThatIsWrittenToWhileItIsCopiedHasChanged(t *testing.T) {
	x := openInbox(t)
	m := x.upload("inbox/t/a", "first")
	file, seen, err := x.local.Files.open(t.Context(), m.Upload)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := unchanged(file, seen, 5); err != nil {
		t.Errorf("unchanged: %v", err)
	}
	if err := unchanged(file, seen, 4); !errors.Is(err, jobs.ErrChanged) {
		t.Errorf("it ended early: %v, want ErrChanged", err)
	}
	x.write("inbox/t/a", "longer")
	if err := unchanged(file, seen, 5); !errors.Is(err, jobs.ErrChanged) {
		t.Errorf("it was written to: %v, want ErrChanged", err)
	}
}

func TestChunkMessagesSayWhoseTheyAre(t *testing.T) {
	inSteps(t, answerAll, func(t *testing.T, s *stepwise) {
		s.must(s.submit(3, chunksOf(1)))
		s.dispatch()
		batch := s.receive(jobs.QueueWork)
		if len(batch) != 3 {
			t.Fatalf("%d chunk messages, want 3", len(batch))
		}
		for _, m := range batch {
			if b, err := jobs.DecodeMessage(m.Body); err != nil || b.Chunk.Tenant != "tenant" {
				t.Errorf("%s: %v, want it to name the tenant", m.Body, err)
			}
		}
	})
}
