package awsjobs_test

import (
	"context"
	"errors"
	"path"
	"testing"
	"time"

	"github.com/fanout-inference/fanout/internal/awstest"
	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/awsjobs"
	"github.com/fanout-inference/fanout/pkg/jobs/jobstest"
	"github.com/fanout-inference/fanout/pkg/jobs/poll"
)

// TestPipeline runs whole jobs on a table, queues and a bucket of servers that others wrote, polled as a long-running process
// polls them.
func TestPipeline(t *testing.T) {
	jobstest.RunPipeline(t, func(t *testing.T) jobstest.Rig {
		rig, _ := openRig(t, awstest.Fauxqs)
		return rig
	})
}

// TestStory is played where dead letters can be moved.
func TestStory(t *testing.T) {
	rig, queue := openRig(t, awstest.LocalSQS)
	jobstest.PlayStory(t, rig, queue)
}

func openRig(t *testing.T, kind awstest.SQSKind) (jobstest.Rig, *awsjobs.Queue) {
	if path.Base(t.Name()) != "1000" { // which has the servers to itself
		t.Parallel() // each has everything of its own, and times are whole seconds
	}
	store := newTable(t).open()
	queue := openQueue(t, kind)
	queue.Wait = awsjobs.MaxWait
	if kind == awstest.LocalSQS {
		queue.Wait = time.Second // it waits for all that it is asked for
	}
	source := awsjobs.NewSource(queue)
	bucket := awstest.S3(t)
	files := awsjobs.NewFiles(bucket, awstest.Bucket(t, bucket))
	pump := &poll.Pump{
		Source: source,
		AskForSweep: func(ctx context.Context) error {
			_, err := source.Send(ctx, jobs.QueueAggregate, jobs.TickBody())
			return err
		},
		OnFailure: func(m jobs.Message, err error) {
			var off *jobs.Deferred
			if !errors.As(err, &off) {
				t.Errorf("%s: %v", m.Queue, err)
			}
		},
	}
	return jobstest.Rig{
		Ports: jobs.Ports{Ledger: store, Registry: store, Queue: source, Files: files}.WithDefaults(),
		Drive: func(ctx context.Context, stop <-chan struct{}, ingest, aggregate jobs.Handler, worker *jobs.Worker) {
			err := pump.Run(ctx, stop,
				poll.Lane{Queue: jobs.QueueIngest, Handler: ingest, Concurrency: 2},
				poll.Lane{Queue: jobs.QueueWork, Handler: worker, Concurrency: 8, Ready: worker.Ready},
				poll.Lane{Queue: jobs.QueueAggregate, Handler: aggregate, Batch: 10},
			)
			if err != nil {
				t.Errorf("pump: %v", err)
			}
		},
		Dead: func(t *testing.T) (bodies [][]byte) {
			for d, err := range queue.Peek(t.Context(), jobs.QueueWork) {
				must(t, err)
				bodies = append(bodies, d.Body)
			}
			return bodies
		},
	}, queue
}
