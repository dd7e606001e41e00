package awsjobs_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// These are the largest records, as record_test.go of package jobs builds them: a change there is a change here. Its
// unexported limits are written as figures.
var (
	longestMessage  = strings.Repeat("<", 80) + "…"
	longestWord     = strings.Repeat("<", 128)
	longestSentence = strings.Repeat("<", 1<<10)
	longestModel    = strings.Repeat("<", 256)
	latest          = time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC)
	longestID       = jobs.JobID(strings.Repeat("j", 64))
)

func largestTotals() jobs.Totals {
	const most = math.MaxInt64
	t := jobs.Totals{
		Items: most, Answered: most, Failed: most, Seconds: math.MaxFloat64, LastAnswer: latest, Dead: most, Parked: most,
		Usage: jobs.Usage{Input: most, Cached: most, Output: most, Reasoning: most, Total: most},
	}
	for i := range jobs.MaxErrorGroups {
		t.Errors = append(t.Errors, jobs.ErrorCount{Code: fmt.Sprint(longestWord[1:], i%10), Message: longestMessage, Count: most})
	}
	return t
}

func largestTries() jobs.Tries {
	tries := jobs.Tries{}
	for _, step := range []jobs.Step{jobs.StepScan, jobs.StepCheck, jobs.StepDispatch, jobs.StepFold, jobs.StepCompact, jobs.StepFinalize} {
		tries[step] = jobs.Try{Count: jobs.MaxTries, Owner: strings.Repeat("o", 128), First: latest, At: latest}
	}
	return tries
}

func largestJob() *jobs.Job {
	file := jobs.FileRef{Name: "files/" + strings.Repeat("t", 128) + "/" + longestWord, Version: longestWord}
	info := &jobs.FileInfo{FileRef: file, Bytes: math.MaxInt64, At: latest}
	j := &jobs.Job{
		V: 1, ID: longestID, Tenant: strings.Repeat("t", 128), Input: file, InputBytes: math.MaxInt64, Endpoint: longestWord,
		Cut: jobs.DefaultCut(1 << 50), OnInvalid: jobs.InvalidFails, MaxCalls: math.MaxInt, Phase: jobs.PhaseInProgress, Entered: map[jobs.Phase]time.Time{},
		Stop: &jobs.Stop{As: jobs.PhaseCancelled, Code: longestWord, Reason: longestSentence + longestSentence, At: latest},
		Pause: &jobs.Pause{
			Reason: jobs.PauseCredential, Message: longestSentence + longestSentence, At: latest, ProbeAt: latest,
			Probe: &jobs.ChunkID{Job: longestID, Split: jobs.MaxJobSplits, Offset: math.MaxInt64},
		},
		Checked: &jobs.Checked{Summary: file, Violations: math.MaxInt, Items: math.MaxInt64}, Totals: largestTotals(),
		Outputs: &jobs.Outputs{Of: jobs.Generation{255}, Answers: info, Errors: info, Totals: largestTotals()},
		Tries:   largestTries(), Created: latest, Deadline: latest, Window: math.MaxInt64, MovedAt: latest, ResentAt: latest,
		Resends: math.MaxInt, Closed: true, Metadata: map[string]string{},
	}
	for _, p := range []jobs.Phase{
		jobs.PhaseValidating, jobs.PhaseInProgress, jobs.PhaseFinalizing, jobs.PhaseCompleted, jobs.PhaseCancelled, jobs.PhaseExpired, jobs.PhaseFailed,
	} {
		j.Entered[p] = latest
	}
	for i := range 16 { // as many and as long as the API takes them
		j.Metadata[fmt.Sprintf("%s%02d", strings.Repeat("<", 62), i)] = strings.Repeat("<", 512)
	}
	return j
}

func largestSplit() *jobs.Split {
	s := &jobs.Split{
		V: 1, Job: longestID, N: jobs.MaxJobSplits - 1, Dispatched: true, Settled: true, FoldedAt: latest, Totals: largestTotals(),
		Scanned: &jobs.Scanned{
			Cuts:  jobs.FileRef{Name: "jobs/" + string(longestID) + "/splits/7999", Version: longestWord},
			Lines: math.MaxInt64, Chunks: jobs.MaxSplitChunks, First: math.MaxInt64, Items: math.MaxInt64, Violations: math.MaxInt,
		},
		Reopening: map[int64]int{}, Tries: largestTries(),
	}
	for i := range jobs.MaxSplitChunks {
		s.Reopening[math.MaxInt64-int64(i)] = 9999
	}
	name := fmt.Sprintf("jobs/%s/pieces/%05d/%s-%05d-%02d-answers", longestID, s.N, jobs.Generation{255}, 4096, 5)
	for i := range 64 {
		s.Pieces = append(s.Pieces, jobs.Piece{
			Errors: i%2 == 1, File: jobs.FileRef{Name: name, Version: longestWord}, Bytes: math.MaxInt64, To: jobs.MaxSplitChunks,
		})
	}
	return s
}

// largestChunk is a chunk with as much known of it as can be, of so many lines, some of them open.
func largestChunk(lines, open int) *jobs.Chunk {
	c := &jobs.Chunk{
		V: 1, ID: jobs.ChunkID{Job: longestID, Split: jobs.MaxJobSplits - 1, Offset: math.MaxInt64}, Length: math.MaxInt64, Lines: lines,
		Attempt: 999_999, Owner: strings.Repeat("o", 128), Lease: latest, NotBefore: latest, Waits: "upstream/" + longestModel,
		Resolved: jobs.AllBits(lines), Calls: map[int]int{}, Failures: map[int]int{}, Felled: map[int]jobs.Felled{},
		Crashes: 9999, Idle: 9999, Burial: 9999, Dead: true, Buried: true, Totals: largestTotals(),
	}
	c.InHand = &open
	var alternating jobs.Bits
	for i := 0; i < lines; i += 2 {
		alternating.Set(i)
	}
	c.Blank, c.Failed, c.Accused, c.Passed, c.Spent = alternating, alternating, alternating, alternating, alternating
	for i := range jobs.MaxErrorGroups {
		c.Errors = append(c.Errors, jobs.ErrorGroup{Code: fmt.Sprint(longestWord[1:], i%10), Status: 599, Message: longestMessage, Items: alternating})
	}
	for i := range lines {
		p := jobs.Part{Attempt: 999_999, Seq: 9999}
		if i < lines-open {
			p.Mask = jobs.BitsOf(i)
		} else {
			p.Samples = jobs.BitsOf(i)
			c.Calls[i], c.Failures[i] = jobs.DefaultMaxCalls, 2*jobs.DefaultMaxCalls
			c.Felled[i] = jobs.Felled{Times: 5, Strong: 3, Settled: lines}
		}
		c.Parts = append(c.Parts, p)
	}
	return c
}

// TestLargestRecordsFit saves each, and reads it back as it was. It is kept compressed, but that is not counted on: with its
// keys it fits as it is.
func TestLargestRecordsFit(t *testing.T) {
	tt := newTable(t)
	s := tt.open()
	j, r := largestJob(), largestSplit()
	t.Run("job", func(t *testing.T) {
		fits(t, tt, j, s.SaveJob, "J#"+string(longestID), "job", func() (jobs.Job, error) { return s.Job(t.Context(), j.ID) })
	})
	t.Run("split", func(t *testing.T) {
		fits(t, tt, r, s.SaveSplit, "S#"+string(longestID), fmt.Sprintf("%010d", r.N), func() (jobs.Split, error) { return s.Split(t.Context(), r.Job, r.N) })
	})
	for n, row := range []struct{ lines, open int }{
		{100, 0}, {100, 100}, {jobs.MaxChunkLines, 0}, {jobs.MaxChunkLines, jobs.MaxChunkLines / 2}, {jobs.MaxChunkLines, jobs.MaxChunkLines},
	} {
		t.Run(fmt.Sprintf("chunk of %d lines, %d of them open", row.lines, row.open), func(t *testing.T) {
			c := largestChunk(row.lines, row.open)
			c.ID.Offset -= int64(n)
			fits(t, tt, c, s.SaveChunk, fmt.Sprintf("C#%s#%d", longestID, c.ID.Split), fmt.Sprintf("%019d", c.ID.Offset), func() (jobs.Chunk, error) {
				for c, err := range s.Chunks(t.Context(), longestID, c.ID.Split, jobs.OffsetRange{From: c.ID.Offset}) {
					return c, err
				}
				return jobs.Chunk{}, jobs.ErrNotFound
			})
		})
	}
}

func fits[R jobs.Job | jobs.Split | jobs.Chunk](
	t *testing.T, tt *testTable, r *R, save func(context.Context, *R) error, pk, sk string, read func() (R, error),
) {
	t.Helper()
	const most = 400_000
	body, err := jobs.EncodeRecord(r)
	must(t, err)
	must(t, save(t.Context(), r))
	item := tt.item(t, pk, sk)
	kept := itemSize(item)
	delete(item, "body")
	plain := itemSize(item) + len("body") + len(body)
	t.Logf("it has %d bytes with its keys, and is kept as %d", plain, kept)
	if plain >= most || kept >= most {
		t.Errorf("it has %d bytes with its keys, and is kept as %d, want less than %d", plain, kept, most)
	}
	got, err := read()
	must(t, err)
	again, err := jobs.EncodeRecord(&got)
	must(t, err)
	if !bytes.Equal(again, body) {
		t.Errorf("it reads back as %s, was saved as %s", again, body)
	}
}

// itemSize counts as DynamoDB does, roundly.
func itemSize(item map[string]types.AttributeValue) (n int) {
	for name, value := range item {
		switch v := value.(type) {
		case *types.AttributeValueMemberS:
			n += len(name) + len(v.Value)
		case *types.AttributeValueMemberB:
			n += len(name) + len(v.Value)
		case *types.AttributeValueMemberN:
			n += len(name) + len(v.Value)/2 + 2
		}
	}
	return n
}
