// The notify function posts events to webhooks. It runs outside the VPC, and reaches two queues and nothing else of ours.
package main

import (
	"context"
	"os"

	"github.com/fanout-inference/fanout/internal/cloud"
	"github.com/fanout-inference/fanout/internal/config"
	"github.com/fanout-inference/fanout/internal/function"
	"github.com/fanout-inference/fanout/internal/release"
	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/awsjobs"
	"github.com/fanout-inference/fanout/pkg/webhook"
)

func main() { function.Main(start) }

func start(ctx context.Context, c config.Notify) (any, error) {
	ports, err := cloud.OpenQueue(ctx, awsjobs.QueueURLs{Notify: c.Queue, NotifyDead: c.DeadLetters, Aggregate: c.AggregateQueue})
	if err != nil {
		return nil, err
	}
	f := function.New(jobs.QueueNotify, c.LogLevel, ports, os.Stdout)
	f.Needs = webhook.Timeout
	f.Handler = jobs.NewNotify(f.Ports, webhook.New(webhook.Options{Allow: c.Allow, Version: release.Version()}))
	return f.Invocations(), nil
}
