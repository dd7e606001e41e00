package sim

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// ledger keeps records as encoded bytes, so that nobody shares memory with it.
type ledger struct {
	w        *World
	records  map[string]record
	keys     []string // of records, sorted
	revision int64
}

type record struct {
	revision int64
	body     []byte
	value    any // body decoded, for who watches; nobody changes it
}

func jobKey(id jobs.JobID) string { return "job/" + string(id) }

func splitKey(id jobs.JobID, n int) string { return fmt.Sprintf("split/%s/%06d", id, n) }

func chunkKey(c jobs.ChunkID) string {
	return fmt.Sprintf("chunk/%s/%06d/%016x", c.Job, c.Split, c.Offset)
}

func (l *ledger) Job(ctx context.Context, id jobs.JobID) (j jobs.Job, err error) {
	return get[jobs.Job](ctx, l, jobKey(id))
}

func (l *ledger) Split(ctx context.Context, id jobs.JobID, n int) (jobs.Split, error) {
	return get[jobs.Split](ctx, l, splitKey(id, n))
}

func get[R jobs.Job | jobs.Split | jobs.Chunk](ctx context.Context, l *ledger, key string) (r R, err error) {
	err = l.w.step(ctx, "read "+key, func() error {
		rec, ok := l.records[key]
		if !ok {
			return jobs.ErrNotFound
		}
		r, err = jobs.DecodeRecord[R](rec.body, rec.revision)
		return err
	})
	return r, err
}

func (l *ledger) SaveJob(ctx context.Context, j *jobs.Job) error {
	return save(ctx, l, jobKey(j.ID), j, &j.Revision, describeJob(j), l.w.watchJob)
}

func (l *ledger) SaveSplit(ctx context.Context, s *jobs.Split) error {
	return save(ctx, l, splitKey(s.Job, s.N), s, &s.Revision, describeSplit(s), l.w.watchSplit)
}

func (l *ledger) SaveChunk(ctx context.Context, c *jobs.Chunk) error {
	return save(ctx, l, chunkKey(c.ID), c, &c.Revision, describeChunk(c), l.w.watchChunk)
}

func describeJob(j *jobs.Job) string {
	s := string(j.Phase)
	for _, step := range slices.Sorted(maps.Keys(j.Tries)) {
		s += ", at " + string(step)
	}
	return s
}

func describeSplit(s *jobs.Split) string {
	switch {
	case len(s.Reopening) > 0:
		return fmt.Sprintf("reopening %v", s.Reopening)
	case s.Compacted && s.PiecesOf == s.Fold:
		return "compacted"
	case s.Settled:
		return "settled"
	default:
		return "open"
	}
}

func describeChunk(c *jobs.Chunk) string {
	s := fmt.Sprintf("attempt %d by %s has %s", c.Attempt, cmp.Or(c.Owner, "nobody"), c.Resolved)
	if c.Waits != "" {
		s += ", waits for " + c.Waits
	}
	if c.Dead {
		s += fmt.Sprintf(", dead #%d", c.Burial)
	}
	if c.Buried {
		s += ", buried"
	}
	return s
}

// save is watched while the world stands still. watch may keep before and after, but must not change them.
func save[R jobs.Job | jobs.Split | jobs.Chunk](ctx context.Context, l *ledger, key string, r *R, revision *int64, what string,
	watch func(a *actor, before, after *R)) error {
	body, err := jobs.EncodeRecord(r)
	if err != nil {
		return err
	}
	next := int64(0)
	err = l.w.step(ctx, fmt.Sprintf("save %s (%d): %s", key, *revision, what), func() error {
		old, ok := l.records[key]
		if ok && old.revision != *revision || !ok && *revision != 0 {
			l.w.saw(LostCAS)
			l.w.logf("%s is at %d", key, old.revision)
			return jobs.ErrConflict
		}
		l.revision++
		next = l.revision
		after, err := jobs.DecodeRecord[R](body, next)
		if err != nil {
			return err
		}
		if !ok {
			i, _ := slices.BinarySearch(l.keys, key)
			l.keys = slices.Insert(l.keys, i, key)
		}
		l.records[key] = record{next, body, &after}
		before, _ := old.value.(*R)
		watch(actorOf(ctx), before, &after)
		return nil
	})
	if err == nil {
		*revision = next
	}
	return err
}

const firstPage = 4 // records that a listing reads at once: few, so that the world changes between pages

// page yields records by key, a page at a time.
func page[R jobs.Job | jobs.Split | jobs.Chunk](ctx context.Context, l *ledger, prefix, from, to string) iter.Seq2[R, error] {
	return func(yield func(R, error) bool) {
		for size := firstPage; ; size *= 2 {
			var found []R
			last := ""
			err := l.w.step(ctx, "list "+prefix+" from "+from, func() error {
				at, _ := slices.BinarySearch(l.keys, from)
				for _, key := range l.keys[at:] {
					if !strings.HasPrefix(key, prefix) || to != "" && key >= to || len(found) == size {
						break
					}
					rec := l.records[key]
					r, err := jobs.DecodeRecord[R](rec.body, rec.revision)
					if err != nil {
						return err
					}
					found, last = append(found, r), key
				}
				return nil
			})
			if err != nil {
				var none R
				yield(none, err)
				return
			}
			for _, r := range found {
				if !yield(r, nil) {
					return
				}
			}
			if len(found) < size {
				return
			}
			from = last + "\x00"
		}
	}
}

func (l *ledger) Splits(ctx context.Context, id jobs.JobID) iter.Seq2[jobs.Split, error] {
	prefix := fmt.Sprintf("split/%s/", id)
	return page[jobs.Split](ctx, l, prefix, prefix, "")
}

func (l *ledger) Chunks(ctx context.Context, id jobs.JobID, n int, r jobs.OffsetRange) iter.Seq2[jobs.Chunk, error] {
	prefix := fmt.Sprintf("chunk/%s/%06d/", id, n)
	to := ""
	if r.To > 0 {
		to = fmt.Sprintf("%s%016x", prefix, r.To)
	}
	return page[jobs.Chunk](ctx, l, prefix, fmt.Sprintf("%s%016x", prefix, r.From), to)
}

func (l *ledger) Jobs(ctx context.Context, q jobs.JobQuery) iter.Seq2[jobs.Job, error] {
	return func(yield func(jobs.Job, error) bool) {
		for j, err := range page[jobs.Job](ctx, l, "job/", "job/", "") {
			if err == nil && q.Open && j.Closed {
				continue
			}
			if !yield(j, err) {
				return
			}
		}
	}
}

// registry keeps entries likewise.
type registry struct {
	w       *World
	entries map[string]jobs.Entry
	next    int64
}

func entryKey(kind jobs.Kind, owner, id string) string {
	return fmt.Sprintf("%s/%s/%s", kind, owner, id)
}

func (r *registry) Entry(ctx context.Context, kind jobs.Kind, owner, id string) (e jobs.Entry, err error) {
	key := entryKey(kind, owner, id)
	err = r.w.step(ctx, "read entry "+key, func() error {
		found, ok := r.entries[key]
		if !ok {
			return jobs.ErrNotFound
		}
		e = found
		e.Body = bytes.Clone(e.Body)
		return nil
	})
	return e, err
}

func (r *registry) Entries(ctx context.Context, kind jobs.Kind, owner string) iter.Seq2[jobs.Entry, error] {
	return func(yield func(jobs.Entry, error) bool) {
		var found []jobs.Entry
		err := r.w.step(ctx, "list entries", func() error {
			for _, key := range slices.Sorted(maps.Keys(r.entries)) {
				if e := r.entries[key]; e.Kind == kind && (owner == "" || e.Owner == owner) {
					found = append(found, e)
				}
			}
			return nil
		})
		if err != nil {
			yield(jobs.Entry{}, err)
			return
		}
		for _, e := range found {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// Listed is of no use to any handler.
func (r *registry) Listed(context.Context, jobs.EntryQuery) iter.Seq2[jobs.Entry, error] {
	return func(yield func(jobs.Entry, error) bool) {
		yield(jobs.Entry{}, errors.New("the simulator lists nothing by time"))
	}
}

func (r *registry) SaveEntry(ctx context.Context, e *jobs.Entry) error {
	key := entryKey(e.Kind, e.Owner, e.ID)
	revision := int64(0)
	err := r.w.step(ctx, "save entry "+key, func() error {
		if old := r.entries[key]; old.Revision != e.Revision {
			return jobs.ErrConflict
		}
		r.next++
		revision = r.next
		r.w.watchEntry(e)
		saved := *e
		saved.Revision, saved.Body = revision, bytes.Clone(e.Body)
		r.entries[key] = saved
		return nil
	})
	if err == nil {
		e.Revision = revision
	}
	return err
}

func (r *registry) DropEntry(ctx context.Context, e jobs.Entry) error {
	return r.w.step(ctx, "drop entry", func() error {
		key := entryKey(e.Kind, e.Owner, e.ID)
		if old, ok := r.entries[key]; ok && old.Revision != e.Revision {
			return jobs.ErrConflict
		}
		delete(r.entries, key)
		return nil
	})
}
