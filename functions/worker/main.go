// The worker function takes chunks from the work queue and calls the upstream for their items.
package main

import (
	"context"
	"os"

	"github.com/fanout-inference/fanout/internal/cloud"
	"github.com/fanout-inference/fanout/internal/config"
	"github.com/fanout-inference/fanout/internal/function"
	"github.com/fanout-inference/fanout/internal/upstreams"
	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/awsjobs"
)

func main() { function.Main(start) }

func start(ctx context.Context, c config.Worker) (any, error) {
	ports, err := cloud.Open(ctx, c.Cloud, awsjobs.QueueURLs{WorkDead: c.DeadLetters}, c.Concurrency)
	if err != nil {
		return nil, err
	}
	router, err := upstreams.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	f := function.New(jobs.QueueWork, c.LogLevel, ports, os.Stdout)
	f.Needs = jobs.LeastTime(c.CallTimeout) + c.CallTimeout/10 // to claim a chunk and to read it
	f.Handler = jobs.NewWorker(f.Ports, jobs.WorkerOptions{Route: router.Route, Concurrency: c.Concurrency, CallTimeout: c.CallTimeout, Prices: c.Prices, RequestIDs: true})
	return f.Invocations(), nil
}
