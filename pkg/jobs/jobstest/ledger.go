package jobstest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// TestLedger proves that a ledger keeps its promises. open returns an empty one; it is called once a claim.
func TestLedger(t *testing.T, open func(t *testing.T) jobs.Ledger) {
	for _, claim := range []struct {
		name string
		test func(t *testing.T, l jobs.Ledger)
	}{
		{"AbsentRecordsAreNotFound", absentRecordsAreNotFound},
		{"RecordsComeBackAsTheyWereSaved", recordsComeBackAsTheyWereSaved},
		{"ZeroTimesSurvive", zeroTimesSurvive},
		{"SaveComparesRevisions", saveComparesRevisions},
		{"RevisionsRise", revisionsRise},
		{"OneOfManyRacingSavesWins", oneOfManyRacingSavesWins},
		{"NoRacingSaveIsLost", noRacingSaveIsLost},
		{"JobsAreListedNewestFirst", jobsAreListedNewestFirst},
		{"JobsOfOneInstantAreListedOnce", jobsOfOneInstantAreListedOnce},
		{"OpenJobsAreThoseNotClosed", openJobsAreThoseNotClosed},
		{"SplitsAreListedInOrder", splitsAreListedInOrder},
		{"ChunksAreListedByOffset", chunksAreListedByOffset},
		{"ChunksOfARange", chunksOfARange},
		{"NeighboursAreNotMixedUp", neighboursAreNotMixedUp},
		{"SavingWhileIterating", savingWhileIterating},
		{"BigRecordsFit", bigRecordsFit},
		{"IDsMayBeUnicode", idsMayBeUnicode},
		{"NewerRecordsAreLeftAlone", newerRecordsAreLeftAlone},
		{"AnEndedContextEndsReadsAndSaves", anEndedContextEndsReadsAndSaves},
	} {
		t.Run(claim.name, func(t *testing.T) { claim.test(t, open(t)) })
	}
}

// noon is where the time of records starts.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newJob(id jobs.JobID, tenant string) jobs.Job {
	return jobs.Job{V: jobs.SchemaVersion, ID: id, Tenant: tenant, Phase: jobs.PhaseValidating, Created: noon, MovedAt: noon}
}

func newSplit(job jobs.JobID, n int) jobs.Split {
	return jobs.Split{V: jobs.SchemaVersion, Job: job, N: n}
}

func newChunk(job jobs.JobID, split int, offset int64) jobs.Chunk {
	return jobs.Chunk{V: jobs.SchemaVersion, ID: jobs.ChunkID{Job: job, Split: split, Offset: offset}, Length: 1000, Lines: 10}
}

func absentRecordsAreNotFound(t *testing.T, l jobs.Ledger) {
	if _, err := l.Job(t.Context(), "nobody"); !errors.Is(err, jobs.ErrNotFound) {
		t.Errorf("Job of an absent id: %v, want ErrNotFound", err)
	}
	if _, err := l.Split(t.Context(), "nobody", 0); !errors.Is(err, jobs.ErrNotFound) {
		t.Errorf("Split of an absent job: %v, want ErrNotFound", err)
	}
	if n := len(all(t, l.Splits(t.Context(), "nobody"))); n != 0 {
		t.Errorf("Splits of an absent job yields %d", n)
	}
	if n := len(all(t, l.Chunks(t.Context(), "nobody", 0, jobs.OffsetRange{}))); n != 0 {
		t.Errorf("Chunks of an absent split yields %d", n)
	}
	if n := len(all(t, l.Jobs(t.Context(), jobs.JobQuery{Tenant: "nobody"}))); n != 0 {
		t.Errorf("Jobs of an absent tenant yields %d", n)
	}
}

func recordsComeBackAsTheyWereSaved(t *testing.T, l jobs.Ledger) {
	j := newJob("job", "tenant")
	j.Input = jobs.FileRef{Name: "files/tenant/in", Version: "7"}
	j.InputBytes, j.Cut = 1<<40, jobs.DefaultCut(1<<40)
	j.HashKey = [16]byte{1, 2, 3}
	j.Entered = map[jobs.Phase]time.Time{jobs.PhaseValidating: noon}
	j.Stop = &jobs.Stop{As: jobs.PhaseCancelled, Reason: "by its owner", At: noon.Add(time.Nanosecond)}
	j.Fold = jobs.Generation{9}
	j.Metadata = map[string]string{"quote": `"`, "newline": "\n", "zero": "\x00"}
	s := newSplit("job", 3)
	s.Reopening = map[int64]int{1 << 50: 2}
	s.Pieces = []jobs.Piece{{File: jobs.FileRef{Name: "jobs/job/pieces/3/x"}, Bytes: 5, To: 1}}
	c := newChunk("job", 3, 1<<50)
	c.Resolved, c.Calls = jobs.BitsOf(0, 3, 9), map[int]int{4: 2}
	c.Lease = noon.Add(123456789 * time.Nanosecond)
	c.Parts = []jobs.Part{{Attempt: 1, Seq: 2, Mask: jobs.BitsOf(0, 3, 9)}}
	save(t, l.SaveJob, &j)
	save(t, l.SaveSplit, &s)
	save(t, l.SaveChunk, &c)

	if diff := cmp.Diff(j, read(t, l, j)); diff != "" {
		t.Errorf("job (-saved +read):\n%s", diff)
	}
	got, err := l.Split(t.Context(), "job", 3)
	if diff := cmp.Diff(s, got); err != nil || diff != "" {
		t.Errorf("split: %v (-saved +read):\n%s", err, diff)
	}
	if diff := cmp.Diff([]jobs.Chunk{c}, all(t, l.Chunks(t.Context(), "job", 3, jobs.At(1<<50)))); diff != "" {
		t.Errorf("chunk (-saved +read):\n%s", diff)
	}
}

func zeroTimesSurvive(t *testing.T, l jobs.Ledger) {
	j := jobs.Job{V: jobs.SchemaVersion, ID: "timeless", Tenant: "tenant"}
	c := newChunk("timeless", 0, 0)
	save(t, l.SaveJob, &j)
	save(t, l.SaveChunk, &c)
	got := read(t, l, j)
	if !got.Created.IsZero() || !got.Deadline.IsZero() || !got.MovedAt.IsZero() {
		t.Errorf("created %v, deadline %v, moved %v; want all zero", got.Created, got.Deadline, got.MovedAt)
	}
	if c := all(t, l.Chunks(t.Context(), "timeless", 0, jobs.At(0)))[0]; !c.Lease.IsZero() || !c.NotBefore.IsZero() {
		t.Errorf("lease %v, not before %v; want both zero", c.Lease, c.NotBefore)
	}
}

func saveComparesRevisions(t *testing.T, l jobs.Ledger) {
	check := func(what string, stored string, err error, revision, wantRevision int64, want string) {
		t.Helper()
		if !errors.Is(err, jobs.ErrConflict) || revision != wantRevision || stored != want {
			t.Errorf("%s: %v, revision %d, stored %q; want ErrConflict, the revision left at %d, and %q untouched",
				what, err, revision, stored, wantRevision, want)
		}
	}
	first := newJob("job", "first")
	save(t, l.SaveJob, &first)
	stale := first
	again := newJob("job", "again")
	err := l.SaveJob(t.Context(), &again)
	check("second save of a new job", read(t, l, first).Tenant, err, again.Revision, 0, "first")
	first.Tenant = "second"
	save(t, l.SaveJob, &first)
	staleRevision := stale.Revision
	err = l.SaveJob(t.Context(), &stale)
	check("stale save of a job", read(t, l, first).Tenant, err, stale.Revision, staleRevision, "second")
	never := newJob("never", "tenant")
	never.Revision = 5
	if err := l.SaveJob(t.Context(), &never); !errors.Is(err, jobs.ErrConflict) {
		t.Errorf("save of an absent job with a revision: %v, want ErrConflict", err)
	}

	s := newSplit("job", 1)
	save(t, l.SaveSplit, &s)
	staleSplit := s
	save(t, l.SaveSplit, &s)
	if err := l.SaveSplit(t.Context(), &staleSplit); !errors.Is(err, jobs.ErrConflict) {
		t.Errorf("stale save of a split: %v, want ErrConflict", err)
	}
	c := newChunk("job", 1, 0)
	save(t, l.SaveChunk, &c)
	staleChunk, againChunk := c, newChunk("job", 1, 0)
	save(t, l.SaveChunk, &c)
	if err := l.SaveChunk(t.Context(), &staleChunk); !errors.Is(err, jobs.ErrConflict) {
		t.Errorf("stale save of a chunk: %v, want ErrConflict", err)
	}
	if err := l.SaveChunk(t.Context(), &againChunk); !errors.Is(err, jobs.ErrConflict) {
		t.Errorf("second save of a new chunk: %v, want ErrConflict", err)
	}
}

func revisionsRise(t *testing.T, l jobs.Ledger) {
	c := newChunk("job", 0, 0)
	for last := int64(0); last < 20; {
		before := c.Revision
		save(t, l.SaveChunk, &c)
		if c.Revision <= before {
			t.Fatalf("revision %d after %d", c.Revision, before)
		}
		last++
		if got := all(t, l.Chunks(t.Context(), "job", 0, jobs.At(0)))[0].Revision; got != c.Revision {
			t.Fatalf("revision read: %d, saved: %d", got, c.Revision)
		}
	}
}

func oneOfManyRacingSavesWins(t *testing.T, l jobs.Ledger) {
	c := newChunk("job", 0, 0)
	for round := range 5 {
		var won atomic.Int32
		var racing sync.WaitGroup
		for i := range 16 {
			racing.Go(func() {
				mine := c
				mine.Owner = fmt.Sprint(i)
				switch err := l.SaveChunk(t.Context(), &mine); {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, jobs.ErrConflict):
					t.Errorf("racing save: %v", err)
				}
			})
		}
		racing.Wait()
		if won.Load() != 1 {
			t.Fatalf("round %d: %d of 16 racing saves won, want 1", round, won.Load())
		}
		c = all(t, l.Chunks(t.Context(), "job", 0, jobs.At(0)))[0]
	}
}

func noRacingSaveIsLost(t *testing.T, l jobs.Ledger) {
	const racers, each = 8, 5
	j := newJob("job", "tenant")
	save(t, l.SaveJob, &j)
	var racing sync.WaitGroup
	for range racers {
		racing.Go(func() {
			for range each {
				for saved := false; !saved; {
					j, err := l.Job(t.Context(), "job")
					if err == nil {
						j.Resends++
						err = l.SaveJob(t.Context(), &j)
					}
					if err != nil && !errors.Is(err, jobs.ErrConflict) {
						t.Errorf("read and save: %v", err)
						return
					}
					saved = err == nil
				}
			}
		})
	}
	racing.Wait()
	if got := read(t, l, j).Resends; got != racers*each {
		t.Errorf("%d increments by compare-and-swap gave %d", racers*each, got)
	}
}

func bigRecordsFit(t *testing.T, l jobs.Ledger) {
	s := newSplit("job", 0)
	for i := range 2000 {
		s.Pieces = append(s.Pieces, jobs.Piece{To: i, File: jobs.FileRef{Name: "jobs/job/pieces/0/" + strings.Repeat("x", 90)}})
	}
	s.Reopening = map[int64]int{}
	for i := range jobs.MaxSplitChunks {
		s.Reopening[int64(i)<<40] = 1
	}
	save(t, l.SaveSplit, &s)
	if body, _ := jobs.EncodeRecord(&s); len(body) < 280_000 {
		t.Fatalf("the record has %d bytes: too small to prove anything", len(body))
	}
	got, err := l.Split(t.Context(), "job", 0)
	if err != nil || !cmp.Equal(s, got) {
		t.Errorf("a big record came back otherwise than it was saved (error: %v)", err)
	}
}

func idsMayBeUnicode(t *testing.T, l jobs.Ledger) {
	for _, id := range []jobs.JobID{"żółć", "作业", "👩‍🚀", "%_'\";--", "a/b#c d", "e\u0301", "\u00e9"} {
		j := newJob(id, "tenant "+string(id))
		save(t, l.SaveJob, &j)
		c := newChunk(id, 0, 1)
		save(t, l.SaveChunk, &c)
		if got := read(t, l, j); got.ID != id {
			t.Errorf("job %q came back as %q", id, got.ID)
		}
		if got := all(t, l.Jobs(t.Context(), jobs.JobQuery{Tenant: "tenant " + string(id)})); len(got) != 1 {
			t.Errorf("tenant of job %q has %d jobs, want 1", id, len(got))
		}
		if got := all(t, l.Chunks(t.Context(), id, 0, jobs.OffsetRange{})); len(got) != 1 || got[0].ID.Job != id {
			t.Errorf("chunks of job %q: %v", id, got)
		}
	}
}

func newerRecordsAreLeftAlone(t *testing.T, l jobs.Ledger) {
	j, s, c := newJob("job", "tenant"), newSplit("job", 0), newChunk("job", 0, 0)
	j.V, s.V, c.V = jobs.SchemaVersion+1, jobs.SchemaVersion+1, jobs.SchemaVersion+1
	save(t, l.SaveJob, &j)
	save(t, l.SaveSplit, &s)
	save(t, l.SaveChunk, &c)
	if _, err := l.Job(t.Context(), "job"); !errors.Is(err, jobs.ErrNewer) {
		t.Errorf("newer job: %v, want ErrNewer", err)
	}
	if _, err := l.Split(t.Context(), "job", 0); !errors.Is(err, jobs.ErrNewer) {
		t.Errorf("newer split: %v, want ErrNewer", err)
	}
	if err := lastError(l.Chunks(t.Context(), "job", 0, jobs.OffsetRange{})); !errors.Is(err, jobs.ErrNewer) {
		t.Errorf("newer chunk: %v, want ErrNewer", err)
	}
}

func anEndedContextEndsReadsAndSaves(t *testing.T, l jobs.Ledger) {
	j := newJob("job", "tenant")
	save(t, l.SaveJob, &j)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Job(ctx, "job"); !errors.Is(err, context.Canceled) {
		t.Errorf("read: %v, want context.Canceled", err)
	}
	if err := lastError(l.Jobs(ctx, jobs.JobQuery{Open: true})); !errors.Is(err, context.Canceled) {
		t.Errorf("list: %v, want context.Canceled", err)
	}
	revision := j.Revision
	if err := l.SaveJob(ctx, &j); !errors.Is(err, context.Canceled) || j.Revision != revision {
		t.Errorf("save: %v, revision %d; want context.Canceled and %d", err, j.Revision, revision)
	}
}

func save[R any](t *testing.T, save func(context.Context, *R) error, record *R) {
	t.Helper()
	if err := save(t.Context(), record); err != nil {
		t.Errorf("save: %v", err)
	}
}

func read(t *testing.T, l jobs.Ledger, j jobs.Job) jobs.Job {
	t.Helper()
	got, err := l.Job(t.Context(), j.ID)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// all reads an iterator to its end.
func all[R any](t *testing.T, records iter.Seq2[R, error]) (read []R) {
	t.Helper()
	for r, err := range records {
		if err != nil {
			t.Fatal(err)
		}
		read = append(read, r)
	}
	return read
}

// lastError is the error that an iterator ended with.
func lastError[R any](records iter.Seq2[R, error]) (last error) {
	for _, err := range records {
		last = err
	}
	return last
}
