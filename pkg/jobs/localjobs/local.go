package localjobs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/gofrs/flock"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Options are the choices of Open. The zero value works.
type Options struct {
	// Now is the clock of the queues and of the registry's expiry; nil = time.Now.
	Now func() time.Time
	// Mount makes ordinary files readable under the names of objects: object name → path. They are read in place and
	// never written, listed or deleted; another size or modification time makes another version of them.
	Mount map[string]string
	// MountFolder does the same for the ordinary files of a folder, not of those below it: folder of objects → folder. Who
	// may write there is a stranger: links, pipes and devices in it are no objects.
	MountFolder map[string]string
}

// Local is a data directory that this process has to itself:
//
//	lock        held while it is open
//	ledger.db   records, registry and queues
//	objects/    the objects, under their names
//	tmp/        objects that are being made
type Local struct {
	Store *Store // the ledger and the registry
	Queue *Queue
	Files *Files

	lock *flock.Flock
	db   *database
}

// Open opens a data directory, making it if it is absent. A directory that another process has open is a conflict, and
// one that a newer fanout wrote is jobs.ErrNewer. Messages that a dead predecessor had in hand are visible again.
func Open(ctx context.Context, dir string, o Options) (*Local, error) {
	l, err := open(ctx, dir, o)
	if err == nil {
		return l, nil
	}
	wrapped := fmt.Errorf("open data directory %s: %w", dir, err)
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return nil, (&jobs.Error{Code: jobs.CodeInvalid, Err: wrapped}).WithHint("name a directory that you may write to")
	case errors.Is(err, syscall.ENOSPC):
		return nil, (&jobs.Error{Code: jobs.CodeLimit, Err: wrapped}).WithHint("free some space, or name a directory on another disk")
	default:
		return nil, wrapped
	}
}

func open(ctx context.Context, dir string, o Options) (_ *Local, err error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	// What people send to a model is their own business: nobody else on the machine reads it.
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	l := &Local{}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	if l.lock, err = lockDirectory(dir); err != nil {
		return nil, err
	}
	if l.Files, err = openFiles(dir, o); err != nil {
		return nil, err
	}
	if l.db, err = openDatabase(ctx, filepath.Join(dir, "ledger.db")); err != nil {
		return nil, err
	}
	if l.Store, err = newStore(ctx, l.db, o.Now); err != nil {
		return nil, err
	}
	if l.Queue, err = newQueue(ctx, l.db, o.Now); err != nil {
		return nil, err
	}
	return l, nil
}

// Close gives the directory back. What is half done then fails; nothing that was acknowledged is lost. Closing twice
// does nothing.
func (l *Local) Close() error {
	var errs []error
	if l.Queue != nil {
		l.Queue.endMoves()
	}
	if l.db != nil {
		errs = append(errs, l.db.close())
		l.db = nil
	}
	if l.lock != nil {
		errs = append(errs, l.lock.Unlock())
		l.lock = nil
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close data directory: %w", err)
	}
	return nil
}

// lockDirectory takes the lock that the kernel gives back when the process ends, however it ends.
func lockDirectory(dir string) (*flock.Flock, error) {
	lock := flock.New(filepath.Join(dir, "lock"))
	locked, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock it: %w", err)
	}
	if !locked {
		return nil, jobs.Errorf(jobs.CodeConflict, "it is in use by another process").
			WithHint("wait until that process has ended, or name another directory")
	}
	return lock, nil
}
