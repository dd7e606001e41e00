// The aggregate function folds, compacts and finalizes jobs, has their ends told, and sweeps once a minute.
package main

import (
	"context"
	"os"

	"github.com/fanout-inference/fanout/internal/cloud"
	"github.com/fanout-inference/fanout/internal/config"
	"github.com/fanout-inference/fanout/internal/function"
	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/awsjobs"
)

func main() { function.Main(start) }

func start(ctx context.Context, c config.Aggregate) (any, error) {
	ports, err := cloud.Open(ctx, c.Cloud, awsjobs.QueueURLs{AggregateDead: c.DeadLetters, Notify: c.NotifyQueue}, 0)
	if err != nil {
		return nil, err
	}
	f := function.New(jobs.QueueAggregate, c.LogLevel, ports, os.Stdout)
	f.Handler = jobs.NewAggregate(f.Ports, jobs.AggregateOptions{Webhooks: c.NotifyQueue != ""})
	return f.Invocations(), nil
}
