package serve

import (
	"context"
	"sync"
	"time"

	"github.com/fanout-inference/fanout/pkg/batchapi"
	"github.com/fanout-inference/fanout/pkg/upstream"
)

// modelsFresh is how long a list of models is not asked for again.
const modelsFresh = time.Minute

// listModels lists the models that are served, asked for now and then.
func listModels(r *upstream.Router) func(ctx context.Context) ([]batchapi.Model, error) {
	var mu sync.Mutex
	var known []batchapi.Model
	var until time.Time
	return func(ctx context.Context) ([]batchapi.Model, error) {
		mu.Lock()
		defer mu.Unlock()
		if time.Now().Before(until) {
			return known, nil
		}
		served, err := r.Models(ctx)
		if err != nil {
			return nil, err
		}
		known, until = []batchapi.Model{}, time.Now().Add(modelsFresh)
		for _, one := range served {
			known = append(known, batchapi.Model{ID: one.Model, Object: "model", OwnedBy: one.Upstream})
		}
		return known, nil
	}
}
