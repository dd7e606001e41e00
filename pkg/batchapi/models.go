package batchapi

import (
	"context"
	"net/http"
)

func (h *Handler) models(r *http.Request) ([]Model, error) {
	if h.opt.Models == nil {
		return []Model{}, nil
	}
	return h.opt.Models(r.Context())
}

func (h *Handler) listModels(w http.ResponseWriter, r *http.Request, _ Caller) error {
	found, err := h.models(r)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, struct {
		Object string  `json:"object"`
		Data   []Model `json:"data"`
	}{"list", found})
	return nil
}

func (h *Handler) getModel(w http.ResponseWriter, r *http.Request, _ Caller) error {
	found, err := h.models(r)
	if err != nil {
		return err
	}
	id := r.PathValue("id")
	for _, m := range found {
		if m.ID == id {
			writeJSON(w, http.StatusOK, m)
			return nil
		}
	}
	return &failure{status: http.StatusNotFound, code: "model_not_found", param: "model", message: "The model '" + shorten(id) + "' does not exist."}
}

func shorten(s string) string {
	if r := []rune(s); len(r) > 80 {
		return string(r[:80]) + "…"
	}
	return s
}

// FixedModels lists the models of these names; nil = none are known.
func FixedModels(names []string) func(context.Context) ([]Model, error) {
	if len(names) == 0 {
		return nil
	}
	all := make([]Model, len(names))
	for i, name := range names {
		all[i] = Model{ID: name, Object: "model", OwnedBy: "fanout"}
	}
	return func(context.Context) ([]Model, error) { return all, nil }
}
