package batchapi

import (
	"bytes"
	"encoding/json"
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
	out := dryRunWriter{w: w}
	found, err := jobs.Inspect(r.Context(), h.ports.Files, jobs.FileRef{Name: jobs.FileObject(file.Tenant, file.ID)}, file.Bytes, jobs.InspectOptions{
		Endpoint: a.job.Endpoint, Cut: cut, HashKey: hashKeyOf(h.ports.NewID()), Prefix: "dry/" + newID(&h.ports, "run-") + "/",
	}, func(v jobs.Violation) error {
		run.ErrorsTotal++
		run.WouldFail = run.WouldFail || a.job.OnInvalid != jobs.InvalidSkips || v.Line == 0
		return out.violation(wireViolation(v))
	})
	if err != nil {
		return err
	}
	run.RequestCounts.Total, run.Lines, run.Models = found.Items, found.Lines, found.Models
	run.Estimate.InputTokens = file.Bytes / 4
	run.Estimate.Chunks = max((found.Lines+int64(cut.ChunkLines)-1)/int64(cut.ChunkLines), (file.Bytes+cut.ChunkBytes-1)/cut.ChunkBytes)
	return out.end(run)
}

// dryRunWriter writes a DryRun whose violations come one by one.
type dryRunWriter struct {
	w    http.ResponseWriter
	some bool
	buf  bytes.Buffer
}

const dryRunBuffer = 64 << 10

func (o *dryRunWriter) begin() {
	o.w.Header().Set("Content-Type", "application/json")
	o.buf.WriteString(`{"errors":{"object":"list","data":[`)
}

func (o *dryRunWriter) violation(e BatchError) error {
	if !o.some {
		o.begin()
	} else {
		o.buf.WriteByte(',')
	}
	o.some = true
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	o.buf.Write(line)
	if o.buf.Len() < dryRunBuffer {
		return nil
	}
	return o.flush()
}

func (o *dryRunWriter) flush() error {
	_, err := o.buf.WriteTo(o.w)
	return err
}

// end writes what is left: the members of the object but for its errors.
func (o *dryRunWriter) end(run DryRun) error {
	if !o.some {
		o.begin()
	}
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
