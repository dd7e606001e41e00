package console_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/fanout-inference/fanout/internal/serve"
	"github.com/fanout-inference/fanout/pkg/batchapi"
)

var screenshots = flag.String("screenshots", "", "write the pictures of docs/console.md to this `directory`")

// patience is how long anything on a page may take.
const patience = time.Minute

// closeChromium ends the one browser that all tests share.
var closeChromium = func() {}

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	closeChromium()
	os.Exit(code)
}

var errNoChromium = errors.New("chromium is not installed")

// chromium starts the browser, once.
var chromium = sync.OnceValues(func() (context.Context, error) {
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		return nil, errNoChromium
	}
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.WindowSize(1280, 900), chromedp.Flag("headless", "new"),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.Flag("hide-scrollbars", true), chromedp.Flag("disable-dev-shm-usage", true),
	}
	var err error
	for range 3 { // on a busy machine it has been seen to die before it said a word
		allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
		browser, leave := chromedp.NewContext(allocator)
		if err = chromedp.Do(browser); err == nil {
			closeChromium = func() { leave(); stop() }
			return browser, nil
		}
		leave()
		stop()
	}
	return nil, err
})

// tab is a page of the browser, and what went wrong on it.
type tab struct {
	t    *testing.T
	ctx  context.Context
	base string // of the server

	mu       sync.Mutex
	troubles []string
}

// open opens the console of a server. What it may be refused is named by words of the browser's message.
func open(t *testing.T, base string) *tab {
	t.Helper()
	browser, err := chromium()
	if errors.Is(err, errNoChromium) && os.Getenv("CI") != "true" {
		t.Skip("chromium is not installed: the console is NOT TESTED in a browser")
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, closeTab := chromedp.NewContext(browser, chromedp.WithNewBrowserContext())
	t.Cleanup(closeTab)
	b := &tab{t: t, ctx: ctx, base: base}
	must(t, chromedp.Listen(ctx, b.hear))
	_, err = chromedp.Call(ctx, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{
		Source: `window.violations = []; document.addEventListener('securitypolicyviolation', (e) => violations.push(e.violatedDirective + ' ' + e.blockedURI))`,
	})
	must(t, err)
	b.run(chromedp.Navigate(base + "/console"))
	return b
}

// hear notes errors of scripts, of the console and of the policy.
func (b *tab) hear(event any) {
	var trouble string
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		trouble = fmt.Sprintf("exception: %s %s", e.ExceptionDetails.Text, describe(e.ExceptionDetails.Exception))
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeAssert {
			trouble = "console:"
			for _, a := range e.Args {
				trouble += " " + describe(a)
			}
		}
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError {
			trouble = fmt.Sprintf("%s: %s %s", e.Entry.Source, e.Entry.Text, e.Entry.URL)
		}
	}
	if trouble != "" {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.troubles = append(b.troubles, trouble)
	}
}

func describe(o *runtime.RemoteObject) string {
	if o == nil {
		return ""
	}
	return cmp.Or(o.Description, string(o.Value))
}

func (b *tab) run(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	do(b, chromedp.Steps(actions...))
}

// do does something on a page.
func do[T any](b *tab, action chromedp.Action[T]) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, action)
	if err != nil {
		b.t.Fatalf("%v; the page says:\n%s\nand the browser: %q", err, b.text(), b.heard())
	}
	return v
}

func (b *tab) heard() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.troubles)
}

// calm claims that nothing went wrong but what the browser says of answers with these statuses.
func (b *tab) calm(statuses ...int) {
	b.t.Helper()
	for _, trouble := range b.heard() {
		expected := slices.ContainsFunc(statuses, func(s int) bool {
			return strings.HasPrefix(trouble, "network: ") && strings.Contains(trouble, fmt.Sprintf("status of %d", s))
		})
		if !expected {
			b.t.Errorf("the browser reports %s", trouble)
		}
	}
	if v := eval[[]string](b, `window.violations`); len(v) > 0 {
		b.t.Errorf("the policy was violated: %q", v)
	}
}

// text is what a person sees.
func (b *tab) text() string {
	ctx, cancel := context.WithTimeout(b.ctx, 5*time.Second)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.body.innerText`))
	if err != nil {
		return err.Error()
	}
	return text
}

func eval[T any](b *tab, js string) T {
	b.t.Helper()
	return do(b, chromedp.Evaluate[T](js, chromedp.EvalAwaitPromise))
}

// script runs a script for what it does.
func (b *tab) script(js string) {
	b.t.Helper()
	eval[bool](b, `(() => { `+js+`; return true; })()`)
}

func quote(s string) string {
	q, err := json.Marshal(s)
	if err != nil {
		panic(err) // strings always encode
	}
	return string(q)
}

// until waits until an expression is true on the page. chromedp's own Poll makes code of text in the page, which the policy
// rightly refuses.
func (b *tab) until(expression string) {
	b.t.Helper()
	wait := `new Promise((done) => { const look = () => ((` + expression + `) ? done(true) : setTimeout(look, 30)); look(); })`
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if _, err := chromedp.Run(ctx, chromedp.Evaluate[bool](wait, chromedp.EvalAwaitPromise)); err != nil {
		b.t.Fatalf("it is never so that %s: %v; the page says:\n%s\nand the browser: %q", expression, err, b.text(), b.heard())
	}
}

func (b *tab) sees(texts ...string) {
	b.t.Helper()
	for _, text := range texts {
		b.until(`document.body.innerText.includes(` + quote(text) + `)`)
	}
}

// goTo shows a page by its hash.
func (b *tab) goTo(hash, heading string) {
	b.t.Helper()
	b.script(`location.hash = ` + quote(hash))
	b.until(`[...document.querySelectorAll('h1')].some((h) => h.textContent.includes(` + quote(heading) + `))`)
}

// press presses the button with this label, in the dialog if there is one.
func (b *tab) press(label string) {
	b.t.Helper()
	one := chromedp.Search(fmt.Sprintf(`//dialog//button[%[1]s] | //button[%[1]s and not(//dialog)]`, fmt.Sprintf(`normalize-space()=%q and not(@aria-busy)`, label)))
	b.run(chromedp.WaitVisible(one), chromedp.Click(one))
}

// enter presses the Enter key on the button with this label, outside of any dialog.
func (b *tab) enter(label string) {
	b.t.Helper()
	b.until(`[...document.querySelectorAll('main button')].some((b) => b.textContent === ` + quote(label) + ` && !b.ariaBusy)`)
	b.script(`[...document.querySelectorAll('main button')].find((b) => b.textContent === ` + quote(label) + `).focus()`)
	b.run(chromedp.KeyEvent(kb.Enter))
}

// focusIs waits until no dialog is open and the focus is on what has this text.
func (b *tab) focusIs(text string) {
	b.t.Helper()
	b.until(`!document.querySelector('dialog') && document.activeElement !== document.body && document.activeElement.textContent === ` + quote(text))
}

func (b *tab) fill(name, value string) {
	b.t.Helper()
	field := chromedp.CSS(fmt.Sprintf(`[name=%q]`, name))
	b.run(chromedp.WaitVisible(field), chromedp.SetValue(field, value))
}

// hurry makes the page wait a fiftieth of the time.
func (b *tab) hurry() {
	b.t.Helper()
	b.script(`const wait = window.setTimeout; window.setTimeout = (f, ms) => wait(f, ms / 50)`)
}

// polled waits until the page has asked for what is at this path, and has shown it, twice.
func (b *tab) polled(path string) {
	b.t.Helper()
	b.script(`let left = 3; const ask = window.fetch; window.polled = false; window.fetch = (to, ...rest) => {
		if (to.split('?')[0] === ` + quote(path) + ` && --left === 0) { window.fetch = ask; window.polled = true; }
		return ask(to, ...rest);
	}`)
	b.until(`window.polled`)
}

// downloads lets the page download, and returns what waits until it has and gives what was saved.
func (b *tab) downloads() func() string {
	b.t.Helper()
	dir, events := b.t.TempDir(), true
	ended := make(chan *browser.EventDownloadProgress, 1)
	must(b.t, chromedp.Listen(b.ctx, func(event any) {
		if e, ok := event.(*browser.EventDownloadProgress); ok && e.State != browser.DownloadProgressStateInProgress {
			ended <- e
		}
	}))
	_, err := chromedp.Call(b.ctx, browser.SetDownloadBehavior, browser.SetDownloadBehaviorParams{
		Behavior: browser.SetDownloadBehaviorBehaviorAllowAndName, BrowserContextID: chromedp.FromContext(b.ctx).BrowserContextID, DownloadPath: dir, EventsEnabled: &events,
	})
	must(b.t, err)
	return func() string {
		b.t.Helper()
		select {
		case e := <-ended:
			if e.State != browser.DownloadProgressStateCompleted {
				b.t.Fatalf("the download is %s", e.State)
			}
			saved, err := os.ReadFile(filepath.Join(dir, e.GUID))
			must(b.t, err)
			return string(saved)
		case <-time.After(patience):
			b.t.Fatalf("nothing is downloaded; the page says:\n%s\nand the browser: %q", b.text(), b.heard())
			return ""
		}
	}
}

func (b *tab) buttons() []string {
	b.t.Helper()
	return eval[[]string](b, `[...document.querySelectorAll('button')].map((b) => b.textContent)`)
}

// viewport is a screen, in light or dark.
func (b *tab) viewport(width, height int64, scheme string) {
	b.t.Helper()
	b.run(chromedp.EmulateViewport(width, height))
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
	must(b.t, err)
}

// picture writes what is on the screen, if pictures are wanted.
func (b *tab) picture(name string) {
	b.t.Helper()
	if *screenshots == "" {
		return
	}
	png := do(b, chromedp.CaptureScreenshot())
	if err := os.WriteFile(filepath.Join(*screenshots, name), png, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// served is a whole fanout in this process.
type served struct {
	base string
	*batchapi.Client
}

func start(t *testing.T, o serve.Options, key string) served {
	t.Helper()
	o.Addr, o.Grace = "127.0.0.1:0", 2*time.Second
	if o.Data == "" {
		o.Data = t.TempDir()
	}
	s, err := serve.Open(t.Context(), o)
	must(t, err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }() // joined below
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	client, err := batchapi.NewClient(s.URL(), key)
	must(t, err)
	return served{strings.TrimSuffix(s.URL(), "/v1"), client}
}

// behind puts a proxy before the server, where take may answer instead of it: it then returns true. It is for what a server
// answers in other circumstances than a test can bring about.
func (s served) behind(t *testing.T, take func(w http.ResponseWriter, r *http.Request) bool) string {
	t.Helper()
	to, err := url.Parse(s.base)
	must(t, err)
	pass := httputil.NewSingleHostReverseProxy(to)
	pass.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) } // a page has left
	return answering(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !take(w, r) {
			pass.ServeHTTP(w, r)
		}
	}))
}

// changing puts a proxy before the server that changes what operators are told of a job.
func (s served) changing(t *testing.T, id string, change func(*batchapi.Batch)) string {
	t.Helper()
	return s.behind(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/fanout/v1/jobs/"+id {
			return false
		}
		job, err := s.Batch(r.Context(), id)
		if err != nil {
			return false // a page has left
		}
		change(&job)
		_ = json.NewEncoder(w).Encode(job) // or it has left by now
		return true
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// submit makes a job of lines.
func (s served) submit(t *testing.T, name, lines string, metadata map[string]string) batchapi.Batch {
	t.Helper()
	f, err := s.CreateFile(t.Context(), name, "batch", strings.NewReader(lines))
	must(t, err)
	b, err := s.CreateBatch(t.Context(), batchapi.CreateBatchRequest{InputFileID: f.ID, Endpoint: "/v1/chat/completions", CompletionWindow: "24h", Metadata: metadata}, "")
	must(t, err)
	return b
}

// line is one request.
func line(customID, model, text string) string {
	return fmt.Sprintf(`{"custom_id":%s,"method":"POST","url":"/v1/chat/completions","body":{"model":%s,"messages":[{"role":"user","content":%s}]}}`+"\n", quote(customID), quote(model), quote(text))
}

// hostOf is what an upstream of this URL is called.
func hostOf(target string) string { return strings.TrimPrefix(target, "http://") }

// answering is the URL of an upstream of the test's own.
func answering(t *testing.T, h http.Handler) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(func() {
		server.CloseClientConnections() // else a slow answer would hold up the end
		server.Close()
	})
	return server.URL
}
