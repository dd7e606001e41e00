package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fanout-inference/fanout/pkg/batchapi"
	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/upstream/upstreamtest"
)

// freePort is a port that no outgoing connection is given, so that it is still free when a server is started again.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(10_000+rand.IntN(20_000)))
		if l, err := net.Listen("tcp", addr); err == nil {
			_ = l.Close() // it was only to see
			return addr
		}
	}
	t.Fatal("there is no free port")
	return ""
}

// untilAnswered calls a server that is killed meanwhile until it answers. What it refuses fails.
func untilAnswered[T any](ctx context.Context, call func(context.Context) (T, error)) (T, error) {
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		v, err := call(ctx)
		if err == nil || ctx.Err() != nil || jobs.CodeOf(err) != jobs.CodeUpstream && !errors.Is(err, io.ErrUnexpectedEOF) {
			return v, err
		}
		<-again.C
	}
}

// acknowledged is a file and a batch that the server has said it has.
type acknowledged struct {
	file, batch string
	lines       []string
}

// submit brings a file and makes a batch of it, each until that is acknowledged.
func submit(ctx context.Context, c *batchapi.Client, n int) (acknowledged, error) {
	a := acknowledged{}
	for i := range 20 + n%7 {
		a.lines = append(a.lines, request(fmt.Sprintf("item-%d", i), fmt.Sprintf("text %d of %d [[delay=5ms]]", i, n)))
	}
	f, err := untilAnswered(ctx, func(ctx context.Context) (batchapi.File, error) {
		return c.CreateFile(ctx, "in.jsonl", "batch", strings.NewReader(strings.Join(a.lines, "\n")+"\n"))
	})
	if err != nil {
		return a, fmt.Errorf("bring file %d: %w", n, err)
	}
	b, err := untilAnswered(ctx, func(ctx context.Context) (batchapi.Batch, error) {
		return c.CreateBatch(ctx, batchapi.CreateBatchRequest{InputFileID: f.ID, Endpoint: "/v1/chat/completions", CompletionWindow: "24h"}, "batch-"+strconv.Itoa(n))
	})
	if err != nil {
		return a, fmt.Errorf("make batch %d: %w", n, err)
	}
	a.file, a.batch = f.ID, b.ID
	return a, nil
}

// TestAKilledServerLosesNothingThatItAcknowledged kills fanout serve at random moments while a client brings files and makes
// batches of them. FANOUT_KILLS is how many kills are wanted, FANOUT_KILL_SEED where the moments begin.
func TestAKilledServerLosesNothingThatItAcknowledged(t *testing.T) {
	t.Parallel()
	kills, seed := number(t, "FANOUT_KILLS", 8), number(t, "FANOUT_KILL_SEED", 1)
	moments := rand.New(rand.NewPCG(uint64(seed), 1))
	upstream := new(upstreamtest.Server)
	dir, program, addr := t.TempDir(), binary(t), freePort(t)
	args := []string{"serve", "--addr", addr, "--data", "data", "--upstream", upstream.Start(t), "--concurrency", "4"}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	client, err := batchapi.NewClient("http://"+addr, "")
	if err != nil {
		t.Fatal(err)
	}

	var all []acknowledged
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() { // ends by stop; joined by stopped
		for n := 0; ; n++ {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			a, err := submit(ctx, client, n)
			if err != nil {
				stopped <- err
				return
			}
			all = append(all, a)
		}
	}()
	for range kills {
		p := start(t, dir, program, args...)
		moment := time.NewTimer(time.Duration(moments.Int64N(int64(killWithin))))
		<-moment.C
		_ = p.Process.Kill()
		if code := p.exit(t); code >= 0 {
			t.Fatalf("seed %d: it ended by itself, with %d: %s", seed, code, p.stderr.String())
		}
	}
	p := start(t, dir, program, args...)
	close(stop)
	if err := <-stopped; err != nil {
		t.Fatalf("seed %d: %v\n%s", seed, err, p.stderr.String())
	}
	for n, a := range all {
		a.check(ctx, t, client, fmt.Sprintf("seed %d, batch %d of %d", seed, n, len(all)))
	}
	var listed []string
	for q := (batchapi.ListQuery{Limit: 100}); ; {
		l, err := client.Batches(ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range l.Data {
			listed = append([]string{b.ID}, listed...)
		}
		if !l.HasMore {
			break
		}
		q.After = *l.LastID
	}
	var made []string
	for _, a := range all {
		made = append(made, a.batch)
	}
	if diff := cmp.Diff(made, listed); diff != "" {
		t.Errorf("seed %d: what is listed is not what was acknowledged, once each (-acknowledged +listed):\n%s", seed, diff)
	}
	t.Logf("%d kills, %d batches acknowledged, %d items, %d calls", kills, len(all), items(all), upstream.Calls())
	_ = p.Process.Kill()
	p.exit(t)
}

func items(all []acknowledged) (n int) {
	for _, a := range all {
		n += len(a.lines)
	}
	return n
}

// check holds that the file is as it was brought, and that the batch ends with every answer, once, in input order.
func (a *acknowledged) check(ctx context.Context, t *testing.T, c *batchapi.Client, which string) {
	t.Helper()
	content := func(id string) string {
		t.Helper()
		r, err := c.FileContent(ctx, id, 0)
		if err != nil {
			t.Fatalf("%s: %v", which, err)
		}
		defer r.Close()
		got, err := io.ReadAll(r)
		if err != nil {
			t.Fatalf("%s: %v", which, err)
		}
		return string(got)
	}
	if diff := cmp.Diff(strings.Join(a.lines, "\n")+"\n", content(a.file)); diff != "" {
		t.Errorf("%s: its file (-want +got):\n%s", which, diff)
	}
	for tag := ""; ; {
		b, next, err := c.WaitBatch(ctx, a.batch, tag, 10*time.Second)
		if err != nil {
			t.Fatalf("%s: %v", which, err)
		}
		if tag = next; !b.Ended() {
			continue
		}
		if b.Status != "completed" || b.RequestCounts.Completed != int64(len(a.lines)) || b.RequestCounts.Failed != 0 {
			t.Errorf("%s: it ends as %s with %+v", which, b.Status, b.RequestCounts)
			return
		}
		dir := t.TempDir()
		write(t, filepath.Join(dir, "out.jsonl"), strings.TrimSuffix(content(*b.OutputFileID), "\n"))
		if diff := cmp.Diff(inputIDs(t, a.lines), ids(t, dir, "out.jsonl")); diff != "" {
			t.Errorf("%s: the output (-want +got):\n%s", which, diff)
		}
		return
	}
}
