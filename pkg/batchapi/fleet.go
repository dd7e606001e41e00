package batchapi

import (
	"cmp"
	"context"
	"net/http"
	"slices"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// listJobs lists jobs of all tenants that run, or have ended within the hour, newest first; with ?tenant= all of one.
func (h *Handler) listJobs(w http.ResponseWriter, r *http.Request, c Caller) error {
	if tenant := r.URL.Query().Get("tenant"); tenant != "" {
		if !jobs.PlainTenant(tenant) {
			return wrongTenant()
		}
		c.Tenant = tenant
		return h.listBatches(w, r, c)
	}
	page, err := pageOf(r, batchesPage, maxBatchesPage)
	if err != nil {
		return err
	}
	all, err := h.openJobs(r.Context(), page.after)
	if err != nil {
		return err
	}
	found := []Batch{}
	for _, j := range all[:min(len(all), page.limit+1)] {
		b, err := h.listedBatch(r.Context(), &j)
		if err != nil {
			return err
		}
		found = append(found, b)
	}
	writeJSON(w, http.StatusOK, newList(found, page.limit, func(b Batch) string { return b.ID }))
	return nil
}

// openJobs are the jobs of all tenants that the sweep still visits, newest first, that follow one. That one may have left them
// since: its record says where it was.
func (h *Handler) openJobs(ctx context.Context, after string) ([]jobs.Job, error) {
	newestFirst := func(a, b *jobs.Job) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(b.ID, a.ID))
	}
	var last *jobs.Job
	if after != "" {
		if !plainID(after, "batch_") {
			return nil, unknownCursor(jobs.ErrNotFound, after)
		}
		j, err := h.ports.Ledger.Job(ctx, jobs.JobID(after))
		if err != nil {
			return nil, unknownCursor(err, after)
		}
		last = &j
	}
	var all []jobs.Job
	for j, err := range h.ports.Ledger.Jobs(ctx, jobs.JobQuery{Open: true}) {
		if err != nil {
			return nil, err
		}
		if last == nil || newestFirst(last, &j) < 0 {
			all = append(all, j)
		}
	}
	slices.SortFunc(all, func(a, b jobs.Job) int { return newestFirst(&a, &b) })
	return all, nil
}

// getJob shows a job of any tenant, or waits for it as getBatch does.
func (h *Handler) getJob(w http.ResponseWriter, r *http.Request, c Caller) error {
	j, err := h.anyJob(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	c.Tenant = j.Tenant
	return h.getBatch(w, r, c)
}

// readJobResults reads results of a job of any tenant.
func (h *Handler) readJobResults(w http.ResponseWriter, r *http.Request, c Caller) error {
	j, err := h.anyJob(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	c.Tenant = j.Tenant
	return h.readResults(w, r, c)
}

// Upstream is what is known of a model of an upstream.
type Upstream struct {
	Object       string      `json:"object"` // "fanout.upstream"
	Upstream     string      `json:"upstream"`
	Model        string      `json:"model"`
	Pause        *BatchPause `json:"pause"`
	Width        *int        `json:"width"`         // limit of calls in flight of a process; null = at its ceiling
	InFlight     *int        `json:"in_flight"`     // calls of the process that told last; null = nobody told
	SeenAt       *int64      `json:"seen_at"`       // when that was; null = never
	FailingSince *int64      `json:"failing_since"` // the first failure that nobody's answer has followed
	Why          *string     `json:"why"`
}

func wireUpstream(u *jobs.UpstreamState) Upstream {
	s := Upstream{Object: "fanout.upstream", Upstream: u.ID.Upstream, Model: u.ID.Model, Width: nonzero(u.Width), FailingSince: unix(u.FailingSince), Why: optional(u.Why)}
	if !u.ToldAt.IsZero() {
		s.InFlight, s.SeenAt = &u.InFlight, unix(u.ToldAt)
	}
	if p := u.Pause; p != nil {
		s.Pause = &BatchPause{Reason: p.Reason, Message: p.Message, At: p.At.Unix()}
	}
	return s
}

func (h *Handler) listUpstreams(w http.ResponseWriter, r *http.Request, _ Caller) error {
	all, err := h.inspector.Upstreams(r.Context())
	if err != nil {
		return err
	}
	found := []Upstream{}
	for _, u := range all {
		found = append(found, wireUpstream(&u))
	}
	writeJSON(w, http.StatusOK, newList(found, len(found), func(u Upstream) string { return u.Upstream + "/" + u.Model }))
	return nil
}

func (h *Handler) pauseUpstream(w http.ResponseWriter, r *http.Request, c Caller) error {
	return h.changeUpstream(w, r, func(id jobs.GateID, why string) (jobs.UpstreamState, error) {
		return h.inspector.PauseUpstream(r.Context(), id, c.who(), why)
	})
}

func (h *Handler) resumeUpstream(w http.ResponseWriter, r *http.Request, c Caller) error {
	return h.changeUpstream(w, r, func(id jobs.GateID, _ string) (jobs.UpstreamState, error) {
		return h.inspector.ResumeUpstream(r.Context(), id, c.who())
	})
}

func (h *Handler) changeUpstream(w http.ResponseWriter, r *http.Request, change func(id jobs.GateID, why string) (jobs.UpstreamState, error)) error {
	f, err := readFields(r, "upstream", "model", "reason")
	if err != nil {
		return err
	}
	id, why := jobs.GateID{Upstream: f.text("upstream"), Model: f.text("model")}, f.textOr("reason", "")
	switch {
	case f.err != nil:
		return f.err
	case len(id.Upstream) > 200 || len(id.Model) > 200 || id.Upstream == "" || id.Model == "":
		return invalid("model", "Invalid 'upstream' or 'model': each takes 1 to 200 bytes.")
	case len(why) > 500:
		return invalid("reason", "Invalid reason: it takes at most 500 bytes.")
	}
	s, err := change(id, why)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, wireUpstream(&s))
	return nil
}

// Limits are what a tenant may; 0 = as much as it likes.
type Limits struct {
	Object       string  `json:"object"` // "fanout.limits"
	Tenant       string  `json:"tenant"`
	MaxCostUSD   float64 `json:"max_cost_usd"`  // of its batches of a calendar month (UTC): then they pause
	OpenRequests int64   `json:"open_requests"` // without an outcome: then no other batch is taken
}

func (h *Handler) getLimits(w http.ResponseWriter, r *http.Request, _ Caller) error {
	tenant := r.PathValue("tenant")
	if !jobs.PlainTenant(tenant) {
		return wrongTenant()
	}
	l, err := jobs.LimitsOf(r.Context(), h.ports.Registry, tenant)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, Limits{"fanout.limits", l.Tenant, l.MaxCost.USD(), l.OpenItems})
	return nil
}

func (h *Handler) setLimits(w http.ResponseWriter, r *http.Request, c Caller) error {
	f, err := readFields(r, "max_cost_usd", "open_requests")
	if err != nil {
		return err
	}
	// Both must be there: one that was forgotten would lift a limit that nobody meant to lift.
	cost := f.number("max_cost_usd", 0, 1e9)
	l := jobs.Limits{Tenant: r.PathValue("tenant"), MaxCost: jobs.USD(cost), OpenItems: f.integerFrom("open_requests", 0, 1e12)}
	switch {
	case f.err != nil:
		return f.err
	case cost > 0 && l.MaxCost == 0:
		return invalid("max_cost_usd", "Invalid value for 'max_cost_usd': it must be 0, or a billionth of a US dollar or more.")
	case !jobs.PlainTenant(l.Tenant):
		return wrongTenant()
	case l.MaxCost > 0 && !h.opt.Priced:
		return noPrices("max_cost_usd")
	}
	if err := h.inspector.SetLimits(r.Context(), l, c.who()); err != nil {
		return err
	}
	return h.getLimits(w, r, c)
}

// noPrices refuses a limit that would never be met.
func noPrices(param string) error {
	return invalid(param, "Invalid '%s': this deployment has no prices of tokens, so it would never be met.", param)
}

// FleetTrouble is the errors of all batches that are alike.
type FleetTrouble struct {
	Object   string   `json:"object"` // "fanout.fleet_trouble"
	Code     string   `json:"code"`
	Message  string   `json:"message"`
	Requests int64    `json:"requests"`
	Batches  int      `json:"batches"`
	Samples  []string `json:"samples"` // some of these
}

// listFleetTroubles groups the errors of all jobs.
func (h *Handler) listFleetTroubles(w http.ResponseWriter, r *http.Request, _ Caller) error {
	all, err := h.inspector.FleetTroubles(r.Context())
	if err != nil {
		return err
	}
	found := []FleetTrouble{}
	for _, t := range all {
		one := FleetTrouble{Object: "fanout.fleet_trouble", Code: t.Code, Message: t.Message, Requests: t.Items, Batches: t.Jobs, Samples: []string{}}
		for _, id := range t.Samples {
			one.Samples = append(one.Samples, string(id))
		}
		found = append(found, one)
	}
	writeJSON(w, http.StatusOK, newList(found, len(found), func(t FleetTrouble) string { return t.Code }))
	return nil
}
