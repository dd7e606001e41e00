package jobs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
)

// compact writes the next answers piece and errors piece of a settled split: the outcomes of its chunks in order, and
// error lines for items that will never have one. It makes them from chunks whose generation is the fold's, or else folds
// again; pieces of an older generation are left behind (rule 2).
func (a *Aggregate) compact(ctx context.Context, j *Job, s *Split) error {
	cuts, err := readCuts(ctx, a.Files, s.Scanned.Cuts)
	if err != nil {
		return err
	}
	of, err := readVerdict(ctx, a.Files, j, s.N)
	if err != nil {
		return err
	}
	chunks, err := a.chunksOfFold(ctx, j, s)
	if err != nil {
		return err
	}
	from := 0
	var pieces []Piece
	if s.PiecesOf == s.Fold && len(s.Pieces) > 0 {
		pieces = slices.Clone(s.Pieces)
		from = pieces[len(pieces)-1].To
	}
	// The revision is of the save that noted this try, and so of it alone: what an earlier one has left is never in the way.
	name := fmt.Sprintf("jobs/%s/pieces/%05d/%s-%05d-%d", j.ID, s.N, s.Fold, from, s.Revision)
	p := &pieceWriter{a: a, job: j, answers: lazyFile{files: a.Files, name: name + "-answers"}, errors: lazyFile{files: a.Files, name: name + "-errors"}}
	defer p.abort()
	began := a.Now()
	to := from
	for to < len(cuts.Chunks) && p.bytes() < a.opt.PieceBytes && a.Now().Sub(began) < a.opt.PieceAge {
		cut := &cuts.Chunks[to]
		err := p.chunk(ctx, chunkMessage(j, s, cut, of), chunks[cut.Offset])
		if errors.Is(err, ErrChanged) && !j.Phase.Ended() { // the files of one that has ended stay as they are
			return writeStop(ctx, &a.Ports, j.ID, inputModified(err))
		}
		if err != nil {
			return fmt.Errorf("chunk at %d: %w", cut.Offset, err)
		}
		to++
	}
	made, err := p.commit(ctx, to)
	if err != nil {
		return err
	}
	s.Pieces, s.PiecesOf, s.Compacted = append(pieces, made...), s.Fold, to == len(cuts.Chunks)
	s.Tries = s.Tries.done(StepCompact)
	if err := a.Ledger.SaveSplit(ctx, s); err != nil {
		return fmt.Errorf("save it: %w", err)
	}
	if s.Compacted {
		return nudge(ctx, a.Ports, j.ID, WholeJob)
	}
	return nil
}

// chunksOfFold reads the split's chunks and makes sure that they are what was folded.
func (a *Aggregate) chunksOfFold(ctx context.Context, j *Job, s *Split) (map[int64]*Chunk, error) {
	chunks := map[int64]*Chunk{}
	keeping := func(yield func(Chunk, error) bool) {
		for c, err := range a.Ledger.Chunks(ctx, j.ID, s.N, OffsetRange{}) {
			chunks[c.ID.Offset] = &c
			if !yield(c, err) {
				return
			}
		}
	}
	f, err := foldSplit(j, s, keeping, a.alive)
	if err != nil {
		return nil, fmt.Errorf("read its chunks: %w", err)
	}
	if f.Generation != s.Fold || !f.Settled {
		return nil, fmt.Errorf("its chunks have changed since it was folded: %w", ErrConflict)
	}
	return chunks, nil
}

// pieceWriter writes one answers piece and one errors piece.
type pieceWriter struct {
	a               *Aggregate
	job             *Job
	answers, errors lazyFile
}

func (p *pieceWriter) bytes() int64 { return p.answers.bytes + p.errors.bytes }

func (p *pieceWriter) abort() {
	p.answers.abort()
	p.errors.abort()
}

// commit makes the pieces visible. Every chunk below to is in them, or in earlier ones.
func (p *pieceWriter) commit(ctx context.Context, to int) ([]Piece, error) {
	var made []Piece
	for _, f := range []*lazyFile{&p.answers, &p.errors} {
		info, err := f.commit(ctx)
		if err != nil {
			return nil, fmt.Errorf("commit %s: %w", f.name, err)
		}
		if info.Bytes > 0 {
			made = append(made, Piece{Errors: f == &p.errors, File: info.FileRef, Bytes: info.Bytes, To: to})
		}
	}
	return made, nil
}

// chunk writes a chunk's lines; c is nil if it was never claimed.
func (p *pieceWriter) chunk(ctx context.Context, m *ChunkMessage, c *Chunk) error {
	if c == nil {
		c = newChunk(m)
	}
	if !c.Done() {
		return p.openChunk(ctx, m, c)
	}
	return p.outcomes(ctx, c, nil)
}

// openChunk writes a chunk with items that have no outcome: the input is read again for their ids.
func (p *pieceWriter) openChunk(ctx context.Context, m *ChunkMessage, c *Chunk) error {
	data, err := readChunkBytes(ctx, p.a.Files, p.job, m)
	if err != nil {
		return err
	}
	parser := newLineParser(p.job.Endpoint, p.job.Cut.LineBytes)
	lines := make(map[int][]byte)
	open := c.Open()
	for ordinal, l := range splitLines(data, m.Offset, m.Lines) {
		if open.Has(ordinal) {
			parsed, _ := parser.parse(l.content)
			code, message := p.unfinished(c, ordinal)
			lines[ordinal] = append(appendError(nil, lineID(p.job.ID, l.offset), parsed.CustomID, code, message), '\n')
		}
	}
	return p.outcomes(ctx, c, lines)
}

// unfinished says why an item has no outcome.
func (p *pieceWriter) unfinished(c *Chunk, ordinal int) (code, message string) {
	last := ""
	for _, g := range c.Errors {
		if g.Items.Has(ordinal) {
			code, last = g.Code, g.Message
		}
	}
	switch {
	case c.Dead && code != "":
		return code, last
	case p.job.Stop != nil && p.job.Stop.As == PhaseCancelled:
		code, message = ItemCancelled, "This request was not executed because the batch was cancelled."
	default:
		code, message = ItemExpired, "This request could not be executed before the completion window expired."
	}
	if last != "" {
		message += " Last error: " + last
	}
	return code, message
}

// outcomes copies the chunk's lines from its parts, by rising ordinal; an item without an outcome has its line in lines,
// unless it is spent and a part keeps its last error.
func (p *pieceWriter) outcomes(ctx context.Context, c *Chunk, lines map[int][]byte) error {
	from := make([]int, c.Lines) // ordinal → index of its part + 1
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
	readers := make([]*partReader, len(c.Parts))
	defer func() {
		for _, r := range readers {
			if r != nil {
				r.close()
			}
		}
	}()
	last := lastUse(from, len(c.Parts))
	for o := range c.Items().Ordinals {
		to := &p.errors
		if c.Resolved.Has(o) && !c.Failed.Has(o) {
			to = &p.answers
		}
		w, err := to.open(ctx)
		if err != nil {
			return err
		}
		i := from[o] - 1
		if i < 0 {
			if _, err := w.Write(lines[o]); err != nil {
				return fmt.Errorf("write %s: %w", to.name, err)
			}
			continue
		}
		if readers[i] == nil {
			if readers[i], err = p.a.parts.open(ctx, partName(c.ID, c.Parts[i].Attempt, c.Parts[i].Seq)); err != nil {
				return err
			}
		}
		if err := readers[i].copyLine(w, o, !c.Resolved.Has(o)); err != nil {
			return fmt.Errorf("read part %d-%d: %w", c.Parts[i].Attempt, c.Parts[i].Seq, err)
		}
		if last[i] == o { // a chunk may have thousands of parts: keep open only what is still needed
			readers[i].close()
			readers[i] = nil
		}
	}
	return nil
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

// lazyFile is an object that is begun with its first byte.
type lazyFile struct {
	files Files
	name  string
	bytes int64
	w     FileWriter
	buf   *bufio.Writer
}

func (f *lazyFile) open(ctx context.Context) (io.Writer, error) {
	if f.w == nil {
		w, err := f.files.Create(ctx, f.name)
		if err != nil {
			return nil, fmt.Errorf("create %s: %w", f.name, err)
		}
		f.w, f.buf = w, bufio.NewWriterSize(w, 256<<10)
	}
	return f, nil
}

func (f *lazyFile) Write(b []byte) (int, error) {
	n, err := f.buf.Write(b)
	f.bytes += int64(n)
	return n, err
}

func (f *lazyFile) commit(ctx context.Context) (FileInfo, error) {
	if f.w == nil {
		return FileInfo{}, nil
	}
	if err := f.buf.Flush(); err != nil {
		return FileInfo{}, err
	}
	return f.w.Commit(ctx)
}

func (f *lazyFile) abort() {
	if f.w != nil {
		_ = f.w.Abort() // what led here counts
	}
}
