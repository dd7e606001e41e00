package localjobs

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// mishap is how a call of a port goes wrong.
type mishap string

const (
	mishapFails mishap = "fails before it happens"
	mishapLies  mishap = "happens and reports failure"
	mishapDies  mishap = "is the death of its process" // nothing changes any more, and all that follow fail
)

var mishaps = []mishap{mishapFails, mishapLies, mishapDies}

var (
	errMishap = errors.New("the port call went wrong")
	errDead   = errors.New("the process is dead")
)

// faultPorts counts the calls of one process's ports, and lets one of them go wrong.
type faultPorts struct {
	at  int    // the call that goes wrong, from 1; 0 = none
	how mishap // … and how
	die func() // told of the death

	mu    sync.Mutex
	calls []string // so far, by kind
	names []string // what each was about
	dead  bool
}

func (f *faultPorts) isDead() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dead
}

// meet counts a call, and tells how it goes wrong: "" = not.
func (f *faultPorts) meet(kind, name string) mishap {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead {
		return mishapDies
	}
	f.calls, f.names = append(f.calls, kind), append(f.names, name)
	if len(f.calls) != f.at {
		return ""
	}
	if f.how == mishapDies {
		f.dead = true
		f.die()
	}
	return f.how
}

// call makes a call, or what its mishap leaves of it.
func (f *faultPorts) call(kind, name string, do func() error) error {
	switch f.meet(kind, name) {
	case mishapFails:
		return errMishap
	case mishapLies:
		_ = do() // whatever came of it
		return errMishap
	case mishapDies:
		return errDead
	default:
		return do()
	}
}

// faultSeq is a call that lists. One that lies ends in an error when everything is listed.
func faultSeq[R any](f *faultPorts, kind, name string, seq iter.Seq2[R, error]) iter.Seq2[R, error] {
	return func(yield func(R, error) bool) {
		var none R
		how := f.meet(kind, name)
		switch how {
		case mishapFails:
			yield(none, errMishap)
			return
		case mishapDies:
			yield(none, errDead)
			return
		}
		for r, err := range seq {
			if f.isDead() {
				r, err = none, errDead
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
		if how == mishapLies {
			yield(none, errMishap)
		}
	}
}

// on puts the faults before the ports of a process.
func (f *faultPorts) on(p jobs.Ports) jobs.Ports {
	p.Ledger, p.Registry = faultLedger{p.Ledger, f}, faultRegistry{p.Registry, f}
	p.Queue, p.Files = faultQueue{p.Queue, f}, faultFiles{p.Files, f}
	return p
}

type faultLedger struct {
	jobs.Ledger
	f *faultPorts
}

func (l faultLedger) Job(ctx context.Context, id jobs.JobID) (j jobs.Job, err error) {
	err = l.f.call("Job", string(id), func() (err error) { j, err = l.Ledger.Job(ctx, id); return err })
	return j, err
}

func (l faultLedger) SaveJob(ctx context.Context, j *jobs.Job) error {
	saved := *j // who is told of a failure learns no revision
	err := l.f.call("SaveJob", string(j.ID), func() error { return l.Ledger.SaveJob(ctx, &saved) })
	if err == nil {
		j.Revision = saved.Revision
	}
	return err
}

func (l faultLedger) Jobs(ctx context.Context, q jobs.JobQuery) iter.Seq2[jobs.Job, error] {
	return faultSeq(l.f, "Jobs", q.Tenant, l.Ledger.Jobs(ctx, q))
}

func (l faultLedger) Split(ctx context.Context, job jobs.JobID, n int) (s jobs.Split, err error) {
	err = l.f.call("Split", string(job), func() (err error) { s, err = l.Ledger.Split(ctx, job, n); return err })
	return s, err
}

func (l faultLedger) Splits(ctx context.Context, job jobs.JobID) iter.Seq2[jobs.Split, error] {
	return faultSeq(l.f, "Splits", string(job), l.Ledger.Splits(ctx, job))
}

func (l faultLedger) SaveSplit(ctx context.Context, s *jobs.Split) error {
	saved := *s
	err := l.f.call("SaveSplit", string(s.Job), func() error { return l.Ledger.SaveSplit(ctx, &saved) })
	if err == nil {
		s.Revision = saved.Revision
	}
	return err
}

func (l faultLedger) Chunks(ctx context.Context, job jobs.JobID, split int, r jobs.OffsetRange) iter.Seq2[jobs.Chunk, error] {
	return faultSeq(l.f, "Chunks", string(job), l.Ledger.Chunks(ctx, job, split, r))
}

func (l faultLedger) SaveChunk(ctx context.Context, c *jobs.Chunk) error {
	saved := *c
	err := l.f.call("SaveChunk", c.ID.String(), func() error { return l.Ledger.SaveChunk(ctx, &saved) })
	if err == nil {
		c.Revision = saved.Revision
	}
	return err
}

type faultRegistry struct {
	jobs.Registry
	f *faultPorts
}

func (r faultRegistry) Entry(ctx context.Context, kind jobs.Kind, owner, id string) (e jobs.Entry, err error) {
	err = r.f.call("Entry", id, func() (err error) { e, err = r.Registry.Entry(ctx, kind, owner, id); return err })
	return e, err
}

func (r faultRegistry) Entries(ctx context.Context, kind jobs.Kind, owner string) iter.Seq2[jobs.Entry, error] {
	return faultSeq(r.f, "Entries", owner, r.Registry.Entries(ctx, kind, owner))
}

func (r faultRegistry) Listed(ctx context.Context, q jobs.EntryQuery) iter.Seq2[jobs.Entry, error] {
	return faultSeq(r.f, "Listed", q.Owner, r.Registry.Listed(ctx, q))
}

func (r faultRegistry) SaveEntry(ctx context.Context, e *jobs.Entry) error {
	saved := *e
	err := r.f.call("SaveEntry", e.ID, func() error { return r.Registry.SaveEntry(ctx, &saved) })
	if err == nil {
		e.Revision = saved.Revision
	}
	return err
}

func (r faultRegistry) DropEntry(ctx context.Context, e jobs.Entry) error {
	return r.f.call("DropEntry", e.ID, func() error { return r.Registry.DropEntry(ctx, e) })
}

type faultQueue struct {
	jobs.Queue
	f *faultPorts
}

func (q faultQueue) Send(ctx context.Context, name jobs.QueueName, bodies ...[]byte) (unsent []jobs.Unsent, err error) {
	err = q.f.call("Send", string(name), func() (err error) { unsent, err = q.Queue.Send(ctx, name, bodies...); return err })
	return unsent, err
}

func (q faultQueue) Defer(ctx context.Context, until time.Time, m ...jobs.Message) error {
	return q.f.call("Defer", "", func() error { return q.Queue.Defer(ctx, until, m...) })
}

func (q faultQueue) Bury(ctx context.Context, m jobs.Message, why jobs.Burial) error {
	return q.f.call("Bury", string(m.Queue), func() error { return q.Queue.Bury(ctx, m, why) })
}

func (q faultQueue) Depth(ctx context.Context, name jobs.QueueName) (d jobs.Depth, err error) {
	err = q.f.call("Depth", string(name), func() (err error) { d, err = q.Queue.Depth(ctx, name); return err })
	return d, err
}

type faultFiles struct {
	jobs.Files
	f *faultPorts
}

func (s faultFiles) Stat(ctx context.Context, name string) (info jobs.FileInfo, err error) {
	err = s.f.call("Stat", name, func() (err error) { info, err = s.Files.Stat(ctx, name); return err })
	return info, err
}

func (s faultFiles) Read(ctx context.Context, ref jobs.FileRef, offset, length int64) (io.ReadCloser, error) {
	var r io.ReadCloser
	err := s.f.call("Read", ref.Name, func() (err error) { r, err = s.Files.Read(ctx, ref, offset, length); return err })
	if err != nil && r != nil {
		err = errors.Join(err, r.Close())
	}
	if err != nil {
		return nil, err
	}
	return &faultReader{ReadCloser: r, f: s.f, name: ref.Name}, nil
}

// faultReader counts the first read of an object that was opened: how many there are is the buffers' business.
type faultReader struct {
	io.ReadCloser
	f    *faultPorts
	name string
	read bool
}

func (r *faultReader) Read(b []byte) (n int, err error) {
	if r.read {
		if r.f.isDead() {
			return 0, errDead
		}
		return r.ReadCloser.Read(b)
	}
	r.read = true
	err = r.f.call("Reader.Read", r.name, func() (err error) { n, err = r.ReadCloser.Read(b); return err })
	return n, err
}

func (s faultFiles) Create(ctx context.Context, name string) (jobs.FileWriter, error) {
	var w jobs.FileWriter
	err := s.f.call("Create", name, func() (err error) { w, err = s.Files.Create(ctx, name); return err })
	if err != nil {
		return nil, err // one that was begun all the same is left in tmp
	}
	return faultWriter{w, s.f, name}, nil
}

// faultWriter does not count Abort: it follows every Commit, and does nothing there.
type faultWriter struct {
	jobs.FileWriter
	f    *faultPorts
	name string
}

func (w faultWriter) Write(b []byte) (n int, err error) {
	err = w.f.call("Writer.Write", w.name, func() (err error) { n, err = w.FileWriter.Write(b); return err })
	return n, err
}

func (w faultWriter) Commit(ctx context.Context) (info jobs.FileInfo, err error) {
	err = w.f.call("Writer.Commit", w.name, func() (err error) { info, err = w.FileWriter.Commit(ctx); return err })
	return info, err
}

func (s faultFiles) Concat(ctx context.Context, name string, parts []jobs.FileRef) (info jobs.FileInfo, err error) {
	err = s.f.call("Concat", name, func() (err error) { info, err = s.Files.Concat(ctx, name, parts); return err })
	return info, err
}

func (s faultFiles) Copy(ctx context.Context, from jobs.FileRef, to string) (info jobs.FileInfo, err error) {
	err = s.f.call("Copy", to, func() (err error) { info, err = s.Files.Copy(ctx, from, to); return err })
	return info, err
}

func (s faultFiles) List(ctx context.Context, prefix string) iter.Seq2[jobs.FileInfo, error] {
	return faultSeq(s.f, "List", prefix, s.Files.List(ctx, prefix))
}

func (s faultFiles) Delete(ctx context.Context, names ...string) error {
	return s.f.call("Delete", "", func() error { return s.Files.Delete(ctx, names...) })
}
