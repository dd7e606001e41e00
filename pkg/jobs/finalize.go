package jobs

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// finalize joins the pieces of all splits into the job's files and ends the job. The job was read first, then the splits;
// all its writes of the job compare with that first revision, so a redrive or a stop in between makes it look again.
// What ended before keeps its phase: only its files are replaced, by those of the newer generation.
func (a *Aggregate) finalize(ctx context.Context, j *Job, all Survey) error {
	now := a.Now()
	if j.Checked == nil { // stopped before anything could be dispatched: there is nothing to publish
		j.moveTo(j.Stop.As, now)
		return a.saveJob(ctx, j)
	}
	if j.Phase == PhaseInProgress {
		j.moveTo(PhaseFinalizing, now)
		if err := a.saveJob(ctx, j); err != nil {
			return fmt.Errorf("save it: %w", err)
		}
	}
	answers, failures, err := a.pieces(ctx, j, all)
	if err != nil {
		return err
	}
	out := &Outputs{Of: all.Fold, Totals: all.Totals}
	out.Totals.Failed = all.Totals.Items - all.Totals.Answered // whoever has no answer has an error line
	if out.Answers, err = a.join(ctx, j, all.Fold, "answers", answers); err != nil {
		return err
	}
	if out.Errors, err = a.join(ctx, j, all.Fold, "errors", failures); err != nil {
		return err
	}
	j.Outputs, j.Tries = out, j.Tries.done(StepFinalize)
	j.noteFold(all, a.Now())
	if !j.Phase.Ended() {
		end := PhaseCompleted
		if j.Stop != nil {
			end = j.Stop.As
		}
		j.moveTo(end, a.Now())
	}
	if err := a.saveJob(ctx, j); err != nil {
		return fmt.Errorf("save it: %w", err)
	}
	return nil
}

// pieces lists the pieces of all splits in order, if they are still those of the survey.
func (a *Aggregate) pieces(ctx context.Context, j *Job, all Survey) (answers, failures []FileRef, err error) {
	listing := func(yield func(Split, error) bool) {
		for s, err := range a.Ledger.Splits(ctx, j.ID) {
			for _, p := range s.Pieces {
				if p.Errors {
					failures = append(failures, p.File)
				} else {
					answers = append(answers, p.File)
				}
			}
			if !yield(s, err) {
				return
			}
		}
	}
	again, err := survey(j, listing)
	if err != nil {
		return nil, nil, fmt.Errorf("read its splits: %w", err)
	}
	if !again.Ready || again.Fold != all.Fold {
		return nil, nil, fmt.Errorf("its splits have changed: %w", ErrConflict)
	}
	return answers, failures, nil
}

// join makes one file of pieces; nil if there are none. A file of this generation that is there already is the one.
func (a *Aggregate) join(ctx context.Context, j *Job, of Generation, kind string, pieces []FileRef) (*FileInfo, error) {
	if len(pieces) == 0 {
		return nil, nil
	}
	name := FileObject(j.Tenant, outputID(j.ID, of, kind))
	info, err := a.Files.Concat(ctx, name, pieces)
	if errors.Is(err, ErrExists) {
		info, err = a.Files.Stat(ctx, name)
	}
	if err == nil {
		err = a.noteFile(ctx, j, info, j.outputFile(kind, a.Now()))
	}
	if err != nil {
		return nil, fmt.Errorf("join %d pieces of %s: %w", len(pieces), kind, err)
	}
	return &info, nil
}

// outputFile is an output as its owner will know it. Its time begins when it is made.
func (j *Job) outputFile(kind string, now time.Time) File {
	f := File{Name: fmt.Sprintf("%s_%s.jsonl", j.ID, kind), Purpose: PurposeBatchOutput, Created: now, Job: j.ID}
	if j.KeepOutput > 0 {
		f.Expires = now.Add(j.KeepOutput)
	}
	return f
}

// outputID is the id of an output file: each generation of a job has its own.
func outputID(job JobID, of Generation, kind string) string {
	return "file-" + digestHex(string(job)+"/"+of.String()+"/"+kind, 0, 0)[:24]
}

// How long after its end a job is still visited by the sweep: a late save of a lost worker is published too. Files that
// could not be brought up to date by the later time never will be: the input is gone, or was changed.
const (
	keepOpen     = time.Hour
	keepOpenMost = 24 * time.Hour
)
