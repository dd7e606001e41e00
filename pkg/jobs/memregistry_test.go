package jobs

import (
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
)

// memRegistry keeps entries in memory, and can be made to fail. Not for concurrent use.
type memRegistry struct {
	entries map[[3]string]Entry
	reads   int
	saves   int
	fail    error  // of the next call
	rival   func() // is faster than every save
}

var _ Registry = (*memRegistry)(nil)

func newMemRegistry() *memRegistry { return &memRegistry{entries: map[[3]string]Entry{}} }

func keyOf(kind Kind, owner, id string) [3]string { return [3]string{string(kind), owner, id} }

func (r *memRegistry) failure() error {
	err := r.fail
	r.fail = nil
	return err
}

func (r *memRegistry) Entry(_ context.Context, kind Kind, owner, id string) (Entry, error) {
	r.reads++
	e, ok := r.entries[keyOf(kind, owner, id)]
	if err := r.failure(); err != nil || ok {
		return e, err
	}
	return e, ErrNotFound
}

func (r *memRegistry) Entries(_ context.Context, kind Kind, owner string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for _, key := range slices.SortedFunc(maps.Keys(r.entries), func(a, b [3]string) int { return slices.Compare(a[:], b[:]) }) {
			if key[0] == string(kind) && (owner == "" || key[1] == owner) && !yield(r.entries[key], nil) {
				return
			}
		}
	}
}

// Listed is of no use to any handler.
func (r *memRegistry) Listed(context.Context, EntryQuery) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) { yield(Entry{}, errors.New("not listed by time")) }
}

func (r *memRegistry) SaveEntry(_ context.Context, e *Entry) error {
	if r.rival != nil {
		r.rival()
	}
	r.saves++
	if err := r.failure(); err != nil {
		return err
	}
	key := keyOf(e.Kind, e.Owner, e.ID)
	if r.entries[key].Revision != e.Revision {
		return ErrConflict
	}
	e.Revision++
	r.entries[key] = *e
	return nil
}

func (r *memRegistry) DropEntry(_ context.Context, e Entry) error {
	key := keyOf(e.Kind, e.Owner, e.ID)
	if there, ok := r.entries[key]; ok && there.Revision != e.Revision {
		return ErrConflict
	}
	delete(r.entries, key)
	return nil
}
