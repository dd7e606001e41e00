package jobs

import (
	"context"
	"encoding/json"
	"fmt"
)

// splitCuts is the object that the scan of a split leaves: everything that check and dispatch need of it. Equal scans
// write equal bytes, so it does not matter who of several writes it.
type splitCuts struct {
	V     int `json:"v"`
	Split int `json:"split"`
	splitScan
	IDs []string `json:"ids,omitempty"` // names of the sorted runs of its ids, in the order of their lines
}

// cutsName names the cuts of a split.
func cutsName(job JobID, split int) string { return fmt.Sprintf("jobs/%s/splits/%d", job, split) }

// idsName names a run of a split's ids, beside its cuts.
func idsName(job JobID, split, run int) string {
	return fmt.Sprintf("jobs/%s/splits/%d.ids-%d", job, split, run)
}

// saveCuts writes the cuts of a split. If the object is there already, an earlier try at the same scan wrote the same.
func saveCuts(ctx context.Context, files Files, name string, cuts splitCuts) (FileRef, error) {
	cuts.V = SchemaVersion
	body, err := json.Marshal(cuts)
	if err != nil {
		return FileRef{}, fmt.Errorf("encode cuts %s: %w", name, err)
	}
	if err := writeObject(ctx, files, name, body); err != nil {
		return FileRef{}, err
	}
	return FileRef{Name: name}, nil
}

// readCuts reads the cuts of a split. What a newer fanout wrote is ErrNewer.
func readCuts(ctx context.Context, files Files, ref FileRef) (splitCuts, error) {
	var cuts splitCuts
	body, err := readObject(ctx, files, ref, 0, -1)
	if err != nil {
		return cuts, err
	}
	var head struct {
		V int `json:"v"`
	}
	if err := json.Unmarshal(body, &head); err != nil {
		return cuts, fmt.Errorf("decode cuts %s: %w", ref.Name, err)
	}
	if head.V > SchemaVersion {
		return cuts, fmt.Errorf("decode cuts %s of version %d: %w", ref.Name, head.V, ErrNewer)
	}
	if err := json.Unmarshal(body, &cuts); err != nil {
		return cuts, fmt.Errorf("decode cuts %s: %w", ref.Name, err)
	}
	if err := cuts.check(); err != nil {
		return cuts, fmt.Errorf("decode cuts %s: %w", ref.Name, err)
	}
	return cuts, nil
}

// check refuses cuts that no scan can have made: messages and records are made of them, and memory is set aside by them.
func (c *splitCuts) check() error {
	if c.Split < 0 || c.Split >= MaxJobSplits || len(c.Chunks) > MaxSplitChunks {
		return fmt.Errorf("split %d has %d chunks", c.Split, len(c.Chunks))
	}
	if len(c.Kept) != min(c.Violations, MaxKeptViolations) {
		return fmt.Errorf("of %d violations %d are kept", c.Violations, len(c.Kept))
	}
	var offset, line, items int64
	for i := range c.Chunks {
		cut := &c.Chunks[i]
		if cut.Lines < 1 || cut.Lines > MaxChunkLines || cut.Length < 1 || cut.Line < line || cut.Offset < 0 || i > 0 && cut.Offset != offset {
			return fmt.Errorf("chunk %d: %d lines from line %d on, %d bytes at %d", i, cut.Lines, cut.Line, cut.Length, cut.Offset)
		}
		if stray := cut.Blank.Or(cut.Bad).Without(AllBits(cut.Lines)); !stray.Empty() || cut.Items() < 1 {
			return fmt.Errorf("chunk %d: %d lines, blank %s, bad %s", i, cut.Lines, cut.Blank, cut.Bad)
		}
		offset, line, items = cut.Offset+cut.Length, cut.Line+int64(cut.Lines), items+int64(cut.Items())
	}
	if c.Lines < line || c.Items < items || c.Items > items && c.Fatal == nil {
		return fmt.Errorf("%d items in %d lines; its chunks have %d in %d", c.Items, c.Lines, items, line)
	}
	return nil
}

// runs are the ids of the split, to be given to duplicates with those of all other splits.
func (c *splitCuts) runs() []idRun {
	runs := make([]idRun, len(c.IDs))
	for i, name := range c.IDs {
		runs[i] = idRun{split: c.Split, file: FileRef{Name: name}}
	}
	return runs
}
