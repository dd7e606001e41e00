// The api function answers the OpenAI-compatible API and what fanout adds to it.
package main

import (
	"context"
	"os"
	"time"

	"github.com/fanout-inference/fanout/internal/cloud"
	"github.com/fanout-inference/fanout/internal/config"
	"github.com/fanout-inference/fanout/internal/frontdoor"
	"github.com/fanout-inference/fanout/internal/function"
	"github.com/fanout-inference/fanout/pkg/batchapi"
	"github.com/fanout-inference/fanout/pkg/console"
	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/awsjobs"
)

func main() { function.Main(start) }

// An HTTP API gives up after 30 seconds.
const (
	maxWait   = 25 * time.Second
	pollEvery = 2 * time.Second // a read of the table each
)

// maxStreamed is what a Function URL streams before it takes too long: after 6 MB it passes on 2 MB a second.
const maxStreamed = 50_000_000

func start(ctx context.Context, c config.API) (any, error) {
	ports, err := cloud.Open(ctx, c.Cloud, awsjobs.QueueURLs{
		Notify: c.NotifyQueue, IngestDead: c.IngestDead, WorkDead: c.WorkDead, AggregateDead: c.AggregateDead, NotifyDead: c.NotifyDead,
	}, 0)
	if err != nil {
		return nil, err
	}
	door := function.NewDoor(c.LogLevel, ports, os.Stdout)
	opt := batchapi.Options{
		OperatorKey: c.OperatorKey, OperatorTenant: c.OperatorTenant, MaxFileBytes: c.MaxFileBytes,
		PollEvery: pollEvery, MaxWait: maxWait, DryRunFor: maxWait, MaxInline: frontdoor.MaxBuffered,
		DeadLetters: ports.Queue, Priced: len(c.Prices) > 0, Direct: ports.Direct, Models: batchapi.FixedModels(c.Models), Log: door.Ports.Log, Watch: door.Request,
	}
	if c.NotifyQueue != "" {
		opt.Webhooks = &jobs.HookOptions{PlainHosts: c.HookPlain}
	}
	if c.FrontDoor == config.Streaming {
		opt.Streams, opt.MaxInline = true, maxStreamed
		return function.Answer(door, frontdoor.Streaming(console.Beside(batchapi.New(door.Ports, opt)))), nil
	}
	opt.MaxAnswer = frontdoor.MaxBuffered
	return function.Answer(door, frontdoor.Buffered(console.Beside(batchapi.New(door.Ports, opt)))), nil
}
