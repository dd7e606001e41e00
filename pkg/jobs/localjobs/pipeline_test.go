package localjobs

import (
	"context"
	"errors"
	"testing"

	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/jobstest"
	"github.com/fanout-inference/fanout/pkg/jobs/poll"
)

func TestPipeline(t *testing.T) {
	jobstest.RunPipeline(t, func(t *testing.T) jobstest.Rig { return rigOn(t, openAt(t, t.TempDir(), Options{})) })
}

func TestStory(t *testing.T) {
	local := openAt(t, t.TempDir(), Options{})
	jobstest.PlayStory(t, rigOn(t, local), local.Queue)
}

func rigOn(t *testing.T, local *Local) jobstest.Rig {
	pump := &poll.Pump{Source: local.Queue, AskForSweep: local.Queue.AskForSweep, OnFailure: func(m jobs.Message, err error) {
		var off *jobs.Deferred
		if !errors.As(err, &off) {
			t.Errorf("%s: %v", m.Queue, err)
		}
	}}
	return jobstest.Rig{
		Ports: jobs.Ports{Ledger: local.Store, Registry: local.Store, Queue: local.Queue, Files: local.Files, Sole: true}.WithDefaults(),
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
		Dead: func(t *testing.T) [][]byte {
			var bodies [][]byte
			for d, err := range local.Queue.Peek(t.Context(), jobs.QueueWork) {
				if err != nil {
					t.Fatal(err)
				}
				bodies = append(bodies, d.Body)
			}
			return bodies
		},
	}
}
