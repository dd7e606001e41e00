package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/localjobs"
	"github.com/fanout-inference/fanout/pkg/jobs/poll"
)

// instant answers every call at once.
type instant struct{}

func (instant) Call(context.Context, jobs.Request) (jobs.Answer, error) {
	return jobs.Answer{Status: 200, Body: []byte(`{"object":"chat.completion"}`)}, nil
}

// TestALargeJobIsWholeAndInOrder runs 300,000 items in several splits. It runs the pipeline as fanout run does, but for the
// upstream: so many calls over HTTP would take longer than all other tests together.
func TestALargeJobIsWholeAndInOrder(t *testing.T) {
	items := number(t, "FANOUT_LARGE_ITEMS", 300_000)
	dir := t.TempDir()
	input := filepath.Join(dir, "in.jsonl")
	writeMany(t, input, items)
	info, err := os.Stat(input)
	if err != nil {
		t.Fatal(err)
	}
	const name = "files/local/input"
	local, err := localjobs.Open(t.Context(), filepath.Join(dir, "data"), localjobs.Options{Mount: map[string]string{name: input}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := local.Close(); err != nil {
			t.Error(err)
		}
	}()
	ended := make(chan jobs.Job, 1)
	ports := jobs.Ports{Ledger: local.Store, Registry: local.Store, Queue: local.Queue, Files: local.Files, Sole: true,
		Watch: jobs.Watch{JobSaved: func(j jobs.Job) {
			if j.Phase.Ended() {
				ended <- j
			}
		}}}.WithDefaults()
	cut := jobs.DefaultCut(info.Size())
	cut.ChunkLines, cut.SplitBytes = 1000, info.Size()/7
	file, err := local.Files.Stat(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	job := jobs.Job{ID: "batch_large", Tenant: "local", Input: file.FileRef, InputBytes: info.Size(), Endpoint: "/v1/chat/completions",
		Cut: cut, OnInvalid: jobs.InvalidFails}
	if _, err := jobs.Submit(t.Context(), ports, job); err != nil {
		t.Fatal(err)
	}
	worker := jobs.NewWorker(ports, jobs.WorkerOptions{Route: func(string) (string, jobs.Upstream) { return "instant", instant{} }})
	pump := &poll.Pump{Source: local.Queue, OnFailure: func(_ jobs.Message, err error) {
		if _, expected := errors.AsType[*jobs.Deferred](err); !expected {
			t.Error(err)
		}
	}}
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		stopped <- pump.Run(t.Context(), stop,
			poll.Lane{Queue: jobs.QueueIngest, Handler: jobs.NewIngest(ports, jobs.IngestOptions{}), Concurrency: 2},
			poll.Lane{Queue: jobs.QueueWork, Handler: worker, Concurrency: 8, Ready: worker.Ready},
			poll.Lane{Queue: jobs.QueueAggregate, Handler: jobs.NewAggregate(ports, jobs.AggregateOptions{}), Batch: 10},
		)
	}()
	j := <-ended
	close(stop)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	if j.Phase != jobs.PhaseCompleted || j.Outputs.Totals.Answered != int64(items) || j.Outputs.Errors != nil {
		t.Fatalf("it ended %s with %+v", j.Phase, j.Outputs)
	}
	output := filepath.Join(dir, "out.jsonl")
	if err := local.Files.Export(t.Context(), j.Outputs.Answers.Name, output); err != nil {
		t.Fatal(err)
	}
	wantInOrder(t, output, items)
}

// writeMany writes an input of n items, item-0 and so on.
func writeMany(t *testing.T, path string, n int) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	out := bufio.NewWriterSize(f, 1<<20)
	for i := range n {
		fmt.Fprintf(out, `{"custom_id":"item-%d","method":"POST","url":"/v1/chat/completions","body":{"model":"m"}}`+"\n", i)
	}
	if err := out.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// wantInOrder fails unless the file holds an outcome for each of n items, in the order of the input.
func wantInOrder(t *testing.T, path string, n int) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	seen := 0
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if want := fmt.Sprintf(`"custom_id":"item-%d",`, seen); !strings.Contains(lines.Text(), want) {
			t.Fatalf("line %d is %.200s, want %s", seen+1, lines.Text(), want)
		}
		seen++
	}
	if lines.Err() != nil || seen != n {
		t.Errorf("%d outcomes, want %d (error: %v)", seen, n, lines.Err())
	}
}
