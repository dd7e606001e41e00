// Package serve is a whole fanout in one process: the API, ingest, worker and aggregate on the embedded store.
package serve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/fanout-inference/fanout/internal/inbox"
	"github.com/fanout-inference/fanout/internal/prom"
	"github.com/fanout-inference/fanout/pkg/batchapi"
	"github.com/fanout-inference/fanout/pkg/console"
	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/localjobs"
	"github.com/fanout-inference/fanout/pkg/jobs/poll"
	"github.com/fanout-inference/fanout/pkg/upstream"
	"github.com/fanout-inference/fanout/pkg/webhook"
)

// Tenant is whose everything is that comes without a key: requests while there is none, and what is put into the inbox.
const Tenant = "default"

// Options say what is served, and where. Zero values are the defaults named.
type Options struct {
	Addr string // where the API listens; 127.0.0.1:8080
	Data string // directory of the store
	// Inbox is a folder: what is put there becomes jobs, and their results appear beside it. "" = there is none.
	Inbox string
	Cert  string // files of a TLS certificate and its key; "" = plain HTTP
	Key   string

	Routes       jobs.Routes   // where models are served: builtin, or URLs of OpenAI-compatible servers; builtin for all
	Concurrency  int           // calls in flight; 64
	CallTimeout  time.Duration // 120 s
	Prices       jobs.Prices   // of tokens; none = nothing costs anything
	MaxFileBytes int64         // of a file that is brought; batchapi's default
	Rate         float64       // requests a second of a key; batchapi's default
	Grace        time.Duration // what is under way at the end may take so long; 30 s

	HookAllow []netip.Prefix // addresses that webhooks may lead to though they are private, local or reserved
	HookPlain []string       // hosts that they may lead to without TLS

	Version string // for the upstream's log
	Log     *slog.Logger
}

func (o *Options) complete() {
	o.Addr = cmp.Or(o.Addr, "127.0.0.1:8080")
	if o.Routes == nil {
		o.Routes = jobs.Routes{}.Else(jobs.Route{Target: upstream.BuiltinName})
	}
	o.Concurrency, o.CallTimeout = cmp.Or(o.Concurrency, 64), cmp.Or(o.CallTimeout, upstream.DefaultTimeout)
	o.Grace = cmp.Or(o.Grace, 30*time.Second)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// Server is a fanout that has opened its store and its address, and does nothing yet.
type Server struct {
	opt      Options
	local    *localjobs.Local
	ports    jobs.Ports
	worker   *jobs.Worker
	listener net.Listener
	metrics  *prom.Exporter
	api      *batchapi.Handler
	ending   chan struct{} // closed when the end begins
	open     bool          // nobody needs a key
}

// fresh is how old what is told of a batch's progress may be: who polls notices nothing of it.
const fresh = 250 * time.Millisecond

// noticesAtOnce is how many webhooks are called at once: one that is slow keeps no other waiting.
const noticesAtOnce = 16

// foldEvery is how often a split is folded: here that costs no request, and progress is seen sooner.
const foldEvery = 2 * time.Second

// Open opens the store and the address. Without keys it listens for this machine only, and refuses every other address.
func Open(ctx context.Context, o Options) (_ *Server, err error) {
	o.complete()
	s := &Server{opt: o, ending: make(chan struct{})}
	router, err := upstream.OpenRoutes(o.Routes, func(r jobs.Route) (jobs.Upstream, error) {
		return upstream.Open(r.Target, upstream.OpenAIOptions{Key: r.Key, Timeout: o.CallTimeout, Conns: o.Concurrency, Version: o.Version})
	})
	if err != nil {
		return nil, err
	}
	local := localjobs.Options{}
	if o.Inbox != "" {
		if err := checkInbox(o.Inbox, o.Data); err != nil {
			return nil, err
		}
		local.MountFolder = map[string]string{inbox.Folder(Tenant): o.Inbox}
	}
	if s.local, err = localjobs.Open(ctx, o.Data, local); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.local.Close())
		}
	}()
	if err := s.listen(ctx); err != nil {
		return nil, err
	}
	s.metrics = prom.New(s.local.Queue, jobs.QueueIngest, jobs.QueueWork, jobs.QueueAggregate, jobs.QueueNotify)
	watch := s.metrics.Watch()
	watch.JobSaved = func(j jobs.Job) { s.api.JobSaved(j) } // nothing is saved before there is one
	s.ports = jobs.Ports{Ledger: s.local.Store, Registry: s.local.Store, Queue: s.local.Queue, Files: s.local.Files, Sole: true, Watch: watch, Log: o.Log}.WithDefaults()
	s.worker = jobs.NewWorker(s.ports, jobs.WorkerOptions{
		Route: router.Route, Concurrency: o.Concurrency, CallTimeout: o.CallTimeout, Prices: o.Prices, RequestIDs: true,
	})
	api := batchapi.Options{
		MaxFileBytes: o.MaxFileBytes, Rate: o.Rate, Streams: true, Fresh: fresh, Ending: s.ending, Log: o.Log, Watch: s.metrics.Request,
		DeadLetters: s.local.Queue, Priced: len(o.Prices) > 0, Models: listModels(router), Webhooks: &jobs.HookOptions{PlainHosts: o.HookPlain},
	}
	if s.open {
		api.OpenTenant = Tenant
	}
	s.api = batchapi.New(s.ports, api)
	return s, nil
}

// checkInbox refuses a folder that is none, or that is the store's own.
func checkInbox(dir, data string) error {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return jobs.Errorf(jobs.CodeInvalid, "watch the inbox %s: %w", dir, err).WithHint("mkdir %s", dir)
	}
	if store, err := os.Stat(data); err == nil && os.SameFile(info, store) {
		return jobs.Errorf(jobs.CodeInvalid, "watch the inbox %s: it is the directory of the store", dir).WithHint("a folder of its own")
	}
	return nil
}

// listen opens the address, unless strangers could come in by it.
func (s *Server) listen(ctx context.Context) error {
	have, err := batchapi.HaveKeys(ctx, s.local.Store)
	if err != nil {
		return fmt.Errorf("look for keys: %w", err)
	}
	s.open = !have
	host, port, err := net.SplitHostPort(s.opt.Addr)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return jobs.Errorf(jobs.CodeInvalid, "%q is no address to listen at, such as 127.0.0.1:8080", s.opt.Addr)
	}
	if s.open && !loopback(host) {
		return jobs.Errorf(jobs.CodeInvalid, "%s can be reached by others, and there is no key to keep them out", s.opt.Addr).
			WithHint("--create-key, once, to have a key made; or --addr 127.0.0.1:%s", port)
	}
	if s.listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", s.opt.Addr); err != nil {
		return jobs.Errorf(jobs.CodeInvalid, "listen at %s: %w", s.opt.Addr, err).WithHint("another --addr; port 0 finds a free one")
	}
	return nil
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Open tells whether nobody needs a key.
func (s *Server) Open() bool { return s.open }

// URL is what official clients take as their base URL.
func (s *Server) URL() string {
	scheme := "http"
	if s.opt.Cert != "" {
		scheme = "https"
	}
	addr := s.listener.Addr().String()
	if host, port, err := net.SplitHostPort(addr); err == nil {
		if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
			addr = net.JoinHostPort("127.0.0.1", port)
		}
	}
	return scheme + "://" + addr + "/v1"
}

// CreateKey makes a key for operators if there is none yet, before the address is opened. "" = there was one.
func CreateKey(ctx context.Context, data string) (string, error) {
	local, err := localjobs.Open(ctx, data, localjobs.Options{})
	if err != nil {
		return "", err
	}
	key, err := createKey(ctx, local)
	return key, errors.Join(err, local.Close())
}

func createKey(ctx context.Context, local *localjobs.Local) (string, error) {
	have, err := batchapi.HaveKeys(ctx, local.Store)
	if err != nil || have {
		return "", err
	}
	k, err := batchapi.MakeKey(ctx, jobs.Ports{Registry: local.Store}, Tenant, batchapi.Scopes, "made by fanout serve", time.Time{})
	if err != nil {
		return "", err
	}
	return *k.Secret, nil
}

// Run serves until ctx ends, and then lets what is under way end. It closes the store.
func (s *Server) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, s.local.Close()) }()
	handling, abort := context.WithCancelCause(context.WithoutCancel(ctx))
	defer abort(nil)
	failed := make(chan error, 2)
	stop, pumped := make(chan struct{}), make(chan struct{})
	go func() { // joined below, by pumped
		defer close(pumped)
		failed <- s.pump(handling, stop)
	}()
	watching, blink := context.WithCancel(handling)
	defer blink()
	watched := make(chan struct{})
	go func() { // joined below, by watched
		defer close(watched)
		s.watchInbox(watching)
	}()
	tidied := make(chan struct{})
	go func() { // joined below, by tidied
		defer close(tidied)
		s.tidy(watching)
	}()
	server := s.server()
	served := make(chan struct{})
	go func() { // joined below, by served
		defer close(served)
		failed <- s.serve(server)
	}()
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	s.opt.Log.Info("ending: no more is begun, what is under way may end", "grace", s.opt.Grace.String())
	over, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), s.opt.Grace, errGraceOver)
	defer cancel()
	defer context.AfterFunc(over, func() { abort(errGraceOver) })()
	close(s.ending)
	blink()
	s.worker.Drain()
	close(stop)
	if server.Shutdown(over) != nil {
		_ = server.Close() // who is left has had the time
	}
	<-served
	<-pumped
	<-watched
	<-tidied
	return err
}

// errGraceOver ends what has not ended by itself.
var errGraceOver = errors.New("the grace period is over")

func (s *Server) pump(ctx context.Context, stop <-chan struct{}) error {
	p := &poll.Pump{Source: s.local.Queue, AskForSweep: s.local.Queue.AskForSweep, OnFailure: s.onFailure}
	count := s.metrics.Counting
	courier := webhook.New(webhook.Options{Allow: s.opt.HookAllow, Version: s.opt.Version})
	return p.Run(ctx, stop,
		poll.Lane{Queue: jobs.QueueIngest, Handler: count(jobs.QueueIngest, jobs.NewIngest(s.ports, jobs.IngestOptions{})), Concurrency: runtime.GOMAXPROCS(0)},
		poll.Lane{Queue: jobs.QueueWork, Handler: count(jobs.QueueWork, s.worker), Concurrency: 2 * s.opt.Concurrency, Ready: s.worker.Ready},
		poll.Lane{Queue: jobs.QueueAggregate, Handler: count(jobs.QueueAggregate, jobs.NewAggregate(s.ports, jobs.AggregateOptions{FoldEvery: foldEvery, Webhooks: true})), Batch: 10},
		poll.Lane{Queue: jobs.QueueNotify, Handler: count(jobs.QueueNotify, jobs.NewNotify(s.ports, courier)), Concurrency: noticesAtOnce},
	)
}

// watchInbox watches the inbox, if there is one, until ctx ends.
func (s *Server) watchInbox(ctx context.Context) {
	if s.opt.Inbox == "" {
		return
	}
	w := inbox.Watcher{Dir: s.opt.Inbox, Tenant: Tenant, Ports: s.ports, Files: s.local.Files, Log: s.opt.Log}
	w.Run(ctx)
}

// tidyEvery is how often what is no longer kept is removed, after once at the start.
const tidyEvery = 6 * time.Hour

func (s *Server) tidy(ctx context.Context) {
	again := time.NewTicker(tidyEvery)
	defer again.Stop()
	for {
		if err := s.local.Tidy(ctx); err != nil && ctx.Err() == nil {
			s.opt.Log.Error("tidy up", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
	}
}

// onFailure tells of a message that comes again, unless it was put off on purpose.
func (s *Server) onFailure(m jobs.Message, err error) {
	s.metrics.Failed(m, err)
	if _, off := errors.AsType[*jobs.Deferred](err); !off {
		s.opt.Log.Error("handle a message", "queue", m.Queue, "message", m.ID, "receives", m.Receives, "error", err)
	}
}

// Limits of what a stranger can hold on to. Bodies and answers have theirs in batchapi, by how long they stall.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 64 << 10
)

func (s *Server) server() *http.Server {
	mux := http.NewServeMux()
	mux.Handle("/", console.Beside(s.api))
	mux.Handle("GET /metrics", s.api.Guard(batchapi.ScopeOperate, s.metrics.Handler()))
	return &http.Server{
		Handler: mux, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(s.opt.Log.Handler(), slog.LevelDebug),
	}
}

func (s *Server) serve(server *http.Server) error {
	var err error
	if s.opt.Cert != "" {
		err = server.ServeTLS(s.listener, s.opt.Cert, s.opt.Key)
	} else {
		err = server.Serve(s.listener)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve: %w", err)
}
