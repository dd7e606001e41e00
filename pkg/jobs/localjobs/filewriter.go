package localjobs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// writerBuffer keeps small writes from becoming as many system calls; hundreds of writers may be open.
const writerBuffer = 32 << 10

// fileWriter makes one object. It is for one goroutine.
type fileWriter struct {
	files *Files
	name  string
	temp  *os.File // nil after Commit or Abort
	buf   *bufio.Writer
}

// Create begins an object that nobody sees before Commit.
func (f *Files) Create(ctx context.Context, name string) (jobs.FileWriter, error) {
	w, err := f.create(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	return w, nil
}

func (f *Files) create(ctx context.Context, name string) (*fileWriter, error) {
	if _, err := f.place(ctx, name); err != nil {
		return nil, err
	}
	temp, err := os.CreateTemp(f.tmp, "object-")
	if err != nil {
		return nil, err
	}
	return &fileWriter{files: f, name: name, temp: temp, buf: bufio.NewWriterSize(temp, writerBuffer)}, nil
}

func (w *fileWriter) Write(p []byte) (int, error) {
	if w.temp == nil {
		return 0, fmt.Errorf("write %s: %w", w.name, fs.ErrClosed)
	}
	n, err := w.buf.Write(p)
	if err != nil {
		return n, fmt.Errorf("write %s: %w", w.name, err)
	}
	return n, nil
}

// Commit makes the object visible. Whatever it returns, the writer has ended.
func (w *fileWriter) Commit(ctx context.Context) (jobs.FileInfo, error) {
	info, err := w.commit(ctx)
	if err != nil {
		return jobs.FileInfo{}, fmt.Errorf("commit %s: %w", w.name, errors.Join(err, w.Abort()))
	}
	return info, nil
}

func (w *fileWriter) commit(ctx context.Context) (jobs.FileInfo, error) {
	if w.temp == nil {
		return jobs.FileInfo{}, fs.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return jobs.FileInfo{}, err
	}
	if err := w.buf.Flush(); err != nil {
		return jobs.FileInfo{}, err
	}
	if err := w.temp.Sync(); err != nil {
		return jobs.FileInfo{}, err
	}
	fi, err := w.temp.Stat()
	if err != nil {
		return jobs.FileInfo{}, err
	}
	if err := w.temp.Close(); err != nil {
		return jobs.FileInfo{}, err
	}
	if err := w.files.publish(w.name, func(place string) error { return os.Rename(w.temp.Name(), place) }); err != nil {
		return jobs.FileInfo{}, err
	}
	w.temp = nil
	return describe(w.name, fi), nil
}

// Abort drops the object. After Commit it does nothing.
func (w *fileWriter) Abort() error {
	if w.temp == nil {
		return nil
	}
	temp := w.temp
	w.temp = nil
	_ = temp.Close() // Commit may have closed it already
	if err := os.Remove(temp.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("abort: %w", err)
	}
	return nil
}

// publish puts a finished file into the tree under a name that is free, and returns after the disk has the name.
func (f *Files) publish(name string, put func(place string) error) error {
	if _, outside := f.outside(name); outside {
		return jobs.ErrExists
	}
	place := filepath.Join(f.root, filepath.FromSlash(name))
	if err := f.put(place, put); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(place)); err != nil && !errors.Is(err, fs.ErrNotExist) { // deleted since, with its folder
		return err
	}
	return nil
}

func (f *Files) put(place string, put func(place string) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.makeFolder(filepath.Dir(place)); err != nil {
		return unplaceable(err)
	}
	fi, err := os.Lstat(place)
	switch {
	case err == nil && fi.IsDir():
		return jobs.Errorf(jobs.CodeInvalid, "the name is a folder of other objects")
	case err == nil:
		return jobs.ErrExists
	case !errors.Is(err, fs.ErrNotExist):
		return unplaceable(err)
	}
	return put(place)
}

// makeFolder makes a directory of the tree with those above it, on disk. The first use of one that is already there
// counts as making it: its maker may have died before the disk had it.
func (f *Files) makeFolder(dir string) error {
	if f.known[dir] {
		return nil
	}
	above := filepath.Dir(dir)
	if err := f.makeFolder(above); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		fi, statErr := os.Stat(dir)
		switch {
		case statErr != nil:
			return err
		case !fi.IsDir():
			return &fs.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
		}
	}
	if err := syncDir(above); err != nil {
		return err
	}
	f.known[dir] = true
	return nil
}

// unplaceable tells names that the disk has no place for from a disk that is not well.
func unplaceable(err error) error {
	switch {
	case errors.Is(err, syscall.ENOTDIR):
		return jobs.Errorf(jobs.CodeInvalid, "a folder in the name is an object: %w", err)
	case errors.Is(err, syscall.ENAMETOOLONG):
		return jobs.Errorf(jobs.CodeInvalid, "the name is too long for this disk: %w", err)
	default:
		return err
	}
}

// Concat makes an object of others. One object alone gets a second name, which costs nothing; the bytes of several are
// copied by the kernel.
func (f *Files) Concat(ctx context.Context, name string, parts []jobs.FileRef) (jobs.FileInfo, error) {
	info, err := f.concat(ctx, name, parts)
	if err != nil {
		return jobs.FileInfo{}, fmt.Errorf("concatenate %d objects as %s: %w", len(parts), name, err)
	}
	return info, nil
}

func (f *Files) concat(ctx context.Context, name string, parts []jobs.FileRef) (jobs.FileInfo, error) {
	if _, err := f.place(ctx, name); err != nil {
		return jobs.FileInfo{}, err
	}
	if len(parts) == 1 {
		info, err := f.alias(ctx, name, parts[0])
		if !errors.Is(err, errNoAlias) {
			return info, err
		}
	}
	w, err := f.create(ctx, name)
	if err != nil {
		return jobs.FileInfo{}, err
	}
	for _, part := range parts {
		if err := w.append(ctx, part); err != nil {
			return jobs.FileInfo{}, errors.Join(err, w.Abort())
		}
	}
	info, err := w.commit(ctx)
	if err != nil {
		return jobs.FileInfo{}, errors.Join(err, w.Abort())
	}
	return info, nil
}

// append copies from file to file, past the buffer, so that the kernel does the work.
func (w *fileWriter) append(ctx context.Context, part jobs.FileRef) error {
	from, _, err := w.files.open(ctx, part)
	if err != nil {
		return fmt.Errorf("append %s: %w", part.Name, err)
	}
	defer from.Close()
	if _, err := io.Copy(w.temp, from); err != nil {
		return fmt.Errorf("append %s: %w", part.Name, err)
	}
	return nil
}

// Copy makes an object of another. Its bytes are always copied: a second name would show what somebody writes to the
// first one later. What is written to it meanwhile is told by its size and time, as every version here is.
func (f *Files) Copy(ctx context.Context, from jobs.FileRef, to string) (jobs.FileInfo, error) {
	info, err := f.copy(ctx, from, to)
	if err != nil {
		return jobs.FileInfo{}, fmt.Errorf("copy %s to %s: %w", from.Name, to, err)
	}
	return info, nil
}

func (f *Files) copy(ctx context.Context, ref jobs.FileRef, to string) (jobs.FileInfo, error) {
	if _, err := f.place(ctx, to); err != nil {
		return jobs.FileInfo{}, err
	}
	from, seen, err := f.open(ctx, ref)
	if err != nil {
		return jobs.FileInfo{}, err
	}
	defer from.Close()
	w, err := f.create(ctx, to)
	if err != nil {
		return jobs.FileInfo{}, err
	}
	n, err := copyPieces(ctx, w.temp, from)
	if err == nil {
		err = unchanged(from, seen, n)
	}
	var info jobs.FileInfo
	if err == nil {
		info, err = w.commit(ctx)
	}
	if err != nil {
		return jobs.FileInfo{}, errors.Join(err, w.Abort())
	}
	return info, nil
}

// copyPieces copies from file to file, by the kernel where it can, and looks between two pieces whether it is still wanted.
func copyPieces(ctx context.Context, to, from *os.File) (n int64, err error) {
	const piece = 256 << 20
	for {
		some, err := io.CopyN(to, from, piece)
		n += some
		switch {
		case errors.Is(err, io.EOF):
			return n, nil
		case err != nil:
			return n, err
		case ctx.Err() != nil:
			return n, ctx.Err()
		}
	}
}

// unchanged tells whether a file is as it was seen, after n bytes of it were read.
func unchanged(file *os.File, seen jobs.FileInfo, n int64) error {
	fi, err := file.Stat()
	if err == nil && (n != seen.Bytes || version(fi) != seen.Version) {
		err = jobs.ErrChanged
	}
	return err
}

// errNoAlias says that an object has to be copied.
var errNoAlias = errors.New("no second name is possible")

// alias gives an object a second name. Not a mounted file: somebody may write to it later.
func (f *Files) alias(ctx context.Context, name string, part jobs.FileRef) (jobs.FileInfo, error) {
	if _, outside := f.outside(part.Name); outside {
		return jobs.FileInfo{}, errNoAlias
	}
	from, info, err := f.open(ctx, part)
	if err != nil {
		return jobs.FileInfo{}, fmt.Errorf("append %s: %w", part.Name, err)
	}
	defer from.Close()
	err = f.publish(name, func(place string) error {
		if err := os.Link(from.Name(), place); err != nil {
			return fmt.Errorf("%w: %w", errNoAlias, err)
		}
		return nil
	})
	info.Name = name
	return info, err
}

// syncDir makes the names in a directory last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
