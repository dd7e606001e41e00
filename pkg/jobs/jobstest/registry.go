package jobstest

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// TestRegistry proves that a registry keeps its promises. open returns an empty one; it is called once a claim.
func TestRegistry(t *testing.T, open func(t *testing.T) jobs.Registry) {
	for _, claim := range []struct {
		name string
		test func(t *testing.T, r jobs.Registry)
	}{
		{"AbsentEntriesAreNotFound", absentEntriesAreNotFound},
		{"EntriesComeBackAsTheyWereSaved", entriesComeBackAsTheyWereSaved},
		{"SaveEntryComparesRevisions", saveEntryComparesRevisions},
		{"DropEntryComparesRevisions", dropEntryComparesRevisions},
		{"AnEntryMadeAgainIsNotTheOldOne", anEntryMadeAgainIsNotTheOldOne},
		{"OneOfManyRacingEntriesWins", oneOfManyRacingEntriesWins},
		{"EntriesAreListedByOwnerAndID", entriesAreListedByOwnerAndID},
		{"EntriesCanBeSavedWhileIterating", entriesCanBeSavedWhileIterating},
		{"EntriesAreListedByTime", entriesAreListedByTime},
		{"DroppedEntriesAreListedNoMore", droppedEntriesAreListedNoMore},
	} {
		t.Run(claim.name, func(t *testing.T) { claim.test(t, open(t)) })
	}
}

func newEntry(owner, id string) jobs.Entry {
	return jobs.Entry{Kind: jobs.KindGate, Owner: owner, ID: id, Body: []byte(`{"width":8}`)}
}

func readEntry(t *testing.T, r jobs.Registry, owner, id string) jobs.Entry {
	t.Helper()
	e, err := r.Entry(t.Context(), jobs.KindGate, owner, id)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func absentEntriesAreNotFound(t *testing.T, r jobs.Registry) {
	if _, err := r.Entry(t.Context(), jobs.KindGate, "nobody", "x"); !errors.Is(err, jobs.ErrNotFound) {
		t.Errorf("absent entry: %v, want ErrNotFound", err)
	}
	if err := r.DropEntry(t.Context(), jobs.Entry{Kind: jobs.KindGate, Owner: "nobody", ID: "x", Revision: 3}); err != nil {
		t.Errorf("drop of an absent entry: %v", err)
	}
	if n := len(all(t, r.Entries(t.Context(), jobs.KindGate, ""))); n != 0 {
		t.Errorf("an empty registry lists %d entries", n)
	}
}

func entriesComeBackAsTheyWereSaved(t *testing.T, r jobs.Registry) {
	kept := newEntry("https://upstream/v1", "model/α:7b")
	short := newEntry("https://upstream/v1", "short")
	// Whole seconds in the future: a store may round, and may drop what has expired.
	short.Expires = time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	bare := newEntry("https://upstream/v1", "bare")
	bare.Body = nil // that it is there may be all there is to say
	for _, e := range []*jobs.Entry{&kept, &short, &bare} {
		save(t, r.SaveEntry, e)
		if diff := cmp.Diff(*e, readEntry(t, r, e.Owner, e.ID)); diff != "" {
			t.Errorf("entry %s (-saved +read):\n%s", e.ID, diff)
		}
	}
	if e := readEntry(t, r, kept.Owner, kept.ID); !e.Expires.IsZero() {
		t.Errorf("an entry that is kept expires at %s", e.Expires)
	}
}

func saveEntryComparesRevisions(t *testing.T, r jobs.Registry) {
	e := newEntry("owner", "id")
	save(t, r.SaveEntry, &e)
	stale, again := e, newEntry("owner", "id")
	e.Body = []byte(`{"width":9}`)
	before := e.Revision
	save(t, r.SaveEntry, &e)
	if e.Revision <= before {
		t.Errorf("revision %d after %d", e.Revision, before)
	}
	for what, old := range map[string]*jobs.Entry{"stale": &stale, "second": &again} {
		revision := old.Revision
		if err := r.SaveEntry(t.Context(), old); !errors.Is(err, jobs.ErrConflict) || old.Revision != revision {
			t.Errorf("%s save: %v, revision %d; want ErrConflict and %d", what, err, old.Revision, revision)
		}
	}
	if diff := cmp.Diff(e, readEntry(t, r, "owner", "id")); diff != "" {
		t.Errorf("a conflict changed the entry (-want +got):\n%s", diff)
	}
}

func dropEntryComparesRevisions(t *testing.T, r jobs.Registry) {
	e := newEntry("owner", "id")
	save(t, r.SaveEntry, &e)
	stale := e
	save(t, r.SaveEntry, &e)
	if err := r.DropEntry(t.Context(), stale); !errors.Is(err, jobs.ErrConflict) {
		t.Errorf("stale drop: %v, want ErrConflict", err)
	}
	readEntry(t, r, "owner", "id")
	for range 2 {
		if err := r.DropEntry(t.Context(), e); err != nil {
			t.Errorf("drop: %v", err)
		}
	}
	if _, err := r.Entry(t.Context(), jobs.KindGate, "owner", "id"); !errors.Is(err, jobs.ErrNotFound) {
		t.Errorf("after the drop: %v, want ErrNotFound", err)
	}
}

func anEntryMadeAgainIsNotTheOldOne(t *testing.T, r jobs.Registry) {
	old := newEntry("owner", "id")
	save(t, r.SaveEntry, &old)
	if err := r.DropEntry(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	fresh := newEntry("owner", "id")
	save(t, r.SaveEntry, &fresh)
	if fresh.Revision <= old.Revision {
		t.Errorf("an entry made again has revision %d, the old one had %d", fresh.Revision, old.Revision)
	}
	if err := r.SaveEntry(t.Context(), &old); !errors.Is(err, jobs.ErrConflict) {
		t.Errorf("save of the old one: %v, want ErrConflict", err)
	}
}

func oneOfManyRacingEntriesWins(t *testing.T, r jobs.Registry) {
	var won atomic.Int32
	var racing sync.WaitGroup
	for range 16 {
		racing.Go(func() {
			e := newEntry("tenant", "key")
			switch err := r.SaveEntry(t.Context(), &e); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, jobs.ErrConflict):
				t.Errorf("racing save: %v", err)
			}
		})
	}
	racing.Wait()
	if won.Load() != 1 {
		t.Errorf("%d of 16 racing puts won, want 1", won.Load())
	}
}

func entriesAreListedByOwnerAndID(t *testing.T, r jobs.Registry) {
	var want, wantOfB []string
	for _, owner := range []string{"a", "b", "b#", "c"} {
		for i := range 100 {
			id := fmt.Sprintf("%s-%03d", owner, i)
			want = append(want, owner+" "+id)
			if owner == "b" {
				wantOfB = append(wantOfB, owner+" "+id)
			}
			e := newEntry(owner, id)
			save(t, r.SaveEntry, &e)
		}
	}
	other := newEntry("b", "of another kind")
	other.Kind = "hook"
	save(t, r.SaveEntry, &other)

	for owner, want := range map[string][]string{"": want, "b": wantOfB, "nobody": nil} {
		var got []string
		for _, e := range all(t, r.Entries(t.Context(), jobs.KindGate, owner)) {
			got = append(got, e.Owner+" "+e.ID)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("entries of owner %q (-want +got):\n%s", owner, diff)
		}
	}
}

func entriesCanBeSavedWhileIterating(t *testing.T, r jobs.Registry) {
	for i := range 20 {
		e := newEntry("owner", fmt.Sprintf("%02d", i))
		save(t, r.SaveEntry, &e)
	}
	seen := 0
	for e, err := range r.Entries(t.Context(), jobs.KindGate, "owner") {
		if err != nil {
			t.Fatal(err)
		}
		seen++
		if seen%2 == 0 {
			if err := r.DropEntry(t.Context(), e); err != nil {
				t.Error(err)
			}
			continue
		}
		save(t, r.SaveEntry, &e)
	}
	if left := len(all(t, r.Entries(t.Context(), jobs.KindGate, "owner"))); seen != 20 || left != 10 {
		t.Errorf("saw %d entries and left %d, want 20 and 10", seen, left)
	}
}
