package batchapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Options are the knobs of a Handler. Zero values are the defaults named.
type Options struct {
	// OpenTenant is whose everything is for who comes without a key, as long as no key was ever made. Only a server that
	// nobody else can reach may have it. "" = a key is always needed.
	OpenTenant string
	// OperatorKey is the SHA-256, in hex, of a key that may do everything for OperatorTenant, and so make the first keys.
	// It stands in no table. "" = there is none.
	OperatorKey    string
	OperatorTenant string

	MaxFileBytes int64           // of a file, and of an upload in parts; 50 GB
	MaxInline    int64           // larger contents are redirected to Direct; 0 = none are
	Rate         float64         // requests a second of one key; 500
	Burst        int             // of them at once; 1,000
	Stall        time.Duration   // a client that neither sends nor takes anything for so long is dropped; 30 s
	PollEvery    time.Duration   // how often a batch that somebody waits for is looked at; 1 s
	Fresh        time.Duration   // how old what is told of a batch's progress may be, where JobSaved is called; 0 = not at all
	MaxWait      time.Duration   // how long a request may wait for a batch to change; 60 s
	MaxAnswer    int64           // of a body that the front door lets pass; 0 = any. Results and dry runs keep below it
	DryRunFor    time.Duration   // how long a dry run may take; 0 = any time
	Streams      bool            // the front door passes on what is written at once
	Ending       <-chan struct{} // closed when the server ends: who waits is answered then; nil = it never does

	// Webhooks says what a webhook may be; nil = nobody sends what is put for them, and so none can be made.
	Webhooks *jobs.HookOptions

	// Priced tells that tokens have prices, so that a batch can be held at what it may cost.
	Priced bool

	// DeadLetters are those of the queues; nil = operators cannot reach them here.
	DeadLetters jobs.DeadLetters

	// Direct leads clients to objects past this server, which what is too large for it needs; nil = there is no other way.
	Direct Direct
	// Models lists the models that requests may name; nil = none are known.
	Models func(ctx context.Context) ([]Model, error)

	Log *slog.Logger // nil = silent
	// Watch is told of each request that was answered, by its route; nil = nobody is.
	Watch func(route string, status int, took time.Duration)
}

// Direct makes URLs that lead to objects past this server, for a while, for whoever has them. They cost no request.
type Direct interface {
	// PutURL lets bring an object that is not there yet, with these headers.
	PutURL(ctx context.Context, object string, life time.Duration) (url string, headers map[string]string, err error)
	// GetURL lets take an object away, under a file name.
	GetURL(ctx context.Context, object, filename string, life time.Duration) (string, error)
}

// Handler serves the API. Safe for concurrent use.
type Handler struct {
	ports jobs.Ports
	opt   Options

	inspector *jobs.Inspector
	mux       *http.ServeMux
	keys      *keyring
	fresh     fresh
	dry       chan struct{} // holds a place for each dry run: they take CPU
	waits     chan struct{} // and for each who waits for a batch
}

// How many may do at once what holds on to something for long.
const (
	maxDryRuns = 2
	maxWaits   = 1000
)

// New makes a Handler. The ports need the notify queue only where webhooks are sent.
func New(p jobs.Ports, opt Options) *Handler {
	opt.MaxFileBytes = cmp.Or(opt.MaxFileBytes, 50e9)
	opt.Rate, opt.Burst = cmp.Or(opt.Rate, 500), cmp.Or(opt.Burst, 1000)
	opt.Stall = cmp.Or(opt.Stall, 30*time.Second)
	opt.PollEvery, opt.MaxWait = cmp.Or(opt.PollEvery, time.Second), cmp.Or(opt.MaxWait, time.Minute)
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	h := &Handler{ports: p.WithDefaults(), opt: opt, mux: http.NewServeMux(), dry: make(chan struct{}, maxDryRuns), waits: make(chan struct{}, maxWaits)}
	h.inspector = jobs.NewInspector(h.ports, opt.DeadLetters)
	h.keys, h.fresh.life = newKeyring(h.ports, opt), opt.Fresh
	for _, rt := range routes {
		h.mux.Handle(rt.pattern, h.handle(rt))
	}
	return h
}

// ServeHTTP answers a request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := "req_" + strings.ToLower(h.ports.NewID())
	w.Header().Set("X-Request-Id", id)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	r = r.WithContext(context.WithValue(r.Context(), requestKey{}, id))
	next, pattern := h.mux.Handler(r)
	if pattern == "" {
		h.noRoute(w, r, next)
		return
	}
	h.mux.ServeHTTP(w, r)
}

type requestKey struct{}

func requestID(ctx context.Context) string {
	id, _ := ctx.Value(requestKey{}).(string)
	return id
}

// noRoute answers where there is nothing, or not with this method; which it is, the mux knows.
func (h *Handler) noRoute(w http.ResponseWriter, r *http.Request, mux http.Handler) {
	probe := statusOnly{header: http.Header{}}
	mux.ServeHTTP(&probe, r)
	if allow := probe.header.Get("Allow"); probe.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", allow)
		h.writeError(w, r, refuse(probe.status, "method_not_allowed", "%.20s is not allowed on this URL; it takes %s.", r.Method, allow))
		return
	}
	h.writeError(w, r, refuse(http.StatusNotFound, "unknown_url", "Unknown request URL: %.20s %.200s. Please check the URL for typos.", r.Method, r.URL.Path))
}

// statusOnly notes what would be answered.
type statusOnly struct {
	header http.Header
	status int
}

func (s *statusOnly) Header() http.Header         { return s.header }
func (s *statusOnly) Write(b []byte) (int, error) { return len(b), nil }
func (s *statusOnly) WriteHeader(status int)      { s.status = cmp.Or(s.status, status) }

// handle lets in who may, bounds what is read, and answers errors.
func (h *Handler) handle(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := &response{ResponseWriter: w, control: http.NewResponseController(w), stall: h.opt.Stall}
		defer h.tell(r, out, time.Now())
		limit := rt.body
		if limit == bodyOfFile {
			limit = h.opt.MaxFileBytes + 1<<20 // and what is around it
		}
		r.Body = &requestBody{ReadCloser: http.MaxBytesReader(out, r.Body, limit), control: out.control, stall: h.opt.Stall}
		defer func() {
			if p := recover(); p != nil {
				if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
					panic(p)
				}
				h.fail(out, r, fmt.Errorf("panic: %v", p))
			}
		}()
		c, err := h.keys.admit(r, rt.scope)
		if err == nil {
			err = rt.serve(h, out, r, c)
		}
		if err != nil {
			h.fail(out, r, err)
		}
	})
}

// Guard lets in who may do what the scope says, to something that is not of this package.
func (h *Handler) Guard(scope Scope, next http.Handler) http.Handler {
	return h.handle(route{scope: scope, serve: func(_ *Handler, w http.ResponseWriter, r *http.Request, _ Caller) error {
		next.ServeHTTP(w, r)
		return nil
	}})
}

// tell logs a request that was answered, and tells who watches. What was asked for, and by which words, is nobody's business.
func (h *Handler) tell(r *http.Request, w *response, began time.Time) {
	took := time.Since(began)
	h.opt.Log.DebugContext(r.Context(), "answered", "request", requestID(r.Context()), "route", r.Pattern, "status", w.status, "took", took.String())
	if h.opt.Watch != nil {
		h.opt.Watch(r.Pattern, w.status, took)
	}
}

// fail answers with an error, or breaks off an answer that has begun, so that nobody takes it for whole.
func (h *Handler) fail(w *response, r *http.Request, err error) {
	switch {
	case w.status == 0:
		h.writeError(w, r, err)
	case r.Context().Err() != nil:
		panic(http.ErrAbortHandler) // the client has gone
	default:
		h.opt.Log.ErrorContext(r.Context(), "break off an answer", "request", requestID(r.Context()), "route", r.Pattern, "error", err)
		panic(http.ErrAbortHandler)
	}
}

// response notes how the answer has begun, and gives a client only so long to take each piece of it.
type response struct {
	http.ResponseWriter
	control *http.ResponseController
	stall   time.Duration
	status  int // 0 = it has not begun
}

func (w *response) WriteHeader(status int) {
	w.status = cmp.Or(w.status, status)
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(b []byte) (int, error) {
	w.status = cmp.Or(w.status, http.StatusOK)
	_ = w.control.SetWriteDeadline(time.Now().Add(w.stall)) // a front door without deadlines has its own
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// requestBody gives a client only so long to send each piece.
type requestBody struct {
	io.ReadCloser
	control *http.ResponseController
	stall   time.Duration
}

func (b *requestBody) Read(p []byte) (int, error) {
	_ = b.control.SetReadDeadline(time.Now().Add(b.stall)) // a front door without deadlines has its own
	n, err := b.ReadCloser.Read(p)
	if err != nil && errors.Is(err, io.EOF) {
		_ = b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

// health tells whether the ledger answers.
func (h *Handler) health(w http.ResponseWriter, r *http.Request, _ Caller) error {
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	if _, err := h.ports.Ledger.Job(ctx, "batch_health"); err != nil && !errors.Is(err, jobs.ErrNotFound) {
		return fmt.Errorf("read the ledger: %w", err)
	}
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	return nil
}
