package jobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// scanOf scans all splits of an input, and gives violations their line in the file.
func scanOf(t rapid.TB, input []byte, cut Cut) (scans []splitScan, violations []Violation, ids map[string][]lineRef) {
	t.Helper()
	files := newMemFiles()
	ids = map[string][]lineRef{}
	var before int64
	job := Job{InputBytes: int64(len(input)), Cut: cut}
	for n := range job.Splits() {
		s := scanner{files: files, input: files.put("in", input), bytes: int64(len(input)), endpoint: chatURL, cut: cut,
			violation: func(v Violation) error {
				v.Line += before
				violations = append(violations, v)
				return nil
			},
			ids: func(entries []idEntry) error {
				for _, e := range entries {
					hash := fmt.Sprintf("%x-%x", e.hi, e.lo)
					ids[hash] = append(ids[hash], lineRef{line: uint32(before) + e.line})
				}
				return nil
			}}
		found, err := s.scan(context.Background(), n)
		if err != nil {
			t.Fatal(err)
		}
		scans = append(scans, found)
		before += found.Lines
	}
	return scans, violations, ids
}

// checkScan compares the scan of an input, split by split, with the reference.
func checkScan(t rapid.TB, input []byte, cut Cut) {
	t.Helper()
	scans, violations, ids := scanOf(t, input, cut)
	lines := refLines(input, chatURL, cut.LineBytes)
	models, gotModels := map[string]int64{}, map[string]int64{}
	wantIDs := map[string]bool{}
	var want []Violation
	for i, l := range lines {
		switch {
		case l.code != "":
			want = append(want, Violation{Code: l.code, Param: l.param, Line: int64(i + 1)})
		case !l.blank:
			models[l.model]++
		}
		if l.id != "" && !l.blank {
			wantIDs[l.id] = true
		}
	}
	for n, s := range scans {
		var in []refLine
		var items int64
		for _, l := range lines {
			if l.offset/cut.SplitBytes == int64(n) {
				in = append(in, l)
				if !l.blank {
					items++
				}
			}
		}
		if s.Lines != int64(len(in)) || s.Items != items {
			t.Fatalf("split %d: %d lines, %d items; want %d, %d", n, s.Lines, s.Items, len(in), items)
		}
		chunks := refChunks(input, in, cut)
		if tooMany := len(chunks) > MaxSplitChunks; tooMany != (s.Fatal != nil) {
			t.Fatalf("split %d of %d chunks: fatal %+v", n, len(chunks), s.Fatal)
		} else if d := cmp.Diff(chunks[:min(len(chunks), MaxSplitChunks)], s.Chunks); d != "" && s.Fatal == nil {
			t.Fatalf("chunks of split %d (-want +got):\n%s", n, d)
		}
		for m, k := range s.Models {
			gotModels[m] += k
		}
	}
	for i := range violations {
		violations[i].Message = ""
	}
	if d := cmp.Diff(want, violations); d != "" {
		t.Fatalf("violations (-want +got):\n%s", d)
	}
	if d := cmp.Diff(models, gotModels); d != "" {
		t.Fatalf("models (-want +got):\n%s", d)
	}
	if len(ids) != len(wantIDs) {
		t.Fatalf("%d different ids, want %d", len(ids), len(wantIDs))
	}
}

var smallCut = Cut{SplitBytes: 1000, ChunkLines: 3, ChunkBytes: 400, FloorBytes: 100, LineBytes: 300}

// drawInput draws a file of good, bad, blank and odd lines, with ids that repeat.
func drawInput(t *rapid.T) []byte {
	line := rapid.OneOf(
		rapid.Custom(func(t *rapid.T) string {
			return request("custom_id", fmt.Sprintf(`"%d"`, rapid.IntRange(0, 30).Draw(t, "id")))
		}),
		rapid.Custom(func(t *rapid.T) string { return nasty[rapid.IntRange(0, len(nasty)-1).Draw(t, "nasty")].line }),
		rapid.SampledFrom([]string{"", "", " \t", "\r", strings.Repeat(" ", 301), strings.Repeat("x", 1200), "\ufeff", `{"custom_id":"0"}`}),
	)
	var b bytes.Buffer
	if rapid.Bool().Draw(t, "bom") {
		b.WriteString("\ufeff")
	}
	lines := rapid.SliceOfN(line, 0, 25).Draw(t, "lines")
	for i, l := range lines {
		b.WriteString(l)
		if i < len(lines)-1 || rapid.Bool().Draw(t, "end") {
			b.WriteString(rapid.SampledFrom([]string{"\n", "\r\n"}).Draw(t, "ending"))
		}
	}
	return b.Bytes()
}

func drawCut(t *rapid.T, size int) Cut {
	return Cut{
		SplitBytes: int64(rapid.OneOf(rapid.IntRange(1, 20), rapid.IntRange(1, max(size, 1))).Draw(t, "split")),
		ChunkLines: rapid.IntRange(1, 6).Draw(t, "chunk lines"),
		ChunkBytes: int64(rapid.IntRange(1, 1000).Draw(t, "chunk bytes")),
		FloorBytes: int64(rapid.IntRange(0, 500).Draw(t, "floor")),
		LineBytes:  int64(rapid.IntRange(50, 2000).Draw(t, "line bytes")),
	}
}

func TestScanAgreesWithTheReferenceAtAnySplitSize(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		input := drawInput(t)
		checkScan(t, input, drawCut(t, len(input)))
	})
}

func TestScanFindsTheSameAtAnySplitSize(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		input := drawInput(t)
		cut := drawCut(t, len(input))
		checkSameAs(t, input, cut, scanWhole(t, input, cut))
	})
}

func TestScanFindsTheSameAtEverySplitSize(t *testing.T) {
	lines := []string{"\ufeff" + request("custom_id", `"1"`), "", request("custom_id", `"é"`) + "\r", " \t", "x", request("custom_id", `"1"`), request("url", `"/v1/other"`), "", strings.Repeat("y", 200), "", request("custom_id", `"2"`)}
	input := []byte(strings.Join(lines, "\n"))
	cut := Cut{ChunkLines: 3, ChunkBytes: 200, FloorBytes: 50, LineBytes: 150}
	whole := scanWhole(t, input, cut)
	if len(whole.items) != 7 || len(whole.violations) != 3 {
		t.Fatalf("%d items, %d violations", len(whole.items), len(whole.violations))
	}
	for cut.SplitBytes = 1; cut.SplitBytes <= int64(len(input)); cut.SplitBytes++ {
		checkSameAs(t, input, cut, whole)
	}
}

// scanned is what the scan of an input finds, whatever its splits: items as workers read them, by offset.
type scanned struct {
	items      []string
	violations []Violation
	ids        map[string][]lineRef
}

func scanWhole(t rapid.TB, input []byte, cut Cut) scanned {
	t.Helper()
	cut.SplitBytes = int64(len(input) + 1)
	return scanAnyhow(t, input, cut)
}

func scanAnyhow(t rapid.TB, input []byte, cut Cut) (found scanned) {
	t.Helper()
	scans, violations, ids := scanOf(t, input, cut)
	found.violations, found.ids = violations, ids
	for _, s := range scans {
		for _, c := range s.Chunks {
			for o, l := range splitLines(input[c.Offset:c.Offset+cut.ReadBytes(c.Lines, c.Length)], c.Offset, c.Lines) {
				if !c.Blank.Has(o) {
					found.items = append(found.items, fmt.Sprintf("%d: %q, bad: %t", l.offset, l.content, c.Bad.Has(o)))
				}
			}
		}
	}
	return found
}

func checkSameAs(t rapid.TB, input []byte, cut Cut, want scanned) {
	t.Helper()
	got := scanAnyhow(t, input, cut)
	if d := cmp.Diff(want.items, got.items); d != "" {
		t.Fatalf("items (-whole +splits of %d):\n%s", cut.SplitBytes, d)
	}
	if d := cmp.Diff(want.violations, got.violations); d != "" {
		t.Fatalf("violations, messages included (-whole +splits of %d):\n%s", cut.SplitBytes, d)
	}
	if d := cmp.Diff(want.ids, got.ids, cmp.AllowUnexported(lineRef{})); d != "" {
		t.Fatalf("ids (-whole +splits of %d):\n%s", cut.SplitBytes, d)
	}
}

func TestChunksTileTheirSplit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		input := drawInput(t)
		cut := drawCut(t, len(input))
		scans, _, _ := scanOf(t, input, cut)
		parser := newLineParser(chatURL, cut.LineBytes)
		for n, s := range scans {
			var items int64
			for i, c := range s.Chunks {
				if c.Lines < 1 || c.Length < 1 || c.Items() < 1 || c.Blank.Has(0) {
					t.Fatalf("split %d: chunk %d does not begin with an item: %+v", n, i, c)
				}
				if i > 0 && c.Offset != s.Chunks[i-1].Offset+s.Chunks[i-1].Length {
					t.Fatalf("split %d: chunk %d does not begin where the one before ends", n, i)
				}
				items += int64(c.Items())
				checkWorkerSees(t, input, c, cut, parser)
			}
			if items != s.Items && s.Fatal == nil {
				t.Fatalf("split %d: %d items in chunks, %d in all", n, items, s.Items)
			}
		}
	})
}

// checkWorkerSees reads a chunk as a worker does, and compares with what the scan said.
func checkWorkerSees(t *rapid.T, input []byte, c ChunkCut, cut Cut, parser *lineParser) {
	data := input[c.Offset : c.Offset+cut.ReadBytes(c.Lines, c.Length)]
	ordinals := 0
	for ordinal, l := range splitLines(data, c.Offset, c.Lines) {
		ordinals++
		if blank := isBlankLine(l.content, cut.LineBytes); blank != c.Blank.Has(ordinal) {
			t.Fatalf("line %d of the chunk at %d: blank %v for the worker", ordinal, c.Offset, blank)
		} else if blank {
			continue
		}
		if _, v := parser.parse(l.content); (v != nil) != c.Bad.Has(ordinal) {
			t.Fatalf("line %d of the chunk at %d: violation %+v for the worker", ordinal, c.Offset, v)
		}
		if at := input[l.offset:]; !bytes.Equal(stripLine(at[:min(len(at), len(l.content)+lineFrame)], l.offset)[:len(l.content)], l.content) {
			t.Fatalf("line %d of the chunk at %d is not at its offset %d", ordinal, c.Offset, l.offset)
		}
	}
	if ordinals != c.Lines {
		t.Fatalf("the worker sees %d lines of the chunk at %d, want %d", ordinals, c.Offset, c.Lines)
	}
}

// endless is a file of one line without end, and of what comes before it.
type endless struct {
	*memFiles
	head  string
	bytes int64
	read  int64
}

func (f *endless) Read(_ context.Context, _ FileRef, offset, length int64) (io.ReadCloser, error) {
	fill := &countReader{f}
	head := f.head[min(offset, int64(len(f.head))):]
	r := io.LimitReader(io.MultiReader(strings.NewReader(head), fill), min(length, f.bytes-offset))
	return io.NopCloser(r), nil
}

type countReader struct{ f *endless }

func (r *countReader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	r.f.read += int64(len(p))
	return len(p), nil
}

func TestScanOfALongLineIsBoundedAndSitsAlone(t *testing.T) {
	head := request("", "") + "\n\n"
	const size = 200 << 20
	f := &endless{memFiles: newMemFiles(), head: head, bytes: size}
	cut := Cut{SplitBytes: 50 << 20, ChunkLines: 100, ChunkBytes: 1 << 20, FloorBytes: 1 << 16, LineBytes: 1 << 20}
	s := scanner{files: f, bytes: size, endpoint: chatURL, cut: cut}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	found, err := s.scan(context.Background(), 0)
	if err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
		t.Errorf("the scan of a line of %d bytes, %d being allowed, took %d bytes", size, cut.LineBytes, used)
	}
	var shape []string
	for _, c := range found.Chunks {
		shape = append(shape, fmt.Sprintf("%d+%d:%d bad %s", c.Offset, c.Length, c.Lines, c.Bad))
	}
	want := []string{fmt.Sprintf("0+%d:1 bad ", len(head)), fmt.Sprintf("%d+%d:1 bad 0", len(head), size-len(head))}
	if d := cmp.Diff(want, shape); d != "" {
		t.Errorf("chunks (-want +got):\n%s", d)
	}
	if n := cut.ReadBytes(1, found.Chunks[1].Length); n > 2<<20 {
		t.Errorf("a worker reads %d bytes of it", n)
	}
	f.read = 0
	middle, err := s.scan(context.Background(), 2)
	if err != nil || middle.Lines != 0 {
		t.Errorf("a split inside of the line has %d lines, error %v", middle.Lines, err)
	}
	if f.read > cut.SplitBytes+1<<20 {
		t.Errorf("a split inside of the line reads %d bytes", f.read)
	}
}

func TestLineReaderKeepsLongLinesToItsBound(t *testing.T) {
	const most = 100
	in := strings.Repeat("a", 3*lineWindow) + "\nb\n" + strings.Repeat("c", most-1) + "\n" + strings.Repeat("d", most) + "\n" + strings.Repeat("e", most)
	l := newLineReader(strings.NewReader(in), 0, most)
	var got []string
	for {
		line, err := l.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%.1s %d %d", line.raw, len(line.raw), line.length))
	}
	want := []string{fmt.Sprintf("a 100 %d", 3*lineWindow+1), "b 2 2", "c 100 100", "d 100 101", "e 100 100"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("first byte, kept, length (-want +got):\n%s", d)
	}
	if len(l.buf) > 2*lineWindow {
		t.Errorf("the buffer grew to %d bytes", len(l.buf))
	}
}

func TestTooManyChunksIsFatalAndSaysWhere(t *testing.T) {
	input := bytes.Repeat([]byte(request("", "")+"\n"), MaxSplitChunks+5)
	cut := Cut{SplitBytes: int64(len(input)), ChunkLines: 1, ChunkBytes: 1, LineBytes: 1000}
	scans, violations, _ := scanOf(t, input, cut)
	v := scans[0].Fatal
	if v == nil || v.Code != ViolationTasks || v.Line != MaxSplitChunks+1 || len(violations) != 0 {
		t.Errorf("fatal %+v, violations %v", v, violations)
	}
	if len(scans[0].Chunks) != MaxSplitChunks || scans[0].Items != MaxSplitChunks+5 {
		t.Errorf("%d chunks, %d items", len(scans[0].Chunks), scans[0].Items)
	}
}

func TestBlankLinesNeverNeedChunks(t *testing.T) {
	input := []byte(strings.Repeat("\n", 5*MaxChunkLines) + request("", "") + strings.Repeat("\n", 5*MaxChunkLines) + request("", ""))
	cut := DefaultCut(int64(len(input)))
	checkScan(t, input, cut)
	scans, _, _ := scanOf(t, input, cut)
	if len(scans[0].Chunks) != 2 {
		t.Errorf("%d chunks, want 2", len(scans[0].Chunks))
	}
}

func TestViolationsAreKeptToABoundAndCounted(t *testing.T) {
	scans, all, _ := scanOf(t, bytes.Repeat([]byte("x\n"), MaxKeptViolations+7), DefaultCut(0))
	if s := scans[0]; len(s.Kept) != MaxKeptViolations || s.Violations != MaxKeptViolations+7 || len(all) != s.Violations {
		t.Errorf("kept %d of %d, streamed %d", len(s.Kept), s.Violations, len(all))
	}
}

func TestModelsAreCountedToABound(t *testing.T) {
	var b strings.Builder
	for range 2 {
		for n := range maxModels + 5 {
			b.WriteString(request("body", fmt.Sprintf(`{"model":"m%d"}`, n)) + "\n")
		}
	}
	scans, _, _ := scanOf(t, []byte(b.String()), DefaultCut(0))
	if s := scans[0]; len(s.Models) != maxModels || s.Models["m0"] != 2 || s.OtherModel != 10 {
		t.Errorf("%d models, m0 %d times, others %d times", len(s.Models), s.Models["m0"], s.OtherModel)
	}
}

func TestScanOfAShortenedInputIsRefused(t *testing.T) {
	files := newMemFiles()
	s := scanner{files: files, input: files.put("in", []byte(request("", ""))), bytes: 10_000, endpoint: chatURL, cut: DefaultCut(0)}
	if _, err := s.scan(context.Background(), 0); !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), "scan split 0") {
		t.Errorf("error %v, want one that says that the input changed", err)
	}
}

// FuzzScan compares with the reference: any input, any cut.
func FuzzScan(f *testing.F) {
	var all bytes.Buffer
	for _, tt := range nasty {
		all.WriteString(tt.line + "\r\n\n")
		f.Add([]byte(tt.line+"\n\n"+tt.line), uint16(100), uint8(2), uint16(300))
	}
	f.Add(append([]byte("\ufeff"), all.Bytes()...), uint16(500), uint8(3), uint16(300))
	f.Fuzz(func(t *testing.T, input []byte, split uint16, chunkLines uint8, lineBytes uint16) {
		if len(input) > 1<<16 {
			return
		}
		checkScan(t, input, Cut{SplitBytes: max(int64(split), int64(len(input))/50+1), ChunkLines: int(chunkLines) + 1,
			ChunkBytes: 400, FloorBytes: 100, LineBytes: int64(lineBytes) + 1})
	})
}
