package jobs

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// The check of a job leaves three kinds of object:
//
//	jobs/<job>/check/summary          the violations kept
//	jobs/<job>/check/splits           a row a split: number of its first line, and how many duplicates it has
//	jobs/<job>/check/duplicates-<n>   of a split that has any: its duplicate lines by chunk
type checkSummary struct {
	V          int         `json:"v"`
	Violations int         `json:"violations"` // all of them
	Kept       []Violation `json:"kept"`       // the first MaxKeptViolations, by line
	Fatal      *Violation  `json:"fatal,omitempty"`
}

// verdict is what the check says of one split.
type verdict struct {
	firstLine  int64          // number of the split's first line in the input, from 1
	duplicates map[int64]Bits // chunk offset → lines whose id an earlier line has
}

const checkRow = 16 // two big-endian numbers of 64 bits

func checkName(job JobID, what string) string { return fmt.Sprintf("jobs/%s/check/%s", job, what) }

func duplicatesName(job JobID, split int) string {
	return checkName(job, fmt.Sprintf("duplicates-%d", split))
}

// scanToFiles scans a split and writes what it found.
func scanToFiles(ctx context.Context, files Files, j *Job, n int) (Scanned, error) {
	cuts := splitCuts{Split: n}
	s := scanner{files: files, input: j.Input, bytes: j.InputBytes, endpoint: j.Endpoint, cut: j.Cut, key: j.HashKey}
	s.ids = func(entries []idEntry) error {
		name := idsName(j.ID, n, len(cuts.IDs))
		cuts.IDs = append(cuts.IDs, name)
		return saveIDs(ctx, files, name, entries)
	}
	var err error
	if cuts.splitScan, err = s.scan(ctx, n); err != nil {
		return Scanned{}, err
	}
	ref, err := saveCuts(ctx, files, cutsName(j.ID, n), cuts)
	if err != nil {
		return Scanned{}, err
	}
	found := Scanned{Cuts: ref, Lines: cuts.Lines, Chunks: len(cuts.Chunks), Items: cuts.Items, Violations: cuts.Violations}
	if found.Chunks > 0 {
		found.First = cuts.Chunks[0].Offset
	}
	return found, nil
}

// checker looks for duplicate ids over all splits of a job, and gathers what the scans found.
type checker struct {
	files   Files
	job     *Job
	summary checkSummary
	items   int64
	models  map[string]bool // of valid lines; more than one are enough to know
	runs    []idRun
	first   []int64      // lines before each split
	lines   []int64      // of each split
	losers  map[int]Bits // by split, the lines that lost their id to an earlier one
	pairs   []duplicate  // the earliest of them
}

// checkToFiles checks the whole job and writes what it found. Memory stays within budget (0 = 64 MiB) and a bit a line.
func checkToFiles(ctx context.Context, files Files, ledger Ledger, j *Job, budget int64) (*checker, error) {
	c := &checker{files: files, job: j, summary: checkSummary{V: SchemaVersion}, losers: map[int]Bits{}, models: map[string]bool{}}
	if err := c.gather(ctx, ledger); err != nil {
		return nil, err
	}
	if err := duplicates(ctx, files, c.runs, cmp.Or(budget, duplicateBudget), c.lose); err != nil {
		return nil, err
	}
	rows := make([]byte, 0, checkRow*len(c.first))
	for n, first := range c.first {
		found, err := c.writeDuplicates(ctx, n)
		if err != nil {
			return nil, err
		}
		rows = binary.BigEndian.AppendUint64(rows, uint64(first+1))
		rows = binary.BigEndian.AppendUint64(rows, uint64(found))
	}
	if err := writeObject(ctx, files, checkName(j.ID, "splits"), rows); err != nil {
		return nil, err
	}
	c.keepEarliest(MaxKeptViolations)
	for _, p := range c.pairs {
		c.summary.Kept = append(c.summary.Kept, duplicateViolation(p.line, p.earlier))
	}
	slices.SortStableFunc(c.summary.Kept, func(a, b Violation) int { return cmp.Compare(a.Line, b.Line) })
	c.summary.Kept = c.summary.Kept[:min(len(c.summary.Kept), MaxKeptViolations)]
	body, err := json.Marshal(c.summary)
	if err != nil {
		return nil, fmt.Errorf("encode the summary: %w", err)
	}
	return c, writeObject(ctx, files, checkName(j.ID, "summary"), body)
}

// gather reads the cuts of all splits.
func (c *checker) gather(ctx context.Context, ledger Ledger) error {
	var lines int64
	for s, err := range ledger.Splits(ctx, c.job.ID) {
		if err != nil {
			return fmt.Errorf("read its splits: %w", err)
		}
		cuts, err := readCuts(ctx, c.files, s.Scanned.Cuts)
		if err != nil {
			return err
		}
		if cuts.Split != s.N {
			return fmt.Errorf("the cuts %s are of split %d", s.Scanned.Cuts.Name, cuts.Split)
		}
		c.first = append(c.first, lines)
		c.lines = append(c.lines, cuts.Lines)
		c.runs = append(c.runs, cuts.runs()...)
		c.items += cuts.Items
		for model := range cuts.Models {
			c.models[model] = true
		}
		c.summary.Violations += cuts.Violations
		for _, v := range cuts.Kept[:min(len(cuts.Kept), MaxKeptViolations-len(c.summary.Kept))] {
			v.Line += lines
			c.summary.Kept = append(c.summary.Kept, v)
		}
		if cuts.Fatal != nil && c.summary.Fatal == nil {
			cuts.Fatal.Line += lines
			c.summary.Fatal = cuts.Fatal
		}
		lines += cuts.Lines
	}
	return nil
}

// lose notes a line that lost its id.
func (c *checker) lose(loser, winner lineRef) error {
	if n := c.lines[loser.split]; int64(loser.line) >= n {
		return fmt.Errorf("the ids of split %d name line %d of %d", loser.split, loser.line+1, n)
	}
	lost := c.losers[loser.split]
	lost.Set(int(loser.line))
	c.losers[loser.split] = lost
	c.pairs = append(c.pairs, duplicate{c.first[loser.split] + int64(loser.line) + 1, c.first[winner.split] + int64(winner.line) + 1})
	if len(c.pairs) >= 4*MaxKeptViolations {
		c.keepEarliest(2 * MaxKeptViolations) // some may turn out to have a violation of their own
	}
	return nil
}

func (c *checker) keepEarliest(n int) {
	slices.SortFunc(c.pairs, func(a, b duplicate) int { return cmp.Compare(a.line, b.line) })
	c.pairs = c.pairs[:min(len(c.pairs), n)]
}

// writeDuplicates writes a split's duplicate lines by chunk, and returns how many there are. A line that has a violation
// of its own is none: it has one already.
func (c *checker) writeDuplicates(ctx context.Context, n int) (int, error) {
	lost, some := c.losers[n]
	if !some {
		return 0, nil
	}
	cuts, err := readCuts(ctx, c.files, FileRef{Name: cutsName(c.job.ID, n)})
	if err != nil {
		return 0, err
	}
	found := 0
	byChunk := map[int64]Bits{}
	for i := range cuts.Chunks {
		cut := &cuts.Chunks[i]
		var b Bits
		for ordinal := range cut.Lines {
			line := cut.Line + int64(ordinal)
			switch {
			case !lost.Has(int(line)):
			case cut.Bad.Has(ordinal):
				number := c.first[n] + line + 1
				c.pairs = slices.DeleteFunc(c.pairs, func(p duplicate) bool { return p.line == number })
			default:
				b.Set(ordinal)
				found++
			}
		}
		if !b.Empty() {
			byChunk[cut.Offset] = b
		}
	}
	c.summary.Violations += found
	if found == 0 {
		return 0, nil
	}
	body, err := json.Marshal(byChunk)
	if err != nil {
		return 0, fmt.Errorf("encode duplicates of split %d: %w", n, err)
	}
	return found, writeObject(ctx, c.files, duplicatesName(c.job.ID, n), body)
}

// checked is what the job's record keeps of it.
func (c *checker) checked() *Checked {
	return &Checked{Summary: FileRef{Name: checkName(c.job.ID, "summary")}, Violations: c.summary.Violations, Items: c.items, Model: c.model()}
}

// model is the one that all valid lines name, or "".
func (c *checker) model() string {
	if len(c.models) != 1 {
		return ""
	}
	for model := range c.models {
		return model
	}
	return ""
}

// stop is the verdict: why the job must not run, or nil.
func (c *checker) stop() *Stop {
	fails := c.job.OnInvalid != InvalidSkips
	switch {
	case c.summary.Fatal != nil:
		return &Stop{As: PhaseFailed, Code: c.summary.Fatal.Code, Reason: c.summary.Fatal.Message}
	case fails && c.items == 0:
		return &Stop{As: PhaseFailed, Code: ViolationEmpty, Reason: "the file has no requests"}
	case fails && c.summary.Violations > 0:
		first := c.summary.Kept[0]
		reason := fmt.Sprintf("%d lines break the input rules; the first is line %d: %s", c.summary.Violations, first.Line, first.Message)
		if c.summary.Violations == 1 {
			reason = fmt.Sprintf("line %d breaks the input rules: %s", first.Line, first.Message)
		}
		return &Stop{As: PhaseFailed, Code: first.Code, Reason: reason}
	default:
		return nil
	}
}

// readVerdict reads what the check says of one split.
func readVerdict(ctx context.Context, files Files, j *Job, n int) (verdict, error) {
	row, err := readObject(ctx, files, FileRef{Name: checkName(j.ID, "splits")}, int64(n)*checkRow, checkRow)
	if err == nil && len(row) < checkRow {
		err = errors.New("the row is not there")
	}
	if err != nil {
		return verdict{}, fmt.Errorf("read the check of split %d: %w", n, err)
	}
	v := verdict{firstLine: int64(binary.BigEndian.Uint64(row))}
	if v.firstLine < 1 || v.firstLine > j.InputBytes+1 {
		return verdict{}, fmt.Errorf("read the check of split %d: it begins at line %d", n, v.firstLine)
	}
	if binary.BigEndian.Uint64(row[8:]) == 0 {
		return v, nil
	}
	body, err := readObject(ctx, files, FileRef{Name: duplicatesName(j.ID, n)}, 0, -1)
	if err == nil {
		err = json.Unmarshal(body, &v.duplicates)
	}
	if err != nil {
		return v, fmt.Errorf("read the duplicates of split %d: %w", n, err)
	}
	return v, nil
}

// Violations returns what the check of a job kept: the first 1,000 violations by line, and how many there are in all.
func Violations(ctx context.Context, files Files, j *Job) (kept []Violation, all int, err error) {
	if j.Checked == nil {
		return nil, 0, nil
	}
	body, err := readObject(ctx, files, j.Checked.Summary, 0, -1)
	if err != nil {
		return nil, 0, fmt.Errorf("read the violations of job %s: %w", j.ID, err)
	}
	var s checkSummary
	if err := json.Unmarshal(body, &s); err != nil {
		return nil, 0, fmt.Errorf("read the violations of job %s: %w", j.ID, err)
	}
	return s.Kept, s.Violations, nil
}
