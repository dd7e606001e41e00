package batchapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// A record of the registry chooses the id of a batch, and is put before the batch is made: so whoever repeats a create,
// after an answer that was lost or a crash anywhere, is led to the same batch.
const (
	kindIdempotent jobs.Kind = "idem"   // owner = tenant, id = hash of the Idempotency-Key
	kindCreate     jobs.Kind = "create" // owner = tenant, id = hash of the body; of creates without a key

	idempotentKept = 45 * 24 * time.Hour // as long as the records of a batch
	createKept     = 10 * time.Minute    // in which a retry that a client marks as one finds its first try
)

// idemRecord is a batch that is, or is about to be, made.
type idemRecord struct {
	V    int
	Job  jobs.JobID
	Body string    // hash of what was asked for
	At   time.Time // when it was first asked for
	// First tells that the first try has come, not only a retry of it: of creates without a key.
	First bool
}

func idempotencyKey(r *http.Request) (string, error) {
	key := r.Header.Get("Idempotency-Key")
	if len(key) > maxIdempotent {
		return "", invalid("", "Invalid Idempotency-Key: it takes at most %d characters.", maxIdempotent)
	}
	return key, nil
}

// chooseID is the id of the batch that a request makes, or has made.
func (h *Handler) chooseID(r *http.Request, c Caller, key string, body []byte) (jobs.JobID, error) {
	fresh := idemRecord{V: jobs.SchemaVersion, Job: jobs.JobID(newID(&h.ports, "batch_")), Body: hashKey(string(body)), At: h.ports.Now()}
	if key != "" {
		return h.chooseByKey(r, c, key, fresh)
	}
	again, _ := strconv.Atoi(r.Header.Get("X-Stainless-Retry-Count"))
	return h.chooseByBody(r, c, again > 0, fresh)
}

// chooseByKey leads everybody who sends the key to one batch.
func (h *Handler) chooseByKey(r *http.Request, c Caller, key string, fresh idemRecord) (jobs.JobID, error) {
	id := hashKey(key)
	for range saveTries {
		e, known, err := h.idem(r, kindIdempotent, c.Tenant, id)
		switch {
		case err != nil:
			return "", err
		case known.Job != "" && known.Body != fresh.Body:
			return "", refuse(http.StatusUnprocessableEntity, "idempotency_key_reused", "This Idempotency-Key was used for another request.")
		case known.Job != "":
			return known.Job, nil
		}
		err = h.saveIdem(r, e, fresh, fresh.At.Add(idempotentKept))
		if err == nil {
			return fresh.Job, nil
		}
		if !errors.Is(err, jobs.ErrConflict) {
			return "", err
		}
	}
	return "", fmt.Errorf("keep the Idempotency-Key: %w", jobs.ErrConflict)
}

// chooseByBody leads a retry to the batch of the same create, of the last minutes, and a first try that comes late to the
// batch that its retry has made. Any other create is another, even if it asks for the same.
func (h *Handler) chooseByBody(r *http.Request, c Caller, again bool, fresh idemRecord) (jobs.JobID, error) {
	fresh.First = !again
	for range saveTries {
		e, known, err := h.idem(r, kindCreate, c.Tenant, fresh.Body)
		if err != nil {
			return "", err
		}
		recent := known.Job != "" && fresh.At.Sub(known.At) < createKept
		if recent && again {
			return known.Job, nil
		}
		next := fresh
		if recent && !known.First {
			next = known
			next.First = true
		}
		err = h.saveIdem(r, e, next, fresh.At.Add(createKept))
		switch {
		case err == nil:
			return next.Job, nil
		case !errors.Is(err, jobs.ErrConflict):
			return "", err
		case !again && !(recent && !known.First):
			return fresh.Job, nil // another create of the same was noted, which serves a retry as well
		}
	}
	return "", fmt.Errorf("note a create: %w", jobs.ErrConflict)
}

// idem reads a record; an empty one, in an entry that can be saved, if there is none.
func (h *Handler) idem(r *http.Request, kind jobs.Kind, tenant, id string) (jobs.Entry, idemRecord, error) {
	var rec idemRecord
	e, err := h.ports.Registry.Entry(r.Context(), kind, tenant, id)
	switch {
	case errors.Is(err, jobs.ErrNotFound):
		return jobs.Entry{Kind: kind, Owner: tenant, ID: id}, rec, nil
	case err == nil:
		err = json.Unmarshal(e.Body, &rec)
	}
	if err != nil {
		return e, rec, fmt.Errorf("look for an earlier try: %w", err)
	}
	if !e.Expires.IsZero() && !h.ports.Now().Before(e.Expires) { // the store may keep it for longer
		rec = idemRecord{}
	}
	return e, rec, nil
}

func (h *Handler) saveIdem(r *http.Request, e jobs.Entry, rec idemRecord, expires time.Time) error {
	body, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	e.Body, e.Expires = body, expires
	return h.ports.Registry.SaveEntry(r.Context(), &e)
}
