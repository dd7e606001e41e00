package jobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Cursor is a place between two items of a job. The zero Cursor is before the first. Places stay, whatever becomes of the
// items: one that is redriven may have another outcome when it is read again.
type Cursor struct {
	split   int
	offset  int64 // of a chunk
	ordinal int   // of its next item
}

// String is short, and fits into a URL. It is for ParseCursor only.
func (c Cursor) String() string { return fmt.Sprintf("%d.%d.%d", c.split, c.offset, c.ordinal) }

// ParseCursor reads what String wrote; anything else is CodeInvalid.
func ParseCursor(s string) (Cursor, error) {
	var c Cursor
	if len(s) <= 64 {
		_, err := fmt.Sscanf(s, "%d.%d.%d", &c.split, &c.offset, &c.ordinal)
		if err == nil && c.String() == s && c.split >= 0 && c.split < MaxJobSplits && c.offset >= 0 && c.ordinal >= 0 && c.ordinal <= MaxChunkLines {
			return c, nil
		}
	}
	return Cursor{}, Errorf(CodeInvalid, "%.70q is no place in the results of a job", s)
}

// Which are the outcomes that are read.
type Which string

// All of them, or only some.
const (
	AllOutcomes  Which = ""
	OnlyAnswered Which = "answered"
	OnlyFailed   Which = "failed"
)

// ReadQuery is what outcomes are read.
type ReadQuery struct {
	After Cursor
	Only  Which
	Items int  // at most so many
	Bytes int  // the line that reaches so many bytes is the last; one comes at least
	Input bool // each line with the one that asked for it, as "input"
}

// ReadState is what there is after a page.
type ReadState string

// What there is after a page.
const (
	ReadMore     ReadState = "more"     // more, now
	ReadPending  ReadState = "pending"  // the next chunk is still open: more, later
	ReadComplete ReadState = "complete" // nothing
)

// Page says where a page has ended.
type Page struct {
	Next  Cursor // to go on with
	State ReadState
}

// ReadOutcomes gives the outcomes of a job in the order of its input, as far as they are there: while it runs, up to the first
// chunk that is still open. A line is what the output or the error file has, or will have, newline included; it is the
// reader's until its next call. Going on from a cursor reads nothing that lies before.
func ReadOutcomes(ctx context.Context, p Ports, j *Job, q ReadQuery, line func([]byte) error) (Page, error) {
	r := outcomeReader{ports: &p, job: j, query: q, line: line, at: q.After}
	r.lines = outcomeLines{files: p.Files, parts: newParts(p.Files), job: j}
	state, err := r.read(ctx)
	if errors.Is(err, ErrChanged) {
		err = Errorf(CodeInvalid, "its input was changed while it ran: %w", err)
	}
	if err != nil {
		return Page{}, fmt.Errorf("read the outcomes of job %s: %w", j.ID, err)
	}
	return Page{r.at, state}, nil
}

type outcomeReader struct {
	ports *Ports
	job   *Job
	query ReadQuery
	line  func([]byte) error
	lines outcomeLines

	at           Cursor // after the last item that was looked at
	items, bytes int
}

// errFull ends a page.
var errFull = errors.New("the page is full")

func (r *outcomeReader) read(ctx context.Context) (ReadState, error) {
	switch {
	case r.job.Phase == PhaseFailed, r.job.Checked == nil && r.job.Phase.Ended():
		return ReadComplete, nil
	case r.job.Checked == nil:
		return ReadPending, nil
	}
	for n := r.at.split; n < r.job.Splits(); n++ {
		if n > r.at.split {
			r.at = Cursor{split: n}
		}
		switch state, err := r.split(ctx, n); {
		case errors.Is(err, errFull):
			return ReadMore, nil
		case err != nil || state != ReadMore:
			return state, err
		}
	}
	return ReadComplete, nil
}

// split reads on in a split: ReadMore if that was all of it.
func (r *outcomeReader) split(ctx context.Context, n int) (ReadState, error) {
	s, err := r.ports.Ledger.Split(ctx, r.job.ID, n)
	if errors.Is(err, ErrNotFound) || err == nil && s.Scanned == nil {
		return ReadPending, nil
	}
	if err != nil {
		return "", fmt.Errorf("read split %d: %w", n, err)
	}
	cuts, err := readCuts(ctx, r.ports.Files, s.Scanned.Cuts)
	if err != nil {
		return "", err
	}
	of, err := readVerdict(ctx, r.ports.Files, r.job, n)
	if err != nil {
		return "", err
	}
	first, _ := slices.BinarySearchFunc(cuts.Chunks, r.at.offset, func(c ChunkCut, offset int64) int { return int(min(max(c.Offset-offset, -1), 1)) })
	record, stop := iter.Pull2(r.ports.Ledger.Chunks(ctx, r.job.ID, n, OffsetRange{From: r.at.offset}))
	defer stop()
	c, err, some := record()
	for i := first; i < len(cuts.Chunks); i++ {
		cut := &cuts.Chunks[i]
		for some && err == nil && c.ID.Offset < cut.Offset {
			c, err, some = record()
		}
		if some && err != nil {
			return "", fmt.Errorf("read the chunks of split %d: %w", n, err)
		}
		m := chunkMessage(r.job, &s, cut, of)
		chunk := newChunk(m)
		if some && c.ID.Offset == cut.Offset {
			chunk = &c
		}
		if !chunk.Settled() && !r.job.Phase.Ended() && (r.job.Stop == nil || !s.Settled) {
			return ReadPending, nil
		}
		if err := r.chunk(ctx, m, chunk); err != nil {
			return "", err
		}
	}
	return ReadMore, nil
}

// chunk reads on in a chunk. errFull: the page ends after an item that is not the last of the job.
func (r *outcomeReader) chunk(ctx context.Context, m *ChunkMessage, c *Chunk) error {
	if r.at.offset != m.Offset {
		r.at = Cursor{split: m.Split, offset: m.Offset}
	}
	want := c.Items().Without(AllBits(r.at.ordinal))
	failed := c.Items().Without(c.Resolved).Or(c.Failed)
	switch r.query.Only {
	case OnlyAnswered:
		want = want.Without(failed)
	case OnlyFailed:
		want = want.And(failed)
	}
	if want.Empty() {
		r.at.ordinal = m.Lines
		return nil
	}
	if r.full() {
		return errFull
	}
	inputs, err := r.inputs(ctx, m)
	if err != nil {
		return fmt.Errorf("chunk at %d: %w", m.Offset, err)
	}
	var line bytes.Buffer
	give := func() error {
		if line.Len() == 0 {
			return nil
		}
		if inputs != nil {
			mergeInput(&line, inputs[r.at.ordinal-1])
		}
		r.items++
		r.bytes += line.Len()
		defer line.Reset()
		return r.line(line.Bytes())
	}
	err = r.lines.write(ctx, m, c, want, func(ordinal int, _ bool) (io.Writer, error) {
		if err := give(); err != nil {
			return nil, err
		}
		if r.full() {
			return nil, errFull
		}
		r.at.ordinal = ordinal + 1
		return &line, nil
	})
	if err == nil {
		err = give()
	}
	if err == nil {
		r.at.ordinal = m.Lines
	}
	return err
}

func (r *outcomeReader) full() bool {
	return r.items >= r.query.Items || r.items > 0 && r.bytes >= r.query.Bytes
}

// inputs are the lines of a chunk that asked, by ordinal, if they are wanted.
func (r *outcomeReader) inputs(ctx context.Context, m *ChunkMessage) (map[int][]byte, error) {
	if !r.query.Input {
		return nil, nil
	}
	data, err := readChunkBytes(ctx, r.ports.Files, r.job, m)
	if err != nil {
		return nil, err
	}
	inputs := make(map[int][]byte, m.Lines)
	for ordinal, l := range splitLines(data, m.Offset, m.Lines) {
		inputs[ordinal] = l.content
	}
	return inputs, nil
}

// maxRawInput is how much is shown of an input line that is no JSON object.
const maxRawInput = 1000

// mergeInput adds the member "input" to the JSON object of a line.
func mergeInput(line *bytes.Buffer, input []byte) {
	line.Truncate(bytes.LastIndexByte(line.Bytes(), '}'))
	line.WriteString(`,"input":`)
	if v := jsontext.Value(bytes.TrimSpace(input)); v.Kind() == '{' && utf8.Valid(v) && v.IsValid(lenient...) {
		line.Write(v)
	} else {
		line.Write(appendQuoted(nil, string(input[:min(len(input), maxRawInput)])))
	}
	line.WriteString("}\n")
}
