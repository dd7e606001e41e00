package localjobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Export puts a copy of an object at a path outside, replacing what is there: whole, or not at all.
func (f *Files) Export(ctx context.Context, name, path string) error {
	return f.export(ctx, name, path, copyFile)
}

// HandOver is Export for objects that nobody will read here again: on one file system the path is another name of the same
// bytes, which costs nothing.
func (f *Files) HandOver(ctx context.Context, name, path string) error {
	return f.export(ctx, name, path, func(from, to string) error {
		if os.Link(from, to) == nil {
			return nil
		}
		return copyFile(from, to)
	})
}

func (f *Files) export(ctx context.Context, name, path string, bring func(from, to string) error) error {
	place, err := f.place(ctx, name)
	if err != nil {
		return fmt.Errorf("export %s: %w", name, err)
	}
	dir := filepath.Dir(path)
	beside, err := os.MkdirTemp(dir, Beside(path))
	if err != nil {
		return fmt.Errorf("export %s: %w", name, err)
	}
	defer os.RemoveAll(beside) //nolint:errcheck // an empty folder by then, or one that an error already tells of
	temp := filepath.Join(beside, "object")
	if err := bring(place, temp); err != nil {
		return fmt.Errorf("export %s: %w", name, err)
	}
	if err := errors.Join(os.Chmod(temp, 0o644), os.Rename(temp, path), syncDir(dir)); err != nil {
		return fmt.Errorf("export %s: %w", name, err)
	}
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}
