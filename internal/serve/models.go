package serve

import (
	"context"
	"sync"
	"time"

	"github.com/fanout-inference/fanout/pkg/batchapi"
	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/upstream"
)

// modelsFresh is how long a list of models is not asked for again.
const modelsFresh = time.Minute

// listModels lists the models of an upstream, asked now and then. nil = it has no list.
func listModels(u jobs.Upstream, owner string) func(ctx context.Context) ([]batchapi.Model, error) {
	lister, ok := u.(upstream.Lister)
	if !ok {
		return nil
	}
	var mu sync.Mutex
	var known []batchapi.Model
	var until time.Time
	return func(ctx context.Context) ([]batchapi.Model, error) {
		mu.Lock()
		defer mu.Unlock()
		if time.Now().Before(until) {
			return known, nil
		}
		names, err := lister.Models(ctx)
		if err != nil {
			return nil, err
		}
		known, until = []batchapi.Model{}, time.Now().Add(modelsFresh)
		for _, name := range names {
			known = append(known, batchapi.Model{ID: name, Object: "model", OwnedBy: owner})
		}
		return known, nil
	}
}
