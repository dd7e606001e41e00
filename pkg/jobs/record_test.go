package jobs

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Sizes that the records have to keep: a usual chunk so that it costs two write units, all of them so that a store with a
// limit of 400 KB an item takes them.
const (
	usualRecord   = 2 << 10
	largestRecord = 400_000
)

func sizeOf[R record](t *testing.T, r *R) int {
	t.Helper()
	body, err := EncodeRecord(r)
	if err != nil {
		t.Fatal(err)
	}
	return len(body)
}

const usualJob JobID = "batch_0123456789abcdef0123456789abcdef"

func TestUsualChunkRecordIsBelow2KB(t *testing.T) {
	c := Chunk{
		V: 1, ID: ChunkID{usualJob, 812, 54_492_401_337}, Length: 204_811, Lines: 100, Blank: BitsOf(7, 99),
		Attempt: 4, Owner: "0123456789ABCDEFGHIJKLMNOP/0123456789ABCDEFGHIJKLMNOP", Lease: time.Unix(1_800_000_000, 123_456_789).UTC(),
		NotBefore: time.Unix(1_800_000_000, 123_456_789).UTC(), Waits: "openai/gpt-4o-mini-2024-07-18",
		Failed: BitsOf(3, 18, 44, 61), Accused: BitsOf(20, 21, 90), Passed: BitsOf(20, 22), Calls: map[int]int{20: 7, 21: 3, 90: 8}, Failures: map[int]int{20: 9, 21: 5, 22: 1, 90: 10}, Spent: BitsOf(90),
		Felled: map[int]Felled{20: {2, 1, 60}}, Crashes: 1, Idle: 3, Burial: 1,
		Totals: Totals{Answered: 79, Failed: 4, Usage: Usage{81_234, 20_480, 64_123, 12_000, 145_357}, Seconds: 412.337, LastAnswer: time.Unix(1_800_000_000, 123_456_789).UTC()},
		Errors: []ErrorGroup{
			{"rate_limit_exceeded", 429, "Rate limit reached for gpt-…o-mini in organization org-… on tokens per min (TPM…", BitsOf(20, 21)},
			{"server_error", 500, "The server had an error while processing your request. Sorry about that!", BitsOf(90)},
			{"invalid_value", 400, "Invalid value: …. Supported values are: …, …, and ….", BitsOf(3, 18, 44, 61)},
			{"request_timeout", 0, "api.openai.com gave no whole answer within …s", BitsOf(22)},
		},
	}
	inHand := 20
	c.InHand = &inHand
	open := BitsOf(20, 21, 22, 30, 31, 32, 50, 70, 71, 72, 73, 80, 88, 90, 98)
	c.Resolved = c.Items().Without(open)
	var even Bits
	for i := 0; i < 100; i += 2 {
		even.Set(i)
	}
	c.Parts = []Part{
		{Attempt: 1, Seq: 1, Mask: c.Resolved.And(even)},
		{Attempt: 2, Seq: 1, Mask: c.Resolved.Without(even)},
		{Attempt: 4, Seq: 1, Samples: BitsOf(90)},
	}
	if n := sizeOf(t, &c); n >= usualRecord {
		t.Errorf("it has %d bytes, want less than %d", n, usualRecord)
	}
}

// Texts of the greatest length that a record takes them in: normalised messages, and the words and sentences of upstreams,
// which these cut. Every character is one that JSON writes at length.
var (
	longestMessage  = strings.Repeat("<", 80) + "…"
	longestWord     = strings.Repeat("<", 128)
	longestSentence = strings.Repeat("<", 1<<10)
	latest          = time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC)
	longestID       = JobID(strings.Repeat("j", 64))
)

func largestTotals() Totals {
	const most = math.MaxInt64
	t := Totals{most, most, most, Usage{most, most, most, most, most}, math.MaxFloat64, latest, most, most, most, most, nil, nil, 0}
	for i := range MaxErrorGroups {
		t.Errors = append(t.Errors, ErrorCount{fmt.Sprint(longestWord[1:], i%10), longestMessage, most})
	}
	return t
}

func largestTries() Tries {
	tries := Tries{}
	for _, step := range []Step{StepScan, StepCheck, StepDispatch, StepFold, StepCompact, StepFinalize} {
		tries[step] = Try{Count: MaxTries, Owner: strings.Repeat("o", 128), First: latest, At: latest}
	}
	return tries
}

// largestChunk is a chunk with as much known of it as can be, of so many lines, some of them open. A resolved item can be
// the only one of its part, and of its error. An open one can be accused and counted, be spent with a sample in a part of
// its own, and have been in hand when its process died.
func largestChunk(lines, open int) Chunk {
	c := Chunk{
		V: 1, ID: ChunkID{longestID, MaxJobSplits - 1, math.MaxInt64}, Length: math.MaxInt64, Lines: lines,
		Attempt: 999_999, Owner: strings.Repeat("o", 128), Lease: latest, NotBefore: latest, Waits: "upstream/" + strings.Repeat("<", maxModelChars),
		Resolved: AllBits(lines), Calls: map[int]int{}, Failures: map[int]int{}, Felled: map[int]Felled{},
		Crashes: 9999, Idle: 9999, Burial: 9999, Dead: true, Buried: true, Totals: largestTotals(),
	}
	c.InHand = &open
	alternating := Bits{}
	for i := 0; i < lines; i += 2 {
		alternating.Set(i)
	}
	c.Blank, c.Failed, c.Accused, c.Passed, c.Spent = alternating, alternating, alternating, alternating, alternating
	for i := range MaxErrorGroups {
		c.Errors = append(c.Errors, ErrorGroup{fmt.Sprint(longestWord[1:], i%10), 599, longestMessage, alternating})
	}
	for i := range lines {
		p := Part{Attempt: 999_999, Seq: 9999}
		if i < lines-open {
			p.Mask = BitsOf(i)
		} else {
			p.Samples = BitsOf(i)
			c.Calls[i], c.Failures[i] = DefaultMaxCalls, 2*DefaultMaxCalls
			c.Felled[i] = Felled{weakFells, strongFells, lines}
		}
		c.Parts = append(c.Parts, p)
	}
	return c
}

func TestLargestChunkRecordFitsItsStore(t *testing.T) {
	for _, row := range []struct {
		lines, open int
		most        int
	}{
		{100, 0, 64_000},
		{100, 100, 64_000},
		{MaxChunkLines, 0, largestRecord},
		{MaxChunkLines, MaxChunkLines / 2, largestRecord},
		{MaxChunkLines, MaxChunkLines, largestRecord},
	} {
		t.Run(fmt.Sprintf("%d lines, %d of them open", row.lines, row.open), func(t *testing.T) {
			c := largestChunk(row.lines, row.open)
			if n := sizeOf(t, &c); n >= row.most {
				t.Errorf("it has %d bytes, want less than %d", n, row.most)
			}
		})
	}
}

func TestLargestSplitRecordFitsItsStore(t *testing.T) {
	s := Split{
		V: 1, Job: longestID, N: MaxJobSplits - 1, Dispatched: true, Settled: true, FoldedAt: latest, Totals: largestTotals(),
		Scanned:   &Scanned{FileRef{Name: "jobs/" + string(longestID) + "/splits/7999", Version: longestWord}, math.MaxInt64, MaxSplitChunks, math.MaxInt64, math.MaxInt64, math.MaxInt},
		Reopening: map[int64]int{}, Tries: largestTries(),
	}
	for i := range MaxSplitChunks {
		s.Reopening[math.MaxInt64-int64(i)] = 9999
	}
	// A piece of answers holds 1 GiB. A split of 64 MiB whose lines are as short as lines can be and whose answers are as
	// long as a model's usually can (64 KiB) has about this many, and one of errors beside each.
	name := fmt.Sprintf("jobs/%s/pieces/%05d/%s-%05d-%02d-answers", longestID, s.N, Generation{255}, 4096, 5)
	for i := range 64 {
		s.Pieces = append(s.Pieces, Piece{i%2 == 1, FileRef{Name: name, Version: longestWord}, math.MaxInt64, MaxSplitChunks})
	}
	if n := sizeOf(t, &s); n >= largestRecord {
		t.Errorf("it has %d bytes, want less than %d", n, largestRecord)
	}
}

func TestLargestJobRecordFitsItsStore(t *testing.T) {
	file := FileRef{Name: "files/" + strings.Repeat("t", 128) + "/" + longestWord, Version: longestWord}
	info := &FileInfo{file, math.MaxInt64, latest}
	j := Job{
		V: 1, ID: longestID, Tenant: strings.Repeat("t", 128), Input: file, InputBytes: math.MaxInt64, Endpoint: longestWord,
		Cut: DefaultCut(1 << 50), OnInvalid: InvalidFails, MaxCalls: math.MaxInt, Phase: PhaseInProgress, Entered: map[Phase]time.Time{},
		Stop:    &Stop{PhaseCancelled, longestWord, longestSentence + longestSentence, latest},
		Pause:   &Pause{PauseCredential, longestSentence + longestSentence, latest, latest, &ChunkID{longestID, MaxJobSplits, math.MaxInt64}, LimitTenantCost},
		Waived:  []Limit{LimitFailures, LimitCost, LimitTenantCost},
		Checked: &Checked{file, math.MaxInt, math.MaxInt64, longestWord}, Totals: largestTotals(), Outputs: &Outputs{Generation{255}, info, info, largestTotals()},
		Tries: largestTries(), Created: latest, Deadline: latest, Window: math.MaxInt64, MovedAt: latest, ResentAt: latest,
		Resends: math.MaxInt, Closed: true, Metadata: map[string]string{},
	}
	for _, p := range allPhases {
		j.Entered[p] = latest
	}
	for i := range 16 { // as many and as long as the API takes them
		j.Metadata[fmt.Sprintf("%s%02d", strings.Repeat("<", 62), i)] = strings.Repeat("<", 512)
	}
	if n := sizeOf(t, &j); n >= largestRecord {
		t.Errorf("it has %d bytes, want less than %d", n, largestRecord)
	}
}

func TestRecordsReadBackAsTheyWereWritten(t *testing.T) {
	c := largestChunk(9, 4)
	j := Job{V: 1, ID: "j", Phase: PhaseInProgress, Entered: map[Phase]time.Time{PhaseValidating: latest}, HashKey: [16]byte{1, 2}, Fold: Generation{3}, Created: latest, MovedAt: latest}
	s := Split{V: 1, Job: "j", N: 3, Reopening: map[int64]int{1 << 50: 2}, Fold: Generation{3}, Tries: Tries{StepCompact: {Count: 2, Owner: "o", First: latest, At: latest}}}
	readsBack(t, c, func(r *Chunk) *int64 { return &r.Revision })
	readsBack(t, j, func(r *Job) *int64 { return &r.Revision })
	readsBack(t, s, func(r *Split) *int64 { return &r.Revision })
}

func readsBack[R record](t *testing.T, r R, revision func(*R) *int64) {
	t.Helper()
	*revision(&r) = 7
	body, err := EncodeRecord(&r)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(body), "Revision") {
		t.Errorf("%T carries its revision, which is the driver's to keep", r)
	}
	got, err := DecodeRecord[R](body, 9)
	if err != nil {
		t.Fatal(err)
	}
	*revision(&r) = 9
	if d := cmp.Diff(r, got); d != "" {
		t.Errorf("%T (-written +read):\n%s", r, d)
	}
}

func TestRecordOfANewerVersionIsLeftAlone(t *testing.T) {
	if _, err := DecodeRecord[Chunk]([]byte(`{"V":2,"Lines":3}`), 1); !errors.Is(err, ErrNewer) {
		t.Errorf("chunk: %v", err)
	}
	if _, err := DecodeRecord[Job]([]byte(`{"V":2}`), 1); !errors.Is(err, ErrNewer) {
		t.Errorf("job: %v", err)
	}
	if _, err := DecodeRecord[Split]([]byte(`{"V":2}`), 1); !errors.Is(err, ErrNewer) {
		t.Errorf("split: %v", err)
	}
	if _, err := DecodeRecord[Split]([]byte(`{"V":`), 1); err == nil || errors.Is(err, ErrNewer) {
		t.Errorf("half a split: %v", err)
	}
	var syntax *json.UnmarshalTypeError
	if _, err := DecodeRecord[Split]([]byte(`{"V":1,"N":"x"}`), 1); !errors.As(err, &syntax) {
		t.Errorf("a split of another shape: %v", err)
	}
}

func TestRecordOfANewerVersionMayHaveAnotherShape(t *testing.T) {
	for _, body := range []string{`{"V":2,"Lines":"3"}`, `{"V":2,"Resolved":"0-9999"}`, `{"Parts":{"1":"x"},"V":2}`} {
		if _, err := DecodeRecord[Chunk]([]byte(body), 1); !errors.Is(err, ErrNewer) {
			t.Errorf("%s: %v; want ErrNewer", body, err)
		}
	}
}

// FuzzDecodeRecord reads any text as each kind of record. It is refused, or reads back as it was written; what a newer fanout
// wrote is left alone, whatever its shape.
func FuzzDecodeRecord(f *testing.F) {
	c := largestChunk(9, 4)
	j := Job{V: 1, ID: "j", Phase: PhaseInProgress, Entered: map[Phase]time.Time{PhaseValidating: latest}, HashKey: [16]byte{1, 2}, Fold: Generation{3}, Created: latest, Cut: DefaultCut(1), Stop: &Stop{As: PhaseExpired}, Pause: &Pause{Probe: &c.ID}}
	s := Split{V: 1, Job: "j", N: 3, Scanned: &Scanned{Chunks: 4}, Reopening: map[int64]int{1 << 50: 2}, Fold: Generation{3}, Pieces: []Piece{{To: 4}}, Tries: largestTries()}
	f.Add([]byte(asJSON(f, c)))
	f.Add([]byte(asJSON(f, j)))
	f.Add([]byte(asJSON(f, s)))
	for _, body := range []string{
		"", "null", "{}", "[]", `{"V":1}`, `{"V":2,"Lines":"3"}`, `{"V":"1"}`, `{"V":1,"V":2}`, `{"v":2}`,
		`{"V":1,"Fold":"00000000000000000000000000000000","Resolved":"=AAAA","Felled":{"1":[1,2,3,4]},"Reopening":{"-1":-1},"Entered":{"x":"9999-12-31T23:59:59.999999999+23:59"}}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var head struct{ V int }
		newer := json.Unmarshal(body, &head) == nil && head.V > SchemaVersion
		readsBackFromAny[Job](t, body, newer)
		readsBackFromAny[Split](t, body, newer)
		readsBackFromAny[Chunk](t, body, newer)
	})
}

func readsBackFromAny[R record](t *testing.T, body []byte, newer bool) {
	t.Helper()
	r, err := DecodeRecord[R](body, 9)
	if errors.Is(err, ErrNewer) != newer {
		t.Fatalf("%T of a newer version %t: %v", r, newer, err)
	}
	if err != nil {
		return
	}
	first, err := EncodeRecord(&r)
	if err != nil {
		t.Fatal(err)
	}
	again, err := DecodeRecord[R](first, 9)
	if err != nil {
		t.Fatalf("%T is written as what cannot be read: %s, %v", r, first, err)
	}
	if second, err := EncodeRecord(&again); err != nil || string(first) != string(second) {
		t.Fatalf("%T reads back as something else, %v:\n%s\n%s", r, err, first, second)
	}
}
