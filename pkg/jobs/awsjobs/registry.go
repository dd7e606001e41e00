package awsjobs

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// An entry that is dropped leaves an item behind that has no body, a higher revision, and an expiry; one that is made
// there goes on from its revision. One that is made where nothing is begins at the microseconds of the clock, so it is
// above every entry that ever was there, unless that had more than a save a microsecond or the clocks differ by weeks.

// prefixOf begins the key of an entry's owner. Kinds without a letter of their own go by their names.
func prefixOf(kind jobs.Kind) string {
	switch kind {
	case jobs.KindGate:
		return "U"
	default:
		return string(kind)
	}
}

func ownerKey(kind jobs.Kind, owner string) string { return prefixOf(kind) + "#" + owner }

// Entry reads an entry.
func (s *Store) Entry(ctx context.Context, kind jobs.Kind, owner, id string) (jobs.Entry, error) {
	i, err := s.entry(ctx, kind, owner, id)
	if err == nil && i[attrDropped] != nil {
		err = jobs.ErrNotFound
	}
	var e jobs.Entry
	if err == nil {
		e, err = decodeEntry(kind, i)
	}
	if err != nil {
		return jobs.Entry{}, fmt.Errorf("read %s %s of %s: %w", kind, id, owner, err)
	}
	return e, nil
}

// entry reads what is at the place of an entry, a dropped one too.
func (s *Store) entry(ctx context.Context, kind jobs.Kind, owner, id string) (item, error) {
	if id == "" {
		return nil, jobs.ErrNotFound // none has an empty id, which is no key
	}
	return s.get(ctx, keyOf(ownerKey(kind, owner), id))
}

func decodeEntry(kind jobs.Kind, i item) (e jobs.Entry, err error) {
	e = jobs.Entry{Kind: kind, Owner: strings.TrimPrefix(i.text(attrKey), ownerKey(kind, "")), ID: i.text(attrSort), Revision: i.number(attrRev)}
	if e.Body, err = i.body(); err != nil {
		return e, err
	}
	if at, _, listed := strings.Cut(i.text(attrCreated), "#"); listed {
		if e.Created, err = time.Parse(createdLayout, at); err != nil {
			return e, fmt.Errorf("decode when %s was created: %w", e.ID, err)
		}
	}
	if expires := i.number(attrExpires); expires != 0 {
		e.Expires = time.Unix(expires, 0).UTC()
	}
	return e, nil
}

// Listed yields the entries of an owner that have a Created, by that and id. They share the index of the jobs of a tenant,
// under the key of their owner, which is no tenant's.
func (s *Store) Listed(ctx context.Context, q jobs.EntryQuery) iter.Seq2[jobs.Entry, error] {
	what := fmt.Sprintf("list %s entries of %s by time", q.Kind, q.Owner)
	return func(yield func(jobs.Entry, error) bool) {
		of, err := s.entriesByTime(ctx, q)
		if err != nil {
			yield(jobs.Entry{}, fmt.Errorf("%s: %w", what, err))
			return
		}
		walk(what, pagesOfListed, q.Limit, func(from item, limit int) ([]jobs.Entry, item, error) {
			return s.entriesOf(ctx, q.Kind, of, from, limit)
		})(yield)
	}
}

// entriesByTime is the query for the entries of an owner that follow q.After.
func (s *Store) entriesByTime(ctx context.Context, q jobs.EntryQuery) (query, error) {
	of := query{
		index: indexTenant, condition: "#owner = :owner", backwards: !q.Oldest,
		names: map[string]string{"#owner": attrTenant}, values: item{":owner": text(ownerKey(q.Kind, q.Owner))},
	}
	if q.After == "" {
		return of, nil
	}
	after, err := s.Entry(ctx, q.Kind, q.Owner, q.After)
	if err != nil {
		return of, err
	}
	follows := "<"
	if q.Oldest {
		follows = ">"
	}
	of.condition += " AND #created " + follows + " :after"
	of.names["#created"], of.values[":after"] = attrCreated, text(createdKey(after.Created, after.ID))
	return of, nil
}

// entriesOf reads a page of the index, and then the entries. The index may be behind them: what was dropped is left out.
func (s *Store) entriesOf(ctx context.Context, kind jobs.Kind, q query, from item, limit int) ([]jobs.Entry, item, error) {
	items, next, err := s.indexed(ctx, q, from, limit)
	if err != nil {
		return nil, nil, err
	}
	var found []jobs.Entry
	for _, i := range items {
		if i[attrDropped] != nil {
			continue
		}
		e, err := decodeEntry(kind, i)
		if err != nil {
			return found, nil, err
		}
		found = append(found, e)
	}
	return found, next, nil
}

// Entries yields the entries of an owner, or of all, by owner and id. The owners are found in an index.
func (s *Store) Entries(ctx context.Context, kind jobs.Kind, owner string) iter.Seq2[jobs.Entry, error] {
	what := fmt.Sprintf("list %s entries", kind)
	of := func(pk string) iter.Seq2[jobs.Entry, error] {
		all := query{condition: "pk = :pk", values: item{":pk": text(pk)}}
		return walk(what, pagesOfEntries, 0, func(from item, limit int) (page []jobs.Entry, next item, err error) {
			items, next, err := s.page(ctx, all, from, limit)
			for _, i := range items {
				if i[attrDropped] != nil {
					continue
				}
				e, err := decodeEntry(kind, i)
				if err != nil {
					return page, nil, err
				}
				page = append(page, e)
			}
			return page, next, err
		})
	}
	if owner != "" {
		return of(ownerKey(kind, owner))
	}
	return func(yield func(jobs.Entry, error) bool) {
		for pk, err := range s.owners(ctx, what, kind) {
			if err != nil {
				yield(jobs.Entry{}, err)
				return
			}
			for e, err := range of(pk) {
				if !yield(e, err) || err != nil {
					return
				}
			}
		}
	}
}

// owners yields the keys of the owners that have entries of a kind, in order.
func (s *Store) owners(ctx context.Context, what string, kind jobs.Kind) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		last := ""
		for i, err := range walk(what, pagesOfEntries, 0, func(from item, limit int) ([]item, item, error) {
			return s.page(ctx, openOf(prefixOf(kind)), from, limit)
		}) {
			pk := i.text(attrKey)
			if err == nil && pk == last {
				continue
			}
			if last = pk; !yield(pk, err) {
				return
			}
		}
	}
}

// SaveEntry stores an entry if nobody saved it since it was read. A new entry takes the place of a dropped or expired
// one, which takes a read and a second write.
func (s *Store) SaveEntry(ctx context.Context, e *jobs.Entry) error {
	if e.Kind == "" || e.ID == "" {
		return jobs.Errorf(jobs.CodeInvalid, "save entry %q of kind %q and owner %q: kind and id must be given", e.ID, e.Kind, e.Owner)
	}
	i := keyOf(ownerKey(e.Kind, e.Owner), e.ID)
	i[attrOpen] = text(prefixOf(e.Kind))
	if len(e.Body) > 0 {
		var err error
		if i[attrBody], err = pack(e.Body); err != nil {
			return fmt.Errorf("save %s %s of %s: %w", e.Kind, e.ID, e.Owner, err)
		}
	}
	if !e.Created.IsZero() {
		i[attrTenant], i[attrCreated] = text(ownerKey(e.Kind, e.Owner)), text(createdKey(e.Created, e.ID))
	}
	if !e.Expires.IsZero() {
		i[attrExpires] = number(seconds(e.Expires))
	}
	revision := e.Revision + 1
	if e.Revision == 0 {
		revision = s.now().UnixMicro()
	}
	err := s.put(ctx, i, e.Revision, revision)
	if e.Revision == 0 && errors.Is(err, jobs.ErrConflict) {
		revision, err = s.replace(ctx, e, i)
	}
	if err != nil {
		return fmt.Errorf("save %s %s of %s: %w", e.Kind, e.ID, e.Owner, err)
	}
	e.Revision = revision
	return nil
}

// replace puts a new entry where something is: that must be a dropped or expired one.
func (s *Store) replace(ctx context.Context, e *jobs.Entry, i item) (revision int64, err error) {
	there, err := s.entry(ctx, e.Kind, e.Owner, e.ID)
	switch {
	case errors.Is(err, jobs.ErrNotFound): // gone this instant
		return 0, jobs.ErrConflict
	case err != nil:
		return 0, err
	}
	expires := there.number(attrExpires)
	if there[attrDropped] == nil && (expires == 0 || expires > s.now().Unix()) {
		return 0, jobs.ErrConflict
	}
	old := there.number(attrRev)
	return old + 1, s.put(ctx, i, old, old+1)
}

// DropEntry removes an entry of that revision; one that is absent is fine.
func (s *Store) DropEntry(ctx context.Context, e jobs.Entry) error {
	err := jobs.ErrConflict
	if e.Revision != 0 && e.ID != "" {
		i := keyOf(ownerKey(e.Kind, e.Owner), e.ID)
		i[attrDropped], i[attrExpires] = number(1), number(seconds(s.now().Add(jobs.RecordsKept)))
		err = s.put(ctx, i, e.Revision, e.Revision+1)
	}
	if errors.Is(err, jobs.ErrConflict) {
		there, failed := s.entry(ctx, e.Kind, e.Owner, e.ID)
		switch {
		case errors.Is(failed, jobs.ErrNotFound), failed == nil && there[attrDropped] != nil:
			err = nil
		case failed != nil:
			err = failed
		}
	}
	if err != nil {
		return fmt.Errorf("drop %s %s of %s: %w", e.Kind, e.ID, e.Owner, err)
	}
	return nil
}
