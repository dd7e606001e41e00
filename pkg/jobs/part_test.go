package jobs

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"
)

var testChunk = ChunkID{"j", 3, 4096}

// noise is text that zstd cannot make small.
var noise = func() []byte {
	random := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 128<<10)
	for i := range b {
		b[i] = byte('!' + random.IntN('~'-'!'))
	}
	return b
}()

// lineOf is a line of so many bytes, different for each ordinal.
func lineOf(ordinal, size int) []byte {
	line := append(make([]byte, 0, size), noise[ordinal:ordinal+size-1]...)
	return append(line, '\n')
}

func partWith(attempt, seq int, outcomes ...outcome) *partHeader {
	h := &partHeader{V: SchemaVersion, Chunk: testChunk, Attempt: attempt, Seq: seq, Outcomes: outcomes}
	for i := range h.Outcomes {
		h.Outcomes[i].Bytes = len(h.Outcomes[i].line)
	}
	return h
}

func smallPart() *partHeader {
	return partWith(2, 1,
		outcome{Ordinal: 0, Kind: outAnswer, Usage: &Usage{Input: 3, Output: 4, Total: 7}, Seconds: 1.5, line: lineOf(0, 40)},
		outcome{Ordinal: 3, Kind: outError, Code: "c", Status: 400, Message: "m…", line: lineOf(3, 90)},
		outcome{Ordinal: 4, Kind: outSample, line: lineOf(4, 30)},
		outcome{Ordinal: 99, Kind: outAnswer, line: lineOf(99, 60)},
	)
}

// savePart writes a part and returns its name and bytes.
func savePart(t rapid.TB, files *memFiles, h *partHeader) (string, []byte) {
	t.Helper()
	if err := newParts(files).write(context.Background(), h); err != nil {
		t.Fatal(err)
	}
	name := partName(h.Chunk, h.Attempt, h.Seq)
	data, ok := files.get(name)
	if !ok {
		t.Fatalf("there is no %s", name)
	}
	return name, data
}

// readPart reads all that a part says and holds.
func readPart(files Files, name string) (h partHeader, err error) {
	r, err := newParts(files).open(context.Background(), name)
	if err != nil {
		return h, err
	}
	defer r.close()
	h = r.header
	h.mask(outAnswer, outError, outSample) // as whoever adopts the part does
	h.Outcomes = slices.Clone(h.Outcomes)
	for i, o := range h.Outcomes {
		var line bytes.Buffer
		if err := r.copyLine(&line, o.Ordinal, o.Kind == outSample); err != nil {
			return h, err
		}
		h.Outcomes[i].line = line.Bytes()
	}
	return h, nil
}

// wholePart compares lines as a whole: byte by byte takes seconds.
var wholePart = cmp.Options{cmp.AllowUnexported(outcome{}), cmp.Comparer(bytes.Equal)}

func TestPartReadsBackAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var outcomes []outcome
		for o := range rapid.IntRange(0, 30).Draw(t, "lines") {
			kind := rapid.SampledFrom([]outKind{"", outAnswer, outError, outSample}).Draw(t, "kind")
			size := rapid.SampledFrom([]int{1, 10, 10, 100, 100, 3000}).Draw(t, "size")
			if o == 7 {
				size = 70_000 // more than the reader's buffer
			}
			if kind != "" {
				outcomes = append(outcomes, outcome{Ordinal: o, Kind: kind, line: lineOf(o, size)})
			}
		}
		files := newMemFiles()
		want := partWith(1, 1, outcomes...)
		name, _ := savePart(t, files, want)
		got, err := readPart(files, name)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(*want, got, wholePart, cmpopts.EquateEmpty()); d != "" {
			t.Fatalf("part (-written +read):\n%s", d)
		}
		r, err := newParts(files).open(context.Background(), name)
		if err != nil {
			t.Fatal(err)
		}
		defer r.close()
		for _, o := range want.Outcomes { // some of them
			if !rapid.Bool().Draw(t, "copied") {
				continue
			}
			var line bytes.Buffer
			if err := r.copyLine(&line, o.Ordinal, o.Kind == outSample); err != nil || !bytes.Equal(line.Bytes(), o.line) {
				t.Fatalf("line %d is %.40q, %v; want %.40q", o.Ordinal, line.Bytes(), err, o.line)
			}
		}
	})
}

func TestPartIsWrittenOnce(t *testing.T) {
	files := newMemFiles()
	_, first := savePart(t, files, smallPart())
	_, again := savePart(t, files, smallPart()) // an answer was lost, so it is written again
	if !bytes.Equal(first, again) {
		t.Error("writing it again changed it")
	}
	other := newMemFiles()
	if _, data := savePart(t, other, smallPart()); !bytes.Equal(first, data) {
		t.Error("equal parts have different bytes")
	}
}

func TestPartNamesSortByChunkAttemptAndSequence(t *testing.T) {
	var names []string
	for _, offset := range []int64{0, 9, 10, 1 << 40} {
		for _, attempt := range []int{1, 2, 10, 999_999} {
			for _, seq := range []int{1, 9, 10, 9999} {
				names = append(names, partName(ChunkID{"j", 3, offset}, attempt, seq))
			}
		}
	}
	if !slices.IsSorted(names) {
		t.Errorf("names do not sort: %v", names)
	}
	if want := "jobs/j/parts/00003/0000000000001000-000002-0001"; partName(testChunk, 2, 1) != want {
		t.Errorf("name %s, want %s", partName(testChunk, 2, 1), want)
	}
	for _, other := range []ChunkID{{"j", 3, 40}, {"j", 3, 4097}, {"j", 4, 4096}, {"jj", 3, 4096}} {
		if strings.HasPrefix(partName(other, 1, 1), partPrefix(testChunk)) {
			t.Errorf("a part of %s has the prefix of %s", other, testChunk)
		}
	}
}

func TestPartCanBeReadWithoutFanout(t *testing.T) {
	want := smallPart()
	_, data := savePart(t, newMemFiles(), want)
	z, err := zstd.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	lines := bufio.NewScanner(z)
	if lines.Scan(); !json.Valid(lines.Bytes()) {
		t.Errorf("the header is no JSON: %s", lines.Bytes())
	}
	for _, o := range want.Outcomes {
		if lines.Scan(); lines.Text()+"\n" != string(o.line) {
			t.Errorf("line %q, want %q", lines.Text(), o.line)
		}
	}
	if lines.Scan() || lines.Err() != nil {
		t.Errorf("more lines than outcomes: %q, %v", lines.Text(), lines.Err())
	}
}

func TestPartSaysWhatIsNotInIt(t *testing.T) {
	files := newMemFiles()
	name, _ := savePart(t, files, smallPart())
	for _, row := range []struct {
		ordinal int
		sample  bool
	}{{1, false}, {4, false}, {3, true}, {100, false}} {
		r, err := newParts(files).open(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.copyLine(io.Discard, row.ordinal, row.sample); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("item %d is not in it", row.ordinal)) {
			t.Errorf("item %d: %v", row.ordinal, err)
		}
		r.close()
	}
	if _, err := newParts(files).open(t.Context(), "gone"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a part that is gone: %v", err)
	}
}

// readsDamaged checks that damaged bytes give an error, or what was written: never something else, and no panic.
func readsDamaged(t *testing.T, damage string, data []byte, want *partHeader) (err error) {
	t.Helper()
	files := newMemFiles()
	files.put("damaged", data)
	defer func() {
		if r := recover(); r != nil {
			t.Errorf("%s: panic: %v", damage, r)
		}
	}()
	got, err := readPart(files, "damaged")
	if err == nil && !cmp.Equal(*want, got, wholePart) {
		t.Errorf("%s: it reads as something else", damage)
	}
	return err
}

func TestDamagedPartIsAnErrorAndNoPanic(t *testing.T) {
	want := smallPart()
	_, data := savePart(t, newMemFiles(), want)
	if err := readsDamaged(t, "none", data, want); err != nil {
		t.Fatal(err)
	}
	for n := range len(data) - 4 { // without the checksum at its end nothing is missing
		if err := readsDamaged(t, fmt.Sprintf("cut off after %d bytes", n), data[:n], want); err == nil {
			t.Errorf("cut off after %d of %d bytes, it is read", n, len(data))
		}
	}
	for i := range data {
		damaged := bytes.Clone(data)
		damaged[i] ^= 1 << (i % 8)
		_ = readsDamaged(t, fmt.Sprintf("byte %d", i), damaged, want)
	}
}

func TestDamageInALargePartIsFoundByItsEnd(t *testing.T) {
	want := partWith(1, 1)
	for o := range 40 {
		want.Outcomes = append(want.Outcomes, outcome{Ordinal: o, Kind: outAnswer, line: lineOf(o, 12_000)})
	}
	want = partWith(1, 1, want.Outcomes...)
	_, data := savePart(t, newMemFiles(), want)
	random := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		i := random.IntN(len(data))
		damaged := bytes.Clone(data)
		damaged[i] ^= 1 << random.IntN(8)
		_ = readsDamaged(t, fmt.Sprintf("byte %d of %d", i, len(data)), damaged, want)
		_ = readsDamaged(t, fmt.Sprintf("cut off after %d of %d bytes", i, len(data)), data[:i], want)
	}
}

// compressed is a part with this text in it.
func compressed(t testing.TB, text string) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	return z.EncodeAll([]byte(text), nil)
}

func TestPartThatIsNoneIsRefused(t *testing.T) {
	const line = `{"n":0,"k":"a","b":2}`
	for _, row := range []struct {
		name string
		data []byte
	}{
		{"empty", nil},
		{"no zstd", []byte(`{"v":1,"outcomes":[` + line + "]}\nx\n")},
		{"nothing in it", compressed(t, "")},
		{"no header", compressed(t, "\n")},
		{"no JSON", compressed(t, "x\n")},
		{"a header without an end", compressed(t, `{"v":1,"outcomes":[]}`)},
		{"a header of another shape", compressed(t, `{"v":1,"outcomes":{}}`+"\n")},
		{"fewer lines than outcomes", compressed(t, `{"v":1,"outcomes":[`+line+"]}\n")},
		{"less of a line than said", compressed(t, `{"v":1,"outcomes":[`+line+"]}\nx")},
		{"a long line that is not there", compressed(t, `{"v":1,"outcomes":[{"n":0,"k":"a","b":99999999}]}`+"\nx\n")},
		{"a line of less than nothing", compressed(t, `{"v":1,"outcomes":[{"n":0,"k":"a","b":-2}]}`+"\nx\n")},
	} {
		if err := readsDamaged(t, row.name, row.data, &partHeader{}); err == nil {
			t.Errorf("%s: it is read", row.name)
		}
	}
	files := newMemFiles()
	files.put("newer", compressed(t, `{"v":2,"outcomes":[]}`+"\n"))
	if _, err := newParts(files).open(t.Context(), "newer"); !errors.Is(err, ErrNewer) {
		t.Errorf("a part of a newer version: %v", err)
	}
}

func TestPartThatNamesImpossibleItemsIsRefused(t *testing.T) {
	for _, ordinal := range []int{-1, -9, MaxChunkLines, 1 << 20} {
		data := compressed(t, fmt.Sprintf(`{"v":1,"outcomes":[{"n":%d,"k":"a","b":2}]}`+"\nx\n", ordinal))
		if err := readsDamaged(t, fmt.Sprintf("item %d", ordinal), data, &partHeader{}); err == nil {
			t.Errorf("item %d: it is read", ordinal)
		}
	}
}

func TestHeaderWithoutAnEndTakesLittleMemory(t *testing.T) {
	var bomb bytes.Buffer
	z, err := zstd.NewWriter(&bomb)
	if err != nil {
		t.Fatal(err)
	}
	for range 128 {
		if _, err := z.Write(bytes.Repeat([]byte(" "), 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	files := newMemFiles()
	files.put("damaged", bomb.Bytes())
	before := allotted()
	if _, err := readPart(files, "damaged"); err == nil {
		t.Error("it is read")
	}
	if took := allotted() - before; took > 64<<20 {
		t.Errorf("it took %d MiB to refuse an object of %d bytes", took>>20, bomb.Len())
	}
}

// allotted is how many bytes were ever asked for.
func allotted() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// FuzzOpenPart reads any object, or any text in one, as whoever adopts or compacts a part does. It is refused, or its header
// can be and its lines are as long as that says; and whatever it declares, reading it takes little memory.
func FuzzOpenPart(f *testing.F) {
	_, good := savePart(f, newMemFiles(), smallPart())
	f.Add(good, false)
	f.Add(good[:len(good)/2], false)
	for i := 0; i < len(good); i += 7 {
		flipped := bytes.Clone(good)
		flipped[i] ^= 1 << (i % 8)
		f.Add(flipped, false)
	}
	f.Add([]byte(`{"v":1,"outcomes":[]}`+"\n"), false)
	for _, text := range []string{
		"", "\n", "null\n", `{"v":2}` + "\n", `{"v":1,"outcomes":[]}` + "\n",
		`{"v":1,"chunk":{"Job":"j","Split":3,"Offset":4096},"attempt":2,"seq":1,"outcomes":[{"n":0,"k":"a","b":2,"u":{"input_tokens":3,"output_tokens":4,"total_tokens":7},"s":1.5},` +
			`{"n":1,"k":"s","b":3},{"n":4095,"k":"e","b":1,"code":"c","status":400,"message":"m…"}]}` + "\nx\nyy\n\n",
		`{"v":1,"outcomes":[{"n":0,"k":"a","b":9223372036854775807}]}` + "\nx\n",
		`{"v":1,"outcomes":[{"n":0,"k":"a","b":70000}]}` + "\nx\n",
		`{"v":1,"outcomes":[{"n":0,"k":"a","b":0}]}` + "\n",
		`{"v":1,"outcomes":[{"n":9223372036854775807,"k":"a","b":1}]}` + "\nx\n",
	} {
		f.Add([]byte(text), true)
	}
	coder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte, isText bool) {
		const mostText = 128 << 10 // what is longer takes memory: see TestHeaderWithoutAnEndTakesLittleMemory
		if isText {
			data = coder.EncodeAll(data, nil)
		}
		if textBytes(data, mostText) > mostText {
			t.Skip()
		}
		files := newMemFiles()
		files.put("part", data)
		before := allotted()
		h, err := readPart(files, "part")
		if took := allotted() - before; took > 48<<20 {
			t.Fatalf("reading an object of %d bytes took %d", len(data), took)
		}
		if err != nil {
			return
		}
		if err := h.check(); err != nil || h.V > SchemaVersion {
			t.Fatalf("version %d: %v", h.V, err)
		}
		for _, o := range h.Outcomes {
			if o.Ordinal < 0 || o.Ordinal >= MaxChunkLines || o.Bytes < 1 || len(o.line) != o.Bytes {
				t.Fatalf("item %d has %d bytes of %d", o.Ordinal, len(o.line), o.Bytes)
			}
		}
		if again, err := readPart(files, "part"); err != nil || !cmp.Equal(h, again, wholePart) {
			t.Fatalf("read again it is something else, %v", err)
		}
	})
}

// textBytes is how much text an object holds, or one more than most.
func textBytes(object []byte, most int64) int64 {
	z, err := zstd.NewReader(bytes.NewReader(object), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	if err != nil {
		return 0
	}
	defer z.Close()
	n, _ := io.CopyN(io.Discard, z, most+1) // up to where it is damaged
	return n
}

func TestCodersAreAsGoodAsNewAfterAFailure(t *testing.T) {
	want, files := smallPart(), newMemFiles()
	name, data := savePart(t, files, want)
	files.put("damaged", data[:len(data)/2])
	for range 20 {
		if _, err := readPart(files, "damaged"); err == nil {
			t.Fatal("half a part is read")
		}
		if err := newParts(brokenFiles{files}).write(t.Context(), want); err == nil || !strings.Contains(err.Error(), "write part "+name) {
			t.Fatalf("writing to a full disk: %v", err)
		}
		if _, err := readPart(files, name); err != nil {
			t.Fatal(err)
		}
	}
}

// brokenFiles takes nothing.
type brokenFiles struct{ *memFiles }

type brokenWriter struct{}

func (brokenFiles) Create(context.Context, string) (FileWriter, error) { return brokenWriter{}, nil }

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("the disk is full") }

func (brokenWriter) Commit(context.Context) (FileInfo, error) {
	return FileInfo{}, errors.New("the disk is full")
}

func (brokenWriter) Abort() error { return nil }

func TestOutcomesOfSeveralPartsComeOutInInputOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		files := newMemFiles()
		c, parts := drawParts(t)
		for i := range parts {
			h := &parts[i]
			for k := range h.Outcomes {
				o := &h.Outcomes[k]
				o.line = fmt.Appendf(nil, "%d %s of %d-%d\n", o.Ordinal, o.Kind, h.Attempt, h.Seq)
				o.Bytes = len(o.line)
			}
			savePart(t, files, h)
			c.merge(h, time.Unix(1, 0))
		}
		c.Dead = rapid.Bool().Draw(t, "dead")
		open := map[int][]byte{}
		var answers, failures string
		for o := range c.Items().Ordinals {
			from, sample := sourceOf(&c, o)
			switch {
			case !c.Resolved.Has(o) && (!c.Dead || !sample):
				open[o] = fmt.Appendf(nil, "%d is open\n", o)
				failures += string(open[o])
			case !c.Resolved.Has(o):
				failures += fmt.Sprintf("%d s of %d-%d\n", o, from.Attempt, from.Seq)
			case c.Failed.Has(o):
				failures += fmt.Sprintf("%d e of %d-%d\n", o, from.Attempt, from.Seq)
			default:
				answers += fmt.Sprintf("%d a of %d-%d\n", o, from.Attempt, from.Seq)
			}
		}
		a := &Aggregate{parts: newParts(files), visitor: visitor{Ports: Ports{Files: files}}}
		p := &pieceWriter{a: a, job: &Job{}, answers: lazyFile{files: files, name: "answers"}, errors: lazyFile{files: files, name: "errors"}}
		lines := outcomeLines{files: files, parts: a.parts, job: p.job}
		if err := lines.copy(context.Background(), &c, c.Items(), sources(&c), open, p.file(context.Background())); err != nil {
			t.Fatal(err)
		}
		if _, err := p.commit(context.Background(), 1); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{"answers": answers, "errors": failures} {
			got, _ := files.get(name)
			if d := cmp.Diff(want, string(got)); d != "" {
				t.Fatalf("%s (-want +got):\n%s", name, d)
			}
		}
	})
}

// sourceOf is the part that an item's line is taken from: the one whose mask has it, or the newest that has a sample.
func sourceOf(c *Chunk, ordinal int) (from Part, sample bool) {
	for _, p := range c.Parts {
		switch {
		case p.Mask.Has(ordinal):
			return p, false
		case p.Samples.Has(ordinal):
			from, sample = p, true
		}
	}
	return from, sample
}
