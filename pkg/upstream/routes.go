package upstream

import (
	"context"
	"fmt"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Router is a table of routes that are open.
type Router struct {
	table jobs.Routes
	open  []jobs.Upstream // by route
	names []string        // of the upstreams, by route
}

// OpenRoutes opens the upstreams of a table, each once however many routes lead there. The table's last route is for all
// models (jobs.Routes.Else), and its keys are there (jobs.Routes.WithKeys).
func OpenRoutes(table jobs.Routes, open func(r jobs.Route) (jobs.Upstream, error)) (*Router, error) {
	r := &Router{table: table}
	opened := map[jobs.Route]jobs.Upstream{}
	for _, route := range table {
		to := route
		to.Models = ""
		if opened[to] == nil {
			u, err := open(to)
			switch {
			case err != nil && route.Models == jobs.AllModels: // who has no other route knows which
				return nil, err
			case err != nil:
				return nil, fmt.Errorf("open the upstream of %s: %w", route.Models, err)
			}
			opened[to] = u
		}
		r.open, r.names = append(r.open, opened[to]), append(r.names, Name(to.Target))
	}
	return r, nil
}

// Route is where a model is served: jobs.WorkerOptions.Route.
func (r *Router) Route(model string) (name string, u jobs.Upstream) {
	at := r.table.Of(model)
	return r.names[at], r.open[at]
}

// Served is a model, and the name of its upstream.
type Served struct{ Model, Upstream string }

// Models lists what the upstreams say that they serve, of each those that the table sends there. An upstream without a list
// adds nothing.
func (r *Router) Models(ctx context.Context) ([]Served, error) {
	var all []Served
	asked := map[jobs.Upstream]bool{}
	for at, u := range r.open {
		lister, ok := u.(Lister)
		if !ok || asked[u] {
			continue
		}
		asked[u] = true
		models, err := lister.Models(ctx)
		if err != nil {
			return nil, fmt.Errorf("list the models of %s: %w", r.names[at], err)
		}
		for _, model := range models {
			if name, to := r.Route(model); to == u {
				all = append(all, Served{model, name})
			}
		}
	}
	return all, nil
}
