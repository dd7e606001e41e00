package cli

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"time"

	"github.com/fanout-inference/fanout/internal/release"
	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/poll"
	"github.com/fanout-inference/fanout/pkg/upstream"
)

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
	pump := &poll.Pump{Source: r.local.Queue, AskForSweep: r.local.Queue.AskForSweep, OnFailure: r.onFailure}
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() { // joined below: done is read before drive returns
		done <- pump.Run(context.WithoutCancel(ctx), stop,
			poll.Lane{Queue: jobs.QueueIngest, Handler: ingest, Concurrency: runtime.GOMAXPROCS(0)},
			poll.Lane{Queue: jobs.QueueWork, Handler: r.worker, Concurrency: 2 * r.opt.Concurrency, Ready: r.worker.Ready},
			poll.Lane{Queue: jobs.QueueAggregate, Handler: r.aggregate, Batch: 10},
		)
	}()
	end, err := r.await(ctx, j)
	r.worker.Drain()
	close(stop)
	err = errors.Join(err, <-done)
	r.progress.Stop()
	return end, err
}

// route finds the upstreams.
func (r *running) route() (func(model string) (string, jobs.Upstream), error) {
	router, err := upstream.OpenRoutes(r.opt.Routes, func(to jobs.Route) (jobs.Upstream, error) {
		return upstream.Open(to.Target, upstream.OpenAIOptions{Key: to.Key, Timeout: r.opt.Timeout, Conns: r.opt.Concurrency, Version: release.Version()})
	})
	if err != nil {
		return nil, err
	}
	return router.Route, nil
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
