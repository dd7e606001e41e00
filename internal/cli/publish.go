package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/localjobs"
)

// runSummary is what --json prints.
type runSummary struct {
	Job       jobs.JobID `json:"job"`
	Total     int64      `json:"total"`
	Completed int64      `json:"completed"`
	Failed    int64      `json:"failed"`
	Output    string     `json:"output"`
	Errors    *string    `json:"errors"` // null = no item failed
	Seconds   float64    `json:"seconds"`
	Usage     jobs.Usage `json:"usage"`
}

// publish puts the job's files where the user wants them, tells what came out, and removes the data directory unless
// something in it can still be asked again.
func (r *running) publish(ctx context.Context, j jobs.Job) error {
	if j.Phase == jobs.PhaseFailed {
		return r.jobFailed(ctx, j)
	}
	if j.Outputs == nil {
		return jobs.Errorf(jobs.CodeInternal, "job %s ended %s without files", j.ID, j.Phase)
	}
	keep := j.Phase == jobs.PhaseExpired || j.Totals.Dead > 0
	give := r.local.Files.HandOver
	if keep { // what the user does to the output must not reach what the next run makes its output from
		give = r.local.Files.Export
	}
	if err := place(ctx, give, j.Outputs.Answers, "--output", r.opt.Output); err != nil {
		return err
	}
	if j.Outputs.Errors == nil {
		if err := os.Remove(r.opt.Errors); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return unwritable("--errors", r.opt.Errors, err)
		}
	} else if err := place(ctx, give, j.Outputs.Errors, "--errors", r.opt.Errors); err != nil {
		return err
	}
	if !keep {
		if err := r.close(); err != nil {
			return err
		}
		if err := removeData(r.opt.Data); err != nil {
			return err
		}
	}
	if err := r.tell(j, keep); err != nil {
		return err
	}
	if j.Outputs.Totals.Failed > 0 {
		return told(exitItemsFailed)
	}
	return nil
}

// place puts a file of the job, or an empty one, at a path: whole, or not at all.
func place(ctx context.Context, give func(ctx context.Context, name, path string) error, f *jobs.FileInfo, what, path string) error {
	var err error
	if f == nil {
		err = replaceEmpty(path)
	} else {
		err = give(ctx, f.Name, path)
	}
	if err != nil {
		return unwritable(what, path, err)
	}
	return nil
}

func replaceEmpty(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), localjobs.Beside(path))
	if err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(0o644), f.Close(), os.Rename(f.Name(), path)); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// jobFailed says why there are no files.
func (r *running) jobFailed(ctx context.Context, j jobs.Job) error {
	if j.Stop.Code == string(jobs.CodeInternal) {
		return jobs.Errorf(jobs.CodeInternal, "stopped: %s", j.Stop.Reason).WithHint("the same command with --restart, to begin anew")
	}
	if j.Stop.Code == "input_modified" {
		return jobs.Errorf(jobs.CodeInvalid, "stopped: %s", j.Stop.Reason).WithHint("the same command with --restart, to begin anew with %s as it is now", r.input.Name)
	}
	kept, all, err := jobs.Violations(ctx, r.local.Files, &j)
	if err != nil {
		return err
	}
	const most = 10
	for _, v := range kept[:min(most, len(kept))] {
		fmt.Fprintf(r.io.err, "line %d: %s: %s\n", v.Line, v.Code, oneLine(v.Message))
	}
	if all > most {
		fmt.Fprintf(r.io.err, "… and %d more\n", all-most)
	}
	if err := r.close(); err != nil {
		return err
	}
	if err := removeData(r.opt.Data); err != nil { // nothing was asked: there is nothing to go on from
		return err
	}
	hint := fmt.Sprintf("fanout check %s, to see every line", quoteWord(r.opt.Input))
	return jobs.Errorf(jobs.CodeInvalid, "nothing was asked: %s", j.Stop.Reason).WithHint("%s", hint)
}

// tell prints what came out: the summary on stdout as JSON, or in words on stderr.
func (r *running) tell(j jobs.Job, keep bool) error {
	t := j.Outputs.Totals
	if r.opt.JSON {
		s := runSummary{Job: j.ID, Total: t.Items, Completed: t.Answered, Failed: t.Failed, Output: r.opt.Output,
			Seconds: time.Since(r.started).Round(time.Millisecond).Seconds(), Usage: t.Usage}
		if j.Outputs.Errors != nil {
			s.Errors = &r.opt.Errors
		}
		if err := json.NewEncoder(r.io.out).Encode(s); err != nil {
			return fmt.Errorf("write the summary: %w", err)
		}
	}
	var b strings.Builder
	if t.Items == 0 {
		fmt.Fprintf(&b, "warning: %s has no requests; the output is empty\n", r.input.Name)
	}
	fmt.Fprintf(&b, "%d of %d items answered in %s: %s\n", t.Answered, t.Items, since(r.started), r.opt.Output)
	if t.Failed > 0 {
		fmt.Fprintf(&b, "%d failed: %s\n", t.Failed, r.opt.Errors)
		for _, e := range t.Errors[:min(5, len(t.Errors))] {
			fmt.Fprintf(&b, "  %d × %s: %s\n", e.Count, oneLine(e.Code), oneLine(e.Message))
		}
	}
	if j.Stop != nil {
		fmt.Fprintf(&b, "gave up: %s\n", oneLine(j.Stop.Reason))
	}
	if keep {
		fmt.Fprintf(&b, "to ask again for what was given up: %s\n", r.opt.again("--retry"))
	}
	_, err := fmt.Fprint(r.io.err, b.String())
	return err
}
