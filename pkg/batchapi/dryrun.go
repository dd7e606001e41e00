package batchapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// dryRun says what a batch would be, without making one: every violation, as it is found, and then what there is in all. So
// memory does not grow with what is wrong. An answer that cannot be finished is broken off.
func (h *Handler) dryRun(w http.ResponseWriter, r *http.Request, c Caller, a asked) error {
	file, err := h.inputOf(r, c, a.input)
	if err != nil {
		return err
	}
	select {
	case h.dry <- struct{}{}:
		defer func() { <-h.dry }()
	default:
		return &failure{status: http.StatusTooManyRequests, code: "too_many_dry_runs", after: keepAlive, message: "Too many dry runs are under way. Please try again later."}
	}
	cut := cutOf(file.Bytes, a.job.Cut.ChunkLines)
	run := DryRun{Object: "batch.dry_run", Bytes: file.Bytes}
	out := dryRunWriter{w: w, most: h.opt.MaxAnswer}
	ctx := r.Context()
	if h.opt.DryRunFor > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, h.opt.DryRunFor, errDryRunTooLong)
		defer cancel()
	}
	found, err := jobs.Inspect(ctx, h.ports.Files, jobs.FileRef{Name: jobs.FileObject(file.Tenant, file.ID)}, file.Bytes, jobs.InspectOptions{
		Endpoint: a.job.Endpoint, Cut: cut, HashKey: hashKeyOf(h.ports.NewID()), Prefix: "dry/" + newID(&h.ports, "run-") + "/",
	}, func(v jobs.Violation) error {
		run.ErrorsTotal++
		run.WouldFail = run.WouldFail || a.job.OnInvalid != jobs.InvalidSkips || v.Line == 0
		return out.violation(wireViolation(v))
	})
	if err != nil && errors.Is(context.Cause(ctx), errDryRunTooLong) && !out.flushed {
		return refuse(http.StatusBadRequest, "dry_run_too_long", "The file has %d bytes, too many to be read while a request waits. Check it on a machine of yours: fanout check FILE.", file.Bytes)
	}
	if err != nil {
		return err
	}
	run.RequestCounts.Total, run.Lines, run.Models = found.Items, found.Lines, found.Models
	run.Estimate.InputTokens = file.Bytes / 4
	run.Estimate.Chunks = max((found.Lines+int64(cut.ChunkLines)-1)/int64(cut.ChunkLines), (file.Bytes+cut.ChunkBytes-1)/cut.ChunkBytes)
	return out.end(run)
}

var errDryRunTooLong = errors.New("the dry run takes too long")

// dryRunWriter writes a DryRun whose violations come one by one. Those for which there is no room are only counted.
type dryRunWriter struct {
	w       http.ResponseWriter
	most    int64 // bytes that the front door lets pass; 0 = any
	begun   bool
	some    bool // violations
	flushed bool
	buf     bytes.Buffer
}

const (
	dryRunBuffer = 64 << 10
	dryRunRest   = 64 << 10 // what follows the violations takes less
)

func (o *dryRunWriter) begin() {
	if o.begun {
		return
	}
	o.begun = true
	o.w.Header().Set("Content-Type", "application/json")
	o.buf.WriteString(`{"errors":{"object":"list","data":[`)
}

func (o *dryRunWriter) violation(e BatchError) error {
	o.begin()
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if o.most > 0 && int64(o.buf.Len()+len(line)) > o.most-dryRunRest {
		return nil
	}
	if o.some {
		o.buf.WriteByte(',')
	}
	o.some = true
	o.buf.Write(line)
	if o.most > 0 || o.buf.Len() < dryRunBuffer { // what is bounded is sent whole, so that it can still fail
		return nil
	}
	return o.flush()
}

func (o *dryRunWriter) flush() error {
	o.flushed = true
	_, err := o.buf.WriteTo(o.w)
	return err
}

// end writes what is left: the members of the object but for its errors.
func (o *dryRunWriter) end(run DryRun) error {
	o.begin()
	rest, err := json.Marshal(struct {
		DryRun
		Errors *struct{} `json:"errors,omitempty"` // they were written
	}{DryRun: run})
	if err != nil {
		return err
	}
	o.buf.WriteString(`]},`)
	o.buf.Write(rest[1:])
	o.buf.WriteByte('\n')
	return o.flush()
}
