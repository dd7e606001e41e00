package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
)

// InspectOptions are the rules of a job that is not there yet, and what its inspection may use.
type InspectOptions struct {
	Endpoint string   // the url that every line must have
	Cut      Cut      // zero = DefaultCut
	HashKey  [16]byte // random, so that nobody can choose ids by their hashes
	Prefix   string   // of temporary objects; nothing else may be there, and nothing is left
	Parallel int      // splits scanned at once; each takes about 32 MiB, and more with long lines. 0 = one
}

// Inspection is what an input is, by the rules of a job.
type Inspection struct {
	Items      int64 // lines that are not blank
	Lines      int64
	Bytes      int64
	Violations int64
	Models     map[string]int64 // valid lines by model, of each split at most the first 100 names
	OtherModel int64            // valid lines of other models
}

// Inspect applies the input rules to a whole input of so many bytes, without a job. It reports every violation, from one
// goroutine: first those that lines have of themselves, in the order of the input, then duplicate ids, sorted by
// line in batches of a million, and in the end what is wrong with the file as a whole. An error of report ends it.
func Inspect(ctx context.Context, files Files, input FileRef, bytes int64, o InspectOptions, report func(Violation) error) (Inspection, error) {
	if o.Cut == (Cut{}) {
		o.Cut = DefaultCut(bytes)
	}
	i := inspector{files: files, input: input, options: o, report: report, found: Inspection{Bytes: bytes, Models: map[string]int64{}}}
	err := errors.Join(i.inspect(ctx), i.clean(context.WithoutCancel(ctx)))
	if err != nil {
		return i.found, fmt.Errorf("inspect %s: %w", input.Name, err)
	}
	return i.found, nil
}

type inspector struct {
	files   Files
	input   FileRef
	options InspectOptions
	report  func(Violation) error

	found Inspection
	first []int64 // lines before each split
	bad   []Bits  // by split, the lines that were reported
	runs  []idRun
	fatal *Violation
}

func (i *inspector) inspect(ctx context.Context) error {
	if err := i.scanAll(ctx); err != nil {
		return err
	}
	if err := i.reportDuplicates(ctx); err != nil {
		return err
	}
	if i.fatal != nil {
		return i.say(*i.fatal)
	}
	if i.found.Items == 0 {
		return i.say(Violation{Code: ViolationEmpty, Message: "the file has no requests"})
	}
	return nil
}

func (i *inspector) say(v Violation) error {
	i.found.Violations++
	return i.report(v)
}

// splitInspection is a split that is being scanned. Its violations are closed when found, bad, runs and err are there.
type splitInspection struct {
	n          int
	violations chan Violation
	found      splitScan
	bad        Bits
	runs       []idRun
	err        error
}

// scanAll scans the splits in order, some ahead of the one whose violations are being reported: what these find waits in
// their channels, and a full channel halts its scan. So memory is bounded, whatever the number of violations.
func (i *inspector) scanAll(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	splits := (&Job{InputBytes: i.found.Bytes, Cut: i.options.Cut}).Splits()
	var ahead []*splitInspection
	defer func() {
		cancel()
		for _, s := range ahead {
			for range s.violations { // until the scan has ended
			}
			i.runs = append(i.runs, s.runs...) // to be deleted
		}
	}()
	for next := 0; next < splits || len(ahead) > 0; {
		for next < splits && len(ahead) < max(i.options.Parallel, 1) {
			s := &splitInspection{n: next, violations: make(chan Violation, 256)}
			ahead = append(ahead, s)
			go i.scan(ctx, s) // ends with s.violations, which is drained below or in the defer above
			next++
		}
		s := ahead[0]
		i.first = append(i.first, i.found.Lines)
		for v := range s.violations {
			v.Line += i.found.Lines
			if err := i.say(v); err != nil {
				return err
			}
		}
		ahead = ahead[1:]
		i.runs = append(i.runs, s.runs...)
		if s.err != nil {
			return s.err
		}
		i.add(s)
	}
	return nil
}

func (i *inspector) scan(ctx context.Context, s *splitInspection) {
	defer close(s.violations)
	scan := scanner{
		files: i.files, input: i.input, bytes: i.found.Bytes, endpoint: i.options.Endpoint, cut: i.options.Cut, key: i.options.HashKey,
		violation: func(v Violation) error {
			s.bad.Set(int(v.Line - 1))
			select {
			case s.violations <- v:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
		ids: func(entries []idEntry) error {
			name := fmt.Sprintf("%s%d.ids-%d", i.options.Prefix, s.n, len(s.runs))
			s.runs = append(s.runs, idRun{split: s.n, file: FileRef{Name: name}})
			return saveIDs(ctx, i.files, name, entries)
		},
	}
	s.found, s.err = scan.scan(ctx, s.n)
}

// add takes in what the scan of the next split found.
func (i *inspector) add(s *splitInspection) {
	if s.found.Fatal != nil && i.fatal == nil {
		i.fatal = s.found.Fatal
		i.fatal.Line += i.found.Lines
	}
	i.bad = append(i.bad, s.bad)
	i.found.Items += s.found.Items
	i.found.Lines += s.found.Lines
	i.found.OtherModel += s.found.OtherModel
	for model, n := range s.found.Models {
		i.found.Models[model] += n
	}
}

// duplicate is a line of the input, from 1, whose id is that of an earlier one.
type duplicate struct{ line, earlier int64 }

// reportDuplicates reports the losing lines, unless they have a violation of their own: a line has one at most.
func (i *inspector) reportDuplicates(ctx context.Context) error {
	const batch = 1 << 20
	var found []duplicate
	flush := func() error {
		slices.SortFunc(found, func(a, b duplicate) int { return cmp.Compare(a.line, b.line) })
		for _, d := range found {
			if err := i.say(duplicateViolation(d.line, d.earlier)); err != nil {
				return err
			}
		}
		found = found[:0]
		return nil
	}
	err := duplicates(ctx, i.files, i.runs, duplicateBudget, func(loser, winner lineRef) error {
		if i.bad[loser.split].Has(int(loser.line)) {
			return nil
		}
		found = append(found, duplicate{i.line(loser), i.line(winner)})
		if len(found) < batch {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	return flush()
}

// line is the number of a line in the whole input.
func (i *inspector) line(r lineRef) int64 { return i.first[r.split] + int64(r.line) + 1 }

func duplicateViolation(line, earlier int64) Violation {
	return Violation{Code: ViolationDuplicate, Line: line, Param: "custom_id",
		Message: fmt.Sprintf("custom_id is the same as in line %d; each line needs one of its own", earlier)}
}

// clean deletes the temporary objects.
func (i *inspector) clean(ctx context.Context) error {
	const batch = 1000
	for names := range slices.Chunk(i.runs, batch) {
		var old []string
		for _, r := range names {
			old = append(old, r.file.Name)
		}
		if err := i.files.Delete(ctx, old...); err != nil {
			return fmt.Errorf("delete temporary objects %s…: %w", i.options.Prefix, err)
		}
	}
	return nil
}
