package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/localjobs"
)

// checkPlaces refuses to write over the input, two things into one place, or into a directory that is removed at the end.
func (o *runOptions) checkPlaces(cmd *cobra.Command) error {
	places := []struct{ what, path string }{{"INPUT", o.Input}, {"--output", o.Output}, {"--errors", o.Errors}, {"--data", o.Data}}
	for i, a := range places {
		for _, b := range places[:i] {
			if !(b.what == "INPUT" && b.path == "-") && sameFile(a.path, b.path) {
				return usageError(cmd, "%s and %s are the same file: %s", b.what, a.what, a.path)
			}
		}
	}
	for _, p := range places[:3] {
		if within(p.path, o.Data) {
			return usageError(cmd, "%s %s is in --data %s, which is removed at the end", p.what, p.path, o.Data)
		}
	}
	for _, p := range places[1:3] {
		info, err := os.Stat(p.path)
		if err == nil && info.IsDir() {
			return usageError(cmd, "%s %s is a directory", p.what, p.path)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return jobs.Errorf(jobs.CodeInvalid, "write %s: %w", p.path, err)
		}
	}
	return o.checkData(cmd)
}

// checkData refuses a directory that holds what fanout did not put there: at the end it would be removed with the rest.
func (o *runOptions) checkData(cmd *cobra.Command) error {
	entries, err := os.ReadDir(o.Data)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return jobs.Errorf(jobs.CodeInvalid, "read --data: %w", err)
	}
	for _, e := range entries {
		ours := slices.Contains([]string{"lock", "objects", "tmp"}, e.Name()) || strings.HasPrefix(e.Name(), "ledger.db")
		if !ours {
			return usageError(cmd, "--data %s is no data directory of fanout: it holds %s", o.Data, e.Name())
		}
	}
	return nil
}

func within(path, dir string) bool {
	path, errPath := filepath.Abs(path)
	dir, errDir := filepath.Abs(dir)
	return errPath == nil && errDir == nil && strings.HasPrefix(path, dir+string(filepath.Separator))
}

func sameFile(a, b string) bool {
	if filepath.Clean(a) == filepath.Clean(b) {
		return true
	}
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// tryPlaces finds out that the files could not be written before anything is paid for, not after.
func (o *runOptions) tryPlaces() error {
	for _, p := range []struct{ what, path string }{{"--output", o.Output}, {"--errors", o.Errors}} {
		f, err := os.CreateTemp(filepath.Dir(p.path), localjobs.Beside(p.path))
		if err != nil {
			return unwritable(p.what, p.path, err)
		}
		if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
			return unwritable(p.what, p.path, err)
		}
	}
	return nil
}

// clearPlaces removes what runs that were killed have left beside the files. This one alone is at them: it holds the data
// directory.
func (o *runOptions) clearPlaces() error {
	for _, p := range []struct{ what, path string }{{"--output", o.Output}, {"--errors", o.Errors}} {
		if err := localjobs.RemoveBeside(filepath.Dir(p.path), p.path); err != nil {
			return unwritable(p.what, p.path, err)
		}
	}
	return nil
}

// removeData removes a data directory, its name first: a kill meanwhile leaves no half of it to go on from.
func removeData(dir string) error {
	gone := dir + ".removed"
	err := removeRest(gone)
	if err == nil {
		err = os.Rename(dir, gone)
	}
	switch {
	case err == nil:
		err = os.RemoveAll(gone)
	case errors.Is(err, syscall.EBUSY): // a mount point keeps its name
		err = emptyData(dir)
	}
	if err != nil {
		return unwritable("--data", dir, err)
	}
	return nil
}

// removeRest removes what a kill has left of a data directory, and nothing else that has that name.
func removeRest(gone string) error {
	if _, err := os.Stat(filepath.Join(gone, "lock")); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return os.RemoveAll(gone)
}

func emptyData(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

// unwritable says in a sentence why a place cannot be written.
func unwritable(what, path string, err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		err = pe.Err
	}
	return jobs.Errorf(jobs.CodeInternal, "write %s %s: %w", what, path, err).WithHint("choose a place that can be written with -o and --data")
}
