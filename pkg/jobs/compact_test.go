package jobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestPiecesJoinedAreTheSameForAnySizeOfPieceAndAnyCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &compacting{files: newMemFiles(), ledger: &memLedger{}, now: time.Unix(1_000_000, 0), end: rapid.SampledFrom(ends).Draw(t, "end")}
		c.drawLines(t)
		cut := drawCut(t, 3000)
		cut.SplitBytes, cut.LineBytes = 100*cut.SplitBytes, 400
		c.submit(t, cut)
		c.resolve(t)

		c.failAt = rapid.IntRange(0, 60).Draw(t, "fails at")
		opt := AggregateOptions{
			PieceBytes: rapid.SampledFrom([]int64{1, 2, 30, 300, 3000, 10_000, 1 << 30}).Draw(t, "piece bytes"),
			PieceAge:   rapid.SampledFrom([]time.Duration{3 * time.Second, 8 * time.Second, time.Hour}).Draw(t, "piece age"),
		}
		a := NewAggregate(c.ports, opt)
		j := c.job(t)
		for n := range j.Splits() {
			c.visit(t, a.visitor, n)
			c.checkPieces(t, n, opt)
		}
		c.visit(t, a.visitor, WholeJob)
		c.checkFiles(t)
	})
}

// compacting is a job whose items have all got what they ever get, on ports in memory.
type compacting struct {
	lines  []inputLine
	end    end
	ports  Ports
	files  *memFiles
	ledger *memLedger
	work   []*ChunkMessage
	now    time.Time
	failAt int // the call of Files that fails; 0 = none
}

// inputLine is a line of the input, and what becomes of its item.
type inputLine struct {
	n      int
	offset int64
	text   string // without its ending
	id     string // as output lines have it; "" = the line is blank
	fate   lineFate
	part   int  // the attempt that resolved it
	told   bool // of an item that is left: its last error is known, and if it is spent a part has its line
	size   int  // of its outcome, about
}

type lineFate string

const (
	lineAnswered lineFate = "answered"
	lineFailed   lineFate = "failed"
	lineLeft     lineFate = "left" // without an outcome
)

// end is how the job ends, and what it says of items without an outcome. If it completes these are spent.
type end struct {
	phase     Phase
	code, why string
}

var ends = []end{
	{PhaseCompleted, "sick", "it is sick"},
	{PhaseCancelled, "batch_cancelled", "This request was not executed because the batch was cancelled."},
	{PhaseExpired, "batch_expired", "This request could not be executed before the completion window expired."},
}

func (c *compacting) drawLines(t *rapid.T) {
	var offset int64
	for n := range rapid.IntRange(0, 30).Draw(t, "lines") {
		l := inputLine{
			n: n, offset: offset, id: fmt.Sprintf(`"id-%d"`, n), part: rapid.IntRange(1, 3).Draw(t, "part"), told: rapid.Bool().Draw(t, "told"),
			fate: rapid.SampledFrom([]lineFate{lineAnswered, lineAnswered, lineFailed, lineLeft}).Draw(t, "fate"),
			size: rapid.SampledFrom([]int{0, 9, 300, 5000}).Draw(t, "size"),
		}
		switch rapid.SampledFrom([]string{"good", "good", "good", "bad", "blank", "long"}).Draw(t, "kind") {
		case "good":
			l.text = request("custom_id", l.id)
		case "bad":
			l.text, l.id = `{"custom_id"`, `""`
		case "blank":
			l.id = ""
		case "long":
			l.text, l.id = request("body", `{"model":"m","x":"`+strings.Repeat("x", 500)+`"}`), `""`
		}
		offset += int64(len(l.text)) + 1
		c.lines = append(c.lines, l)
	}
}

// outcome is the item's line in a part.
func (l *inputLine) outcome() string {
	return fmt.Sprintf("%d %s %s\n", l.n, l.fate, strings.Repeat("x", l.size))
}

// want is the item's line in the files of the job, whatever its cut and its pieces.
func (c *compacting) want(l *inputLine) string {
	switch {
	case l.id == "":
		return ""
	case l.fate != lineLeft, l.told && c.end.phase == PhaseCompleted:
		return l.outcome()
	}
	why := c.end.why
	if l.told {
		why += " Last error: it is sick"
	}
	return fmt.Sprintf(`{"id":%q,"custom_id":%s,"response":null,"error":{"code":%q,"message":%q}}`+"\n", lineID("j", l.offset), l.id, c.end.code, why)
}

// of is the lines of a chunk.
func (c *compacting) of(m *ChunkMessage) []inputLine {
	first := slices.IndexFunc(c.lines, func(l inputLine) bool { return l.offset == m.Offset })
	return c.lines[first : first+m.Lines]
}

// submit opens the job and lets ingest cut it.
func (c *compacting) submit(t *rapid.T, cut Cut) {
	c.ports = Ports{Ledger: c.ledger, Registry: newMemRegistry(), Queue: workList{c: c}, Files: failingFiles{c.files, c}, Now: c.tick}.WithDefaults()
	var input strings.Builder
	for _, l := range c.lines {
		input.WriteString(l.text + "\n")
	}
	j, err := Submit(t.Context(), c.ports, Job{
		ID: "j", Tenant: "t", Input: c.files.put("in", []byte(input.String())), InputBytes: int64(input.Len()), Endpoint: chatURL, Cut: cut, OnInvalid: InvalidSkips,
	})
	if err != nil {
		t.Fatal(err)
	}
	in := NewIngest(c.ports, IngestOptions{})
	for range 2 { // scan all and check, dispatch all
		for n := range j.Splits() {
			c.visit(t, in.visitor, n)
		}
		c.visit(t, in.visitor, WholeJob)
	}
}

// tick is a clock that goes on by a second whenever it is looked at.
func (c *compacting) tick() time.Time {
	c.now = c.now.Add(time.Second)
	return c.now
}

// visit does what is to be done, and once more an hour later if that failed.
func (c *compacting) visit(t *rapid.T, v visitor, split int) {
	t.Helper()
	look := func() error {
		return v.advance(t.Context(), Message{}, &AdvanceMessage{SchemaVersion, "j", split})
	}
	err := look()
	if errors.Is(err, errOnce) {
		c.now = c.now.Add(time.Hour)
		err = look()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (c *compacting) job(t *rapid.T) Job {
	t.Helper()
	j, err := c.ledger.Job(t.Context(), "j")
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// resolve writes the parts and the records of chunks of which nothing more will be known, and stops the job if that is its end.
func (c *compacting) resolve(t *rapid.T) {
	for _, m := range c.work {
		chunk := newChunk(m)
		lines := c.of(m)
		parts := map[int]*partHeader{}
		for o := range chunk.Items().Ordinals {
			l := &lines[o]
			out := outcome{Ordinal: o, Kind: outAnswer, line: []byte(l.outcome())}
			switch spent := l.fate == lineLeft && c.end.phase == PhaseCompleted; {
			case l.fate == lineFailed:
				out.Kind = outError
			case spent:
				out.Kind = outSample
				chunk.Dead, chunk.Buried, chunk.Burial = true, true, 1
				chunk.Errors = addError(chunk.Errors, o, c.end.code, 500, c.end.why)
			case l.fate == lineLeft && l.told:
				chunk.Errors = addError(chunk.Errors, o, "sick", 500, "it is sick")
			}
			if l.fate == lineLeft && (!l.told || c.end.phase != PhaseCompleted) {
				continue
			}
			if parts[l.part] == nil {
				parts[l.part] = &partHeader{V: SchemaVersion, Chunk: chunk.ID, Attempt: l.part, Seq: 1}
			}
			out.Bytes = len(out.line)
			parts[l.part].Outcomes = append(parts[l.part].Outcomes, out)
		}
		if len(parts) == 0 && chunk.Errors == nil {
			continue // nobody has ever claimed it
		}
		for _, attempt := range slices.Sorted(maps.Keys(parts)) {
			savePart(t, c.files, parts[attempt])
			chunk.merge(parts[attempt], c.now)
		}
		if err := c.ledger.SaveChunk(t.Context(), chunk); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	switch c.end.phase {
	case PhaseCancelled:
		_, err = CancelJob(t.Context(), c.ports, "j", "enough")
	case PhaseExpired:
		err = ExpireJob(t.Context(), c.ports, "j", "too late")
	}
	if err != nil {
		t.Fatal(err)
	}
}

// checkPieces checks that a split's pieces have all of its chunks, and end where these have filled them, or earlier if it
// took long.
func (c *compacting) checkPieces(t *rapid.T, n int, opt AggregateOptions) {
	t.Helper()
	s, err := c.ledger.Split(t.Context(), "j", n)
	if err != nil {
		t.Fatal(err)
	}
	type run struct { // of chunks: a piece of answers and one of errors
		To    int
		Bytes int64
	}
	var got, want []run
	for _, p := range s.Pieces {
		if data, _ := c.files.get(p.File.Name); int64(len(data)) != p.Bytes || p.Bytes == 0 {
			t.Fatalf("split %d: a piece of %d bytes has %d", n, p.Bytes, len(data))
		}
		if len(got) == 0 || got[len(got)-1].To != p.To {
			got = append(got, run{To: p.To})
		}
		got[len(got)-1].Bytes += p.Bytes
	}
	chunks := 0
	for _, m := range c.work {
		if m.Split != n {
			continue
		}
		early := opt.PieceAge < time.Hour && slices.ContainsFunc(got, func(r run) bool { return r.To == chunks })
		if chunks == 0 || early || want[len(want)-1].Bytes >= opt.PieceBytes {
			want = append(want, run{})
		}
		chunks++
		r := &want[len(want)-1]
		r.To = chunks
		for _, l := range c.of(m) {
			r.Bytes += int64(len(c.want(&l)))
		}
	}
	if d := cmp.Diff(want, got); d != "" || !s.compacted() {
		t.Fatalf("split %d, compacted %t: pieces (-want +got):\n%s", n, s.compacted(), d)
	}
}

func (c *compacting) checkFiles(t *rapid.T) {
	t.Helper()
	j := c.job(t)
	if j.Phase != c.end.phase {
		t.Fatalf("the job is %s, want %s", j.Phase, c.end.phase)
	}
	var answers, failures []string
	for _, l := range c.lines {
		switch want := c.want(&l); {
		case want == "":
		case l.fate == lineAnswered:
			answers = append(answers, want)
		default:
			failures = append(failures, want)
		}
	}
	c.checkFile(t, "answers", answers, j.Outputs.Answers)
	c.checkFile(t, "errors", failures, j.Outputs.Errors)
}

func (c *compacting) checkFile(t *rapid.T, what string, want []string, file *FileInfo) {
	t.Helper()
	var got []string
	if file != nil {
		data, _ := c.files.get(file.Name)
		got = slices.Collect(strings.Lines(string(data)))
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("%s (-want +got):\n%s", what, d)
	}
}

// workList keeps the messages of chunks. Those that say where to look are lost: the test looks by itself.
type workList struct {
	Queue
	c *compacting
}

func (q workList) Send(_ context.Context, name QueueName, bodies ...[]byte) ([]Unsent, error) {
	for _, body := range bodies {
		b, err := DecodeMessage(body)
		if err != nil {
			return nil, err
		}
		if name == QueueWork {
			q.c.work = append(q.c.work, b.Chunk)
		}
	}
	return nil, nil
}

// failingFiles fail once.
type failingFiles struct {
	*memFiles
	c *compacting
}

var errOnce = errors.New("fails once")

func (f failingFiles) fails() error {
	if f.c.failAt--; f.c.failAt == 0 {
		return errOnce
	}
	return nil
}

func (f failingFiles) Read(ctx context.Context, ref FileRef, offset, length int64) (io.ReadCloser, error) {
	if err := f.fails(); err != nil {
		return nil, err
	}
	return f.memFiles.Read(ctx, ref, offset, length)
}

func (f failingFiles) Create(ctx context.Context, name string) (FileWriter, error) {
	w, err := f.memFiles.Create(ctx, name)
	return failingWriter{w, f}, errors.Join(err, f.fails())
}

type failingWriter struct {
	FileWriter
	files failingFiles
}

// Commit fails when the object is there: the worst.
func (w failingWriter) Commit(ctx context.Context) (FileInfo, error) {
	info, err := w.FileWriter.Commit(ctx)
	return info, errors.Join(err, w.files.fails())
}

// memLedger keeps one job in memory, as a driver does: what is read shares nothing with what was saved. Not for concurrent
// use.
type memLedger struct {
	jobs   map[JobID]memRecord
	splits map[int]memRecord
	chunks map[ChunkID]memRecord
}

type memRecord struct {
	body     []byte
	revision int64
}

var _ Ledger = (*memLedger)(nil)

func memRead[R record, K comparable](records map[K]memRecord, key K) (R, error) {
	kept, ok := records[key]
	if !ok {
		var none R
		return none, ErrNotFound
	}
	return DecodeRecord[R](kept.body, kept.revision)
}

func memSave[R record, K comparable](records *map[K]memRecord, key K, r *R, revision *int64) error {
	if (*records)[key].revision != *revision {
		return ErrConflict
	}
	body, err := EncodeRecord(r)
	if err != nil {
		return err
	}
	if *records == nil {
		*records = map[K]memRecord{}
	}
	*revision++
	(*records)[key] = memRecord{body, *revision}
	return nil
}

func memWalk[R record, K comparable](records map[K]memRecord, compare func(a, b K) int, picks func(K) bool) iter.Seq2[R, error] {
	return func(yield func(R, error) bool) {
		for _, key := range slices.SortedFunc(maps.Keys(records), compare) {
			if !picks(key) {
				continue
			}
			if r, err := memRead[R](records, key); !yield(r, err) || err != nil {
				return
			}
		}
	}
}

func (l *memLedger) Job(_ context.Context, job JobID) (Job, error) { return memRead[Job](l.jobs, job) }

func (l *memLedger) SaveJob(_ context.Context, j *Job) error {
	return memSave(&l.jobs, j.ID, j, &j.Revision)
}

func (l *memLedger) Jobs(context.Context, JobQuery) iter.Seq2[Job, error] {
	return memWalk[Job](l.jobs, func(a, b JobID) int { return strings.Compare(string(a), string(b)) }, func(JobID) bool { return true })
}

func (l *memLedger) Split(_ context.Context, _ JobID, n int) (Split, error) {
	return memRead[Split](l.splits, n)
}

func (l *memLedger) Splits(context.Context, JobID) iter.Seq2[Split, error] {
	return memWalk[Split](l.splits, func(a, b int) int { return a - b }, func(int) bool { return true })
}

func (l *memLedger) SaveSplit(_ context.Context, s *Split) error {
	return memSave(&l.splits, s.N, s, &s.Revision)
}

func (l *memLedger) Chunks(_ context.Context, _ JobID, split int, r OffsetRange) iter.Seq2[Chunk, error] {
	byOffset := func(a, b ChunkID) int { return int(a.Offset - b.Offset) }
	return memWalk[Chunk](l.chunks, byOffset, func(id ChunkID) bool {
		return id.Split == split && id.Offset >= r.From && (r.To == 0 || id.Offset < r.To)
	})
}

func (l *memLedger) SaveChunk(_ context.Context, c *Chunk) error {
	return memSave(&l.chunks, c.ID, c, &c.Revision)
}
