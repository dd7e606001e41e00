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
	"sync"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/localjobs"
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
	if err := r.opt.clearPlaces(); err != nil {
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
		endpoint = jobs.DefaultEndpoint // no line is valid: each will say why
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return jobs.Job{}, unreadable(r.input.Name, err)
	}
	digest := sha256.New()
	fmt.Fprintf(digest, "fanout run 1\n%s\n%s\n%s\n", endpoint, r.opt.OnInvalid, served(r.opt.Routes))
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
