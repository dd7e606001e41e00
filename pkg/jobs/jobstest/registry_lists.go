package jobstest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

func entryIDs(entries []jobs.Entry) (ids []string) {
	for _, e := range entries {
		ids = append(ids, e.ID)
	}
	return ids
}

func entriesAreListedByTime(t *testing.T, r jobs.Registry) {
	const n = 300 // more than a page of any driver
	newest := make([]string, n)
	for i := range n {
		e := newEntry("owner", fmt.Sprintf("id-%03d", (i*7)%n))
		e.Created = noon.Add(time.Duration(i) * time.Nanosecond).UTC()
		save(t, r.SaveEntry, &e)
		newest[n-1-i] = e.ID
		if i%50 == 0 { // a change is no new entry
			e.Body = []byte(`{"width":9}`)
			save(t, r.SaveEntry, &e)
		}
	}
	for _, at := range []string{"b", "a", "c"} { // of one instant, after all others
		e := newEntry("owner", "same-"+at)
		e.Created = noon.Add(time.Hour).UTC()
		save(t, r.SaveEntry, &e)
	}
	newest = append([]string{"same-c", "same-b", "same-a"}, newest...)
	oldest := slices.Clone(newest)
	slices.Reverse(oldest)
	unlisted, others := newEntry("owner", "unlisted"), newEntry("owner-2", "other")
	others.Created = noon
	save(t, r.SaveEntry, &unlisted)
	save(t, r.SaveEntry, &others)

	for _, c := range []struct {
		what string
		q    jobs.EntryQuery
		want []string
	}{
		{"all", jobs.EntryQuery{}, newest},
		{"all, oldest first", jobs.EntryQuery{Oldest: true}, oldest},
		{"the first ten", jobs.EntryQuery{Limit: 10}, newest[:10]},
		{"ten in the middle", jobs.EntryQuery{After: newest[42], Limit: 10}, newest[43:53]},
		{"ten in the middle, oldest first", jobs.EntryQuery{After: oldest[42], Oldest: true, Limit: 10}, oldest[43:53]},
		{"after one of an instant", jobs.EntryQuery{After: "same-b", Limit: 2}, newest[2:4]},
		{"more than there are", jobs.EntryQuery{After: newest[len(newest)-3], Limit: 10}, newest[len(newest)-2:]},
		{"after the last", jobs.EntryQuery{After: newest[len(newest)-1]}, nil},
		{"of another kind", jobs.EntryQuery{Kind: "other"}, nil},
	} {
		if c.q.Kind == "" {
			c.q.Kind = jobs.KindGate
		}
		c.q.Owner = "owner"
		listed := all(t, r.Listed(t.Context(), c.q))
		if diff := cmp.Diff(c.want, entryIDs(listed)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.what, diff)
		}
		for _, e := range listed[:min(len(listed), 2)] {
			if diff := cmp.Diff(e, readEntry(t, r, "owner", e.ID)); diff != "" {
				t.Errorf("%s: entry %s (-listed +read):\n%s", c.what, e.ID, diff)
			}
		}
	}
}

func droppedEntriesAreListedNoMore(t *testing.T, r jobs.Registry) {
	var kept []jobs.Entry
	for i := range 3 {
		e := newEntry("owner", fmt.Sprintf("id-%d", i))
		e.Created = noon.Add(time.Duration(i) * time.Second).UTC()
		save(t, r.SaveEntry, &e)
		kept = append(kept, e)
	}
	if err := r.DropEntry(t.Context(), kept[1]); err != nil {
		t.Fatal(err)
	}
	q := jobs.EntryQuery{Kind: jobs.KindGate, Owner: "owner"}
	if got := entryIDs(all(t, r.Listed(t.Context(), q))); !slices.Equal(got, []string{"id-2", "id-0"}) {
		t.Errorf("listed: %v", got)
	}
	for _, after := range []string{"id-1", "never"} {
		q.After = after
		for _, err := range r.Listed(t.Context(), q) {
			if !errors.Is(err, jobs.ErrNotFound) {
				t.Errorf("after %s, which is not there: %v, want ErrNotFound", after, err)
			}
		}
	}
}
