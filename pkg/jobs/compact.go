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
	lines := outcomeLines{files: p.a.Files, parts: p.a.parts, job: p.job}
	if c == nil {
		c = newChunk(m)
	}
	return lines.write(ctx, m, c, c.Items(), p.file(ctx))
}

// file is where the line of an item goes.
func (p *pieceWriter) file(ctx context.Context) func(ordinal int, failed bool) (io.Writer, error) {
	return func(_ int, failed bool) (io.Writer, error) {
		if failed {
			return p.errors.open(ctx)
		}
		return p.answers.open(ctx)
	}
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
