package batchapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// seen is a batch as somebody was told of it.
type seen struct {
	tenant string
	ended  bool
	body   []byte
	tag    string // its ETag
}

// see is a batch of the caller's as it is, or as it was a moment ago (Options.Fresh).
func (h *Handler) see(ctx context.Context, c Caller, id string) (seen, error) {
	known, mark, ok := h.fresh.get(id, h.ports.Now())
	if ok && known.tenant == c.Tenant {
		return known, nil
	}
	j, err := h.job(ctx, c, id)
	if err != nil {
		return seen{}, err
	}
	b, err := h.wireBatch(ctx, &j)
	if err != nil {
		return seen{}, err
	}
	body, err := json.Marshal(b)
	if err != nil {
		return seen{}, err
	}
	now := seen{c.Tenant, b.Ended(), body, `"` + hashKey(string(body))[:24] + `"`}
	h.fresh.put(id, now, h.ports.Now(), mark)
	return now, nil
}

// getBatch reads a batch. With ?wait= it answers when something has changed since the request came (or, with If-None-Match,
// since that answer), when the batch has ended, or when the time is over.
func (h *Handler) getBatch(w http.ResponseWriter, r *http.Request, c Caller) error {
	wait, err := h.waitOf(r)
	if err != nil {
		return err
	}
	now, err := h.see(r.Context(), c, r.PathValue("id"))
	if err != nil {
		return err
	}
	if known := r.Header.Get("If-None-Match"); wait > 0 && !now.ended && (known == "" || known == now.tag) {
		if now, err = h.changed(r.Context(), c, r.PathValue("id"), now, wait); err != nil {
			return err
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("ETag", now.tag)
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(append(now.body, '\n')) // a client that has gone needs no answer
	return nil
}

// waitOf is how long a request may wait: a duration such as 25s, cut to the longest that is allowed.
func (h *Handler) waitOf(r *http.Request) (time.Duration, error) {
	s := r.URL.Query().Get("wait")
	if s == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, invalid("wait", "Invalid 'wait': %.20q is no duration such as 25s.", s)
	}
	return min(d, h.opt.MaxWait), nil
}

// changed waits until a batch is not as it was, for so long at most. The server that ends ends the wait.
func (h *Handler) changed(ctx context.Context, c Caller, id string, was seen, wait time.Duration) (seen, error) {
	done, err := h.hold()
	if err != nil {
		return was, err
	}
	defer done()
	over := time.NewTimer(wait)
	defer over.Stop()
	look := time.NewTicker(h.opt.PollEvery)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return was, ctx.Err()
		case <-h.opt.Ending:
			return was, nil
		case <-over.C:
			return was, nil
		case <-look.C:
			now, err := h.see(ctx, c, id)
			if err != nil || !bytes.Equal(now.body, was.body) {
				return now, err
			}
		}
	}
}

// hold takes a place among those who wait.
func (h *Handler) hold() (release func(), err error) {
	select {
	case h.waits <- struct{}{}:
		return func() { <-h.waits }, nil
	default:
		return nil, &failure{status: http.StatusTooManyRequests, code: "too_many_waiting", after: 10 * time.Second, message: "Too many requests are waiting for batches to change."}
	}
}

// keepAlive is how often a silent stream says that it is still there.
const keepAlive = 15 * time.Second

// watchBatch streams a batch as server-sent events: one for the batch as it is, and one for each change until it has ended.
func (h *Handler) watchBatch(w http.ResponseWriter, r *http.Request, c Caller) error {
	if !h.opt.Streams {
		return refuse(http.StatusBadRequest, "streaming_unavailable", "This front door does not stream. Poll GET /v1/batches/{id}?wait=25s instead.")
	}
	now, err := h.see(r.Context(), c, r.PathValue("id"))
	if err != nil {
		return err
	}
	done, err := h.hold()
	if err != nil {
		return err
	}
	defer done()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	control := http.NewResponseController(w)
	send := func(format string, args ...any) error {
		if _, err := fmt.Fprintf(w, format, args...); err != nil {
			return err
		}
		if err := control.Flush(); !errors.Is(err, http.ErrNotSupported) {
			return err
		}
		return nil // a front door without buffers has nothing to flush
	}
	if err := send("event: batch\ndata: %s\n\n", now.body); err != nil {
		return err
	}
	look, alive := time.NewTicker(h.opt.PollEvery), time.NewTicker(keepAlive)
	defer look.Stop()
	defer alive.Stop()
	for !now.ended {
		select {
		case <-r.Context().Done():
			return nil
		case <-h.opt.Ending:
			return nil
		case <-alive.C:
			if err := send(": still here\n\n"); err != nil {
				return err
			}
		case <-look.C:
			next, err := h.see(r.Context(), c, r.PathValue("id"))
			if err != nil {
				return err
			}
			if bytes.Equal(next.body, now.body) {
				continue
			}
			now = next
			if err := send("event: batch\ndata: %s\n\n", now.body); err != nil {
				return err
			}
		}
	}
	return nil
}
