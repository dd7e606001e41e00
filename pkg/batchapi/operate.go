package batchapi

import (
	"context"
	"net/http"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Pages of the audit log.
const (
	auditPage    = 50
	maxAuditPage = 500
)

// anyJob finds a job of whatever tenant: what operators look at.
func (h *Handler) anyJob(ctx context.Context, id string) (jobs.Job, error) {
	if !plainID(id, "batch_") {
		return jobs.Job{}, notFound("Batch", id)
	}
	j, err := h.ports.Ledger.Job(ctx, jobs.JobID(id))
	return j, absent(err, "Batch", id)
}

// pauseJob holds a job of any tenant.
func (h *Handler) pauseJob(w http.ResponseWriter, r *http.Request, c Caller) error {
	f, err := readFields(r, "reason")
	if err != nil {
		return err
	}
	why := f.textOr("reason", "")
	switch {
	case f.err != nil:
		return f.err
	case len(why) > 500:
		return invalid("reason", "Invalid reason: it takes at most 500 bytes.")
	}
	j, err := h.anyJob(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	if j.Stopped() {
		return refuse(http.StatusBadRequest, "batch_has_ended", "Cannot pause a batch with status '%s'.", wireStatus(&j))
	}
	if j, err = h.inspector.Pause(r.Context(), j.ID, c.who(), why); err != nil {
		return err
	}
	return h.writeBatch(w, r, &j)
}

// resumeJob ends a pause, whoever set it.
func (h *Handler) resumeJob(w http.ResponseWriter, r *http.Request, c Caller) error {
	if _, err := readFields(r); err != nil {
		return err
	}
	j, err := h.anyJob(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	if j, err = h.inspector.Resume(r.Context(), j.ID, c.who()); err != nil {
		return err
	}
	return h.writeBatch(w, r, &j)
}

// cancelJob stops a job of any tenant.
func (h *Handler) cancelJob(w http.ResponseWriter, r *http.Request, c Caller) error {
	if _, err := readFields(r); err != nil {
		return err
	}
	j, err := h.anyJob(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return h.cancel(w, r, c, j, "cancelled by an operator")
}

// listTroubles groups the errors of a job of any tenant.
func (h *Handler) listTroubles(w http.ResponseWriter, r *http.Request, _ Caller) error {
	j, err := h.anyJob(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	all, err := h.inspector.Troubles(r.Context(), j.ID)
	if err != nil {
		return err
	}
	found := []Trouble{}
	for _, t := range all {
		one := Trouble{Object: "fanout.trouble", Code: t.Code, Message: t.Message, Status: nonzero(t.Status), Failed: t.Failed, Open: t.Open, Dead: t.Dead, Samples: []TroubleSample{}}
		for _, s := range t.Samples {
			one.Samples = append(one.Samples, TroubleSample{s.Line, s.CustomID})
		}
		found = append(found, one)
	}
	writeJSON(w, http.StatusOK, newList(found, len(found), func(t Trouble) string { return t.Code }))
	return nil
}

// listAudit lists what was done by hand, newest first.
func (h *Handler) listAudit(w http.ResponseWriter, r *http.Request, _ Caller) error {
	page, err := pageOf(r, auditPage, maxAuditPage)
	if err != nil {
		return err
	}
	all, err := jobs.AuditLog(r.Context(), h.ports.Registry, page.after, page.limit+1)
	if err != nil {
		return unknownCursor(err, page.after)
	}
	found := make([]AuditRecord, len(all))
	for i, a := range all {
		found[i] = AuditRecord{ID: a.ID, Object: "fanout.audit", At: a.At.Unix(), By: a.By, Action: a.What, Tenant: optional(a.Tenant), Of: optional(a.Of), Count: a.Count, Why: optional(a.Why)}
	}
	writeJSON(w, http.StatusOK, newList(found, page.limit, func(a AuditRecord) string { return a.ID }))
	return nil
}

// who is by whom something is done, in the audit log.
func (c Caller) who() string {
	if c.Key == "" {
		return "somebody on this machine"
	}
	return "key " + c.Key
}

// audit notes what was done to something that is not a job.
func (h *Handler) audit(ctx context.Context, c Caller, what, tenant, of string) error {
	return jobs.Audit(ctx, h.ports, jobs.AuditRecord{By: c.who(), What: what, Tenant: tenant, Of: of})
}
