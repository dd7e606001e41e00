package inbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/localjobs"
)

// report is what stands in <name>.job.json. It is written last: so it says of which job, and of which of its generations, the
// files beside it are.
type report struct {
	Job        jobs.JobID       `json:"job"`
	Input      string           `json:"input"` // version of the file
	Status     jobs.Phase       `json:"status"`
	Generation string           `json:"generation,omitempty"`
	Total      int64            `json:"total"`
	Answered   int64            `json:"answered"`
	Failed     int64            `json:"failed"`
	Reason     string           `json:"reason,omitempty"` // why it ended early
	Violations []jobs.Violation `json:"violations,omitempty"`
}

// publish puts the results of a job that has ended beside its input, unless they are there.
func (w *Watcher) publish(ctx context.Context, name string, j *jobs.Job) error {
	base := filepath.Join(w.Dir, stem(name))
	r := report{Job: j.ID, Input: w.seen[name].version, Status: j.Phase}
	if j.Stop != nil {
		r.Reason = j.Stop.Reason
	}
	out := jobs.Outputs{}
	if j.Outputs != nil {
		out = *j.Outputs
		r.Generation, r.Total, r.Answered, r.Failed = out.Of.String(), out.Totals.Items, out.Totals.Answered, out.Totals.Failed
	}
	if there, err := readReport(base + jobSuffix); err != nil || there.Job == r.Job && there.Generation == r.Generation && there.Status == r.Status {
		return err
	}
	if j.Phase == jobs.PhaseFailed {
		kept, _, err := jobs.Violations(ctx, w.Files, j)
		if err != nil {
			return err
		}
		r.Violations = kept
	}
	for suffix, file := range map[string]*jobs.FileInfo{outputSuffix: out.Answers, errorsSuffix: out.Errors} {
		var err error
		if file != nil {
			err = w.Files.Export(ctx, file.Name, base+suffix)
		} else if err = os.Remove(base + suffix); errors.Is(err, fs.ErrNotExist) { // of an earlier version
			err = nil
		}
		if err != nil {
			return err
		}
	}
	if err := writeReport(base+jobSuffix, r); err != nil {
		return err
	}
	w.Log.Info("put results into the inbox", "file", name, "job", j.ID, "status", j.Phase, "answered", r.Answered, "failed", r.Failed)
	return nil
}

// readReport reads what is said of a file's last job; nothing is, or nothing that can be read, if it is empty.
func readReport(path string) (r report, err error) {
	body, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	if !json.Valid(body) {
		return r, nil // it is written again
	}
	err = json.Unmarshal(body, &r)
	return r, err
}

// writeReport replaces a report, whole or not at all.
func writeReport(path string, r report) error {
	body, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the report of job %s: %w", r.Job, err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), localjobs.Beside(path))
	if err != nil {
		return err
	}
	_, err = f.Write(append(body, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
