package jobs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"

	"github.com/dchest/siphash"
)

// MaxKeptViolations is how many violations are kept of a split, and of a job; the rest is counted.
const MaxKeptViolations = 1000

// maxModels bounds the model names that are counted by name.
const maxModels = 100

// splitScan is what the scan of a split found. It follows from the input, the job's rules and its cut alone.
type splitScan struct {
	Chunks     []ChunkCut       `json:"chunks,omitempty"`
	Lines      int64            `json:"lines"` // physical lines that start in the split
	Items      int64            `json:"items"` // of them not blank; bad ones are items too
	Violations int              `json:"violations,omitempty"`
	Kept       []Violation      `json:"kept,omitempty"`   // the first MaxKeptViolations; Line counts from 1 within the split
	Fatal      *Violation       `json:"fatal,omitempty"`  // too_many_tasks: the job cannot run, whatever it does with bad lines
	Models     map[string]int64 `json:"models,omitempty"` // valid lines by model, the first maxModels names
	OtherModel int64            `json:"other_models,omitempty"`
}

// ChunkCut is where one chunk lies and what its lines are.
//
// A chunk begins with an item, and reaches up to where the next one of its split begins, or the split's last line ends.
// So blank lines belong to the chunk before them (those before a split's first item to none), and no chunk is without
// items. Lines and Blank go as far as its last item; blank lines after that are in Length only.
type ChunkCut struct {
	Offset int64  `json:"o"`
	Length int64  `json:"n"`
	Line   int64  `json:"l"` // of its first line within the split, from 0
	Lines  int    `json:"c"` // at most MaxChunkLines
	CRC    uint32 `json:"s"` // CRC-32C of its first Cut.ReadBytes
	Blank  Bits   `json:"b,omitempty"`
	Bad    Bits   `json:"x,omitempty"` // lines with a violation of their own; duplicates are found later
}

// Items is how many of its lines are items.
func (c *ChunkCut) Items() int { return c.Lines - c.Blank.Count() }

// scanner scans splits of one input. Its fields stay as they are while it is used; the callbacks may be nil.
type scanner struct {
	files    Files
	input    FileRef
	bytes    int64 // of the input
	endpoint string
	cut      Cut
	key      [16]byte // of the hashes of ids

	violation func(Violation) error // each one, in order; Line counts from 1 within the split
	ids       func([]idEntry) error // a sorted run of the ids, to be used before it returns
}

// scan scans split n in memory that depends on the cut alone. Safe for concurrent use, if the callbacks are.
func (s *scanner) scan(ctx context.Context, n int) (splitScan, error) {
	w := splitWalk{
		scanner: s,
		parser:  newLineParser(s.endpoint, s.cut.LineBytes),
		cutter:  chunkCutter{cut: s.cut},
		key0:    binary.LittleEndian.Uint64(s.key[:8]),
		key1:    binary.LittleEndian.Uint64(s.key[8:]),
	}
	if err := w.walk(ctx, n); err != nil {
		return splitScan{}, fmt.Errorf("scan split %d, line %d of it: %w", n, w.found.Lines+1, err)
	}
	return w.result(), nil
}

// splitWalk is one scan on its way.
type splitWalk struct {
	*scanner
	parser     *lineParser
	cutter     chunkCutter
	key0, key1 uint64
	entries    []idEntry
	found      splitScan

	model string // of the last valid line, and how many in a row had it and are not in found yet
	run   int64
}

func (w *splitWalk) walk(ctx context.Context, n int) error {
	from := int64(n) * w.cut.SplitBytes
	until := min(from+w.cut.SplitBytes, w.bytes)
	start := max(from-1, 0) // the byte before tells whether a line starts at the first one
	const beyond = 64 << 10 // most splits' last line ends within this
	input := &inputReader{ctx: ctx, files: w.files, input: w.input, at: start, end: w.bytes, span: until - start + beyond}
	defer input.Close()
	if w.ids != nil {
		const usualLine = 256 // bytes; only how much is set aside from the start depends on it
		w.entries = make([]idEntry, 0, min((until-from)/usualLine+1, maxRunIDs))
	}
	lines := newLineReader(input, start, w.cut.mostOfLine())
	if from > 0 {
		if err := lines.skip(until); err != nil {
			return err
		}
	}
	for lines.offset < until {
		offset := lines.offset
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := w.line(offset, line); err != nil {
			return err
		}
		w.found.Lines++
	}
	return w.flushIDs()
}

// line takes in one physical line.
func (w *splitWalk) line(offset int64, raw physicalLine) error {
	content := stripLine(raw.raw, offset)
	if isBlankLine(content, w.cut.LineBytes) {
		w.cutter.blank(raw)
		return nil
	}
	w.found.Items++
	line, v := w.parser.parse(content)
	if !w.cutter.item(offset, w.found.Lines, raw, v != nil) && w.found.Fatal == nil {
		w.found.Fatal = &Violation{Code: ViolationTasks, Line: w.found.Lines + 1, Message: fmt.Sprintf(
			"the input needs more than %d chunks for a split of %d bytes; raise the lines or bytes a chunk may have, or split the input into several jobs",
			MaxSplitChunks, w.cut.SplitBytes)}
	}
	if line.id != nil {
		if err := w.addID(line.id); err != nil {
			return err
		}
	}
	if v != nil {
		return w.addViolation(*v)
	}
	if line.Model != w.model {
		w.countModel()
		w.model = line.Model
	}
	w.run++
	return nil
}

func (w *splitWalk) addViolation(v Violation) error {
	v.Line = w.found.Lines + 1
	w.found.Violations++
	if len(w.found.Kept) < MaxKeptViolations {
		w.found.Kept = append(w.found.Kept, v)
	}
	if w.violation == nil {
		return nil
	}
	return w.violation(v)
}

// countModel adds the lines in a row that had the last model.
func (w *splitWalk) countModel() {
	if w.run == 0 || w.model == "" {
		w.run = 0
		return
	}
	if w.found.Models == nil {
		w.found.Models = map[string]int64{}
	}
	if _, known := w.found.Models[w.model]; known || len(w.found.Models) < maxModels {
		w.found.Models[w.model] += w.run
	} else {
		w.found.OtherModel += w.run
	}
	w.run = 0
}

func (w *splitWalk) addID(id []byte) error {
	if w.ids == nil {
		return nil
	}
	if w.found.Lines > math.MaxUint32 {
		return Errorf(CodeLimit, "the split has more than %d lines", uint32(math.MaxUint32)).WithHint("scan it in smaller splits")
	}
	hi, lo := siphash.Hash128(w.key0, w.key1, id)
	w.entries = append(w.entries, idEntry{hi: hi, lo: lo, line: uint32(w.found.Lines)})
	if len(w.entries) < maxRunIDs {
		return nil
	}
	return w.flushIDs()
}

func (w *splitWalk) flushIDs() error {
	if len(w.entries) == 0 {
		return nil
	}
	sortIDs(w.entries)
	err := w.ids(w.entries)
	w.entries = w.entries[:0]
	return err
}

func (w *splitWalk) result() splitScan {
	w.countModel()
	w.found.Chunks = w.cutter.finish()
	return w.found
}

// chunkCutter cuts the lines of a split into chunks.
type chunkCutter struct {
	cut    Cut
	chunks []ChunkCut
	open   ChunkCut
	blanks int    // lines since the open chunk's last item
	all    uint32 // CRC of the open chunk
	first  uint32 // the same while it has one line, of no more than Cut.ReadBytes
	full   bool   // the split has more chunks than it may have
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// blank adds a blank line to the chunk before it.
func (c *chunkCutter) blank(raw physicalLine) {
	if c.open.Lines > 0 {
		c.blanks++
		c.extend(raw)
	}
}

// item adds a line that is an item. False if the split would have too many chunks; from then on all lines are left out.
func (c *chunkCutter) item(offset, line int64, raw physicalLine, bad bool) bool {
	if c.open.Lines > 0 && (c.closes() || raw.length > c.cut.mostOfLine()) {
		c.close()
	}
	if c.open.Lines == 0 && len(c.chunks) == MaxSplitChunks {
		c.full = true
	}
	if c.full {
		return false
	}
	if c.open.Lines == 0 {
		c.open = ChunkCut{Offset: offset, Line: line}
	}
	for ; c.blanks > 0; c.blanks-- {
		c.open.Blank.Set(c.open.Lines)
		c.open.Lines++
	}
	if bad {
		c.open.Bad.Set(c.open.Lines)
	}
	c.open.Lines++
	c.extend(raw)
	return true
}

// closes tells whether the open chunk takes no further item. A line too long to share a chunk stays alone in its own, so
// that nobody has to read it to get at another.
func (c *chunkCutter) closes() bool {
	lines := c.open.Lines + c.blanks
	enough := lines >= c.cut.ChunkLines || c.open.Length >= c.cut.ChunkBytes
	return lines >= MaxChunkLines || enough && c.open.Length >= c.cut.FloorBytes ||
		c.open.Lines == 1 && c.open.Length > c.cut.mostOfLine()
}

func (c *chunkCutter) extend(raw physicalLine) {
	c.all = crc32.Update(c.all, castagnoli, raw.raw)
	if c.open.Lines == 1 {
		room := max(c.cut.mostOfLine()-c.open.Length, 0)
		c.first = crc32.Update(c.first, castagnoli, raw.raw[:min(int64(len(raw.raw)), room)])
	}
	c.open.Length += raw.length
}

func (c *chunkCutter) close() {
	c.open.CRC = c.all
	if c.open.Lines == 1 {
		c.open.CRC = c.first
	}
	c.chunks = append(c.chunks, c.open)
	c.open, c.blanks, c.all, c.first = ChunkCut{}, 0, 0, 0
}

func (c *chunkCutter) finish() []ChunkCut {
	if c.open.Lines > 0 {
		c.close()
	}
	return c.chunks
}

// inputReader reads the input from an offset on, range by range: a first one as long as is likely to do, then growing
// ones, so that reading on costs few requests and stopping early wastes little. An io.Reader of one call: it holds the
// call's context.
type inputReader struct {
	ctx   context.Context
	files Files
	input FileRef
	at    int64
	end   int64 // of the input
	span  int64 // of the next range

	body io.ReadCloser
	left int64 // of body
}

func (r *inputReader) Read(p []byte) (int, error) {
	for {
		if r.body == nil {
			if r.at >= r.end {
				return 0, io.EOF
			}
			if err := r.open(); err != nil {
				return 0, err
			}
		}
		n, err := r.body.Read(p[:min(int64(len(p)), r.left)])
		r.at += int64(n)
		r.left -= int64(n)
		switch {
		case err != nil && err != io.EOF:
			return n, fmt.Errorf("read the input at byte %d: %w", r.at, err)
		case err == io.EOF && r.left > 0:
			return n, fmt.Errorf("read the input: it ends at byte %d, before its %d bytes: %w", r.at, r.end, ErrChanged)
		case r.left == 0:
			if err := r.Close(); err != nil {
				return n, fmt.Errorf("close the input at byte %d: %w", r.at, err)
			}
		}
		if n > 0 || r.body != nil {
			return n, nil
		}
	}
}

func (r *inputReader) open() error {
	r.left = min(r.span, r.end-r.at)
	body, err := r.files.Read(r.ctx, r.input, r.at, r.left)
	if err != nil {
		return fmt.Errorf("open the input at byte %d: %w", r.at, err)
	}
	r.body = body
	const smallest, largest = 1 << 20, 64 << 20
	r.span = min(max(2*r.span, smallest), largest)
	return nil
}

// Close ends the range that is open, if any.
func (r *inputReader) Close() error {
	if r.body == nil {
		return nil
	}
	body := r.body
	r.body = nil
	return body.Close()
}
