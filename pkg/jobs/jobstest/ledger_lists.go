package jobstest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

func jobsAreListedNewestFirst(t *testing.T, l jobs.Ledger) {
	const n = 150 // more than a page of any driver
	want := make([]jobs.JobID, n)
	for i := range n {
		j := newJob(jobs.JobID(fmt.Sprintf("job-%03d", (i*7)%n)), "tenant")
		j.Created = noon.Add(time.Duration(i) * time.Millisecond)
		j.Closed = i%2 == 0 // of no matter for a tenant's list
		save(t, l.SaveJob, &j)
		want[n-1-i] = j.ID
	}
	other := newJob("job-other", "another tenant")
	save(t, l.SaveJob, &other)

	query := func(q jobs.JobQuery) []jobs.JobID { return jobIDs(all(t, l.Jobs(t.Context(), q))) }
	for _, c := range []struct {
		what string
		q    jobs.JobQuery
		want []jobs.JobID
	}{
		{"all", jobs.JobQuery{Tenant: "tenant"}, want},
		{"the first ten", jobs.JobQuery{Tenant: "tenant", Limit: 10}, want[:10]},
		{"ten in the middle", jobs.JobQuery{Tenant: "tenant", After: want[42], Limit: 10}, want[43:53]},
		{"more than there are", jobs.JobQuery{Tenant: "tenant", After: want[n-3], Limit: 10}, want[n-2:]},
		{"after the last", jobs.JobQuery{Tenant: "tenant", After: want[n-1]}, nil},
	} {
		if diff := cmp.Diff(c.want, query(c.q)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.what, diff)
		}
	}
	for _, after := range []jobs.JobID{"absent", "job-other"} {
		for _, err := range l.Jobs(t.Context(), jobs.JobQuery{Tenant: "tenant", After: after}) {
			if !errors.Is(err, jobs.ErrNotFound) {
				t.Errorf("after a job that the tenant does not have (%s): %v, want ErrNotFound", after, err)
			}
		}
	}
}

func jobsOfOneInstantAreListedOnce(t *testing.T, l jobs.Ledger) {
	want := map[jobs.JobID]int{}
	for i := range 9 {
		j := newJob(jobs.JobID(fmt.Sprintf("job-%d", i)), "tenant")
		save(t, l.SaveJob, &j)
		want[j.ID] = 1
	}
	got := map[jobs.JobID]int{}
	var after jobs.JobID
	for range len(want) {
		for _, id := range jobIDs(all(t, l.Jobs(t.Context(), jobs.JobQuery{Tenant: "tenant", After: after, Limit: 2}))) {
			got[id]++
			after = id
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("times that each job was listed, two at a time (-want +got):\n%s", diff)
	}
}

func openJobsAreThoseNotClosed(t *testing.T, l jobs.Ledger) {
	var want []jobs.JobID
	for i := range 150 {
		j := newJob(jobs.JobID(fmt.Sprintf("job-%03d", i)), fmt.Sprintf("tenant-%d", i%3))
		j.Closed = i%5 == 0
		save(t, l.SaveJob, &j)
		switch {
		case i%10 == 0: // closed, and reopened
			j.Closed = false
			save(t, l.SaveJob, &j)
			want = append(want, j.ID)
		case i%7 == 0: // closed later
			j.Closed = true
			save(t, l.SaveJob, &j)
		case !j.Closed:
			want = append(want, j.ID)
		}
	}
	got := jobIDs(all(t, l.Jobs(t.Context(), jobs.JobQuery{Open: true})))
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("open jobs (-want +got):\n%s", diff)
	}
	if n := len(all(t, l.Jobs(t.Context(), jobs.JobQuery{Open: true, Limit: 70}))); n != 70 {
		t.Errorf("%d open jobs with limit 70", n)
	}
}

func jobIDs(records []jobs.Job) (ids []jobs.JobID) {
	for _, j := range records {
		ids = append(ids, j.ID)
	}
	return ids
}

func splitsAreListedInOrder(t *testing.T, l jobs.Ledger) {
	want := []int{0, 1, 2, 9, 10, 11, 99, 100, 101, 102, 103, 104, 105, 106, 107, 999, 1000, 7999}
	for _, n := range slices.Backward(want) {
		s := newSplit("job", n)
		save(t, l.SaveSplit, &s)
	}
	var got []int
	for _, s := range all(t, l.Splits(t.Context(), "job")) {
		got = append(got, s.N)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("splits (-want +got):\n%s", diff)
	}
}

func chunksAreListedByOffset(t *testing.T, l jobs.Ledger) {
	offsets := map[int64]bool{0: true, 1 << 40: true, 1<<40 + 1: true, 1 << 62: true}
	for i := range int64(300) { // more than a page of any driver
		offsets[i*i*97] = true
	}
	var saving sync.WaitGroup
	for offset := range offsets {
		saving.Go(func() {
			c := newChunk("job", 0, offset)
			save(t, l.SaveChunk, &c)
		})
	}
	saving.Wait()
	got := chunkOffsets(all(t, l.Chunks(t.Context(), "job", 0, jobs.OffsetRange{})))
	if diff := cmp.Diff(slices.Sorted(maps.Keys(offsets)), got); diff != "" {
		t.Errorf("chunks (-want +got):\n%s", diff)
	}
}

func chunksOfARange(t *testing.T, l jobs.Ledger) {
	for _, offset := range []int64{0, 9, 10, 11, 100} {
		c := newChunk("job", 0, offset)
		save(t, l.SaveChunk, &c)
	}
	for _, c := range []struct {
		r    jobs.OffsetRange
		want []int64
	}{
		{jobs.OffsetRange{}, []int64{0, 9, 10, 11, 100}},
		{jobs.OffsetRange{From: 9, To: 11}, []int64{9, 10}},
		{jobs.OffsetRange{From: 10}, []int64{10, 11, 100}},
		{jobs.OffsetRange{To: 10}, []int64{0, 9}},
		{jobs.OffsetRange{From: 12, To: 100}, nil},
		{jobs.OffsetRange{From: 101}, nil},
		{jobs.At(0), []int64{0}},
		{jobs.At(10), []int64{10}},
		{jobs.At(12), nil},
	} {
		got := chunkOffsets(all(t, l.Chunks(t.Context(), "job", 0, c.r)))
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("chunks of %+v (-want +got):\n%s", c.r, diff)
		}
	}
}

func chunkOffsets(records []jobs.Chunk) (offsets []int64) {
	for _, c := range records {
		offsets = append(offsets, c.ID.Offset)
	}
	return offsets
}

func neighboursAreNotMixedUp(t *testing.T, l jobs.Ledger) {
	ids := []jobs.ChunkID{{Job: "job", Split: 1}, {Job: "job", Split: 11}, {Job: "job1", Split: 1}, {Job: "job#1", Split: 1}, {Job: "Job", Split: 1}}
	for _, id := range ids {
		c := newChunk(id.Job, id.Split, 7)
		s := newSplit(id.Job, id.Split)
		save(t, l.SaveChunk, &c)
		save(t, l.SaveSplit, &s)
	}
	for _, id := range ids {
		got := all(t, l.Chunks(t.Context(), id.Job, id.Split, jobs.OffsetRange{}))
		if len(got) != 1 || got[0].ID.Job != id.Job || got[0].ID.Split != id.Split {
			t.Errorf("chunks of %s/%d: %v", id.Job, id.Split, got)
		}
	}
	if got := all(t, l.Splits(t.Context(), "job")); len(got) != 2 {
		t.Errorf("splits of job: %v, want 1 and 11", got)
	}
}

func savingWhileIterating(t *testing.T, l jobs.Ledger) {
	const n = 300
	for i := range n {
		c := newChunk("job", 0, int64(i))
		save(t, l.SaveChunk, &c)
	}
	// Deep enough that a connection held for each level would run out.
	seen := 0
	for c, err := range l.Chunks(t.Context(), "job", 0, jobs.OffsetRange{}) {
		if err != nil {
			t.Fatal(err)
		}
		c.Owner = "me"
		save(t, l.SaveChunk, &c)
		if seen++; seen%100 == 0 {
			nest(t, l, 12)
		}
	}
	for _, c := range all(t, l.Chunks(t.Context(), "job", 0, jobs.OffsetRange{})) {
		if c.Owner != "me" {
			t.Fatalf("chunk %s was not saved while iterating", c.ID)
		}
	}
	if seen != n {
		t.Errorf("saw %d chunks, want each of %d once", seen, n)
	}
}

// nest reads an iterator inside another, so many deep.
func nest(t *testing.T, l jobs.Ledger, depth int) {
	if depth == 0 {
		return
	}
	for _, err := range l.Chunks(t.Context(), "job", 0, jobs.OffsetRange{}) {
		if err != nil {
			t.Fatal(err)
		}
		nest(t, l, depth-1)
		return
	}
}
