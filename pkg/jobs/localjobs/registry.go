package localjobs

import (
	"context"
	"database/sql"
	"fmt"
	"iter"
	"math"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Entry reads an entry.
func (s *Store) Entry(ctx context.Context, kind jobs.Kind, owner, id string) (jobs.Entry, error) {
	found, err := collect(ctx, s.entry, scanEntry, string(kind), owner, id)
	if err == nil && len(found) == 0 {
		err = jobs.ErrNotFound
	}
	if err != nil {
		return jobs.Entry{}, fmt.Errorf("read %s %s of %s: %w", kind, id, owner, err)
	}
	return found[0], nil
}

// Entries yields the entries of an owner, or of all, by owner and id.
func (s *Store) Entries(ctx context.Context, kind jobs.Kind, owner string) iter.Seq2[jobs.Entry, error] {
	what := fmt.Sprintf("list %s entries", kind)
	return walk(what, entriesPage, 0, func(after *jobs.Entry, limit int) ([]jobs.Entry, error) {
		var last jobs.Entry // no entry has an empty id, so this is before all
		if after != nil {
			last = *after
		}
		if owner != "" {
			return collect(ctx, s.entriesOfOwner, scanEntry, string(kind), owner, last.ID, limit)
		}
		return collect(ctx, s.entriesOfAll, scanEntry, string(kind), last.Owner, last.ID, limit)
	})
}

// Listed yields the entries of an owner that have a Created, by that and id.
func (s *Store) Listed(ctx context.Context, q jobs.EntryQuery) iter.Seq2[jobs.Entry, error] {
	stmt, first := s.entriesNewest, int64(math.MaxInt64)
	if q.Oldest {
		stmt, first = s.entriesOldest, math.MinInt64
	}
	what := fmt.Sprintf("list %s entries of %s by time", q.Kind, q.Owner)
	return walk(what, entriesPage, q.Limit, func(after *jobs.Entry, limit int) ([]jobs.Entry, error) {
		created, id := first, ""
		switch {
		case after != nil:
			created, id = nanos(after.Created), after.ID
		case q.After != "":
			e, err := s.Entry(ctx, q.Kind, q.Owner, q.After)
			if err != nil {
				return nil, err
			}
			created, id = nanos(e.Created), e.ID
		}
		return collect(ctx, stmt, scanEntry, string(q.Kind), q.Owner, created, id, limit)
	})
}

func scanEntry(row *sql.Rows) (e jobs.Entry, err error) {
	var created, expires int64
	err = row.Scan(&e.Kind, &e.Owner, &e.ID, &e.Revision, &created, &expires, &e.Body)
	e.Created, e.Expires = fromNanos(created), fromNanos(expires)
	return e, err
}

// SaveEntry stores an entry if nobody saved it since it was read. Revisions of all entries rise together: so an entry
// that was dropped and made again is never taken for the old one. A new entry takes the place of expired ones.
func (s *Store) SaveEntry(ctx context.Context, e *jobs.Entry) error {
	if e.Kind == "" || e.ID == "" {
		return jobs.Errorf(jobs.CodeInvalid, "save entry %q of kind %q and owner %q: kind and id must be given", e.ID, e.Kind, e.Owner)
	}
	key := []any{string(e.Kind), e.Owner, e.ID}
	var revision int64
	var saved bool
	err := s.db.write(ctx, func() (err error) {
		if err := s.nextEntryRevision.QueryRow().Scan(&revision); err != nil {
			return err
		}
		columns := append([]any{revision, nanos(e.Created), nanos(e.Expires), e.Body}, key...)
		if e.Revision != 0 {
			saved, err = hits(s.updateEntry.Exec(append(columns, e.Revision)...))
			return err
		}
		if _, err := s.expireEntries.Exec(nanos(s.now())); err != nil {
			return err
		}
		saved, err = hits(s.insertEntry.Exec(columns...))
		return err
	})
	if err == nil && !saved {
		err = jobs.ErrConflict
	}
	if err != nil {
		return fmt.Errorf("save %s %s of %s: %w", e.Kind, e.ID, e.Owner, err)
	}
	e.Revision = revision
	return nil
}

// DropEntry removes an entry of that revision; one that is absent is fine.
func (s *Store) DropEntry(ctx context.Context, e jobs.Entry) error {
	var dropped bool
	err := s.db.write(ctx, func() (err error) {
		dropped, err = hits(s.dropEntry.Exec(string(e.Kind), e.Owner, e.ID, e.Revision))
		return err
	})
	if err == nil && !dropped {
		_, err = s.Entry(ctx, e.Kind, e.Owner, e.ID)
		switch {
		case err == nil:
			err = jobs.ErrConflict
		case jobs.CodeOf(err) == jobs.CodeNotFound:
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("drop %s %s of %s: %w", e.Kind, e.ID, e.Owner, err)
	}
	return nil
}
