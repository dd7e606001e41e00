package batchapi

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// wireBatch is a job as the wire has it.
func (h *Handler) wireBatch(ctx context.Context, j *jobs.Job) (Batch, error) {
	b := Batch{
		ID: string(j.ID), Object: "batch", Endpoint: j.Endpoint, InputFileID: j.InputFile(), CompletionWindow: windowText(j.Window),
		Status: wireStatus(j), CreatedAt: j.Created.Unix(), ExpiresAt: unix(j.Deadline), Metadata: j.Metadata,
		Fanout: BatchFanout{Errors: []BatchErrorCount{}, History: []BatchPoint{}, Children: []string{}, Tenant: j.Tenant},
	}
	var totals jobs.Totals
	switch {
	case j.Checked == nil:
	case j.Phase == jobs.PhaseFailed:
		totals = jobs.Totals{Items: j.Checked.Items}
	case j.Phase.Ended() && j.Outputs != nil:
		totals = j.Outputs.Totals
	default:
		var err error
		if totals, err = jobs.Folded(ctx, h.ports.Ledger, j); err != nil {
			return b, err
		}
		totals.Items = j.Checked.Items
	}
	b.count(totals)
	if j.Checked != nil {
		b.Model = optional(j.Checked.Model)
	}
	b.date(j)
	b.tell(j, totals)
	if j.Phase.Ended() && j.Outputs != nil {
		b.OutputFileID, b.ErrorFileID = fileID(j.Outputs.Answers), fileID(j.Outputs.Errors)
	}
	if p := j.Pause; p != nil {
		b.Fanout.Pause = &BatchPause{Reason: p.Reason, Message: p.Message, At: p.At.Unix()}
	}
	if s := j.Stop; s != nil {
		b.Fanout.Stop = &BatchStop{Code: s.Code, Reason: s.Reason, At: s.At.Unix()}
	}
	if j.Phase == jobs.PhaseFailed {
		errs, err := h.batchErrors(ctx, j)
		if err != nil {
			return b, err
		}
		b.Errors = errs
	}
	return b, nil
}

func fileID(f *jobs.FileInfo) *string {
	if f == nil {
		return nil
	}
	return optional(f.FileID())
}

// wireStatus is the status of a job. One that is being cancelled says so, however far it is.
func wireStatus(j *jobs.Job) string {
	if j.Stop != nil && j.Stop.As == jobs.PhaseCancelled && !j.Phase.Ended() {
		return "cancelling"
	}
	return string(j.Phase)
}

// date sets when the batch entered each status that it has been through on its way to the one it has.
func (b *Batch) date(j *jobs.Job) {
	entered := func(p jobs.Phase) *int64 { return unix(j.Entered[p]) }
	b.InProgressAt = entered(jobs.PhaseInProgress)
	switch {
	case j.Stop != nil && j.Stop.As == jobs.PhaseCancelled:
		b.CancellingAt = unix(j.Stop.At)
	case j.Phase != jobs.PhaseFailed && j.Phase != jobs.PhaseInProgress:
		b.FinalizingAt = entered(jobs.PhaseFinalizing)
	}
	switch j.Phase {
	case jobs.PhaseCompleted:
		b.CompletedAt = entered(j.Phase)
	case jobs.PhaseFailed:
		b.FailedAt = entered(j.Phase)
	case jobs.PhaseExpired:
		b.ExpiredAt = entered(j.Phase)
	case jobs.PhaseCancelled:
		b.CancelledAt = entered(j.Phase)
	}
}

func (b *Batch) count(t jobs.Totals) {
	b.RequestCounts = RequestCounts{Total: t.Items, Completed: t.Answered, Failed: t.Failed}
	b.Usage = BatchUsage{
		InputTokens: t.Usage.Input, InputTokensDetails: InputDetails{t.Usage.Cached},
		OutputTokens: t.Usage.Output, OutputTokensDetails: OutputDetails{t.Usage.Reasoning}, TotalTokens: t.Usage.Total,
	}
	b.Fanout.Dead, b.Fanout.Parked = t.Dead, t.Parked
	for _, e := range t.Errors {
		b.Fanout.Errors = append(b.Fanout.Errors, BatchErrorCount{Code: e.Code, Message: e.Message, Count: e.Count})
	}
}

// batchErrors is why a job failed: the lines that break the rules, or the one reason that stopped it.
func (h *Handler) batchErrors(ctx context.Context, j *jobs.Job) (*BatchErrors, error) {
	list := &BatchErrors{Object: "list", Data: []BatchError{}}
	kept, _, err := jobs.Violations(ctx, h.ports.Files, j)
	if err != nil && !errors.Is(err, jobs.ErrNotFound) { // its time is over: the reason is left
		return nil, err
	}
	for _, v := range kept {
		list.Data = append(list.Data, wireViolation(v))
	}
	if len(kept) == 0 && j.Stop != nil {
		list.Data = append(list.Data, BatchError{Code: j.Stop.Code, Message: j.Stop.Reason})
	}
	return list, nil
}

func wireViolation(v jobs.Violation) BatchError {
	e := BatchError{Code: v.Code, Message: v.Message, Param: optional(v.Param)}
	if v.Line > 0 {
		e.Line = &v.Line
	}
	return e
}

// windowText is a window as people write it: 24h, not 24h0m0s.
func windowText(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// job finds a job of the caller's. Unknown and foreign are the same.
func (h *Handler) job(ctx context.Context, c Caller, id string) (jobs.Job, error) {
	if !plainID(id, "batch_") {
		return jobs.Job{}, notFound("Batch", id)
	}
	j, err := h.ports.Ledger.Job(ctx, jobs.JobID(id))
	if err != nil {
		return j, absent(err, "Batch", id)
	}
	if j.Tenant != c.Tenant {
		return jobs.Job{}, notFound("Batch", id)
	}
	return j, nil
}

func (h *Handler) writeBatch(w http.ResponseWriter, r *http.Request, j *jobs.Job) error {
	b, err := h.wireBatch(r.Context(), j)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, b)
	return nil
}

const (
	maxBatchesPage = 100
	batchesPage    = 20
	listedErrors   = 20 // of a batch that failed: a hundred with all of theirs are more than front doors let pass
)

// listedBatch is a job as lists have it: with the first of its errors only.
func (h *Handler) listedBatch(ctx context.Context, j *jobs.Job) (Batch, error) {
	b, err := h.wireBatch(ctx, j)
	if b.Errors != nil {
		b.Errors.Data = b.Errors.Data[:min(len(b.Errors.Data), listedErrors)]
	}
	return b, err
}

func (h *Handler) listBatches(w http.ResponseWriter, r *http.Request, c Caller) error {
	page, err := pageOf(r, batchesPage, maxBatchesPage)
	if err != nil {
		return err
	}
	found := []Batch{}
	for j, err := range h.ports.Ledger.Jobs(r.Context(), jobs.JobQuery{Tenant: c.Tenant, After: jobs.JobID(page.after), Limit: page.limit + 1}) {
		if err != nil {
			return unknownCursor(err, page.after)
		}
		if len(found) == page.limit { // only that there is one more counts
			found = append(found, Batch{})
			break
		}
		b, err := h.listedBatch(r.Context(), &j)
		if err != nil {
			return err
		}
		found = append(found, b)
	}
	writeJSON(w, http.StatusOK, newList(found, page.limit, func(b Batch) string { return b.ID }))
	return nil
}

// cancelBatch stops a batch: what is in flight is finished, what was answered is published.
func (h *Handler) cancelBatch(w http.ResponseWriter, r *http.Request, c Caller) error {
	j, err := h.job(r.Context(), c, r.PathValue("id"))
	if err != nil {
		return err
	}
	return h.cancel(w, r, c, j, "cancelled by its owner")
}

// cancel stops a job.
func (h *Handler) cancel(w http.ResponseWriter, r *http.Request, c Caller, j jobs.Job, why string) (err error) {
	if j.Phase.Ended() && j.Phase != jobs.PhaseCancelled {
		return refuse(http.StatusBadRequest, "batch_has_ended", "Cannot cancel a batch with status '%s'.", j.Phase)
	}
	stopped := j.Stopped()
	if j, err = jobs.CancelJob(r.Context(), h.ports, j.ID, why); err != nil {
		return err
	}
	if !stopped && j.Stop != nil && j.Stop.As == jobs.PhaseCancelled {
		if err := h.audit(r.Context(), c, "job.cancel", j.Tenant, string(j.ID)); err != nil {
			return err
		}
	}
	return h.writeBatch(w, r, &j)
}

// tell says what a batch has cost, how long its answers took, and how it came here.
func (b *Batch) tell(j *jobs.Job, t jobs.Totals) {
	if t.Cost > 0 {
		cost := t.Cost.USD()
		b.Fanout.CostUSD = &cost
	}
	if j.MaxCost > 0 {
		most := j.MaxCost.USD()
		b.Fanout.MaxCostUSD = &most
	}
	if t.Answered > 0 && len(t.Latencies) > 0 {
		b.Fanout.Latency = &Latency{t.Latencies.Quantile(0.5).Seconds(), t.Latencies.Quantile(0.9).Seconds(), t.Latencies.Quantile(0.99).Seconds()}
	}
	b.Fanout.Parent = optional(string(j.Parent))
	for _, c := range slices.Backward(j.Children) {
		b.Fanout.Children = append(b.Fanout.Children, string(c.ID))
	}
	for _, p := range j.History {
		b.Fanout.History = append(b.Fanout.History, BatchPoint{p.At.Unix(), p.Answered, p.Failed})
	}
}
