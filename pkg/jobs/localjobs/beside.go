package localjobs

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
)

// Beside is the name, as os.CreateTemp and os.MkdirTemp take it, of what is written beside a path and takes its place by a
// rename when it is whole.
func Beside(path string) string { return "." + besideBase(path) + ".fanout-*" }

// besideBase is short enough that the longest name a file may have leaves room for what is added to it.
func besideBase(path string) string {
	base := filepath.Base(path)
	return base[:min(len(base), 200)]
}

var besideName = regexp.MustCompile(`^\.(.+)\.fanout-\d+$`)

// RemoveBeside removes what a kill kept from taking the place of paths in a folder; without paths, of any in it. Nobody may
// be writing them.
func RemoveBeside(dir string, paths ...string) error {
	var bases []string
	for _, path := range paths {
		bases = append(bases, besideBase(path))
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		left := besideName.FindStringSubmatch(e.Name())
		if left != nil && (bases == nil || slices.Contains(bases, left[1])) {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}
