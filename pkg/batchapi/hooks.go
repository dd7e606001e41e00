package batchapi

import (
	"errors"
	"net/http"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Pages of deliveries.
const (
	deliveriesPage    = 20
	maxDeliveriesPage = 100
)

// tenantOf is whose webhooks an operator means: ?tenant=, else their own.
func tenantOf(r *http.Request, c Caller) (string, error) {
	tenant := r.URL.Query().Get("tenant")
	switch {
	case tenant == "":
		return c.Tenant, nil
	case !jobs.PlainTenant(tenant):
		return "", wrongTenant()
	default:
		return tenant, nil
	}
}

func wrongTenant() error {
	return invalid("tenant", "Invalid tenant: it takes 1 to 64 letters, digits, - and _.")
}

// createHook makes a webhook, whose secret is shown this once.
func (h *Handler) createHook(w http.ResponseWriter, r *http.Request, c Caller) error {
	f, err := readFields(r, "tenant", "url", "events")
	if err != nil {
		return err
	}
	hook := jobs.Hook{Tenant: f.textOr("tenant", c.Tenant), URL: f.text("url"), Events: f.words("events", nil)}
	switch {
	case f.err != nil:
		return f.err
	case !jobs.PlainTenant(hook.Tenant):
		return wrongTenant()
	case h.opt.Webhooks == nil:
		return refuse(http.StatusBadRequest, "webhooks_off", "This deployment sends no webhooks.")
	}
	hook, err = jobs.CreateHook(r.Context(), h.ports, hook, *h.opt.Webhooks)
	if jobs.CodeOf(err) == jobs.CodeLimit {
		return refuse(http.StatusBadRequest, "too_many_webhooks", "A tenant can have at most %d webhooks; delete one.", jobs.MaxHooks)
	}
	if err != nil {
		return err
	}
	if err := h.audit(r.Context(), c, "hook.create", hook.Tenant, hook.ID); err != nil {
		return err
	}
	h.opt.Log.InfoContext(r.Context(), "made a webhook", "hook", hook.ID, "tenant", hook.Tenant, "events", hook.Events, "by", c.Key)
	made := wireHook(&hook)
	secret := string(hook.Secret)
	made.Secret = &secret
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusOK, made)
	return nil
}

func (h *Handler) listHooks(w http.ResponseWriter, r *http.Request, c Caller) error {
	tenant, err := tenantOf(r, c)
	if err != nil {
		return err
	}
	found := []Hook{}
	for hook, err := range jobs.Hooks(r.Context(), h.ports.Registry, tenant) {
		if err != nil {
			return err
		}
		found = append(found, wireHook(&hook))
	}
	writeJSON(w, http.StatusOK, newList(found, len(found), func(h Hook) string { return h.ID }))
	return nil
}

func (h *Handler) deleteHook(w http.ResponseWriter, r *http.Request, c Caller) error {
	id := r.PathValue("id")
	tenant, err := tenantOf(r, c)
	if err != nil {
		return err
	}
	if !plainID(id, "hook_") {
		return notFound("Webhook", id)
	}
	if err := jobs.DropHook(r.Context(), h.ports, tenant, id); err != nil {
		return absent(err, "Webhook", id)
	}
	if err := h.audit(r.Context(), c, "hook.delete", tenant, id); err != nil {
		return err
	}
	h.opt.Log.InfoContext(r.Context(), "deleted a webhook", "hook", id, "tenant", tenant, "by", c.Key)
	writeJSON(w, http.StatusOK, Deleted{ID: id, Object: "fanout.hook", Deleted: true})
	return nil
}

// listDeliveries lists what was, or is to be, told to a tenant's webhooks, newest first.
func (h *Handler) listDeliveries(w http.ResponseWriter, r *http.Request, c Caller) error {
	tenant, err := tenantOf(r, c)
	if err != nil {
		return err
	}
	page, err := pageOf(r, deliveriesPage, maxDeliveriesPage)
	if err != nil {
		return err
	}
	all, err := jobs.Deliveries(r.Context(), h.ports.Registry, jobs.DeliveryQuery{Tenant: tenant, After: page.after, Limit: page.limit + 1})
	if err != nil {
		return unknownCursor(err, page.after)
	}
	found := make([]Delivery, len(all))
	for i := range all {
		found[i] = wireDelivery(&all[i])
	}
	writeJSON(w, http.StatusOK, newList(found, page.limit, func(d Delivery) string { return d.ID }))
	return nil
}

// replayDelivery sends a delivery again, whatever became of it.
func (h *Handler) replayDelivery(w http.ResponseWriter, r *http.Request, c Caller) error {
	id := r.PathValue("id")
	tenant, err := tenantOf(r, c)
	if err != nil {
		return err
	}
	if !plainID(id, "dlv_") {
		return notFound("Delivery", id)
	}
	d, err := jobs.Replay(r.Context(), h.ports, tenant, id)
	if code := jobs.CodeOf(err); code == jobs.CodeConflict && !errors.Is(err, jobs.ErrConflict) {
		return refuse(http.StatusBadRequest, "webhook_deleted", "The webhook that this delivery is for was deleted.")
	}
	if err != nil {
		return absent(err, "Delivery", id)
	}
	if err := h.audit(r.Context(), c, "delivery.replay", tenant, id); err != nil {
		return err
	}
	h.opt.Log.InfoContext(r.Context(), "replayed a delivery", "delivery", id, "tenant", tenant, "by", c.Key)
	writeJSON(w, http.StatusOK, wireDelivery(&d))
	return nil
}

func wireHook(h *jobs.Hook) Hook {
	events := h.Events
	if len(events) == 0 {
		events = jobs.EventTypes()
	}
	return Hook{ID: h.ID, Object: "fanout.hook", Tenant: h.Tenant, URL: h.URL, Events: events, CreatedAt: h.Created.Unix()}
}

func wireDelivery(d *jobs.Delivery) Delivery {
	w := Delivery{
		ID: d.ID, Object: "fanout.delivery", Tenant: d.Tenant, Hook: d.Hook, URL: d.URL, Event: d.Event, Type: d.Type,
		Batch: string(d.Job), Status: string(d.State), Reason: optional(d.Why), CreatedAt: d.Created.Unix(), Attempts: []DeliveryAttempt{},
	}
	if d.State == jobs.DeliveryPending {
		w.NextAttemptAt = unix(d.Next)
	}
	for _, a := range d.Attempts {
		w.Attempts = append(w.Attempts, DeliveryAttempt{Number: a.N, At: a.At.Unix(), Status: nonzero(a.Status), Error: optional(a.Error)})
	}
	return w
}

// nonzero is null for 0.
func nonzero(n int) *int {
	if n == 0 {
		return nil
	}
	return &n
}
