package sim

import (
	"bytes"
	"context"
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
	revision int64
}

type record struct {
	revision int64
	body     []byte
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
	return save(ctx, l, jobKey(j.ID), j, &j.Revision, l.w.watchJob)
}

func (l *ledger) SaveSplit(ctx context.Context, s *jobs.Split) error {
	return save(ctx, l, splitKey(s.Job, s.N), s, &s.Revision, nil)
}

func (l *ledger) SaveChunk(ctx context.Context, c *jobs.Chunk) error {
	return save(ctx, l, chunkKey(c.ID), c, &c.Revision, func(before *jobs.Chunk, after *jobs.Chunk) { l.w.watchChunk(actorOf(ctx), before, after) })
}

func save[R jobs.Job | jobs.Split | jobs.Chunk](ctx context.Context, l *ledger, key string, r *R, revision *int64, watch func(before, after *R)) error {
	body, err := jobs.EncodeRecord(r)
	if err != nil {
		return err
	}
	next := int64(0)
	err = l.w.step(ctx, fmt.Sprintf("save %s (%d)", key, *revision), func() error {
		old, ok := l.records[key]
		if ok && old.revision != *revision || !ok && *revision != 0 {
			l.w.saw(LostCAS)
			return jobs.ErrConflict
		}
		l.revision++
		next = l.revision
		l.records[key] = record{next, body}
		if watch != nil {
			var before *R
			if ok {
				b, err := jobs.DecodeRecord[R](old.body, old.revision)
				if err != nil {
					return err
				}
				before = &b
			}
			after, err := jobs.DecodeRecord[R](body, next)
			if err != nil {
				return err
			}
			watch(before, &after)
		}
		return nil
	})
	if err == nil {
		*revision = next
	}
	return err
}

const pageSize = 4 // small, so that the world changes between pages

// page yields records by key, a page at a time.
func page[R jobs.Job | jobs.Split | jobs.Chunk](ctx context.Context, l *ledger, prefix, from, to string) iter.Seq2[R, error] {
	return func(yield func(R, error) bool) {
		for {
			var found []R
			last := ""
			err := l.w.step(ctx, "list "+prefix+" from "+from, func() error {
				for _, key := range slices.Sorted(maps.Keys(l.records)) {
					if !strings.HasPrefix(key, prefix) || key < from || to != "" && key >= to || len(found) == pageSize {
						continue
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
			if len(found) < pageSize {
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

func (r *registry) SaveEntry(ctx context.Context, e *jobs.Entry) error {
	key := entryKey(e.Kind, e.Owner, e.ID)
	revision := int64(0)
	err := r.w.step(ctx, "save entry "+key, func() error {
		if old := r.entries[key]; old.Revision != e.Revision {
			return jobs.ErrConflict
		}
		r.next++
		revision = r.next
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
