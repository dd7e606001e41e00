package cli

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/fanout-inference/fanout/internal/cloud"
	"github.com/fanout-inference/fanout/internal/config"
	"github.com/fanout-inference/fanout/internal/metrics"
	"github.com/fanout-inference/fanout/internal/upstreams"
	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/awsjobs"
	"github.com/fanout-inference/fanout/pkg/jobs/poll"
)

func newWorker() *cobra.Command {
	var grace time.Duration
	cmd := &cobra.Command{
		Use:   "worker [flags]",
		Short: "Take work from the cloud's queue, as a process that stays",
		Long: `Takes chunks from the work queue of a deployment on AWS and calls the upstream for their items, as the worker
function does, but without its limits of time and size: on ECS, on EC2, or beside a model on a machine with a GPU. Any
number of them work side by side, with the function or without.

On SIGTERM or SIGINT it takes no more work, lets calls in flight end, and saves what they bring. What has not ended after
the grace period is given back to the queue, and called again by another worker. A second signal kills at once, which
loses only what was not saved.

It logs lines of JSON on stderr and metrics, in CloudWatch's embedded metric format, on stdout. It is told by its
environment, with the variables of the worker function:

  FANOUT_TABLE, FANOUT_BUCKET                                        the table and the bucket
  FANOUT_INGEST_QUEUE, FANOUT_WORK_QUEUE, FANOUT_AGGREGATE_QUEUE     URLs of the queues
  FANOUT_WORK_DEAD_LETTERS                                           URL of the work queue's dead letters
  FANOUT_UPSTREAM                                                    builtin, bedrock, sagemaker:ENDPOINT or a URL
  FANOUT_UPSTREAM_KEY, or FANOUT_UPSTREAM_KEY_FROM                   its key if it needs one, or the parameter that holds it
  FANOUT_ROUTES                                                      other upstreams for some models, such as
                                                                     llama*=http://10.0.0.7:8000/v1,key-from=/llama/key
  FANOUT_PRICES                                                      of a million tokens, such as gpt-4o*=2.5/10,*=1/2
  FANOUT_CONCURRENCY, FANOUT_CALL_TIMEOUT                            calls in flight (100), and how long one may take (120s)
  FANOUT_FAIR_QUEUES, FANOUT_LOG_LEVEL                               true, and INFO

The region, the credentials and the endpoints are found where all clients of AWS look for them.`,
		Example: `  fanout worker
  FANOUT_UPSTREAM=http://127.0.0.1:8000/v1 FANOUT_CONCURRENCY=256 fanout worker --grace 2m`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError(cmd, "worker takes no arguments")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if grace <= 0 {
				return usageError(cmd, "--grace must be above 0, not %s", grace)
			}
			c, err := config.Load[config.Worker](os.Environ())
			if err != nil {
				return err
			}
			return work(cmd.Context(), c, grace, streams{cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()})
		},
	}
	cmd.Flags().DurationVar(&grace, "grace", 30*time.Second, "how long calls in flight may take to end after a signal")
	return cmd
}

// flushEvery is how often metrics are written.
const flushEvery = time.Minute

// errGraceOver ends what has not ended by itself.
var errGraceOver = errors.New("the grace period is over")

// work takes work until ctx ends, and then for the grace period what is left of it.
func work(ctx context.Context, c config.Worker, grace time.Duration, s streams) error {
	ports, err := cloud.Open(ctx, c.Cloud, awsjobs.QueueURLs{WorkDead: c.DeadLetters}, c.Concurrency)
	if err != nil {
		return err
	}
	router, err := upstreams.Open(ctx, c)
	if err != nil {
		return err
	}
	recorder := metrics.New("worker", s.out)
	p := ports.Jobs()
	p.Watch, p.Log = recorder.Watch(), slog.New(slog.NewJSONHandler(s.err, &slog.HandlerOptions{Level: c.LogLevel}))
	worker := jobs.NewWorker(p, jobs.WorkerOptions{Route: router.Route, Concurrency: c.Concurrency, CallTimeout: c.CallTimeout, Prices: c.Prices, RequestIDs: true})
	pump := &poll.Pump{Source: ports.Queue, OnFailure: func(m jobs.Message, err error) { recorder.Failed(ctx, p.Log, m, err) }}

	handling, abort := context.WithCancelCause(context.WithoutCancel(ctx))
	defer abort(nil)
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() { // joined below: done is read before work returns
		done <- pump.Run(handling, stop, poll.Lane{Queue: jobs.QueueWork, Handler: recorder.Counting(worker), Concurrency: 2 * c.Concurrency, Ready: worker.Ready})
	}()
	p.Log.Info("taking work", "queue", c.WorkQueue, "upstream", c.Upstream, "concurrency", c.Concurrency)
	defer recorder.Flush()
	flush := time.NewTicker(flushEvery)
	defer flush.Stop()
	for signalled := ctx.Done(); ; {
		select {
		case err := <-done:
			return err
		case <-flush.C:
			recorder.Flush()
		case <-signalled:
			p.Log.Info("draining", "grace", grace.String())
			signalled = nil
			worker.Drain()
			close(stop)
			defer time.AfterFunc(grace, func() { abort(errGraceOver) }).Stop()
		}
	}
}
