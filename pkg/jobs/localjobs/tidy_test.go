package localjobs

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// TestTidyRemovesWhatIsNoLongerKept: jobs that are over and old, with their records, and objects by the age of their folder.
func TestTidyRemovesWhatIsNoLongerKept(t *testing.T) {
	c := &clock{now: time.Now()}
	dir := t.TempDir()
	l := openAt(t, dir, Options{Now: c.Now})
	ctx := t.Context()
	save := func(id string, age time.Duration, closed bool) {
		t.Helper()
		j := jobs.Job{ID: jobs.JobID(id), Tenant: "t", Created: c.Now().Add(-age), Closed: closed}
		err := l.Store.SaveJob(ctx, &j)
		if err == nil {
			err = l.Store.SaveSplit(ctx, &jobs.Split{Job: j.ID})
		}
		if err == nil {
			err = l.Store.SaveChunk(ctx, &jobs.Chunk{ID: jobs.ChunkID{Job: j.ID}})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for n := range 2*tidyJobs + 1 {
		save("batch_old"+string(rune('a'+n)), kept+time.Hour, true)
	}
	save("batch_open", kept+time.Hour, false)
	save("batch_new", kept-time.Hour, true)
	for name, age := range map[string]time.Duration{
		"jobs/batch_old/x": kept + time.Hour, "jobs/batch_new/x": kept - time.Hour, "files/t/old": kept + time.Hour, "files/t/new": time.Hour,
		"uploads/t/u/old": scrapKept + time.Hour, "uploads/t/u/new": time.Hour, "dry/old/x": scrapKept + time.Hour, "tmp/old": scrapKept + time.Hour,
	} {
		w, err := l.Files.Create(ctx, name)
		if err == nil {
			_, err = w.Commit(ctx)
		}
		if err == nil {
			err = os.Chtimes(filepath.Join(dir, "objects", name), time.Time{}, c.Now().Add(-age))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // twice is once
		if err := l.Tidy(ctx); err != nil {
			t.Fatal(err)
		}
	}
	var left []string
	for j, err := range l.Store.Jobs(ctx, jobs.JobQuery{Tenant: "t"}) {
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, string(j.ID))
	}
	for info, err := range l.Files.List(ctx, "") {
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, info.Name)
	}
	if diff := cmp.Diff([]string{"batch_new", "batch_open", "files/t/new", "jobs/batch_new/x", "uploads/t/u/new"}, left); diff != "" {
		t.Errorf("what is left (-want +got):\n%s", diff)
	}
	for _, of := range []string{"splits", "chunks"} {
		var n int
		if err := l.db.read.QueryRow(`SELECT count(*) FROM ` + of).Scan(&n); err != nil || n != 2 {
			t.Errorf("%d %s are left, %v", n, of, err)
		}
	}
}
