// The ingest function opens jobs from uploads, and scans, checks and dispatches them.
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

func start(ctx context.Context, c config.Ingest) (any, error) {
	ports, err := cloud.Open(ctx, c.Cloud, awsjobs.QueueURLs{IngestDead: c.DeadLetters}, 0)
	if err != nil {
		return nil, err
	}
	f := function.New(jobs.QueueIngest, c.LogLevel, ports, os.Stdout)
	ingest := jobs.NewIngest(f.Ports, jobs.IngestOptions{Upload: jobs.UploadOptions{Window: c.UploadWindow}})
	f.Handler = awsjobs.NewUploads(ingest, ports.Queue, c.Bucket)
	return f.Invocations(), nil
}
