package jobs

import (
	"context"
	"fmt"
	"io"
)

// outcomeLines writes the lines of a chunk for which nothing is to be done any more, as they stand in the output and in the
// error file: those that its parts have, and error lines for items that will never have an outcome.
type outcomeLines struct {
	files Files
	parts *parts
	job   *Job
}

// write writes the wanted items by rising ordinal, each where to says.
func (o *outcomeLines) write(ctx context.Context, m *ChunkMessage, c *Chunk, want Bits, to func(ordinal int, failed bool) (io.Writer, error)) error {
	from := sources(c)
	var bare Bits // of no part
	for ordinal := range want.Ordinals {
		if from[ordinal] == 0 {
			bare.Set(ordinal)
		}
	}
	var made map[int][]byte
	if !bare.Empty() {
		var err error
		if made, err = o.make(ctx, m, c, bare); err != nil {
			return err
		}
	}
	return o.copy(ctx, c, want, from, made, to)
}

// copy writes each line from its part, or as it was made.
func (o *outcomeLines) copy(ctx context.Context, c *Chunk, want Bits, from []int, made map[int][]byte, to func(ordinal int, failed bool) (io.Writer, error)) error {
	readers := make([]*partReader, len(c.Parts))
	defer func() {
		for _, r := range readers {
			if r != nil {
				r.close()
			}
		}
	}()
	last := lastUse(from, len(c.Parts))
	for ordinal := range want.Ordinals {
		w, err := to(ordinal, !c.Resolved.Has(ordinal) || c.Failed.Has(ordinal))
		if err != nil {
			return err
		}
		i := from[ordinal] - 1
		if i < 0 {
			if _, err := w.Write(made[ordinal]); err != nil {
				return fmt.Errorf("write item %d: %w", ordinal, err)
			}
			continue
		}
		if readers[i] == nil {
			if readers[i], err = o.parts.open(ctx, partName(c.ID, c.Parts[i].Attempt, c.Parts[i].Seq)); err != nil {
				return err
			}
		}
		if err := readers[i].copyLine(w, ordinal, !c.Resolved.Has(ordinal)); err != nil {
			return fmt.Errorf("read part %d-%d: %w", c.Parts[i].Attempt, c.Parts[i].Seq, err)
		}
		if last[i] == ordinal { // a chunk may have thousands of parts: keep open only what is still needed
			readers[i].close()
			readers[i] = nil
		}
	}
	return nil
}

// make makes the lines of items that no part has one of: the input is read again for their ids.
func (o *outcomeLines) make(ctx context.Context, m *ChunkMessage, c *Chunk, bare Bits) (map[int][]byte, error) {
	data, err := readChunkBytes(ctx, o.files, o.job, m)
	if err != nil {
		return nil, err
	}
	parser := newLineParser(o.job.Endpoint, o.job.Cut.LineBytes)
	lines := map[int][]byte{}
	for ordinal, l := range splitLines(data, m.Offset, m.Lines) {
		if bare.Has(ordinal) {
			parsed, _ := parser.parse(l.content)
			code, message := unfinished(o.job, c, ordinal)
			lines[ordinal] = append(appendError(nil, lineID(o.job.ID, l.offset), parsed.CustomID, code, message), '\n')
		}
	}
	return lines, nil
}

// unfinished says why an item has no outcome, as its error line has it.
func unfinished(j *Job, c *Chunk, ordinal int) (code, message string) {
	last := ""
	for _, g := range c.Errors {
		if g.Items.Has(ordinal) {
			code, last = g.Code, g.Message
		}
	}
	if c.Dead && code != "" {
		return code, last
	}
	code, message = ranOut(j)
	if last != "" {
		message += " Last error: " + last
	}
	return code, message
}

// ranOut says why an item has no outcome that nobody has judged.
func ranOut(j *Job) (code, message string) {
	if j.Stop != nil && j.Stop.As == PhaseCancelled {
		return ItemCancelled, "This request was not executed because the batch was cancelled."
	}
	return ItemExpired, "This request could not be executed before the completion window expired."
}

// sources is from where each ordinal's line comes: the index of its part + 1; 0 = no part has it.
func sources(c *Chunk) []int {
	from := make([]int, c.Lines)
	for i, part := range c.Parts {
		for o := range part.Mask.Ordinals {
			from[o] = i + 1
		}
		if c.Dead {
			for o := range part.Samples.And(c.Open()).Ordinals {
				from[o] = i + 1
			}
		}
	}
	return from
}

// lastUse is the last ordinal that each part is needed for.
func lastUse(from []int, parts int) []int {
	last := make([]int, parts)
	for o, i := range from {
		if i > 0 {
			last[i-1] = o
		}
	}
	return last
}
