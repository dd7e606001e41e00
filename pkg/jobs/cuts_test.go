package jobs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCutsComeBackAsTheyWereSaved(t *testing.T) {
	ctx := context.Background()
	input := []byte(request("", "") + "\n\nx\n" + request("body", `{"model":"n"}`) + "\n" + request("", "") + "\n")
	scans, _, _ := scanOf(t, input, Cut{SplitBytes: 1000, ChunkLines: 2, ChunkBytes: 1000, LineBytes: 1000})
	files := newMemFiles()
	want := splitCuts{Split: 3, splitScan: scans[0], IDs: []string{idsName("j", 3, 0)}}
	want.Fatal = &Violation{Code: ViolationTasks, Message: "too many"}
	ref, err := saveCuts(ctx, files, cutsName("j", 3), want)
	if err != nil {
		t.Fatal(err)
	}
	first, _ := files.get(ref.Name)
	again, err := saveCuts(ctx, files, cutsName("j", 3), want)
	if err != nil || again != ref {
		t.Errorf("saving the same again: %v, %v", again, err)
	}
	got, err := readCuts(ctx, files, ref)
	if err != nil {
		t.Fatal(err)
	}
	want.V = SchemaVersion
	if d := cmp.Diff(want, got, cmp.AllowUnexported(splitCuts{})); d != "" {
		t.Errorf("cuts (-saved +read):\n%s", d)
	}
	if runs := got.runs(); len(runs) != 1 || runs[0].split != 3 || runs[0].file.Name != "jobs/j/splits/3.ids-0" {
		t.Errorf("runs %+v", runs)
	}
	if _, err := saveCuts(ctx, files, "other", got); err != nil {
		t.Fatal(err)
	}
	if second, _ := files.get("other"); !bytes.Equal(first, second) {
		t.Errorf("equal cuts are written as different bytes:\n%s\n%s", first, second)
	}
}

func TestCutsOfANewerVersionAreLeftAlone(t *testing.T) {
	files := newMemFiles()
	if _, err := readCuts(context.Background(), files, files.put("new", []byte(`{"v":99,"chunks":{"other":"shape"}}`))); !errors.Is(err, ErrNewer) {
		t.Errorf("error %v, want ErrNewer", err)
	}
	if _, err := readCuts(context.Background(), files, files.put("bad", []byte(`{`))); err == nil || errors.Is(err, ErrNewer) {
		t.Errorf("error %v, want one of decoding", err)
	}
}

// someCuts are the cuts of a split with items of every kind, as they are kept.
func someCuts(t testing.TB) []byte {
	t.Helper()
	input := request("", "") + "\n\nx\n" + request("body", `{"model":"n"}`) + "\n" + request("", "") + "\n"
	scans, _, _ := scanOf(t, []byte(input), Cut{SplitBytes: 1000, ChunkLines: 4, ChunkBytes: 1000, LineBytes: 1000})
	files := newMemFiles()
	ref, err := saveCuts(t.Context(), files, "cuts", splitCuts{Split: 3, splitScan: scans[0], IDs: []string{idsName("j", 3, 0)}})
	if err != nil {
		t.Fatal(err)
	}
	body, _ := files.get(ref.Name)
	return body
}

// possible tells what is wrong with cuts that no scan can have made. Messages and records are made of them, memory is set
// aside by them, and slices are indexed by them.
func possible(c *splitCuts) error {
	if c.Split < 0 || c.Split >= MaxJobSplits || len(c.Chunks) > MaxSplitChunks {
		return fmt.Errorf("split %d: %d chunks", c.Split, len(c.Chunks))
	}
	if len(c.Kept) != min(c.Violations, MaxKeptViolations) {
		return fmt.Errorf("%d of %d violations are kept", len(c.Kept), c.Violations)
	}
	var lines, items int64
	for i := range c.Chunks {
		cut := &c.Chunks[i]
		lines = max(lines, cut.Line+int64(cut.Lines))
		items += int64(cut.Items())
		stray := cut.Blank.Or(cut.Bad).Without(AllBits(min(max(cut.Lines, 0), MaxChunkLines)))
		if cut.Offset < 0 || cut.Length < 1 || cut.Line < 0 || cut.Lines < 1 || cut.Lines > MaxChunkLines || !stray.Empty() || cut.Items() < 1 {
			return fmt.Errorf("chunk %d: %+v", i, cut)
		}
		if i == 0 {
			continue
		}
		if last := &c.Chunks[i-1]; cut.Offset != last.Offset+last.Length || cut.Line < last.Line+int64(last.Lines) {
			return fmt.Errorf("chunk %d is at %d, line %d, after one at %d, line %d", i, cut.Offset, cut.Line, last.Offset, last.Line)
		}
	}
	if c.Lines < lines || c.Items < items || c.Items > items && c.Fatal == nil {
		return fmt.Errorf("%d items in %d lines; in chunks %d in %d", c.Items, c.Lines, items, lines)
	}
	return nil
}

func TestCutsThatCannotBeAreRefused(t *testing.T) {
	whole := string(someCuts(t))
	for _, row := range [][2]string{
		{`"split":3`, `"split":-1`}, {`"split":3`, `"split":8000`},
		{`"lines":5`, `"lines":-5`}, {`"lines":5`, `"lines":4`}, {`"items":4`, `"items":-4`}, {`"items":4`, `"items":5`},
		{`"violations":1`, `"violations":-1`}, {`"violations":1`, `"violations":0`}, {`"kept":[`, `"keep":[`},
		{`"o":0`, `"o":-5`}, {`"o":0`, `"o":5`}, {`"n":171`, `"n":-171`}, {`"n":171`, `"n":0`}, {`"n":84`, `"n":0`},
		{`"l":0`, `"l":-1`}, {`"l":0`, `"l":1`}, {`"l":4`, `"l":3`}, {`"l":4`, `"l":5`},
		{`"c":4`, `"c":0`}, {`"c":4`, `"c":-1`}, {`"c":4`, `"c":3`}, {`"c":4`, `"c":4097`}, {`"c":4`, `"c":1099511627776`},
		{`"b":"1"`, `"b":"0-3"`}, {`"b":"1"`, `"b":"4"`}, {`"x":"2"`, `"x":"4"`},
	} {
		if !strings.Contains(whole, row[0]) {
			t.Fatalf("there is no %s in %s", row[0], whole)
		}
		files := newMemFiles()
		cuts, err := readCuts(t.Context(), files, files.put("damaged", []byte(strings.Replace(whole, row[0], row[1], 1))))
		if err == nil || errors.Is(err, ErrNewer) {
			t.Errorf("%s for %s: %v, and cuts %+v", row[1], row[0], err, cuts)
		}
	}
}

// FuzzReadCuts reads any object as cuts. They are refused, or dispatch makes messages of them that can be read.
func FuzzReadCuts(f *testing.F) {
	f.Add(someCuts(f))
	f.Add(someCuts(f)[:100])
	f.Add([]byte(`{"v":2}`))
	f.Add([]byte(`{"v":1,"split":0,"chunks":[{"o":0,"n":9,"l":0,"c":4096,"b":"1-4095","x":"=AQ"}],"lines":4096,"items":1,"models":{"m":1},"ids":["x"]}`))
	f.Add([]byte(`{"v":1,"split":7999,"chunks":[{"o":0,"n":-9,"l":-1,"c":-1,"s":-1}],"fatal":{}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		files := newMemFiles()
		cuts, err := readCuts(t.Context(), files, files.put("any", body))
		if err != nil {
			return
		}
		if cuts.V > SchemaVersion {
			t.Fatalf("version %d is read", cuts.V)
		}
		if err := possible(&cuts); err != nil {
			t.Fatal(err)
		}
		for i := range cuts.Chunks {
			m := chunkMessage(&Job{ID: "j"}, &Split{N: cuts.Split}, &cuts.Chunks[i], verdict{firstLine: 1})
			if b, err := DecodeMessage(encodeMessage(m)); err != nil || b.Chunk == nil || newChunk(b.Chunk).Done() {
				t.Fatalf("chunk %d has message %+v, %v", i, b, err)
			}
		}
		if n := len(cuts.runs()); n != len(cuts.IDs) {
			t.Fatalf("%d runs of %d", n, len(cuts.IDs))
		}
		ref, err := saveCuts(t.Context(), files, "again", cuts)
		if err != nil {
			t.Fatal(err)
		}
		cuts.V = SchemaVersion
		if again, err := readCuts(t.Context(), files, ref); err != nil || asJSON(t, again) != asJSON(t, cuts) {
			t.Fatalf("%s reads back as %s, %v", asJSON(t, cuts), asJSON(t, again), err)
		}
	})
}

// FuzzReadVerdict reads any objects as what a check has left. They are refused, or say which lines lost their id.
func FuzzReadVerdict(f *testing.F) {
	row := func(first, found uint64) []byte {
		return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, first), found)
	}
	f.Add(row(1, 0), []byte(nil), []byte(`{"v":1,"violations":1,"kept":[{"code":"c","line":3,"message":"m"}]}`))
	f.Add(row(12, 2), []byte(`{"0":"0-3,9","4096":"=VVVVBQ"}`), []byte(`{"v":1,"violations":-1,"kept":null,"fatal":{}}`))
	f.Add(row(12, 2), []byte(`{"0":"4096","-1":""}`), []byte(`{"v":1,`))
	f.Add(row(1<<63, 1<<63), []byte(`{"99999999999999999999":"0"}`), []byte(`null`))
	f.Add(row(1, 1)[:checkRow-1], []byte(`null`), []byte(`{"v":2,"kept":{}}`))
	f.Fuzz(func(t *testing.T, row, duplicates, summary []byte) {
		files := newMemFiles()
		files.put(checkName("j", "splits"), row)
		files.put(duplicatesName("j", 0), duplicates)
		j := Job{ID: "j", InputBytes: 100, Checked: &Checked{Summary: files.put(checkName("j", "summary"), summary)}}
		if kept, all, err := Violations(t.Context(), files, &j); err != nil && (kept != nil || all != 0) {
			t.Fatalf("%d violations and %v", all, err)
		}
		v, err := readVerdict(t.Context(), files, &j, 0)
		if err != nil {
			return
		}
		if len(row) < checkRow {
			t.Fatalf("a row of %d bytes is read", len(row))
		}
		if v.firstLine < 1 || v.firstLine > j.InputBytes+1 {
			t.Fatal("it begins at line", v.firstLine)
		}
		for offset, lines := range v.duplicates {
			if offset < 0 {
				continue // no chunk is there
			}
			m := chunkMessage(&j, &Split{}, &ChunkCut{Offset: offset, Length: 1, Lines: MaxChunkLines}, v)
			if b, err := DecodeMessage(encodeMessage(m)); err != nil || b.Chunk == nil || !b.Chunk.Skip.Equal(lines) {
				t.Fatalf("lines %s of the chunk at %d have message %+v, %v", lines, offset, b, err)
			}
		}
	})
}

func TestVerdictThatCannotBeIsRefused(t *testing.T) {
	for _, first := range []int64{0, -1, math.MinInt64, 102, math.MaxInt64} {
		files := newMemFiles()
		files.put(checkName("j", "splits"), binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(first)), 0))
		if v, err := readVerdict(t.Context(), files, &Job{ID: "j", InputBytes: 100}, 0); err == nil {
			t.Errorf("line %d: %+v", first, v)
		}
	}
}
