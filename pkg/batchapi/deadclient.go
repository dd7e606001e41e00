package batchapi

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
)

// DeadQuery is which dead chunks are listed.
type DeadQuery struct {
	DeadSelection        // Max is not used
	After         string // id of the last one of the page before
	Limit         int
}

// DeadChunks lists dead chunks of all tenants.
func (c *Client) DeadChunks(ctx context.Context, q DeadQuery) (l List[DeadChunk], err error) {
	v := url.Values{}
	for key, value := range map[string]string{"job": q.Job, "tenant": q.Tenant, "code": q.Code, "after": q.After} {
		if value != "" {
			v.Set(key, value)
		}
	}
	for key, n := range map[string]int64{"older_than": q.OlderThan, "limit": int64(q.Limit)} {
		if n > 0 {
			v.Set(key, strconv.FormatInt(n, 10))
		}
	}
	err = c.do(ctx, http.MethodGet, c.root()+"/fanout/v1/dead-letters?"+v.Encode(), nil, &l)
	return l, err
}

// DeadChunk shows one with its requests.
func (c *Client) DeadChunk(ctx context.Context, id string) (d DeadChunk, err error) {
	err = c.do(ctx, http.MethodGet, c.root()+"/fanout/v1/dead-letters/"+url.PathEscape(id), nil, &d)
	return d, err
}

// Redrive moves dead chunks back to work, or counts what would move. It goes on in another call where the answer has a Next.
func (c *Client) Redrive(ctx context.Context, q RedriveRequest) (done Redriven, err error) {
	err = c.act(ctx, q.DryRun, "redrive dead chunks", c.root()+"/fanout/v1/dead-letters/redrive", q, &done)
	return done, err
}

// act does something that must not be done twice, unless it is only counted.
func (c *Client) act(ctx context.Context, dryRun bool, what, at string, body, answer any) error {
	if dryRun {
		return c.do(ctx, http.MethodPost, at, body, answer)
	}
	return c.doSure(ctx, what, at, body, answer)
}

// Follow tells what became of chunks that were redriven, in their order.
func (c *Client) Follow(ctx context.Context, all []Followed) (FollowedStates, error) {
	told := FollowedStates{States: []string{}}
	for some := range slices.Chunk(all, MaxFollowed) {
		var s FollowedStates
		if err := c.do(ctx, http.MethodPost, c.root()+"/fanout/v1/dead-letters/follow", map[string]any{"chunks": some}, &s); err != nil {
			return told, err
		}
		told.States = append(told.States, s.States...)
	}
	return told, nil
}

// PurgeDead clears dead chunks out of the dead letters, or counts them.
func (c *Client) PurgeDead(ctx context.Context, s DeadSelection, dryRun bool) (done Purged, err error) {
	err = c.act(ctx, dryRun, "purge dead chunks", c.root()+"/fanout/v1/dead-letters/purge", struct {
		DeadSelection
		DryRun bool `json:"dry_run"`
	}{s, dryRun}, &done)
	return done, err
}

// FleetErrors groups the errors of all batches, commonest first.
func (c *Client) FleetErrors(ctx context.Context) (l List[FleetTrouble], err error) {
	err = c.do(ctx, http.MethodGet, c.root()+"/fanout/v1/errors", nil, &l)
	return l, err
}

// Queues tells what the queues hold.
func (c *Client) Queues(ctx context.Context) (l List[QueueState], err error) {
	err = c.do(ctx, http.MethodGet, c.root()+"/fanout/v1/queues", nil, &l)
	return l, err
}

// Letters looks at the dead letters of a queue as they are.
func (c *Client) Letters(ctx context.Context, queue string, limit int) (l List[DeadLetter], err error) {
	err = c.do(ctx, http.MethodGet, c.queue(queue)+"/letters"+ListQuery{Limit: limit}.encode(), nil, &l)
	return l, err
}

// PurgeLetters removes letters of a queue as they are, or counts them.
func (c *Client) PurgeLetters(ctx context.Context, queue string, onlyStale, dryRun bool) (done Purged, err error) {
	err = c.act(ctx, dryRun, "purge the dead letters of queue "+queue, c.queue(queue)+"/purge", map[string]bool{"only_stale": onlyStale, "dry_run": dryRun}, &done)
	return done, err
}

// MoveLetters begins to move all dead letters of a queue back into it, at most so many a second; 0 = at its own pace.
func (c *Client) MoveLetters(ctx context.Context, queue string, rate int) (s QueueState, err error) {
	q := map[string]int{}
	if rate != 0 {
		q["rate"] = rate
	}
	err = c.doSure(ctx, "move the dead letters of queue "+queue, c.queue(queue)+"/move", q, &s)
	return s, err
}

// StopMove ends the move that is under way.
func (c *Client) StopMove(ctx context.Context, queue string) (s QueueState, err error) {
	err = c.do(ctx, http.MethodDelete, c.queue(queue)+"/move", nil, &s)
	return s, err
}

func (c *Client) queue(name string) string {
	return c.root() + "/fanout/v1/queues/" + url.PathEscape(name)
}

// RetryJob makes a batch of failed requests of another, or counts them.
func (c *Client) RetryJob(ctx context.Context, id string, q RetryRequest) (done Retried, err error) {
	err = c.act(ctx, q.DryRun, "retry job "+id, c.root()+"/fanout/v1/jobs/"+url.PathEscape(id)+"/retry", q, &done)
	return done, err
}

// Upstreams lists what is known of upstreams.
func (c *Client) Upstreams(ctx context.Context) (l List[Upstream], err error) {
	err = c.do(ctx, http.MethodGet, c.root()+"/fanout/v1/upstreams", nil, &l)
	return l, err
}

// PauseUpstream holds a model of an upstream, for all batches.
func (c *Client) PauseUpstream(ctx context.Context, upstream, model, reason string) (u Upstream, err error) {
	err = c.do(ctx, http.MethodPost, c.root()+"/fanout/v1/upstreams/pause", map[string]string{"upstream": upstream, "model": model, "reason": reason}, &u)
	return u, err
}

// ResumeUpstream ends that, whoever held it.
func (c *Client) ResumeUpstream(ctx context.Context, upstream, model string) (u Upstream, err error) {
	err = c.do(ctx, http.MethodPost, c.root()+"/fanout/v1/upstreams/resume", map[string]string{"upstream": upstream, "model": model}, &u)
	return u, err
}

// Limits are what a tenant may.
func (c *Client) Limits(ctx context.Context, tenant string) (l Limits, err error) {
	err = c.do(ctx, http.MethodGet, c.root()+"/fanout/v1/tenants/"+url.PathEscape(tenant)+"/limits", nil, &l)
	return l, err
}

// SetLimits says what a tenant may from now on; 0 = as much as it likes.
func (c *Client) SetLimits(ctx context.Context, tenant string, maxCostUSD float64, openRequests int64) (l Limits, err error) {
	err = c.do(ctx, http.MethodPut, c.root()+"/fanout/v1/tenants/"+url.PathEscape(tenant)+"/limits", map[string]any{"max_cost_usd": maxCostUSD, "open_requests": openRequests}, &l)
	return l, err
}

// Jobs lists jobs of all tenants that run, or have ended within the hour; those of one tenant, all of them.
func (c *Client) Jobs(ctx context.Context, tenant string, q ListQuery) (l List[Batch], err error) {
	q.tenant = tenant
	err = c.do(ctx, http.MethodGet, c.root()+"/fanout/v1/jobs"+q.encode(), nil, &l)
	return l, err
}
