package batchapi

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// endpoints are those that a batch may be for.
var endpoints = []string{
	"/v1/responses", "/v1/chat/completions", "/v1/embeddings", "/v1/completions", "/v1/moderations",
	"/v1/images/generations", "/v1/images/edits", "/v1/videos",
}

// Limits of what is asked for.
const (
	minWindow     = time.Minute
	maxWindow     = 14 * 24 * time.Hour // records and objects are kept for a time that rests on this
	maxPairs      = 16
	maxPairKey    = 64  // characters
	maxPairValue  = 512 // characters
	maxIdempotent = 255 // characters of an Idempotency-Key
)

// asked is what a client wants made.
type asked struct {
	body  []byte // as it was sent
	input string // id of the file
	job   jobs.Job
}

// readAsked reads the body of POST /v1/batches, and refuses what no batch can be. What is in the file is not looked at: a
// batch whose file is wrong is made, and fails.
func readAsked(r *http.Request) (asked, error) {
	var a asked
	f, err := readFields(r, "input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after")
	if err != nil {
		return a, err
	}
	a.body = f.raw
	a.input = f.text("input_file_id")
	a.job.Endpoint = f.text("endpoint")
	window := f.text("completion_window")
	metadata := f.pairs("metadata")
	a.job.KeepOutput = f.expiresAfter("output_expires_after")
	if f.err != nil {
		return a, f.err
	}
	if !slices.Contains(endpoints, a.job.Endpoint) {
		return a, invalid("endpoint", "Invalid value: '%.80s'. Supported values are: %s.", a.job.Endpoint, quoted(endpoints))
	}
	a.job.Window, err = time.ParseDuration(window)
	if err != nil || a.job.Window < minWindow || a.job.Window > maxWindow {
		return a, invalid("completion_window", "Invalid value: '%.40s'. Supported values are '24h' and every duration from %s to %s.", window, windowText(minWindow), windowText(maxWindow))
	}
	if err := checkMetadata(metadata); err != nil {
		return a, err
	}
	a.job.Metadata = metadata
	return a, applyOptions(&a.job, metadata)
}

func checkMetadata(m map[string]string) error {
	if len(m) > maxPairs {
		return invalid("metadata", "Invalid 'metadata': too many properties. Expected at most %d, but got %d instead.", maxPairs, len(m))
	}
	for key, value := range m {
		switch {
		case key == "" || utf8.RuneCountInString(key) > maxPairKey:
			return invalid("metadata", "Invalid 'metadata': a key takes 1 to %d characters.", maxPairKey)
		case utf8.RuneCountInString(value) > maxPairValue:
			return invalid(fmt.Sprintf("metadata.%s", key), "Invalid 'metadata.%s': a value takes at most %d characters.", key, maxPairValue)
		}
	}
	return nil
}

// createBatch makes a job.
func (h *Handler) createBatch(w http.ResponseWriter, r *http.Request, c Caller) error {
	dry, err := flag(r, "dry_run")
	if err != nil {
		return err
	}
	a, err := readAsked(r)
	if err != nil {
		return err
	}
	if a.job.MaxCost > 0 && !h.opt.Priced {
		return noPrices("metadata." + maxCostOption)
	}
	if dry {
		return h.dryRun(w, r, c, a)
	}
	key, err := idempotencyKey(r)
	if err != nil {
		return err
	}
	id, err := h.chooseID(r, c, key, a.body)
	if err != nil {
		return err
	}
	// A batch that an earlier try has made is that one, whatever has become of its file.
	switch j, err := h.ports.Ledger.Job(r.Context(), id); {
	case err == nil:
		if err := jobs.Resubmit(r.Context(), h.ports, &j); err != nil {
			return err
		}
		return h.writeBatch(w, r, &j)
	case !errors.Is(err, jobs.ErrNotFound):
		return err
	}
	if err := h.admit(r.Context(), c.Tenant); err != nil {
		return err
	}
	file, err := h.inputOf(r, c, a.input)
	if err != nil {
		return err
	}
	j := a.job
	j.ID, j.Tenant = id, c.Tenant
	j.Input, j.InputBytes, j.Cut = jobs.FileRef{Name: jobs.FileObject(file.Tenant, file.ID)}, file.Bytes, cutOf(file.Bytes, j.Cut.ChunkLines)
	j.HashKey = hashKeyOf(h.ports.NewID())
	if j, err = jobs.Submit(r.Context(), h.ports, j); err != nil {
		return err
	}
	return h.writeBatch(w, r, &j)
}

// admit refuses a batch of a tenant that has too many open requests.
func (h *Handler) admit(ctx context.Context, tenant string) error {
	err := jobs.Admit(ctx, h.ports, tenant)
	if jobs.CodeOf(err) == jobs.CodeLimit {
		return refuse(http.StatusTooManyRequests, "too_many_open_requests", "Too many requests of your batches are open: %s. Try again when some of them have ended.", err)
	}
	return err
}

// hashKeyOf makes a key for the hashes of custom ids of a random id.
func hashKeyOf(id string) [16]byte {
	sum := sha256.Sum256([]byte(id))
	return [16]byte(sum[:])
}

// cutOf is the cut of an input, with chunks of so many lines if that was asked for.
func cutOf(bytes int64, lines int) jobs.Cut {
	cut := jobs.DefaultCut(bytes)
	if lines > 0 {
		cut.ChunkLines = lines
	}
	return cut
}

// inputOf finds the input of a batch to be, and notes that it is used: from now on deleting it only hides it.
func (h *Handler) inputOf(r *http.Request, c Caller, id string) (jobs.File, error) {
	f, err := h.file(r.Context(), c, id)
	if err == nil && !f.Awaited {
		f, err = jobs.ChangeFile(r.Context(), h.ports, c.Tenant, id, func(f *jobs.File) (bool, error) {
			news := !f.Used
			f.Used = true
			return news, nil
		})
		err = absent(err, "File", id)
	}
	missing, ok := errors.AsType[*failure](err)
	switch {
	case ok && missing.status == http.StatusNotFound:
		return f, invalid("input_file_id", "Invalid 'input_file_id': no such File object: %.80s", id)
	case err != nil:
		return f, err
	case f.Awaited:
		return f, invalid("input_file_id", "Invalid 'input_file_id': the bytes of %s have not been brought yet.", id)
	case f.Purpose != jobs.PurposeBatch:
		return f, invalid("input_file_id", "Invalid 'input_file_id': %s has the purpose '%s', not 'batch'.", id, f.Purpose)
	}
	return f, nil
}
