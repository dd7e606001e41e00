package batchapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// RetryRequest is which failed requests of a batch to ask for again.
type RetryRequest struct {
	Codes  []string                   `json:"codes,omitempty"` // of their errors; none = all
	Set    map[string]json.RawMessage `json:"set,omitempty"`   // such as body.max_tokens → 512
	DryRun bool                       `json:"dry_run"`         // the API's default is true
}

// Retried is what is asked for again.
type Retried struct {
	Object   string           `json:"object"` // "fanout.retry"
	DryRun   bool             `json:"dry_run"`
	Requests int64            `json:"requests"`
	ByCode   map[string]int64 `json:"by_code"`
	Batch    *Batch           `json:"batch"` // the new one; null after a dry run
}

// retryFor is how long it may take to go through the failed requests: front doors give up soon after.
const retryFor = 25 * time.Second

// retryJob makes a batch of failed requests of another.
func (h *Handler) retryJob(w http.ResponseWriter, r *http.Request, c Caller) error {
	f, err := readFields(r, "codes", "set", "dry_run")
	if err != nil {
		return err
	}
	q := jobs.RetryQuery{Codes: f.words("codes", nil), Set: map[string]string{}, DryRun: f.boolOr("dry_run", true)}
	var set map[string]json.RawMessage
	if f.has("set") {
		f.into("set", &set)
	}
	if f.err != nil {
		return f.err
	}
	for path, value := range set {
		q.Set[path] = string(value)
	}
	j, err := h.anyJob(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	q.Job = j.ID
	ctx, cancel := context.WithTimeout(r.Context(), retryFor)
	defer cancel()
	done, err := h.inspector.Retry(ctx, q, c.who())
	switch code := jobs.CodeOf(err); {
	case err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return refuse(http.StatusBadRequest, "retry_too_large", "There are more failed requests than could be gone through in %s. Retry them by error code.", retryFor)
	case code == jobs.CodeConflict:
		passes, unknown := h.passes(r.Context(), err, &j)
		if unknown != nil {
			return unknown
		}
		status := http.StatusBadRequest
		if passes {
			status = http.StatusConflict
		}
		return refuse(status, "cannot_retry", "Cannot %s", withHint(err))
	case code == jobs.CodeInvalid, code == jobs.CodeLimit:
		return refuse(http.StatusBadRequest, "invalid_retry", "Cannot %s", withHint(err))
	case err != nil:
		return err
	}
	told := Retried{Object: "fanout.retry", DryRun: q.DryRun, Requests: done.Items, ByCode: done.ByCode}
	if !q.DryRun {
		b, err := h.wireBatch(r.Context(), &done.Job)
		if err != nil {
			return err
		}
		told.Batch = &b
	}
	writeJSON(w, http.StatusOK, told)
	return nil
}

// passes tells whether what stood in the way of a retry goes away by waiting: the job has not ended, or was not as it was read.
func (h *Handler) passes(ctx context.Context, err error, before *jobs.Job) (bool, error) {
	if errors.Is(err, jobs.ErrConflict) || !before.Phase.Ended() {
		return true, nil
	}
	now, unknown := h.ports.Ledger.Job(ctx, before.ID)
	if unknown != nil {
		return false, absent(unknown, "Batch", string(before.ID))
	}
	again := now.Outputs != nil && before.Outputs != nil && now.Outputs.Of != before.Outputs.Of
	return again || !now.Phase.Ended(), nil
}
