package localjobs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/poll"
)

// schemaVersion is the layout that this code reads and writes. A file of a higher one is refused; a file of a lower one
// is brought up to it when it is opened.
const schemaVersion = len(schema)

// schema is the steps from each layout to the next. A step that was released is never changed. Records are JSON beside what
// they are found and compared by; times are nanoseconds since 1970, 0 = none.
var schema = [...]string{schema1, schema2}

const schema1 = `
CREATE TABLE jobs (
	id TEXT PRIMARY KEY,
	revision INTEGER NOT NULL,
	tenant TEXT NOT NULL,
	created INTEGER NOT NULL,
	open INTEGER NOT NULL,
	body BLOB NOT NULL
);
CREATE INDEX jobs_by_tenant ON jobs (tenant, created, id);
CREATE INDEX jobs_open ON jobs (id) WHERE open = 1;

CREATE TABLE splits (
	job TEXT NOT NULL,
	n INTEGER NOT NULL,
	revision INTEGER NOT NULL,
	body BLOB NOT NULL,
	PRIMARY KEY (job, n)
);

CREATE TABLE chunks (
	job TEXT NOT NULL,
	split INTEGER NOT NULL,
	offset INTEGER NOT NULL,
	revision INTEGER NOT NULL,
	body BLOB NOT NULL,
	PRIMARY KEY (job, split, offset)
);

CREATE TABLE entries (
	kind TEXT NOT NULL,
	owner TEXT NOT NULL,
	id TEXT NOT NULL,
	revision INTEGER NOT NULL,
	expires INTEGER NOT NULL,
	body BLOB,
	PRIMARY KEY (kind, owner, id)
);
CREATE INDEX entries_by_expiry ON entries (expires) WHERE expires > 0;
CREATE TABLE entry_revisions (last INTEGER NOT NULL);
INSERT INTO entry_revisions VALUES (0);

CREATE TABLE messages (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	queue TEXT NOT NULL,
	visible_at INTEGER NOT NULL,
	state INTEGER NOT NULL,
	receives INTEGER NOT NULL,
	sent_at INTEGER NOT NULL,
	body BLOB NOT NULL
);
CREATE INDEX messages_by_visibility ON messages (queue, visible_at, id);

CREATE TABLE dead_letters (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	queue TEXT NOT NULL,
	message TEXT NOT NULL,
	receives INTEGER NOT NULL,
	sent_at INTEGER NOT NULL,
	buried_at INTEGER NOT NULL,
	burial BLOB NOT NULL,
	body BLOB NOT NULL
);
CREATE INDEX dead_letters_by_queue ON dead_letters (queue, id);
`

const schema2 = `
ALTER TABLE entries ADD COLUMN created INTEGER NOT NULL DEFAULT 0;
CREATE INDEX entries_by_time ON entries (kind, owner, created, id) WHERE created <> 0;
`

// readers is how many reads run at once. A read takes some 50 µs of CPU, so more would only take memory.
const readers = 4

var errClosed error = closed{}

// closed is poll.ErrClosed in our words.
type closed struct{}

func (closed) Error() string        { return "the data directory was closed" }
func (closed) Is(target error) bool { return target == poll.ErrClosed }

// database is one SQLite file: one connection that writes, and a few that read beside it.
type database struct {
	read *sql.DB

	writer                  *sql.DB     // of one connection,
	conn                    *sql.Conn   // this one
	statements              []*sql.Stmt // of it; SQLite keeps the file open until they are closed
	begin, commit, rollback *sql.Stmt

	turn   chan struct{} // holds the writing connection
	closed bool          // under turn
	lazy   bool          // under turn: commits do not wait for the disk

	mu      sync.Mutex
	pending []*change
}

// change is what one caller wants written.
type change struct {
	apply func() error
	lazy  bool
	done  chan struct{} // closed once err is known
	err   error
}

func openDatabase(ctx context.Context, path string) (_ *database, err error) {
	d := &database{turn: make(chan struct{}, 1)}
	defer func() {
		if err != nil {
			err = fmt.Errorf("open %s: %w", filepath.Base(path), errors.Join(sentence(err), d.close()))
		}
	}()
	if d.writer, err = sql.Open("sqlite", dsn(path, "busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)")); err != nil {
		return nil, err
	}
	d.writer.SetMaxOpenConns(1)
	if d.conn, err = d.writer.Conn(ctx); err != nil {
		return nil, err
	}
	if err := migrate(ctx, d.conn); err != nil {
		return nil, err
	}
	p := preparer{ctx: ctx, db: d}
	d.begin, d.commit, d.rollback = p.write("BEGIN IMMEDIATE"), p.write("COMMIT"), p.write("ROLLBACK")
	if p.err != nil {
		return nil, p.err
	}
	if d.read, err = sql.Open("sqlite", dsn(path, "busy_timeout(5000)", "query_only(1)")); err != nil {
		return nil, err
	}
	d.read.SetMaxOpenConns(readers)
	d.read.SetMaxIdleConns(readers)
	return d, nil
}

func dsn(path string, pragmas ...string) string {
	q := url.Values{"_pragma": pragmas}
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(path), RawQuery: q.Encode()}).String()
}

// migrate looks at the version before anything is written, so that a newer file is left as it is.
func migrate(ctx context.Context, conn *sql.Conn) error {
	var version int
	if err := conn.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	switch {
	case version == schemaVersion:
		return nil
	case version > schemaVersion:
		return (&jobs.Error{Code: jobs.CodeConflict, Err: fmt.Errorf("its layout %d is newer than %d, the newest that this fanout knows: %w",
			version, schemaVersion, jobs.ErrNewer)}).WithHint("use the fanout that wrote it, or name another directory")
	}
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit there is nothing to undo
	for _, step := range schema[version:] {
		if _, err := tx.ExecContext(ctx, step); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", schemaVersion)); err != nil {
		return err
	}
	return tx.Commit()
}

// write applies a change durably, and returns after the disk has it. Changes that wait meanwhile share one transaction,
// so apply may run twice: when another change of its transaction failed, each is done again alone. A change that finds
// nothing to write (a revision moved on) is no failure: apply notes that and returns nil. If ctx ends before the change
// began, nothing was written; a change that began is waited for.
func (d *database) write(ctx context.Context, apply func() error) error {
	return d.enqueue(ctx, &change{apply: apply, done: make(chan struct{})})
}

// writeLazily is write without the wait for the disk: the end of the process loses nothing, but a power cut may undo the
// latest of these changes, and only changes that no durable one followed. It is for what may be undone at any time by the
// promises of the queue: that a message was received, acked or hidden.
func (d *database) writeLazily(ctx context.Context, apply func() error) error {
	return d.enqueue(ctx, &change{apply: apply, lazy: true, done: make(chan struct{})})
}

func (d *database) enqueue(ctx context.Context, c *change) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d.mu.Lock()
	d.pending = append(d.pending, c)
	d.mu.Unlock()

	select {
	case <-c.done:
	case d.turn <- struct{}{}:
		d.commitPending() // c is among them, unless whoever had the turn before has done it
		<-d.turn
	case <-ctx.Done():
		if d.withdraw(c) {
			return ctx.Err()
		}
		<-c.done
	}
	return sentence(c.err)
}

func (d *database) withdraw(c *change) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := len(d.pending)
	d.pending = slices.DeleteFunc(d.pending, func(p *change) bool { return p == c })
	return len(d.pending) < n
}

// commitPending does what waits. The caller has the turn.
func (d *database) commitPending() {
	d.mu.Lock()
	batch := d.pending
	d.pending = nil
	d.mu.Unlock()

	err := d.transact(batch)
	for _, c := range batch {
		c.err = err
		if err != nil && len(batch) > 1 {
			c.err = d.transact([]*change{c})
		}
		close(c.done)
	}
}

// transact does a batch of changes whole or not at all. Contexts of callers do not reach into it: an interrupted commit
// would leave all of them not knowing.
func (d *database) transact(batch []*change) error {
	switch {
	case len(batch) == 0:
		return nil
	case d.closed:
		return errClosed
	}
	if err := d.setLazy(!slices.ContainsFunc(batch, func(c *change) bool { return !c.lazy })); err != nil {
		return err
	}
	if _, err := d.begin.Exec(); err != nil {
		return err
	}
	for _, c := range batch {
		if err := c.apply(); err != nil {
			return d.undo(err)
		}
	}
	if _, err := d.commit.Exec(); err != nil {
		return d.undo(err)
	}
	return nil
}

// setLazy says whether commits wait for the disk. In a write-ahead log a commit that does takes those before it along, so
// what is lost is always the end of the log.
func (d *database) setLazy(lazy bool) error {
	if d.lazy == lazy {
		return nil
	}
	level := "FULL"
	if lazy {
		level = "NORMAL"
	}
	// Not a prepared statement: SQLite does what this says when it compiles it.
	if _, err := d.conn.ExecContext(context.Background(), "PRAGMA synchronous = "+level); err != nil {
		return err
	}
	d.lazy = lazy
	return nil
}

// undo ends a transaction that failed. SQLite may have ended it already (a full disk does that), hence no second error.
func (d *database) undo(err error) error {
	_, _ = d.rollback.Exec()
	return err
}

func (d *database) close() error {
	d.turn <- struct{}{}
	d.closed = true
	<-d.turn
	var errs []error
	if d.read != nil {
		errs = append(errs, d.read.Close())
	}
	for _, stmt := range d.statements {
		errs = append(errs, stmt.Close())
	}
	if d.conn != nil {
		errs = append(errs, d.conn.Close())
	}
	if d.writer != nil {
		errs = append(errs, d.writer.Close())
	}
	return errors.Join(errs...)
}

// sentence gives an error of SQLite the meaning that the operating system has for it, so that callers can test for a
// full disk or a place that is not theirs in one way.
func sentence(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("%w: %w", syscall.ENOSPC, err)
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM:
		return fmt.Errorf("%w: %w", fs.ErrPermission, err)
	case sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT:
		return jobs.Errorf(jobs.CodeInvalid, "it is damaged, or no SQLite file: %w", err)
	default:
		return err
	}
}

// preparer prepares statements and keeps the first error, so that a list of them reads as a list.
type preparer struct {
	ctx context.Context
	db  *database
	err error
}

// write prepares a statement of the writing connection; only a change may run it.
func (p *preparer) write(query string) *sql.Stmt {
	stmt := p.prepare(p.db.conn.PrepareContext, query)
	if stmt != nil {
		p.db.statements = append(p.db.statements, stmt)
	}
	return stmt
}

// read prepares a statement that any goroutine may run.
func (p *preparer) read(query string) *sql.Stmt { return p.prepare(p.db.read.PrepareContext, query) }

func (p *preparer) prepare(on func(context.Context, string) (*sql.Stmt, error), query string) *sql.Stmt {
	if p.err != nil {
		return nil
	}
	stmt, err := on(p.ctx, query)
	if err != nil {
		p.err = fmt.Errorf("prepare %q: %w", query, sentence(err))
	}
	return stmt
}

// nanos is how a time is kept. A zero time stays one.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromNanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
