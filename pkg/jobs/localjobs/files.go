package localjobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Files keeps objects as files of a directory tree. An object is made beside the tree and put into it under its name when
// it is whole and on disk. A name cannot be both an object and a folder of others.
type Files struct {
	root  string
	tmp   string
	mount map[string]string // object → file
	inbox map[string]string // folder of objects, with a slash at its end → folder of ordinary files

	// mu makes "is the name free, then take it" one step. No other process writes here, so no lock of the disk is needed,
	// and places without hard links will do.
	mu    sync.Mutex
	known map[string]bool // directories under root that are there, and on disk
}

var _ jobs.Files = (*Files)(nil)

// openFiles also removes what a predecessor left half made.
func openFiles(dir string, o Options) (*Files, error) {
	f := &Files{root: filepath.Join(dir, "objects"), tmp: filepath.Join(dir, "tmp"), mount: map[string]string{}, inbox: map[string]string{}, known: map[string]bool{}}
	for _, m := range []struct {
		given, kept map[string]string
		end         string
	}{{o.Mount, f.mount, ""}, {o.MountFolder, f.inbox, "/"}} {
		for name, place := range m.given {
			err := jobs.CheckName(name)
			if err == nil {
				place, err = filepath.Abs(place)
			}
			if err != nil {
				return nil, fmt.Errorf("mount %s: %w", place, err)
			}
			m.kept[name+m.end] = place
		}
	}
	if err := os.RemoveAll(f.tmp); err != nil {
		return nil, fmt.Errorf("remove what was half made: %w", err)
	}
	for _, d := range []string{f.tmp, f.root} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	if err := syncDir(dir); err != nil {
		return nil, err
	}
	f.known[f.root] = true
	return f, nil
}

// Stat describes an object.
func (f *Files) Stat(ctx context.Context, name string) (jobs.FileInfo, error) {
	info, err := f.stat(ctx, name)
	if err != nil {
		return jobs.FileInfo{}, fmt.Errorf("look at %s: %w", name, err)
	}
	return info, nil
}

func (f *Files) stat(ctx context.Context, name string) (jobs.FileInfo, error) {
	place, err := f.place(ctx, name)
	if err != nil {
		return jobs.FileInfo{}, err
	}
	fi, err := os.Lstat(place)
	if _, mounted := f.mount[name]; err == nil && mounted { // its owner may have named a link
		fi, err = os.Stat(place)
	}
	if err == nil && !fi.Mode().IsRegular() {
		err = jobs.ErrNotFound // a folder of objects is none itself
	}
	if err != nil {
		return jobs.FileInfo{}, missing(err)
	}
	return describe(name, fi), nil
}

// Read opens a range of an object.
func (f *Files) Read(ctx context.Context, ref jobs.FileRef, offset, length int64) (io.ReadCloser, error) {
	if offset < 0 {
		return nil, jobs.Errorf(jobs.CodeInvalid, "read %s: offset %d is negative", ref.Name, offset)
	}
	file, info, err := f.open(ctx, ref)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", ref.Name, err)
	}
	rest := max(0, info.Bytes-offset)
	if length < 0 || length > rest {
		length = rest
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(file, offset, length), file}, nil
}

// open opens an object and compares its version.
func (f *Files) open(ctx context.Context, ref jobs.FileRef) (*os.File, jobs.FileInfo, error) {
	place, err := f.place(ctx, ref.Name)
	if err != nil {
		return nil, jobs.FileInfo{}, err
	}
	flags := os.O_RDONLY | syscall.O_NONBLOCK // opening a pipe that somebody has put there must not wait
	if _, mounted := f.mount[ref.Name]; !mounted {
		flags |= syscall.O_NOFOLLOW
	}
	file, err := os.OpenFile(place, flags, 0)
	if errors.Is(err, syscall.ELOOP) {
		err = fmt.Errorf("%w: %w", jobs.ErrNotFound, err) // a link is no object
	}
	if err != nil {
		return nil, jobs.FileInfo{}, missing(err)
	}
	fi, err := file.Stat()
	switch {
	case err != nil:
	case !fi.Mode().IsRegular():
		err = jobs.ErrNotFound
	case ref.Version != "" && ref.Version != version(fi):
		err = jobs.ErrChanged
	default:
		return file, describe(ref.Name, fi), nil
	}
	return nil, jobs.FileInfo{}, errors.Join(err, file.Close())
}

// List yields the objects whose names begin with prefix, by name, bytewise. It has one folder of each level in memory.
// What is made or deleted meanwhile may or may not be seen.
func (f *Files) List(ctx context.Context, prefix string) iter.Seq2[jobs.FileInfo, error] {
	return func(yield func(jobs.FileInfo, error) bool) {
		folder := prefix[:strings.LastIndexByte(prefix, '/')+1]
		if folder != "" && jobs.CheckName(strings.TrimSuffix(folder, "/")) != nil {
			return // no object has such a name
		}
		if err := f.list(ctx, folder, prefix, yield); err != nil && !errors.Is(err, errEnough) {
			yield(jobs.FileInfo{}, fmt.Errorf("list %q: %w", prefix, err))
		}
	}
}

// errEnough ends a listing whose caller has seen enough.
var errEnough = errors.New("enough")

// list yields what is in a folder, "" or ending in a slash, and below it.
func (f *Files) list(ctx context.Context, folder, prefix string, yield func(jobs.FileInfo, error) bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(f.root, filepath.FromSlash(folder)))
	if err != nil {
		if errors.Is(missing(err), jobs.ErrNotFound) {
			return nil
		}
		return err
	}
	// A folder counts with its slash: "a-b" comes before "a/b".
	name := func(e os.DirEntry) string {
		if e.IsDir() {
			return folder + e.Name() + "/"
		}
		return folder + e.Name()
	}
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return cmp.Compare(name(a), name(b)) })
	for _, e := range entries {
		switch n := name(e); {
		case e.IsDir():
			if strings.HasPrefix(n, prefix) || strings.HasPrefix(prefix, n) {
				if err := f.list(ctx, n, prefix, yield); err != nil {
					return err
				}
			}
		case strings.HasPrefix(n, prefix):
			fi, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue // deleted since
			}
			if err != nil {
				return err
			}
			if _, mounted := f.mount[n]; !mounted && !yield(describe(n, fi), nil) {
				return errEnough
			}
		}
	}
	return nil
}

// Delete removes objects, and folders that are empty then. Absent names are fine; mounted files are left alone.
func (f *Files) Delete(ctx context.Context, names ...string) error {
	for _, name := range names {
		if err := f.delete(ctx, name); err != nil {
			return fmt.Errorf("delete %s: %w", name, err)
		}
	}
	return nil
}

func (f *Files) delete(ctx context.Context, name string) error {
	place, err := f.place(ctx, name)
	if _, outside := f.outside(name); err != nil || outside {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	// Not os.Remove: that would take an empty folder for an object.
	if err := syscall.Unlink(place); err != nil && !errors.Is(missing(err), jobs.ErrNotFound) {
		if fi, e := os.Lstat(place); e == nil && fi.IsDir() {
			return nil
		}
		return &fs.PathError{Op: "unlink", Path: place, Err: err}
	}
	for dir := filepath.Dir(place); dir != f.root && os.Remove(dir) == nil; dir = filepath.Dir(dir) {
		delete(f.known, dir)
	}
	return nil
}

// place is where an object is, or would be.
func (f *Files) place(ctx context.Context, name string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if err := jobs.CheckName(name); err != nil {
		return "", err
	}
	if place, outside := f.outside(name); outside {
		return place, nil
	}
	return filepath.Join(f.root, filepath.FromSlash(name)), nil
}

// outside is where an object is that is an ordinary file.
func (f *Files) outside(name string) (string, bool) {
	if place, mounted := f.mount[name]; mounted {
		return place, true
	}
	slash := strings.LastIndexByte(name, '/') + 1
	if folder, mounted := f.inbox[name[:slash]]; mounted {
		return filepath.Join(folder, name[slash:]), true
	}
	return "", false
}

func describe(name string, fi fs.FileInfo) jobs.FileInfo {
	return jobs.FileInfo{FileRef: jobs.FileRef{Name: name, Version: version(fi)}, Bytes: fi.Size(), At: fi.ModTime().UTC()}
}

// version tells one state of a mounted file from another. An object has one version only.
func version(fi fs.FileInfo) string { return fmt.Sprintf("%x-%x", fi.Size(), fi.ModTime().UnixNano()) }

// missing says the port's word for a name, or a folder on the way to it, that is not there.
func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ENAMETOOLONG) {
		return fmt.Errorf("%w: %w", jobs.ErrNotFound, err)
	}
	return err
}
