package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fanout-inference/fanout/bench"
	"github.com/fanout-inference/fanout/pkg/batchapi"
)

// How the API is measured: while a job runs that outlasts the measurement.
const (
	apiItems = 200_000
	apiDelay = 50 * time.Millisecond // of an answer of the upstream
	apiRate  = 200                   // requests a second, of each side
	apiRound = 5 * time.Second
)

// apiRatios measures GET /v1/batches/{id} of fanout serve over a bare handler with the same bytes, by turns.
func apiRatios(ctx context.Context, dir string, rounds int) (figures []figure, err error) {
	for _, binary := range []string{"./cmd/fanout", "./bench/upstream", "./bench/barehandler"} {
		if err := build(ctx, dir, binary); err != nil {
			return nil, err
		}
	}
	upstream, err := startServer(ctx, filepath.Join(dir, "upstream"), "-delay", apiDelay.String())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, upstream.stop()) }()
	fanout, err := startServer(ctx, filepath.Join(dir, "fanout"), "serve", "--addr", "127.0.0.1:0", "--data", filepath.Join(dir, "api-data"), "--upstream", upstream.url)
	if err != nil {
		return nil, err
	}
	defer fanout.kill() // its job is not waited for
	client, err := batchapi.NewClient(fanout.url, "")
	if err != nil {
		return nil, err
	}
	batch, err := startJob(ctx, client, filepath.Join(dir, "api-input.jsonl"))
	if err != nil {
		return nil, err
	}
	full := fanout.url + "/batches/" + batch
	same := filepath.Join(dir, "batch.json")
	body, err := get(ctx, http.DefaultClient, full)
	if err == nil {
		err = os.WriteFile(same, body, 0o600)
	}
	if err != nil {
		return nil, err
	}
	bareHandler, err := startServer(ctx, filepath.Join(dir, "barehandler"), same)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, bareHandler.stop()) }()

	ratio := figure{Name: fmt.Sprintf("GET /v1/batches/{id} while a job runs, p50 at %d a second, over a bare handler", apiRate), Unit: "×", Budget: 2}
	for n := range rounds {
		sides, err := load(ctx, bareHandler.url, full)
		if err != nil {
			return nil, err
		}
		bare, ours := sides[0], sides[1]
		ratio.Samples = append(ratio.Samples, ours.at(50).Seconds()/bare.at(50).Seconds())
		log.Printf("round %d of %d: bare p50 %v, p99 %v; fanout p50 %v, p99 %v", n+1, rounds, bare.at(50), bare.at(99), ours.at(50), ours.at(99))
	}
	b, err := client.Batch(ctx, batch)
	if err == nil && b.Status != "in_progress" {
		err = fmt.Errorf("the job was %s before the measurement ended", b.Status)
	}
	return []figure{ratio}, err
}

// startJob makes a batch that runs, and returns its id.
func startJob(ctx context.Context, c *batchapi.Client, input string) (string, error) {
	if err := bench.WriteInput(input, apiItems); err != nil {
		return "", err
	}
	in, err := os.Open(input)
	if err != nil {
		return "", err
	}
	defer in.Close()
	f, err := c.CreateFile(ctx, "input.jsonl", "batch", in)
	if err != nil {
		return "", err
	}
	b, err := c.CreateBatch(ctx, batchapi.CreateBatchRequest{InputFileID: f.ID, Endpoint: "/v1/chat/completions", CompletionWindow: "24h"}, "")
	for tag := ""; err == nil && (b.Status == "validating" || b.RequestCounts.Completed == 0); {
		b, tag, err = c.WaitBatch(ctx, b.ID, tag, time.Minute)
	}
	return b.ID, err
}

func get(ctx context.Context, c *http.Client, url string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	out, err := c.Do(r)
	if err != nil {
		return nil, err
	}
	defer out.Body.Close()
	body, err := io.ReadAll(out.Body)
	if err == nil && out.StatusCode != http.StatusOK {
		err = fmt.Errorf("get %s: %s", url, out.Status)
	}
	return body, err
}

// latencies are those of one side.
type latencies []time.Duration

// at is a percentile.
func (l latencies) at(percent int) time.Duration {
	s := slices.Sorted(slices.Values(l))
	return s[min(len(s)-1, len(s)*percent/100)]
}

// load calls every URL at its rate for a round, by turns, whether or not the last call has been answered.
func load(ctx context.Context, urls ...string) ([]latencies, error) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	defer client.CloseIdleConnections()
	var mu sync.Mutex
	var failed error
	took := make([]latencies, len(urls))
	var calls sync.WaitGroup
	tick := time.NewTicker(time.Second / time.Duration(apiRate*len(urls)))
	defer tick.Stop()
	for n := range int(apiRound.Seconds()) * apiRate * len(urls) {
		<-tick.C
		side := n % len(urls)
		calls.Go(func() {
			began := time.Now()
			_, err := get(ctx, client, urls[side])
			d := time.Since(began)
			mu.Lock()
			defer mu.Unlock()
			took[side], failed = append(took[side], d), errors.Join(failed, err)
		})
	}
	calls.Wait()
	return took, failed
}
