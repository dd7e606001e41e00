package localjobs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"math"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Store keeps records and registry entries in SQLite.
type Store struct {
	db  *database
	now func() time.Time

	jobs, splits, chunks table

	jobPosition, jobsOfTenant, jobsOpen *sql.Stmt

	entry, entriesOfOwner, entriesOfAll, entriesNewest, entriesOldest     *sql.Stmt
	expireEntries, nextEntryRevision, insertEntry, updateEntry, dropEntry *sql.Stmt

	dropChunks, dropSplits, dropJobs *sql.Stmt // of jobs that are over
}

var (
	_ jobs.Ledger   = (*Store)(nil)
	_ jobs.Registry = (*Store)(nil)
)

// table is how one kind of record is read and saved. insert and update take the body, then the columns; update takes the
// revision that is to be replaced after them.
type table struct{ get, list, insert, update *sql.Stmt }

// How many records an iterator has in memory at once. A split may be 300 KB, a chunk 2 KB.
const (
	jobsPage    = 64
	splitsPage  = 16
	chunksPage  = 256
	entriesPage = 256
)

func newStore(ctx context.Context, db *database, now func() time.Time) (*Store, error) {
	p := preparer{ctx: ctx, db: db}
	s := &Store{
		db: db, now: now,
		jobs: table{
			get: p.read(`SELECT body, revision FROM jobs WHERE id = ?`),
			insert: p.write(`INSERT INTO jobs (revision, body, id, tenant, created, open) VALUES (1, ?, ?, ?, ?, ?)
				ON CONFLICT DO NOTHING`),
			update: p.write(`UPDATE jobs SET revision = revision + 1, body = ?1, tenant = ?3, created = ?4, open = ?5
				WHERE id = ?2 AND revision = ?6`),
		},
		splits: table{
			get:    p.read(`SELECT body, revision FROM splits WHERE job = ? AND n = ?`),
			list:   p.read(`SELECT body, revision FROM splits WHERE job = ? AND n > ? ORDER BY n LIMIT ?`),
			insert: p.write(`INSERT INTO splits (revision, body, job, n) VALUES (1, ?, ?, ?) ON CONFLICT DO NOTHING`),
			update: p.write(`UPDATE splits SET revision = revision + 1, body = ? WHERE job = ? AND n = ? AND revision = ?`),
		},
		chunks: table{
			list: p.read(`SELECT body, revision FROM chunks WHERE job = ? AND split = ? AND offset >= ? AND offset < ?
				ORDER BY offset LIMIT ?`),
			insert: p.write(`INSERT INTO chunks (revision, body, job, split, offset) VALUES (1, ?, ?, ?, ?) ON CONFLICT DO NOTHING`),
			update: p.write(`UPDATE chunks SET revision = revision + 1, body = ?
				WHERE job = ? AND split = ? AND offset = ? AND revision = ?`),
		},
		jobPosition: p.read(`SELECT created FROM jobs WHERE tenant = ? AND id = ?`),
		jobsOfTenant: p.read(`SELECT body, revision FROM jobs WHERE tenant = ? AND (created, id) < (?, ?)
			ORDER BY created DESC, id DESC LIMIT ?`),
		jobsOpen: p.read(`SELECT body, revision FROM jobs WHERE open = 1 AND id > ? ORDER BY id LIMIT ?`),

		entry: p.read(`SELECT kind, owner, id, revision, created, expires, body FROM entries WHERE kind = ? AND owner = ? AND id = ?`),
		entriesOfOwner: p.read(`SELECT kind, owner, id, revision, created, expires, body FROM entries
			WHERE kind = ? AND owner = ? AND id > ? ORDER BY id LIMIT ?`),
		entriesOfAll: p.read(`SELECT kind, owner, id, revision, created, expires, body FROM entries
			WHERE kind = ? AND (owner, id) > (?, ?) ORDER BY owner, id LIMIT ?`),
		entriesNewest: p.read(`SELECT kind, owner, id, revision, created, expires, body FROM entries
			WHERE kind = ? AND owner = ? AND created <> 0 AND (created, id) < (?, ?) ORDER BY created DESC, id DESC LIMIT ?`),
		entriesOldest: p.read(`SELECT kind, owner, id, revision, created, expires, body FROM entries
			WHERE kind = ? AND owner = ? AND created <> 0 AND (created, id) > (?, ?) ORDER BY created, id LIMIT ?`),
		expireEntries:     p.write(`DELETE FROM entries WHERE expires > 0 AND expires < ?`),
		nextEntryRevision: p.write(`UPDATE entry_revisions SET last = last + 1 RETURNING last`),
		insertEntry: p.write(`INSERT INTO entries (revision, created, expires, body, kind, owner, id) VALUES (?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT DO NOTHING`),
		updateEntry: p.write(`UPDATE entries SET revision = ?, created = ?, expires = ?, body = ?
			WHERE kind = ? AND owner = ? AND id = ? AND revision = ?`),
		dropEntry: p.write(`DELETE FROM entries WHERE kind = ? AND owner = ? AND id = ? AND revision = ?`),
	}
	const over = `(SELECT id FROM jobs WHERE open = 0 AND created < ? ORDER BY id LIMIT ?)`
	s.dropChunks = p.write(`DELETE FROM chunks WHERE job IN ` + over)
	s.dropSplits = p.write(`DELETE FROM splits WHERE job IN ` + over)
	s.dropJobs = p.write(`DELETE FROM jobs WHERE id IN ` + over)
	return s, p.err
}

// Job reads a job.
func (s *Store) Job(ctx context.Context, id jobs.JobID) (jobs.Job, error) {
	j, err := get[jobs.Job](ctx, s.jobs, string(id))
	if err != nil {
		return j, fmt.Errorf("read job %s: %w", id, err)
	}
	return j, nil
}

// SaveJob stores a job if nobody saved it since it was read.
func (s *Store) SaveJob(ctx context.Context, j *jobs.Job) error {
	body, err := jobs.EncodeRecord(j)
	if err == nil {
		err = s.save(ctx, s.jobs, &j.Revision, body, string(j.ID), j.Tenant, nanos(j.Created), !j.Closed)
	}
	if err != nil {
		return fmt.Errorf("save job %s: %w", j.ID, err)
	}
	return nil
}

// Jobs yields the jobs of a tenant, newest first, those of one instant by falling id; or the open jobs, by id.
func (s *Store) Jobs(ctx context.Context, q jobs.JobQuery) iter.Seq2[jobs.Job, error] {
	page := func(after *jobs.Job, limit int) ([]jobs.Job, error) {
		var id string
		if after != nil {
			id = string(after.ID)
		}
		return list[jobs.Job](ctx, s.jobsOpen, id, limit)
	}
	if !q.Open {
		page = func(after *jobs.Job, limit int) ([]jobs.Job, error) {
			created, id, err := s.jobCursor(ctx, q, after)
			if err != nil {
				return nil, err
			}
			return list[jobs.Job](ctx, s.jobsOfTenant, q.Tenant, created, id, limit)
		}
	}
	return walk("list jobs", jobsPage, q.Limit, page)
}

// jobCursor is the place in a tenant's list after which a page begins.
func (s *Store) jobCursor(ctx context.Context, q jobs.JobQuery, after *jobs.Job) (created int64, id string, err error) {
	switch {
	case after != nil:
		return nanos(after.Created), string(after.ID), nil
	case q.After == "":
		return math.MaxInt64, "", nil
	}
	err = s.jobPosition.QueryRowContext(ctx, q.Tenant, string(q.After)).Scan(&created)
	if err != nil {
		return 0, "", fmt.Errorf("find job %s to go on after: %w", q.After, absent(err))
	}
	return created, string(q.After), nil
}

// Split reads a split.
func (s *Store) Split(ctx context.Context, job jobs.JobID, n int) (jobs.Split, error) {
	r, err := get[jobs.Split](ctx, s.splits, string(job), n)
	if err != nil {
		return r, fmt.Errorf("read split %d of job %s: %w", n, job, err)
	}
	return r, nil
}

// Splits yields the splits of a job in order.
func (s *Store) Splits(ctx context.Context, job jobs.JobID) iter.Seq2[jobs.Split, error] {
	return walk("list splits of job "+string(job), splitsPage, 0, func(after *jobs.Split, limit int) ([]jobs.Split, error) {
		n := -1
		if after != nil {
			n = after.N
		}
		return list[jobs.Split](ctx, s.splits.list, string(job), n, limit)
	})
}

// SaveSplit stores a split if nobody saved it since it was read.
func (s *Store) SaveSplit(ctx context.Context, r *jobs.Split) error {
	body, err := jobs.EncodeRecord(r)
	if err == nil {
		err = s.save(ctx, s.splits, &r.Revision, body, string(r.Job), r.N)
	}
	if err != nil {
		return fmt.Errorf("save split %d of job %s: %w", r.N, r.Job, err)
	}
	return nil
}

// Chunks yields the chunks of a split whose offsets are in a range, in order.
func (s *Store) Chunks(ctx context.Context, job jobs.JobID, split int, r jobs.OffsetRange) iter.Seq2[jobs.Chunk, error] {
	to := r.To
	if to == 0 {
		to = math.MaxInt64
	}
	what := fmt.Sprintf("list chunks of split %d of job %s", split, job)
	return walk(what, chunksPage, 0, func(after *jobs.Chunk, limit int) ([]jobs.Chunk, error) {
		from := r.From
		if after != nil {
			from = after.ID.Offset + 1
		}
		return list[jobs.Chunk](ctx, s.chunks.list, string(job), split, from, to, limit)
	})
}

// SaveChunk stores a chunk if nobody saved it since it was read.
func (s *Store) SaveChunk(ctx context.Context, c *jobs.Chunk) error {
	body, err := jobs.EncodeRecord(c)
	if err == nil {
		err = s.save(ctx, s.chunks, &c.Revision, body, string(c.ID.Job), c.ID.Split, c.ID.Offset)
	}
	if err != nil {
		return fmt.Errorf("save chunk %s: %w", c.ID, err)
	}
	return nil
}

// save is the compare-and-swap: one statement, and no row means that somebody was faster.
func (s *Store) save(ctx context.Context, t table, revision *int64, columns ...any) error {
	stmt := t.insert
	if *revision != 0 {
		stmt, columns = t.update, append(columns, *revision)
	}
	var saved bool
	err := s.db.write(ctx, func() (err error) {
		saved, err = hits(stmt.Exec(columns...))
		return err
	})
	switch {
	case err != nil:
		return err
	case !saved:
		return jobs.ErrConflict
	}
	*revision++
	return nil
}

// hits tells whether a statement found a row to write.
func hits(r sql.Result, err error) (bool, error) {
	if err != nil {
		return false, err
	}
	n, err := r.RowsAffected()
	return n > 0, err
}

func get[R jobs.Job | jobs.Split](ctx context.Context, t table, key ...any) (R, error) {
	var body []byte
	var revision int64
	if err := t.get.QueryRowContext(ctx, key...).Scan(&body, &revision); err != nil {
		var none R
		return none, absent(err)
	}
	return jobs.DecodeRecord[R](body, revision)
}

// absent says the port's word for no row.
func absent(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return jobs.ErrNotFound
	}
	return sentence(err)
}

func list[R jobs.Job | jobs.Split | jobs.Chunk](ctx context.Context, stmt *sql.Stmt, args ...any) ([]R, error) {
	return collect(ctx, stmt, func(row *sql.Rows) (R, error) {
		var body sql.RawBytes
		var revision int64
		if err := row.Scan(&body, &revision); err != nil {
			var none R
			return none, err
		}
		return jobs.DecodeRecord[R](body, revision)
	}, args...)
}

// collect reads all rows and gives the connection back. With an error it returns the rows before it.
func collect[R any](ctx context.Context, stmt *sql.Stmt, scan func(*sql.Rows) (R, error), args ...any) (page []R, err error) {
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return nil, sentence(err)
	}
	defer rows.Close()
	for rows.Next() {
		r, err := scan(rows)
		if err != nil {
			return page, err
		}
		page = append(page, r)
	}
	return page, sentence(rows.Err())
}

// walk yields page after page. No connection is held while the caller has a record, so the caller may save meanwhile. A
// limit of 0 means all.
func walk[R any](what string, size, limit int, page func(after *R, limit int) ([]R, error)) iter.Seq2[R, error] {
	return func(yield func(R, error) bool) {
		var after *R
		for left := limit; limit == 0 || left > 0; {
			n := size
			if limit > 0 {
				n = min(n, left)
			}
			records, err := page(after, n)
			for _, r := range records {
				if !yield(r, nil) {
					return
				}
			}
			if err != nil {
				var none R
				yield(none, fmt.Errorf("%s: %w", what, err))
				return
			}
			if len(records) < n {
				return
			}
			after, left = &records[n-1], left-n
		}
	}
}
