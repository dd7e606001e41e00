package batchapi

import (
	"testing"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// TestWhatWasJustToldIsToldAgainUntilTheJobIsSaved: the ledger is not read again, and a change is never hidden.
func TestWhatWasJustToldIsToldAgainUntilTheJobIsSaved(t *testing.T) {
	a := newAPI(t, Options{Fresh: time.Hour})
	stranger := a.with(a.newKey("other", time.Time{}, Scopes...))
	a = a.with(a.newKey(someTenant, time.Time{}, Scopes...))
	b := a.create(a.upload(lines(1)).ID, "")
	first := a.get("/v1/batches/" + b.ID)
	j, err := a.ports.Ledger.Job(t.Context(), jobs.JobID(b.ID))
	if err == nil {
		j.Metadata = map[string]string{"seen": "no"} // behind the handler's back
		err = a.ports.Ledger.SaveJob(t.Context(), &j)
	}
	if err != nil {
		t.Fatal(err)
	}
	if again := a.get("/v1/batches/" + b.ID); string(again.body) != string(first.body) || again.header.Get("ETag") != first.header.Get("ETag") {
		t.Errorf("it was read again: %s", again.body)
	}
	if r := stranger.get("/v1/batches/" + b.ID); r.status != 404 {
		t.Errorf("a stranger: %d %s", r.status, r.body)
	}
	if r := a.call("POST", "/v1/batches/"+b.ID+"/cancel", nil); r.status != 200 {
		t.Fatalf("cancel: %d %s", r.status, r.body)
	}
	if now := as[Batch](t, a.get("/v1/batches/"+b.ID), "Batch"); now.Status == "validating" || now.Metadata["seen"] != "no" {
		t.Errorf("after it was cancelled it is told as %s, %v", now.Status, now.Metadata)
	}
}

func TestWhatWasReadBeforeASaveIsNotKept(t *testing.T) {
	h := &Handler{fresh: fresh{life: time.Hour}}
	now := time.Now()
	_, mark, _ := h.fresh.get("batch_a", now)
	h.JobSaved(jobs.Job{ID: "batch_a"})
	h.fresh.put("batch_a", seen{tag: "old"}, now, mark)
	if s, _, ok := h.fresh.get("batch_a", now); ok {
		t.Errorf("it is told as %+v", s)
	}
	_, mark, _ = h.fresh.get("batch_a", now)
	h.fresh.put("batch_a", seen{tag: "new"}, now, mark)
	if _, _, ok := h.fresh.get("batch_a", now.Add(2*time.Hour)); ok {
		t.Error("it is told though it is old")
	}
}
