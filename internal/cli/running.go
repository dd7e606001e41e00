package cli

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/localjobs"
	"github.com/fanout-inference/fanout/pkg/upstream"
)

// streams are what a command talks through.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// inputName is the input as an object: it is read in place.
const inputName = "files/local/input"

// running is one `fanout run`: a whole fanout in this process.
type running struct {
	opt      runOptions
	io       streams
	started  time.Time
	input    *input
	routed   func(model string) (string, jobs.Upstream)
	local    *localjobs.Local
	ports    jobs.Ports
	progress *Progress
	watchdog *watchdog

	worker    *jobs.Worker
	aggregate *jobs.Aggregate

	mu      sync.Mutex
	ended   chan jobs.Job // the job, when it has ended
	counted bool          // progress knows the number of items
	fatal   chan error    // what this machine cannot do, such as write to a full disk
}

// run turns INPUT into OUTPUT, or goes on where an earlier run was interrupted.
func run(ctx context.Context, o runOptions, s streams) (err error) {
	r := &running{opt: o, io: s, started: time.Now(), ended: make(chan jobs.Job, 1), fatal: make(chan error, 1), progress: newProgress(s.err)}
	if r.routed, err = r.route(); err != nil {
		return err
	}
	if err := o.tryPlaces(); err != nil {
		return err
	}
	if o.Restart {
		if err := r.forget(ctx); err != nil {
			return err
		}
	}
	defer func() { err = errors.Join(err, r.close()) }()
	j, err := r.open(ctx)
	if err != nil {
		return err
	}
	return r.finish(ctx, j)
}

// close gives back what open took.
func (r *running) close() error {
	var errs []error
	if r.local != nil {
		errs = append(errs, r.local.Close())
	}
	if r.input != nil {
		errs = append(errs, r.input.Close())
	}
	return errors.Join(errs...)
}

// forget removes what an earlier run left, unless that run is still at it.
func (r *running) forget(ctx context.Context) error {
	if _, err := os.Stat(r.opt.Data); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	local, err := localjobs.Open(ctx, r.opt.Data, localjobs.Options{})
	if err != nil && jobs.CodeOf(err) == jobs.CodeConflict {
		return err
	}
	if err == nil { // else it is damaged, which is a reason to forget it
		if err := local.Close(); err != nil {
			return err
		}
	}
	return removeData(r.opt.Data)
}

// open opens the input and the data directory, and the job: a new one, or the one that was interrupted.
func (r *running) open(ctx context.Context) (j jobs.Job, err error) {
	_, err = os.Stat(r.opt.Data)
	fresh := errors.Is(err, os.ErrNotExist)
	if fresh && r.opt.Retry {
		return j, r.nothingToRetry()
	}
	if r.input, err = openInput(ctx, r.opt.Input, r.io.in, "", defaultSpoolLimits); err != nil {
		return j, err
	}
	want, err := r.describe(ctx)
	if err != nil {
		return j, err
	}
	if r.local, err = localjobs.Open(ctx, r.opt.Data, localjobs.Options{Mount: map[string]string{inputName: r.input.Path}}); err != nil {
		if fresh && jobs.CodeOf(err) == jobs.CodeInternal {
			return j, unwritable("--data", r.opt.Data, err)
		}
		return j, err
	}
	r.ports = jobs.Ports{Ledger: r.local.Store, Registry: r.local.Store, Queue: r.local.Queue, Files: r.local.Files, Sole: true}.WithDefaults()
	want.Input = jobs.FileRef{Name: inputName} // any version of it: its bytes are compared chunk by chunk
	return r.resume(ctx, want)
}

// describe says what job the input and the options make. Its id follows from what decides the output, so equal runs give
// equal bytes, and a run with another input is told from one that goes on.
func (r *running) describe(ctx context.Context) (jobs.Job, error) {
	f, err := os.Open(r.input.Path)
	if err != nil {
		return jobs.Job{}, unreadable(r.input.Name, err)
	}
	defer f.Close()
	cut := jobs.DefaultCut(r.input.Bytes)
	cut.ChunkLines = r.opt.ChunkItems
	if r.opt.SplitBytes > 0 {
		cut.SplitBytes = r.opt.SplitBytes
		cut.FloorBytes = (cut.SplitBytes + jobs.MaxSplitChunks - 1) / jobs.MaxSplitChunks
	}
	endpoint, err := jobs.FirstEndpoint(f, cut.LineBytes)
	if err != nil {
		if jobs.CodeOf(err) != jobs.CodeInvalid {
			return jobs.Job{}, err
		}
		endpoint = "/v1/chat/completions" // no line is valid: each will say why
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return jobs.Job{}, unreadable(r.input.Name, err)
	}
	digest := sha256.New()
	served := strings.TrimSuffix(strings.TrimRight(r.opt.Upstream, "/"), "/v1") // the same server, however it is written
	fmt.Fprintf(digest, "fanout run 1\n%s\n%s\n%s\n", endpoint, r.opt.OnInvalid, served)
	if _, err := io.Copy(digest, contextReader{ctx, f}); err != nil {
		if ctx.Err() != nil {
			return jobs.Job{}, ctx.Err()
		}
		return jobs.Job{}, unreadable(r.input.Name, err)
	}
	j := jobs.Job{
		ID: jobs.JobID("batch_" + hex.EncodeToString(digest.Sum(nil)[:12])), Tenant: "local", InputBytes: r.input.Bytes,
		Endpoint: endpoint, Cut: cut, OnInvalid: r.opt.OnInvalid, MaxCalls: r.opt.MaxCalls,
	}
	if _, err := rand.Read(j.HashKey[:]); err != nil {
		return j, fmt.Errorf("draw a key: %w", err)
	}
	return j, nil
}

// contextReader stops reading when its context ends. An io.Reader of one call.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// resume opens the job, or finds the one that is there already and says so.
func (r *running) resume(ctx context.Context, want jobs.Job) (jobs.Job, error) {
	j, err := r.local.Store.Job(ctx, want.ID)
	switch {
	case errors.Is(err, jobs.ErrNotFound):
		if err := r.refuseOther(ctx); err != nil {
			return j, err
		}
		if r.opt.Retry {
			return j, r.nothingToRetry()
		}
		return want, nil
	case err != nil:
		return j, err
	}
	return j, nil
}

func (r *running) nothingToRetry() error {
	return jobs.Errorf(jobs.CodeInvalid, "retry: there is no finished run in %s", r.opt.Data).WithHint("run without --retry first")
}

// refuseOther refuses a data directory that holds another job.
func (r *running) refuseOther(ctx context.Context) error {
	for j, err := range r.local.Store.Jobs(ctx, jobs.JobQuery{Tenant: "local", Limit: 1}) {
		if err != nil {
			return err
		}
		if j.InputBytes == r.input.Bytes {
			return jobs.Errorf(jobs.CodeInvalid, "%s holds a run of other requests or with other options: INPUT, --upstream and --on-invalid must be as they were", r.opt.Data).
				WithHint("the input and options as they were, to go on; or --restart, to forget that run")
		}
		return jobs.Errorf(jobs.CodeInvalid, "%s has changed since the run that %s holds: it had %d bytes, now it has %d", r.input.Name, r.opt.Data, j.InputBytes, r.input.Bytes).
			WithHint("the input as it was, to go on; or --restart, to forget that run")
	}
	return nil
}

// finish drives the job to its end, unless it is there already, and publishes what came out.
func (r *running) finish(ctx context.Context, j jobs.Job) error {
	if j.Phase.Ended() && r.opt.Retry {
		var err error
		if j, err = r.reopen(ctx, j); err != nil {
			return err
		}
	}
	if !j.Phase.Ended() {
		var err error
		if j, err = r.drive(ctx, j); err != nil {
			return err
		}
	}
	return r.publish(ctx, j)
}

// drive runs the handlers until the job has ended, or something ends the run before.
func (r *running) drive(ctx context.Context, j jobs.Job) (jobs.Job, error) {
	defer raiseHeapFloor()()
	r.watchdog = newWatchdog(r.opt, r.progress.Note)
	r.ports.Watch = jobs.Watch{
		CallStarted: func(string, string) { r.progress.InFlight(1); r.watchdog.callStarted() },
		CallEnded: func(_, _ string, f *jobs.Fault, took time.Duration) {
			r.progress.InFlight(-1)
			r.watchdog.callEnded(f, took)
		},
		Outcome: func(_ jobs.JobID, answered bool) {
			if answered {
				r.progress.Add(1, 0)
			} else {
				r.progress.Add(0, 1)
			}
		},
		JobSaved: r.jobSaved,
	}
	r.worker = jobs.NewWorker(r.ports, jobs.WorkerOptions{
		Route: r.routed, Concurrency: r.opt.Concurrency, CallTimeout: r.opt.Timeout, DeferMost: time.Minute,
	})
	ingest := jobs.NewIngest(r.ports, jobs.IngestOptions{CheckBytes: checkBytes})
	r.aggregate = jobs.NewAggregate(r.ports, jobs.AggregateOptions{})
	pump := &localjobs.Pump{Queue: r.local.Queue, SweepEvery: time.Minute, OnFailure: r.onFailure}
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() { // joined below: done is read before drive returns
		done <- pump.Run(context.WithoutCancel(ctx), stop,
			localjobs.Lane{Queue: jobs.QueueIngest, Handler: ingest, Concurrency: runtime.GOMAXPROCS(0)},
			localjobs.Lane{Queue: jobs.QueueWork, Handler: r.worker, Concurrency: 2 * r.opt.Concurrency, Ready: r.worker.Ready},
			localjobs.Lane{Queue: jobs.QueueAggregate, Handler: r.aggregate, Batch: 10},
		)
	}()
	end, err := r.await(ctx, j)
	r.worker.Drain()
	close(stop)
	err = errors.Join(err, <-done)
	r.progress.Stop()
	return end, err
}

// route finds the upstream.
func (r *running) route() (func(model string) (string, jobs.Upstream), error) {
	if r.opt.Upstream == "builtin" {
		b := upstream.NewBuiltin()
		return func(string) (string, jobs.Upstream) { return "builtin", b }, nil
	}
	u, err := upstream.NewOpenAI(upstream.OpenAIOptions{
		BaseURL: r.opt.Upstream, Key: upstream.Secret(os.Getenv(r.opt.KeyEnv)), Timeout: r.opt.Timeout, Conns: r.opt.Concurrency, Version: version(),
	})
	if err != nil {
		return nil, err
	}
	name := r.opt.upstreamName()
	return func(string) (string, jobs.Upstream) { return name, u }, nil
}

// jobSaved is told of each save of the job.
func (r *running) jobSaved(j jobs.Job) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.counted && j.Phase == jobs.PhaseInProgress {
		r.counted = true
		r.progress.Start(j.Checked.Items, 0, 0)
	}
	r.watchdog.jobSaved(j)
	if j.Phase.Ended() {
		select {
		case r.ended <- j:
		default: // it was told already
		}
	}
}

// onFailure is told of each message that comes again. Weather is the worker's business; what this machine cannot do ends
// the run, since here nobody repairs it meanwhile.
func (r *running) onFailure(_ jobs.Message, err error) {
	if _, weather := errors.AsType[*jobs.Deferred](err); weather {
		return
	}
	select {
	case r.fatal <- err:
	default: // the first counts
	}
}

// await opens the job and waits for its end, or for what comes before it.
func (r *running) await(ctx context.Context, j jobs.Job) (jobs.Job, error) {
	j, err := r.begin(ctx, j)
	if err != nil {
		return j, err
	}
	for {
		select {
		case j := <-r.ended:
			return j, nil
		case err := <-r.fatal:
			select {
			case j := <-r.ended: // it was no matter any more
				return j, nil
			default:
				return j, r.broken(err)
			}
		case <-ctx.Done():
			r.worker.Drain()
			r.progress.Note("interrupted: finishing the calls in flight; interrupt again to leave them")
			return j, (&jobs.Error{Code: jobs.CodeInternal, Err: fmt.Errorf("interrupted; what was answered is kept in %s: %w", r.opt.Data, context.Canceled)}).
				WithHint("%s, to go on", r.opt.again())
		case <-r.watchdog.timer.C:
			over, err := r.watchdog.look()
			if err != nil {
				return j, err
			}
			if over != "" {
				if err := jobs.ExpireJob(ctx, r.ports, j.ID, over); err != nil {
					return j, err
				}
			}
		case err := <-r.watchdog.refused:
			return j, err
		}
	}
}

// begin opens the job, or takes up the one that was interrupted: whatever held it is let go, since the user asked anew.
func (r *running) begin(ctx context.Context, j jobs.Job) (jobs.Job, error) {
	if j.Revision == 0 || j.Phase == jobs.PhaseValidating {
		return jobs.Submit(ctx, r.ports, j)
	}
	for e, err := range r.local.Store.Entries(ctx, jobs.KindGate, "") {
		if err != nil {
			return j, err
		}
		if err := r.local.Store.DropEntry(ctx, e); err != nil {
			return j, err
		}
	}
	done, err := jobs.Progress(ctx, r.ports, &j)
	if err != nil {
		return j, err
	}
	if j.Checked != nil {
		r.progress.Note(fmt.Sprintf("going on: %d of %d items have their outcome already", done.Answered+done.Failed, j.Checked.Items))
		r.mu.Lock()
		r.counted = true
		r.progress.Start(j.Checked.Items, done.Answered, done.Failed)
		r.mu.Unlock()
	}
	if err := jobs.Resume(ctx, r.ports, j.ID); err != nil {
		return j, err
	}
	return j, r.refill(ctx, j)
}

// refill sends again what is missing, if no message is left: a run that was killed between a save and a send would else
// wait for the sweep.
func (r *running) refill(ctx context.Context, j jobs.Job) error {
	for _, q := range []jobs.QueueName{jobs.QueueIngest, jobs.QueueWork, jobs.QueueAggregate} {
		depth, err := r.local.Queue.Depth(ctx, q)
		if err != nil {
			return err
		}
		if depth.Waiting+depth.InFlight+depth.Delayed > 0 {
			return nil
		}
	}
	return jobs.Resend(ctx, r.ports, j.ID)
}

// broken says what this machine cannot do.
func (r *running) broken(err error) error {
	e := &jobs.Error{Code: jobs.CodeInternal, Err: fmt.Errorf("stopped: %w", err)}
	if errors.Is(err, syscall.ENOSPC) {
		return e.WithHint("free some disk space, then %s; what was answered is kept in %s", r.opt.again(), r.opt.Data)
	}
	return e.WithHint("%s, to go on; what was answered is kept in %s", r.opt.again(), r.opt.Data)
}

// reopen makes a finished job ask again for what was given up.
func (r *running) reopen(ctx context.Context, j jobs.Job) (jobs.Job, error) {
	if j.Phase != jobs.PhaseExpired && j.Totals.Dead == 0 {
		return j, jobs.Errorf(jobs.CodeInvalid, "retry: no item of this run was given up")
	}
	if err := jobs.Reopen(ctx, r.ports, j.ID); err != nil {
		return j, err
	}
	return r.local.Store.Job(ctx, j.ID)
}
