package jobs

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/klauspost/compress/zstd"
)

// A part is a zstd stream of lines: a header that lists the outcomes, then each outcome's line, by rising ordinal. It can
// be read with `zstdcat`, and adopted without the record that should have named it.

// outcome is what became of an item in this attempt.
type outcome struct {
	Ordinal int     `json:"n"`
	Kind    outKind `json:"k"`
	Bytes   int     `json:"b"` // of the line, newline included
	Usage   *Usage  `json:"u,omitempty"`
	Seconds float64 `json:"s,omitempty"`
	Cost    Cost    `json:"c,omitempty"`
	Code    string  `json:"code,omitempty"`
	Status  int     `json:"status,omitempty"`
	Message string  `json:"message,omitempty"` // normalised

	line []byte // with newline
}

// outKind is what an outcome is.
type outKind string

const (
	outAnswer outKind = "a"
	outError  outKind = "e"
	outSample outKind = "s" // no outcome: the last error of a spent item, kept for its error line
)

type partHeader struct {
	V        int       `json:"v"`
	Chunk    ChunkID   `json:"chunk"`
	Attempt  int       `json:"attempt"`
	Seq      int       `json:"seq"`
	Outcomes []outcome `json:"outcomes"`
}

// mask is the ordinals of some kinds.
func (h *partHeader) mask(kinds ...outKind) Bits {
	var b Bits
	for _, o := range h.Outcomes {
		for _, k := range kinds {
			if o.Kind == k {
				b.Set(o.Ordinal)
			}
		}
	}
	return b
}

// partPrefix is what the names of a chunk's parts begin with.
func partPrefix(c ChunkID) string {
	return fmt.Sprintf("jobs/%s/parts/%05d/%016x-", c.Job, c.Split, c.Offset)
}

func partName(c ChunkID, attempt, seq int) string {
	return fmt.Sprintf("%s%06d-%04d", partPrefix(c), attempt, seq)
}

// parts writes and reads parts. Its coders are kept for the next part: each holds a window of memory. The window bounds
// what a reader of many parts needs.
type parts struct {
	files    Files
	encoders sync.Pool // of *zstd.Encoder
	decoders sync.Pool // of *zstd.Decoder
}

const partWindow = 256 << 10

// maxHeader is more than the header of any part has: MaxChunkLines outcomes with codes and messages as long as they are kept.
const maxHeader = 8 << 20

func newParts(files Files) *parts { return &parts{files: files} }

func (p *parts) encoder() *zstd.Encoder {
	if e, ok := p.encoders.Get().(*zstd.Encoder); ok {
		return e
	}
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(partWindow), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic(err) // the options are constants
	}
	return e
}

func (p *parts) decoder() *zstd.Decoder {
	if d, ok := p.decoders.Get().(*zstd.Decoder); ok {
		return d
	}
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		panic(err) // the options are constants
	}
	return d
}

// write writes one part. That it exists already is fine: only this attempt writes this name, so it is this very part,
// written before a crash or a lost answer.
func (p *parts) write(ctx context.Context, h *partHeader) error {
	name := partName(h.Chunk, h.Attempt, h.Seq)
	w, err := p.files.Create(ctx, name)
	if err != nil {
		return fmt.Errorf("write part %s: %w", name, err)
	}
	defer w.Abort()
	head, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("write part %s: %w", name, err)
	}
	z := p.encoder()
	defer p.encoders.Put(z)
	z.Reset(w)
	_, err = z.Write(append(head, '\n'))
	for _, o := range h.Outcomes {
		if err == nil {
			_, err = z.Write(o.line)
		}
	}
	if err = errors.Join(err, z.Close()); err != nil {
		return fmt.Errorf("write part %s: %w", name, err)
	}
	if _, err := w.Commit(ctx); err != nil && !errors.Is(err, ErrExists) {
		return fmt.Errorf("write part %s: %w", name, err)
	}
	return nil
}

// partReader reads a part's outcomes in order.
type partReader struct {
	header partHeader
	next   int // index of the outcome whose line comes next

	parts *parts
	file  io.ReadCloser
	z     *zstd.Decoder
	buf   *bufio.Reader
}

// open reads a part's header.
func (p *parts) open(ctx context.Context, name string) (*partReader, error) {
	f, err := p.files.Read(ctx, FileRef{Name: name}, 0, -1)
	if err != nil {
		return nil, fmt.Errorf("read part %s: %w", name, err)
	}
	r := &partReader{parts: p, file: f, z: p.decoder()}
	if err := r.readHeader(); err != nil {
		r.close()
		return nil, fmt.Errorf("read part %s: %w", name, err)
	}
	return r, nil
}

func (r *partReader) readHeader() error {
	if err := r.z.Reset(r.file); err != nil {
		return err
	}
	r.buf = bufio.NewReaderSize(r.z, 64<<10)
	head, err := r.headerLine()
	if err != nil {
		return fmt.Errorf("its header: %w", err)
	}
	// Version 2 reads this in half the time, and it is most of what compacting small answers takes.
	if err := jsonv2.Unmarshal(bytes.TrimSuffix(head, []byte("\n")), &r.header); err != nil {
		return fmt.Errorf("its header: %w", err)
	}
	if r.header.V > SchemaVersion {
		return ErrNewer
	}
	return r.header.check()
}

// headerLine reads the first line, with its end.
func (r *partReader) headerLine() ([]byte, error) {
	var head []byte
	for {
		some, err := r.buf.ReadSlice('\n')
		head = append(head, some...)
		switch {
		case len(head) > maxHeader:
			return nil, fmt.Errorf("it is longer than %d bytes", maxHeader)
		case !errors.Is(err, bufio.ErrBufferFull):
			return head, err
		}
	}
}

// check refuses a header that cannot be: what it says is merged into records.
func (h *partHeader) check() error {
	last := -1
	for _, o := range h.Outcomes {
		switch known := o.Kind == outAnswer || o.Kind == outError || o.Kind == outSample; {
		case o.Ordinal <= last || o.Ordinal >= MaxChunkLines:
			return fmt.Errorf("its header: item %d after item %d", o.Ordinal, last)
		case !known:
			return fmt.Errorf("its header: item %d is of unknown kind %q", o.Ordinal, o.Kind)
		case o.Bytes < 1:
			return fmt.Errorf("its header: item %d has %d bytes", o.Ordinal, o.Bytes)
		}
		last = o.Ordinal
	}
	return nil
}

// copyLine writes the line of an ordinal, which must not lie before one that was already copied.
func (r *partReader) copyLine(w io.Writer, ordinal int, sample bool) error {
	for ; r.next < len(r.header.Outcomes); r.next++ {
		o := r.header.Outcomes[r.next]
		if o.Ordinal == ordinal && (o.Kind == outSample) == sample {
			r.next++
			if err := r.copy(w, o.Bytes); err != nil {
				return fmt.Errorf("copy item %d: %w", ordinal, err)
			}
			return nil
		}
		if _, err := r.buf.Discard(o.Bytes); err != nil {
			return fmt.Errorf("skip item %d: %w", o.Ordinal, err)
		}
	}
	return fmt.Errorf("item %d is not in it", ordinal)
}

func (r *partReader) copy(w io.Writer, n int) error {
	if n > r.buf.Size() {
		_, err := io.CopyN(w, r.buf, int64(n))
		return err
	}
	line, err := r.buf.Peek(n)
	if err != nil {
		return err
	}
	if _, err := w.Write(line); err != nil {
		return err
	}
	_, err = r.buf.Discard(n)
	return err
}

func (r *partReader) close() {
	if r.z != nil {
		_ = r.z.Reset(nil)
		r.parts.decoders.Put(r.z)
		r.z = nil
	}
	_ = r.file.Close() // only read from
}
