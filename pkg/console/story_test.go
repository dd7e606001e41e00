package console_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/fanout-inference/fanout/internal/frontdoor"
	"github.com/fanout-inference/fanout/internal/serve"
	"github.com/fanout-inference/fanout/pkg/batchapi"
	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/upstream/upstreamtest"
)

func TestAFileIsSubmittedAndWatchedToItsEnd(t *testing.T) {
	t.Parallel()
	s := start(t, serve.Options{}, "")
	b := open(t, s.base)
	b.sees("No job runs")
	b.press("Submit a file")
	example, err := filepath.Abs("../../examples/sentiment.jsonl")
	must(t, err)
	b.run(chromedp.SetUploadFiles(chromedp.CSS(`input[type=file]`), []string{example}))
	b.fill("metadata", "campaign = spring\nfanout_max_attempts=3")
	b.press("Submit")
	b.sees("300 of 300 items", "completed", "builtin/sentiment", "sentiment.jsonl", "campaign", "spring", "Download answers")
	b.until(`document.querySelector('.plot canvas') !== null`)
	if figures := eval[string](b, `document.querySelector('.figures').innerText`); !strings.Contains(figures, "Answered\n300") || !strings.Contains(figures, "Failed\n0") {
		t.Errorf("the figures are %q", figures)
	}
	b.script(`const make = URL.createObjectURL; URL.createObjectURL = (blob) => { window.saved = blob; return make(blob); }`)
	b.press("Download answers")
	b.until(`window.saved !== undefined`)
	if n := eval[int](b, `saved.text().then((text) => text.trim().split('\n').length)`); n != 300 {
		t.Errorf("the file of answers has %d lines", n)
	}
	b.press("Show items")
	b.sees("austen-pride-001", "Page 1.")
	b.press("Next")
	b.sees("Page 2.")
	b.fill("custom_id", "austen-pride-002")
	b.press("Show items")
	b.until(`document.querySelectorAll('.items > li').length === 1`)
	if strings.Contains(b.text(), "She is tolerable") {
		t.Error("a question is shown before anybody has asked for it")
	}
	b.press("Show")
	b.sees("She is tolerable; but not handsome enough to tempt me.", `"confidence"`)
	b.goTo("#/jobs", "Jobs")
	b.sees("300 of 300")
	b.script(`document.querySelector('tbody a').focus()`)
	first := eval[string](b, `document.activeElement.textContent`)
	later := s.submit(t, "later.jsonl", line("a", "builtin/language", "Guten Tag zusammen"), nil)
	b.sees(later.ID)
	if got := eval[string](b, `document.activeElement.textContent`); got != first || first == later.ID {
		t.Errorf("a job that comes takes the focus from %q to %q", first, got)
	}
	b.calm()
}

func TestAnErrorGroupIsShownWithASample(t *testing.T) {
	t.Parallel()
	s := start(t, serve.Options{}, "")
	job := s.submit(t, "in.jsonl", line("fine", "builtin/language", "Guten Tag zusammen")+line("the-bad-one", "builtin/none", "x"), nil)
	b := open(t, s.base)
	b.goTo("#/jobs/"+job.ID, job.ID)
	b.sees("What fails", "model_not_found", "HTTP 404", "the-bad-one", "line 2")
	b.run(chromedp.SetValue(chromedp.CSS(`[name=status]`), "failed"))
	b.press("Show items")
	b.until(`[...document.querySelectorAll('.items > li')].map((li) => li.querySelector('code').textContent).join() === 'the-bad-one'`)
	b.calm()
}

// shown presses "Show" at each item that is listed and returns what was asked in each, in their order.
func (b *tab) shown() []string {
	b.t.Helper()
	b.script(`document.querySelectorAll('.items button').forEach((b) => b.click())`)
	b.until(`[...document.querySelectorAll('.items > li')].every((li) => li.querySelector('.part, .notice'))`)
	return eval[[]string](b, `[...document.querySelectorAll('.items > li')].map((li) => li.querySelector('.part .said, .notice')?.innerText)`)
}

func TestShowShowsTheItemWhoseButtonItIs(t *testing.T) {
	t.Parallel()
	s := start(t, serve.Options{}, "")
	unnamed := func(text string) string {
		return strings.Replace(line("", "builtin/language", text), `"custom_id":"",`, "", 1)
	}
	lines := unnamed("unnamed one") + line("same", "builtin/language", "said first") + unnamed("unnamed two") + line("same", "builtin/language", "the twin") + line("last", "builtin/language", "said last")
	job := s.submit(t, "in.jsonl", lines, map[string]string{"fanout_on_invalid": "skip"})
	b := open(t, s.base)
	b.goTo("#/jobs/"+job.ID, job.ID)
	b.sees("completed")
	for _, show := range []struct{ status, custom, want string }{
		{"", "", "unnamed one,said first,unnamed two,the twin,said last"},
		{"failed", "", "unnamed one,unnamed two,the twin"},
		{"completed", "", "said first,said last"},
		{"", "same", "said first"},
		{"failed", "same", "the twin"},
	} {
		n := strings.Count(show.want, ",") + 1
		b.script(fmt.Sprintf(`document.querySelector('[name=status]').value = %q; document.querySelector('[name=custom_id]').value = %q`, show.status, show.custom))
		b.press("Show items")
		b.until(fmt.Sprintf(`document.querySelectorAll('.items > li').length === %d && !document.querySelector('.part')`, n))
		if got := strings.Join(b.shown(), ","); got != show.want {
			t.Errorf("of the items that are %q and called %q are shown %s, want %s", show.status, show.custom, got, show.want)
		}
	}
	b.calm()
}

func TestAnotherItemIsNotShownForOne(t *testing.T) {
	t.Parallel()
	s := start(t, serve.Options{}, "")
	job := s.submit(t, "in.jsonl", line("a", "builtin/language", "said a")+line("b", "builtin/language", "said b"), nil)
	b := open(t, s.behind(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("include") != "input" {
			return false
		}
		_, _ = io.WriteString(w, `{"id":"batch_req_other","custom_id":"a","response":null,"error":{"code":"x","message":"x"},"input":{"body":{"messages":[{"content":"said by another"}]}}}`+"\n")
		return true
	}))
	b.goTo("#/jobs/"+job.ID, job.ID)
	b.sees("completed")
	b.press("Show items")
	b.until(`document.querySelectorAll('.items > li').length === 2`)
	for _, got := range b.shown() {
		if !strings.Contains(got, "not at its place any more") {
			t.Errorf("another item is shown as %q", got)
		}
	}
	b.calm()
}

// sickly is an upstream that breaks on requests that say "sick", until it is mended. What is given up depends on what is
// answered meanwhile, so it sees to the order: "patient" requests are answered once all sick ones have failed, and those fail
// again once the patient ones were answered.
type sickly struct {
	upstreamtest.Server
	mended  atomic.Bool
	message string

	mu             sync.Mutex
	calls          map[string]int // of each sick request
	patients       int            // answered
	failed, served chan struct{}  // closed when all have failed once, and when all patient ones were answered
}

func newSickly(message string) *sickly {
	return &sickly{message: message, calls: map[string]int{}, failed: make(chan struct{}), served: make(chan struct{})}
}

const (
	sicks    = 2
	patients = 4
)

var sick = regexp.MustCompile(`sick \d+`)

func (s *sickly) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client has left
	}
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second) // it orders calls, and holds up nobody for long
	defer cancel()
	if name := sick.Find(body); name != nil && !s.mended.Load() {
		s.fail(ctx, string(name))
		answer, err := json.Marshal(map[string]any{"error": map[string]string{"code": "cuda_error", "message": s.message}})
		if err != nil {
			panic(err) // strings always encode
		}
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = w.Write(answer)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	if !bytes.Contains(body, []byte("patient")) {
		s.Server.ServeHTTP(w, r)
		return
	}
	wait(ctx, s.failed)
	s.Server.ServeHTTP(w, r)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.patients++; s.patients == patients {
		close(s.served)
	}
}

// fail notes that a sick request has come, and waits for its turn to fail.
func (s *sickly) fail(ctx context.Context, name string) {
	s.mu.Lock()
	s.calls[name]++
	again := s.calls[name] > 1
	if !again && len(s.calls) == sicks {
		close(s.failed)
	}
	s.mu.Unlock()
	if again {
		wait(ctx, s.served)
	}
}

func wait(ctx context.Context, c <-chan struct{}) {
	select {
	case <-c:
	case <-ctx.Done():
	}
}

var long = strings.Repeat("hello ", 900) // four of these fill a chunk

// sickLines are 40 requests, of which two in chunks of their own are sick.
func sickLines(id, model string) string {
	var lines strings.Builder
	for n := range 40 {
		text := long
		switch {
		case n == 2 || n == 20:
			text = fmt.Sprintf("sick %d %s", n, long)
		case n >= 40-patients:
			text = "patient " + long
		}
		lines.WriteString(line(fmt.Sprintf("%s%d", id, n+1), model, text))
	}
	return lines.String()
}

var fragile = map[string]string{"fanout_chunk_items": "4", "fanout_max_attempts": "1"}

func TestDeadChunksAreCountedTriedAndBroughtBack(t *testing.T) {
	t.Parallel()
	model := newSickly("the kernel did not launch")
	s := start(t, serve.Options{Routes: jobs.Routes{}.Else(jobs.Route{Target: answering(t, model)})}, "")
	job := s.submit(t, "in.jsonl", sickLines("c", "m"), fragile)
	b := open(t, s.base)
	b.goTo("#/jobs/"+job.ID, job.ID)
	b.sees("completed", "Answered\n38", "Dead chunks\n2", "cuda_error")
	b.goTo("#/dead", "Dead letters")
	b.sees("Lines 1 to 4", "the kernel did not launch")
	b.fill("code", "cuda_error")
	b.press("Filter")
	b.sees("dead chunks with the error cuda_error")
	b.run(chromedp.Click(chromedp.Search(`//a[starts-with(normalize-space(), "Lines 21")]`)))
	b.sees("Its open items", "c21", "HTTP 500")
	b.goTo("#/dead?code=cuda_error", "Dead letters")

	b.fill("canary", "1")
	b.press("Redrive …")
	b.sees("Redrive dead chunks", "Chunks\n2", "Items to be asked\n2", "Jobs\n1", "1 chunk goes first")
	b.press("Redrive 2 chunks")
	b.sees("The canary failed. 1 of 1 chunk failed again, so nothing more was moved.")
	b.press("Close")

	model.mended.Store(true)
	b.press("Redrive …") // what the canary had begun may be answered by now, so one chunk or two are left
	b.press(eval[string](b, `new Promise((done) => { const look = () => { const go = document.querySelector('dialog .primary'); go ? done(go.textContent) : setTimeout(look, 30); }; look(); })`))
	b.sees("Redrove ")
	b.press("Close")
	b.sees("No dead chunk is like that.")
	b.goTo("#/jobs/"+job.ID, job.ID)
	b.sees("completed", "Answered\n40", "Failed\n0")
	b.goTo("#/audit", "Audit")
	b.sees("dlq.redrive", "code cuda_error")
	b.calm()
}

func TestAnOperatorHoldsAJobAnUpstreamAndMovesLetters(t *testing.T) {
	t.Parallel()
	model := newSickly("the kernel did not launch")
	target := answering(t, model)
	s := start(t, serve.Options{Routes: jobs.Routes{}.Else(jobs.Route{Target: target})}, "")
	dead := s.submit(t, "in.jsonl", sickLines("c", "m"), fragile)
	slow := s.submit(t, "slow.jsonl", line("a", "m", "[[hang]]"), nil)
	b := open(t, s.base)
	b.goTo("#/jobs/"+slow.ID, slow.ID)
	b.press("Pause")
	b.fill("reason", "maintenance until noon")
	b.press("Pause")
	b.sees("Paused (operator)", "maintenance until noon")
	b.press("Resume")
	b.press("Resume")
	b.until(`!document.body.innerText.includes('maintenance until noon')`)
	b.press("Cancel job")
	b.press("Cancel job")
	b.sees("Stopped")

	b.goTo("#/jobs/"+dead.ID, dead.ID)
	b.sees("completed") // so its upstream is known
	b.goTo("#/upstreams", "Upstreams")
	b.press("Pause another …")
	b.fill("upstream", hostOf(target))
	b.fill("model", "m2")
	b.fill("reason", "moving house")
	b.press("Pause")
	b.sees(hostOf(target), "m2", "moving house")
	b.press("Resume")
	b.press("Resume")
	b.until(`!document.body.innerText.includes('moving house')`)

	model.mended.Store(true)
	b.goTo("#/queues", "Queues")
	b.press("Move all back …")
	b.sees("About 2 letters")
	b.press("Move all back")
	b.sees("2 of about 2")
	b.goTo("#/jobs/"+dead.ID, dead.ID)
	b.sees("Answered\n40")
	b.goTo("#/audit", "Audit")
	b.sees("job.pause", "maintenance until noon", "job.cancel", "upstream.resume", "dlq.move")
	b.calm()
}

func TestAKeyThatMayOnlyReadIsShownNothingThatActs(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	operator, err := serve.CreateKey(t.Context(), data)
	must(t, err)
	s := start(t, serve.Options{Data: data}, operator)
	key, err := s.CreateKey(t.Context(), batchapi.CreateKeyRequest{Tenant: serve.Tenant, Scopes: []string{"read"}})
	must(t, err)
	job := s.submit(t, "in.jsonl", line("a", "builtin/language", "Guten Tag zusammen")+line("b", "builtin/none", "x"), nil)

	b := open(t, s.base)
	b.sees("Sign in")
	b.fill("key", "fanout_wrong")
	b.run(chromedp.KeyEvent("\r")) // the field has the focus, and Enter is enough
	b.sees("Incorrect API key provided.")
	b.fill("key", *key.Secret)
	b.press("Sign in")
	b.sees("Read only", job.ID)
	if got := b.buttons(); strings.Join(got, ",") != "Sign out" {
		t.Errorf("the list has the buttons %q", got)
	}
	if got := eval[string](b, `document.querySelector('nav').innerText`); got != "Jobs" {
		t.Errorf("the pages are %q", got)
	}
	b.goTo("#/jobs/"+job.ID, job.ID)
	b.sees("completed", "model_not_found", "Download errors")
	if got := b.buttons(); strings.Join(got, ",") != "Sign out,Show items,Download answers,Download errors" {
		t.Errorf("a job has the buttons %q", got)
	}
	b.goTo("#/dead", "Not found")
	if kept := eval[string](b, `location.href + document.cookie + JSON.stringify(localStorage)`); strings.Contains(kept, "fanout_") {
		t.Errorf("the key is in %s", kept)
	}
	b.run(chromedp.Reload())
	b.sees("Read only")
	b.press("Sign out")
	b.sees("Sign in")
	if kept := eval[int](b, `sessionStorage.length`); kept != 0 {
		t.Error("the key outlives the session")
	}
	b.calm(http.StatusUnauthorized, http.StatusForbidden)
}

func TestThePagesFitAPhoneInTheDark(t *testing.T) {
	t.Parallel()
	model := newSickly("the_kernel_did_not_launch_" + strings.Repeat("and_has_a_long_name_", 10))
	s := start(t, serve.Options{Routes: jobs.Routes{}.Else(jobs.Route{Target: answering(t, model)})}, "")
	job := s.submit(t, "in.jsonl", sickLines(strings.Repeat("long_id_", 30), "model_"+strings.Repeat("with_a_long_name_", 8)), fragile)
	b := open(t, s.base)
	b.viewport(375, 812, "dark")
	b.goTo("#/jobs/"+job.ID, job.ID)
	b.sees("completed")
	b.press("Show items")
	b.sees("Page 1.")
	for _, at := range []struct{ hash, heading, sees string }{
		{"#/jobs/" + job.ID, job.ID, "cuda_error"}, {"#/jobs", "Jobs", job.ID}, {"#/dead", "Dead letters", "Lines 1 to 4"}, {"#/dead/" + job.ID + ".0.0", "Lines 1", "Its open items"},
		{"#/queues", "Queues", "aggregate"}, {"#/upstreams", "Upstreams", "Pause another"}, {"#/audit", "Audit", "Nothing was done by hand yet."},
	} {
		b.goTo(at.hash, at.heading)
		b.sees(at.sees)
		if wide := eval[[]string](b, `document.documentElement.scrollWidth <= 375 ? [] : [...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > 376).map((e) => e.tagName + '.' + e.className)`); len(wide) > 0 {
			t.Errorf("%s is wider than the screen: %v", at.hash, wide)
		}
	}
	for _, page := range []string{"jobs", "dead", "upstreams"} {
		b.script(`location.hash = '#/` + page + `'`)
		b.until(`document.querySelector('main button') !== null`)
		if bare := eval[[]string](b, `[...document.querySelectorAll('main input, main select, main textarea')].filter((i) => i.labels.length === 0 && !i.ariaLabel).map((i) => i.name)`); len(bare) > 0 {
			t.Errorf("on %s nothing says what these are: %v", page, bare)
		}
		if narrow := eval[[]string](b, `[...document.querySelectorAll('main input')].filter((i) => i.clientWidth < 100).map((i) => i.name)`); len(narrow) > 0 {
			t.Errorf("on %s nobody sees what they write in %v", page, narrow)
		}
	}
	if ground := eval[string](b, `getComputedStyle(document.body).backgroundColor`); ground != "rgb(15, 19, 25)" {
		t.Errorf("in the dark the ground is %s", ground)
	}
	b.calm()
}

// evil are texts that would run as script if any of them became markup.
const (
	evil  = `<img src=x onerror="window.pwned=1">`
	evil2 = `"><script>window.pwned=1</script>`
	bare  = `<img src=x onerror=window.pwned=true>` // errors are grouped without quotes and numbers
)

// hostile is an upstream that answers in markup.
type hostile struct{ *sickly }

func (h *hostile) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client has left
	}
	if bytes.Contains(body, []byte("refuse")) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"error":{"code":`+quote("code_"+bare)+`,"message":`+quote("refused "+bare)+`}}`)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	h.sickly.ServeHTTP(w, r)
}

func TestWhatAButtonHasMetStaysWhileThePagePolls(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	operator, err := serve.CreateKey(t.Context(), data)
	must(t, err)
	s := start(t, serve.Options{Data: data}, operator)
	key, err := s.CreateKey(t.Context(), batchapi.CreateKeyRequest{Tenant: "other", Scopes: []string{"submit", "read"}})
	must(t, err)
	client, err := batchapi.NewClient(s.base+"/v1", *key.Secret)
	must(t, err)
	job := served{s.base, client}.submit(t, "in.jsonl", line("a", "builtin/language", "x"), nil)
	b := open(t, s.behind(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/fanout/v1/audit" {
			return false
		}
		if r.URL.Query().Has("after") {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, `{"error":{"message":"The log is on fire."}}`)
			return true
		}
		_, _ = io.WriteString(w, `{"data":[{"id":"one","at":1,"action":"job.pause","why":null,"of":null,"tenant":null,"count":0,"by":"ada"}],"last_id":"one","has_more":true}`)
		return true
	}))
	b.fill("key", operator)
	b.press("Sign in")
	b.sees("Operator")
	b.hurry()
	for _, page := range []struct{ hash, heading, press, met, polls string }{
		{"#/jobs/" + job.ID, job.ID, "Download answers", "Your key does not reach this file", "/fanout/v1/jobs/" + job.ID},
		{"#/audit", "Audit", "Older", "The log is on fire.", "/fanout/v1/audit"},
	} {
		b.goTo(page.hash, page.heading)
		b.press(page.press)
		b.sees(page.met)
		b.polled(page.polls)
		if !strings.Contains(b.text(), page.met) {
			t.Errorf("on %s what the button has met is gone after a poll", page.hash)
		}
		b.press("Dismiss")
		b.until(`!document.body.innerText.includes(` + quote(page.met) + `) && document.activeElement.textContent === ` + quote(page.press))
	}
	b.calm(http.StatusBadRequest, http.StatusUnauthorized, http.StatusNotFound, http.StatusInternalServerError)
}

func TestThroughputCountsNoItemsThatWereNeverAsked(t *testing.T) {
	t.Parallel()
	s := start(t, serve.Options{}, "")
	job := s.submit(t, "in.jsonl", line("a", "builtin/language", "x"), nil)
	began, end := int64(1_800_000_000), int64(1_800_000_100)
	var change atomic.Pointer[func(*batchapi.Batch)]
	b := open(t, s.changing(t, job.ID, func(j *batchapi.Batch) {
		j.RequestCounts, j.InProgressAt, j.CompletedAt, j.Fanout.History = batchapi.RequestCounts{Total: 1000, Completed: 100, Failed: 900}, &began, nil, []batchapi.BatchPoint{}
		if f := change.Load(); f != nil {
			(*f)(j)
		}
	}))
	b.hurry()
	b.goTo("#/jobs/"+job.ID, job.ID)
	for _, is := range []struct {
		status, want string
		change       func(*batchapi.Batch)
	}{
		{"completed", "10 /s", func(j *batchapi.Batch) { j.CompletedAt = &end }},
		{"cancelled", "1.0 /s", func(j *batchapi.Batch) { j.CancelledAt = &end }},
		{"expired", "1.0 /s", func(j *batchapi.Batch) { j.ExpiredAt = &end }},
	} {
		now := func(j *batchapi.Batch) { j.Status = is.status; is.change(j) }
		change.Store(&now)
		b.until(`document.querySelector('.badge')?.textContent === ` + quote(is.status))
		b.sees("Throughput\n" + is.want)
	}
	b.calm()
}

func TestNothingLeadsToDeadChunksThatAreGone(t *testing.T) {
	t.Parallel()
	s := start(t, serve.Options{}, "")
	job := s.submit(t, "in.jsonl", line("a", "builtin/language", "x"), nil)
	var dead atomic.Int64
	dead.Store(2)
	front := served{s.changing(t, job.ID, func(j *batchapi.Batch) { j.Fanout.Dead = dead.Load() }), s.Client}
	b := open(t, front.behind(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/fanout/v1/jobs/"+job.ID+"/errors" {
			return false
		}
		_, _ = fmt.Fprintf(w, `{"data":[{"code":"cuda_error","message":"x","status":500,"failed":0,"open":0,"dead":%d,"samples":[]}]}`, dead.Load())
		return true
	}))
	b.hurry()
	b.goTo("#/jobs/"+job.ID, job.ID)
	b.until(`document.querySelectorAll('main a[href="#/dead?job=` + job.ID + `"]').length === 2`)
	b.sees("Dead chunks\n2")
	if colours := eval[[]string](b, `[...document.querySelectorAll('.figures .bad dt, .figures .bad a')].map((e) => getComputedStyle(e).color)`); len(colours) != 2 || colours[1] != "rgb(179, 38, 30)" {
		t.Errorf("the count has the colours %q", colours)
	}
	dead.Store(0)
	b.until(`document.querySelectorAll('main a[href^="#/dead"]').length === 0 && document.querySelector('td[data-title=Dead]').textContent === '0' && !document.querySelector('.figures').innerText.includes('Dead chunks')`)
	b.calm()
}

func TestAFileThatLiesElsewhereIsDownloadedFromThere(t *testing.T) {
	t.Parallel()
	asked := make(chan *http.Request, 1)
	store := answering(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Disposition", `attachment; filename="answers.jsonl"`)
		_, _ = io.WriteString(w, "from the store")
		asked <- r
	}))
	s := start(t, serve.Options{}, "")
	job := s.submit(t, "in.jsonl", line("a", "builtin/language", "x"), nil)
	b := open(t, s.behind(t, func(w http.ResponseWriter, r *http.Request) bool {
		if !r.URL.Query().Has("redirect") {
			return false
		}
		if got := r.URL.Query().Get("redirect"); got != "false" {
			t.Errorf("redirect is %q", got)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"object":"file.content_url","url":%q}`, store+"/bucket/object?signature=x")
		return true
	}))
	b.goTo("#/jobs/"+job.ID, job.ID)
	b.sees("completed")
	saved := b.downloads()
	b.press("Download answers")
	if got := saved(); got != "from the store" {
		t.Errorf("saved is %q", got)
	}
	r := <-asked
	if r.URL.String() != "/bucket/object?signature=x" || r.Header.Get("Authorization") != "" || r.Header.Get("Referer") != "" {
		t.Errorf("the store is asked for %s with %v", r.URL, r.Header)
	}
	b.sees(job.ID) // the page is still there
	b.calm()
}

func TestAFileIsFetchedWhereNoOtherPlaceIsNamed(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"it lies in the server": func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"object":"file.content_url","url":null}`)
			return true
		},
		"the server does not know": func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusNotFound); return true },
		"the server refuses":       func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusBadRequest); return true },
		"the server does not care": func(_ http.ResponseWriter, r *http.Request) bool { r.URL.RawQuery = ""; return false },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, serve.Options{}, "")
			job := s.submit(t, "in.jsonl", line("the-item", "builtin/language", "x"), nil)
			b := open(t, s.behind(t, func(w http.ResponseWriter, r *http.Request) bool {
				return r.URL.Query().Has("redirect") && answer(w, r)
			}))
			b.goTo("#/jobs/"+job.ID, job.ID)
			b.sees("completed")
			saved := b.downloads()
			b.press("Download answers")
			if got := saved(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `"custom_id":"the-item"`) {
				t.Errorf("saved is %q", got)
			}
			b.calm(http.StatusNotFound, http.StatusBadRequest)
		})
	}
}

// large writes a file of some 5 MB, which has 50 requests.
func large(t *testing.T) (name, lines string) {
	t.Helper()
	var all strings.Builder
	for n := range 50 {
		all.WriteString(line(fmt.Sprint("large-", n), "builtin/language", strings.Repeat("Guten Tag zusammen ", 5_500)))
	}
	name = filepath.Join(t.TempDir(), "large.jsonl")
	must(t, os.WriteFile(name, []byte(all.String()), 0o600))
	return name, all.String()
}

// uploading puts a proxy before the server that tells of what is asked to be brought or made, and holds the second part until
// it is let go.
func (s served) uploading(t *testing.T) (base string, posted <-chan *http.Request, letGo chan<- int) {
	t.Helper()
	asked, status := make(chan *http.Request, 100), make(chan int)
	parts := 0
	base = s.behind(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost || r.URL.RawQuery != "" {
			return false
		}
		asked <- r
		if !strings.HasSuffix(r.URL.Path, "/parts") { // they come one by one
			return false
		}
		if parts++; parts != 2 {
			return false
		}
		_, _ = io.Copy(io.Discard, r.Body) // else nobody would notice that the page leaves
		select {
		case code := <-status:
			w.WriteHeader(code)
		case <-r.Context().Done():
		}
		return true
	})
	return base, asked, status
}

func TestALargeFileIsBroughtInPartsThatAFrontDoorTakes(t *testing.T) {
	t.Parallel()
	s := start(t, serve.Options{}, "")
	base, posted, letGo := s.uploading(t)
	b := open(t, base)
	b.sees("No job runs")
	b.hurry()
	b.press("Submit a file")
	name, lines := large(t)
	b.run(chromedp.SetUploadFiles(chromedp.CSS(`input[type=file]`), []string{name}))
	b.press("Submit")
	b.sees("Bringing large.jsonl …", "4 of 5 MB")
	b.until(`document.querySelector('progress').value === 4 << 20`)
	letGo <- http.StatusServiceUnavailable
	b.sees("50 of 50 items", "completed", "large.jsonl")
	var paths []string
	for range len(posted) {
		r := <-posted
		paths = append(paths, regexp.MustCompile(`upload_\w+`).ReplaceAllString(r.URL.Path, "ID"))
		if r.ContentLength > frontdoor.MaxBuffered {
			t.Errorf("%s has %d bytes", r.URL.Path, r.ContentLength)
		}
	}
	if got := strings.Join(paths, " "); got != "/v1/uploads /v1/uploads/ID/parts /v1/uploads/ID/parts /v1/uploads/ID/parts /v1/uploads/ID/complete /v1/batches" {
		t.Errorf("it is brought by %s", got)
	}
	files, err := s.Files(t.Context(), batchapi.ListQuery{})
	must(t, err)
	for _, f := range files.Data {
		if f.Filename != "large.jsonl" {
			continue
		}
		content, err := s.FileContent(t.Context(), f.ID, 0)
		must(t, err)
		got, err := io.ReadAll(content)
		if err != nil || string(got) != lines || content.Close() != nil {
			t.Errorf("of %d bytes %d have come, %v", len(lines), len(got), err)
		}
	}
	b.calm(http.StatusServiceUnavailable)
}

func TestWhoClosesTheDialogEndsTheUpload(t *testing.T) {
	t.Parallel()
	s := start(t, serve.Options{}, "")
	base, posted, _ := s.uploading(t)
	b := open(t, base)
	b.press("Submit a file")
	name, _ := large(t)
	b.run(chromedp.SetUploadFiles(chromedp.CSS(`input[type=file]`), []string{name}))
	b.press("Submit")
	b.sees("4 of 5 MB")
	b.press("Never mind")
	for {
		var r *http.Request
		select {
		case r = <-posted:
		case <-time.After(patience):
			t.Fatal("the upload is not cancelled")
		}
		if strings.HasSuffix(r.URL.Path, "/cancel") {
			break
		}
		if !strings.HasPrefix(r.URL.Path, "/v1/uploads") {
			t.Errorf("it goes on with %s", r.URL.Path)
		}
	}
	b.sees("No job runs")
	b.calm()
}

func TestUpstreamsAreShownWithWhatIsKnownOfThem(t *testing.T) {
	t.Parallel()
	seen := time.Now().Add(-2*time.Minute - time.Second).Unix()
	all := fmt.Sprintf(`{"data":[
		{"upstream":"api.example","model":"well","pause":null,"width":40,"failing_since":null,"why":null,"in_flight":12,"seen_at":%[1]d},
		{"upstream":"api.example","model":"free","pause":null,"width":null,"failing_since":null,"why":null,"in_flight":0,"seen_at":%[1]d},
		{"upstream":"gpu.example","model":"sick","pause":null,"width":1,"failing_since":%[1]d,"why":"HTTP 502","in_flight":1,"seen_at":%[1]d},
		{"upstream":"gpu.example","model":"held","pause":{"reason":"operator","message":"moving house","at":%[1]d},"width":null,"failing_since":null,"why":null,"in_flight":null,"seen_at":null},
		{"upstream":%[2]s,"model":"told by an older server","pause":null,"failing_since":null,"why":null}]}`, seen, quote(bare))
	s := start(t, serve.Options{}, "")
	asked := make(chan string, 1)
	b := open(t, s.behind(t, func(w http.ResponseWriter, r *http.Request) bool {
		switch r.URL.Path {
		case "/fanout/v1/upstreams":
			_, _ = io.WriteString(w, all)
		case "/fanout/v1/upstreams/pause":
			body, _ := io.ReadAll(r.Body)
			asked <- string(body)
			_, _ = io.WriteString(w, `{}`)
		default:
			return false
		}
		return true
	}))
	b.goTo("#/upstreams", "Upstreams")
	b.until(`document.querySelectorAll('tbody tr').length === 5`)
	if got := eval[string](b, `[...document.querySelectorAll('th')].map((th) => th.textContent).join()`); got != "Upstream,Model,Limit,In flight,State,As of,Hold" {
		t.Errorf("the columns are %s", got)
	}
	for n, want := range []string{
		"api.example|well|40|12|ok|2 min ago|Pause", "api.example|free|at its ceiling|0|ok|2 min ago|Pause",
		"gpu.example|sick|1|1|failingFailing since 2 min ago: HTTP 502.|2 min ago|Pause", "gpu.example|held|at its ceiling|–|held2 min ago: moving house.|–|Resume",
		bare + "|told by an older server|–|–|ok|–|Pause",
	} {
		if got := eval[string](b, fmt.Sprintf(`[...document.querySelectorAll('tbody tr')[%d].cells].map((td) => td.textContent).join('|')`, n)); got != want {
			t.Errorf("row %d is %s, want %s", n, got, want)
		}
	}
	b.press("Pause another …")
	for list, want := range map[string]string{"upstream": "api.example,gpu.example," + bare, "model": "well,free,sick,held,told by an older server"} {
		if got := eval[string](b, `[...document.querySelector('[name=`+list+`]').list.options].map((o) => o.value).join()`); got != want {
			t.Errorf("for the %s are offered %s", list, got)
		}
	}
	b.fill("upstream", "gpu.example")
	b.fill("model", "sick")
	b.press("Pause")
	if eval[bool](b, `window.pwned !== undefined`) {
		t.Error("the name of an upstream has run")
	}
	if got := <-asked; got != `{"upstream":"gpu.example","model":"sick","reason":""}` {
		t.Errorf("it asks for %s", got)
	}
	b.calm()
}

func TestOnlyAWholeRateOfAMoveIsSent(t *testing.T) {
	t.Parallel()
	s := start(t, serve.Options{}, "")
	asked := make(chan string, 10)
	b := open(t, s.behind(t, func(w http.ResponseWriter, r *http.Request) bool {
		switch r.URL.Path {
		case "/fanout/v1/queues":
			_, _ = io.WriteString(w, `{"data":[{"id":"work","waiting":0,"in_flight":0,"delayed":0,"dead":7,"oldest_seconds":null,"moves":[]}]}`)
		case "/fanout/v1/queues/work/move":
			body, _ := io.ReadAll(r.Body)
			asked <- string(body)
			_, _ = io.WriteString(w, `{}`)
		default:
			return false
		}
		return true
	}))
	b.goTo("#/queues", "Queues")
	b.press("Move all back …")
	for _, wrong := range []string{"0.5", "0", "-3", "1.5", "e"} {
		b.script(`document.querySelector('[name=rate]').select()`)
		b.run(chromedp.KeyEvent(kb.Backspace + wrong))
		b.script(`document.querySelector('#wrong-rate').replaceChildren()`)
		b.press("Move all back")
		b.sees("The rate is a whole number from 1")
		if at := eval[string](b, `document.activeElement.name + document.activeElement.ariaInvalid`); at != "ratetrue" {
			t.Errorf("at %q the focus is on %q", wrong, at)
		}
	}
	b.script(`document.querySelector('[name=rate]').select()`)
	b.run(chromedp.KeyEvent("25" + kb.Enter))
	if got := <-asked; got != `{"rate":25}` {
		t.Errorf("it asks for %s", got)
	}
	b.until(`!document.querySelector('dialog')`)
	b.press("Move all back …")
	b.press("Move all back")
	if got := <-asked; got != `{}` {
		t.Errorf("it asks for %s", got)
	}
	b.calm()
}

func TestTheFocusIsNeverLost(t *testing.T) {
	t.Parallel()
	model := newSickly("the kernel did not launch")
	target := answering(t, model)
	s := start(t, serve.Options{Routes: jobs.Routes{}.Else(jobs.Route{Target: target})}, "")
	dead := s.submit(t, "in.jsonl", sickLines("c", "m"), fragile)
	slow := s.submit(t, "slow.jsonl", line("a", "m", "[[hang]]"), nil)
	b := open(t, s.behind(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/fanout/v1/audit" {
			return false
		}
		first := !r.URL.Query().Has("after")
		_, _ = fmt.Fprintf(w, `{"data":[{"id":"%t","at":1,"action":"job.pause","why":null,"of":null,"tenant":null,"count":0,"by":"ada"}],"last_id":"one","has_more":%t}`, first, first)
		return true
	}))
	b.goTo("#/jobs/"+dead.ID, dead.ID)
	b.sees("completed", "Dead chunks\n2")

	b.goTo("#/dead", "Dead letters")
	for _, opens := range []string{"Redrive …", "Purge …"} {
		b.enter(opens)
		b.until(`document.querySelector('dialog') !== null`)
		b.run(chromedp.KeyEvent(kb.Escape))
		b.focusIs(opens)
	}
	b.goTo("#/jobs/"+slow.ID, slow.ID)
	b.enter("Pause")
	b.until(`document.activeElement.name === 'reason'`)
	b.run(chromedp.KeyEvent("until noon" + kb.Enter))
	b.focusIs("Resume")
	b.sees("until noon")

	b.goTo("#/upstreams", "Upstreams")
	b.enter("Pause another …")
	b.until(`document.activeElement.name === 'upstream'`)
	b.run(chromedp.KeyEvent(hostOf(target) + kb.Tab + "m2" + kb.Enter))
	b.focusIs("Pause another …")
	b.sees("m2")
	b.enter("Resume")
	b.until(`document.activeElement.textContent === 'Never mind'`)
	b.run(chromedp.KeyEvent(kb.Tab + kb.Enter))
	b.focusIs("Pause") // which stands there after the next poll

	b.goTo("#/audit", "Audit")
	b.enter("Older")
	b.until(`document.querySelectorAll('tbody tr').length === 2 && document.activeElement.id === 'main'`)
	b.calm()
}

func TestNothingIsMovedOrPurgedAtANumberThatIsNone(t *testing.T) {
	t.Parallel()
	s := start(t, serve.Options{}, "")
	asked := make(chan string, 20)
	b := open(t, s.behind(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost || !strings.HasPrefix(r.URL.Path, "/fanout/v1/dead-letters/") {
			return false
		}
		body, _ := io.ReadAll(r.Body)
		asked <- r.URL.Path + string(body)
		_, _ = io.WriteString(w, `{"chunks":0,"purged":0,"requests":0,"batches":0,"refused":{},"next":null}`)
		return true
	}))
	b.goTo("#/dead", "Dead letters")
	b.sees("There are no dead chunks.")
	for _, max := range []string{"0", "1.5", "e", "-1"} {
		for _, does := range []string{"Purge …", "Redrive …"} {
			b.script(`document.querySelector('[name=max]').select()`)
			b.run(chromedp.KeyEvent(kb.Backspace + max))
			b.script(`document.activeElement.blur()`)
			b.press(does)
			b.until(`document.activeElement.name === 'max'`) // beside which the browser says why
		}
	}
	if n := len(asked); n > 0 {
		t.Errorf("it has asked for %s, and %d more", <-asked, n-1)
	}
	b.script(`document.querySelector('[name=max]').select()`)
	b.run(chromedp.KeyEvent("3"))
	for does, want := range map[string]string{"Purge …": `/fanout/v1/dead-letters/purge{"max":3,"dry_run":true}`, "Redrive …": `/fanout/v1/dead-letters/redrive{"max":3,"dry_run":true}`} {
		b.press(does)
		b.press("Close")
		if got := <-asked; got != want {
			t.Errorf("%s asks for %s", does, got)
		}
	}
	b.calm()
}

func TestThePlotShowsWhatWasAnsweredBelowWhatHasFailed(t *testing.T) {
	t.Parallel()
	s := start(t, serve.Options{}, "")
	job := s.submit(t, "in.jsonl", line("a", "builtin/language", "x")+line("b", "builtin/none", "x")+line("c", "builtin/none", "x"), nil)
	b := open(t, s.base)
	b.goTo("#/jobs/"+job.ID, job.ID)
	b.sees("completed", "Answered\n1", "Failed\n2")
	for _, scheme := range []string{"light", "dark"} {
		b.viewport(1280, 860, scheme)
		for _, colour := range []string{"--good", "--bad"} {
			b.until(`(() => {
				const canvas = document.querySelector('.plot canvas');
				if (!canvas) return false;
				const hex = getComputedStyle(document.documentElement).getPropertyValue(` + quote(colour) + `).trim();
				const want = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
				const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
				let alike = 0;
				for (let at = 0; at < data.length; at += 4) if (data[at + 3] > 200 && want.every((v, i) => Math.abs(v - data[at + i]) < 32)) alike++;
				return alike > 100;
			})()`)
		}
	}
	b.calm()
}

func TestATroubleWithTheTroublesIsTold(t *testing.T) {
	t.Parallel()
	s := start(t, serve.Options{}, "")
	job := s.submit(t, "in.jsonl", line("a", "builtin/language", "x"), nil)
	b := open(t, s.behind(t, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/errors") {
			return false
		}
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, `{"error":{"message":"The chunks cannot be read."}}`)
		return true
	}))
	b.goTo("#/jobs/"+job.ID, job.ID)
	b.sees("completed", "The chunks cannot be read.")
	b.goTo("#/dead", "Dead letters")
	b.sees("The chunks cannot be read.", "There are no dead chunks.")
	if text := b.text(); strings.Contains(text, "Loading") {
		t.Errorf("what has failed still loads:\n%s", text)
	}
	b.calm(http.StatusInternalServerError)
}

func TestAPurgeGoesOnUntilAllIsPurged(t *testing.T) {
	t.Parallel()
	s := start(t, serve.Options{}, "")
	asked := make(chan string, 20)
	b := open(t, s.behind(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/fanout/v1/dead-letters/purge" {
			return false
		}
		body, _ := io.ReadAll(r.Body)
		asked <- string(body)
		_, _ = fmt.Fprintf(w, `{"purged":4,"more":%t}`, len(asked) < 3)
		return true
	}))
	b.goTo("#/dead", "Dead letters")
	b.fill("max", "20")
	b.press("Purge …")
	b.sees("there are more, and they would be purged too")
	b.press("Purge 4 chunks")
	b.until(`!document.querySelector('dialog')`)
	for _, want := range []string{`{"max":20,"dry_run":true}`, `{"max":20,"dry_run":false}`, `{"max":16,"dry_run":false}`} {
		if got := <-asked; got != want {
			t.Errorf("it asks for %s, want %s", got, want)
		}
	}
	if len(asked) > 0 {
		t.Errorf("then it asks for %s", <-asked)
	}
	b.calm()
}

func TestARedriveThatBreaksOffTellsWhatItHasMoved(t *testing.T) {
	t.Parallel()
	s := start(t, serve.Options{}, "")
	calls := 0
	b := open(t, s.behind(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/fanout/v1/dead-letters/redrive" {
			return false
		}
		if calls++; calls == 3 { // they come one by one: the count, and two that move
			w.WriteHeader(http.StatusBadGateway)
			return true
		}
		_, _ = io.WriteString(w, `{"chunks":5,"requests":50,"batches":1,"refused":{},"followed":[],"next":"there"}`)
		return true
	}))
	b.goTo("#/dead", "Dead letters")
	b.press("Redrive …")
	b.press("Redrive 5 chunks")
	b.sees("The server answered 502.", "5 chunks had been moved. Whether the last call has moved any is not known: count again")
	b.press("Close")
	b.calm(http.StatusBadGateway)
}

func TestTheSkipLinkLeadsToTheContentOfItsPage(t *testing.T) {
	t.Parallel()
	b := open(t, start(t, serve.Options{}, "").base)
	b.sees("No job runs")
	b.goTo("#/dead", "Dead letters")
	b.sees("There are no dead chunks.")
	for range 20 { // back from the content, over the links
		b.run(chromedp.KeyEvent(kb.Tab, chromedp.KeyModifiers(kb.ModifierShift)))
		if eval[bool](b, `document.activeElement.className === 'skip'`) {
			break
		}
	}
	if seen := eval[float64](b, `document.activeElement.getBoundingClientRect().top`); seen < 0 {
		t.Errorf("the link is %v above the page when it has the focus", seen)
	}
	b.run(chromedp.KeyEvent(kb.Enter))
	b.until(`document.activeElement.id === 'main'`)
	b.run(chromedp.KeyEvent(kb.Tab))
	b.until(`document.activeElement.matches('main *')`)
	if at := eval[string](b, `location.hash + ' ' + document.querySelector('h1').textContent`); at != "#/dead Dead letters" {
		t.Errorf("the link leads to %q", at)
	}
	b.calm()
}

func TestWhatStrangersWriteIsShownAsText(t *testing.T) {
	t.Parallel()
	model := &hostile{newSickly("sick " + bare)}
	target := answering(t, model)
	s := start(t, serve.Options{Routes: jobs.Routes{}.Else(jobs.Route{Target: target})}, "")
	said := line("said "+evil, "model "+evil2, "say "+evil+evil2)
	refused := line("refused "+evil2, "model "+evil2, "refuse "+evil)
	job := s.submit(t, "name "+evil+".jsonl", said+refused, map[string]string{"key " + evil: "value " + evil2})
	dead := s.submit(t, evil2+".jsonl", sickLines(evil, "model "+evil), fragile)
	broken := s.submit(t, "broken.jsonl", line("same"+evil, "m", "x")+line("same"+evil, "m", "x")+`{"custom_id":"`+strings.Repeat("x", 600)+`"}`+"\n"+`{"method":"<img src=x onerror='window.pwned=1'>"}`, nil)
	held := s.submit(t, "held.jsonl", line("held", "m", "[[hang]]"), nil)
	_, err := s.PauseJob(t.Context(), held.ID, "reason "+evil)
	must(t, err)

	b := open(t, s.base)
	safe := func(texts ...string) {
		t.Helper()
		b.sees(texts...)
		if got := eval[[]string](b, `[...document.querySelectorAll('[onerror], [src="x"], body script')].map((e) => e.outerHTML)`); len(got) > 0 {
			t.Errorf("what strangers wrote became %q", got)
		}
		if eval[bool](b, `window.pwned !== undefined`) {
			t.Error("what strangers wrote has run")
		}
	}
	b.goTo("#/jobs/"+job.ID, job.ID)
	safe("completed", "model "+evil2, "name "+evil, "key "+evil, "value "+evil2, "code_"+bare, "refused "+bare)
	b.press("Show items")
	b.until(`document.querySelectorAll('.items > li').length === 2`)
	b.script(`document.querySelectorAll('.items button').forEach((b) => b.click())`)
	safe("said "+evil, "say "+evil+evil2, "refuse "+evil)
	b.script(`document.querySelectorAll('details').forEach((d) => { d.open = true; })`)
	safe(`"model": "model \"><script>window.pwned=1</script>"`)
	b.goTo("#/jobs/"+broken.ID, broken.ID)
	safe("The input breaks the rules.")
	b.goTo("#/jobs/"+held.ID, held.ID)
	safe("reason " + evil)
	b.press("Resume")
	safe("It was paused: ", "reason "+evil)
	b.press("Never mind")
	b.goTo("#/jobs", "Jobs")
	safe("model "+evil, "reason "+evil)
	b.goTo("#/jobs/"+dead.ID, dead.ID)
	safe("completed", "sick "+bare)
	b.goTo("#/dead", "Dead letters")
	safe("sick "+bare, "code_"+bare, "Lines 1 to 4")
	b.goTo("#/dead/"+dead.ID+".0.0", "Lines 1")
	safe("sick "+bare, evil+"3")
	b.fillHash("#/dead?code=" + evil)
	safe("No dead chunk is like that.", "dead chunks with the error "+evil)
	b.press("Redrive …")
	safe("Nothing to redrive")
	b.press("Close")
	b.goTo("#/queues", "Queues")
	safe("aggregate")
	b.goTo("#/upstreams", "Upstreams")
	b.press("Pause another …")
	b.fill("upstream", hostOf(target))
	b.fill("model", "model "+evil2)
	b.fill("reason", "hold "+evil)
	b.press("Pause")
	safe("model "+evil2, "hold "+evil)
	b.press("Resume")
	safe("Calls to model " + evil2)
	b.press("Never mind")
	b.goTo("#/audit", "Audit")
	safe("reason "+evil, hostOf(target)+"/model "+evil2)
	b.goTo("#/dead", "Dead letters")
	b.press("Purge …")
	safe("2 chunks would be cleared out of the dead letters for good")
	b.press("Purge 2 chunks")
	safe("There are no dead chunks.")
	b.calm()
	b.fillHash("#/jobs?tenant=" + evil)
	safe("Invalid")
	b.fillHash("#/jobs/" + evil)
	safe("No such Batch object: " + evil)
	b.until(`!document.body.innerText.includes('Loading …')`)
	b.fillHash("#/" + evil)
	safe("Not found")
	b.calm(http.StatusBadRequest, http.StatusNotFound)
}

// fillHash goes to an address as somebody else may have written it.
func (b *tab) fillHash(hash string) {
	b.t.Helper()
	b.script(`location.hash = ` + quote(hash))
}

// TestPictures makes the pictures of docs/console.md.
func TestPictures(t *testing.T) {
	if *screenshots == "" {
		t.Skip("pictures are made with -screenshots DIR")
	}
	model := newSickly("CUDA error: an illegal memory access was encountered")
	must(t, model.SetWeather("delay=90ms"))
	data := t.TempDir()
	operator, err := serve.CreateKey(t.Context(), data)
	must(t, err)
	prices, err := jobs.ParsePrices("*=3/15")
	must(t, err)
	s := start(t, serve.Options{Data: data, Routes: jobs.Routes{}.Else(jobs.Route{Target: answering(t, model)}), Concurrency: 12, Prices: prices}, operator)
	tenant := func(name string) served {
		key, err := s.CreateKey(t.Context(), batchapi.CreateKeyRequest{Tenant: name, Scopes: []string{"submit", "read"}})
		must(t, err)
		client, err := batchapi.NewClient(s.base+"/v1", *key.Secret)
		must(t, err)
		return served{s.base, client}
	}
	search, support := tenant("search"), tenant("support")
	var reviews strings.Builder
	for n := range 400 {
		reviews.WriteString(line(fmt.Sprintf("review-%04d", n+1), "qwen3-32b", "Is this review positive? It arrived on time and works as promised."))
	}
	whole := search.submit(t, "reviews.jsonl", reviews.String(), nil)
	sick := support.submit(t, "tickets.jsonl", sickLines("ticket-", "llama-3.3-70b"), fragile)
	b := open(t, s.base)
	b.viewport(1280, 860, "light")
	b.fill("key", operator)
	b.press("Sign in")
	b.goTo("#/jobs/"+whole.ID, whole.ID)
	b.sees("completed")
	b.goTo("#/jobs/"+sick.ID, sick.ID)
	b.sees("completed")

	var many strings.Builder
	for n := range 1600 {
		text := "Summarise in one sentence: the parcel was left with a neighbour, who had gone on holiday the same day."
		if n%97 == 5 {
			text += " [[status=400 code=context_length_exceeded]]"
		}
		many.WriteString(line(fmt.Sprintf("summary-%04d", n+1), "qwen3-32b", text))
	}
	held := support.submit(t, "backfill.jsonl", reviews.String(), map[string]string{"team": "support"})
	_, err = s.PauseJob(t.Context(), held.ID, "maintenance of the GPU nodes until noon")
	must(t, err)
	search.submit(t, "broken.jsonl", line("same", "m", "x")+line("same", "m", "x"), nil)
	running := search.submit(t, "parcels.jsonl", many.String(), map[string]string{"campaign": "spring", "owner": "ada"})
	b.goTo("#/jobs/"+running.ID, running.ID)
	b.until(`Number(document.querySelector('[role=progressbar]')?.getAttribute('aria-valuenow')) > 55`)
	b.sees("context_length_exceeded")
	b.picture("job.png")
	b.goTo("#/jobs", "Jobs")
	b.sees(running.ID, "paused", "failed")
	b.picture("jobs.png")
	b.goTo("#/dead", "Dead letters")
	b.sees("Lines 1 to 4")
	b.fill("canary", "1")
	b.fill("rate", "5")
	b.press("Redrive …")
	b.sees("Items to be asked")
	b.picture("redrive.png")
	b.press("Never mind")
	b.viewport(375, 812, "dark")
	b.goTo("#/jobs/"+running.ID, running.ID)
	b.sees("Answered")
	b.until(`document.querySelector('.plot canvas') !== null`)
	b.picture("phone.png")
}
