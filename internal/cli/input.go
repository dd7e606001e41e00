package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// input is the INPUT of a command as a plain file on disk, which can be read at any offset.
type input struct {
	Name    string // as the user said it, "stdin" for -; for messages
	Path    string // the file itself, or a spooled copy
	Bytes   int64
	Spooled bool // Path is a copy of ours, because INPUT is gzip, stdin or no regular file
}

// Deflate cannot exceed 1,032 to 1, and only a file of one repeated byte comes near.
var defaultSpoolLimits = jobs.ExpandLimits{Bytes: 1 << 40, Ratio: 1000}

// openInput makes INPUT readable at any offset: a regular plain file is used in place, anything else is spooled into dir
// ("" = where temporary files go). Gzip is told by its first bytes, whatever the name, and expanded. The caller closes it.
func openInput(ctx context.Context, arg string, stdin io.Reader, dir string, lim jobs.ExpandLimits) (*input, error) {
	if arg == "-" {
		return spoolInput(ctx, "stdin", stdin, dir, lim)
	}
	f, err := os.Open(arg)
	if err != nil {
		return nil, unreadable(arg, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, unreadable(arg, err)
	}
	if info.IsDir() {
		return nil, jobs.Errorf(jobs.CodeInvalid, "read %s: it is a directory, not a file", arg).WithHint("name one JSONL file in it")
	}
	if !info.Mode().IsRegular() {
		return spoolInput(ctx, arg, f, dir, lim)
	}
	head := make([]byte, jobs.GzipHead)
	if _, err := f.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, unreadable(arg, err)
	}
	if jobs.IsGzip(head) {
		return spoolInput(ctx, arg, f, dir, lim)
	}
	return &input{Name: arg, Path: arg, Bytes: info.Size()}, nil
}

// Close removes the spooled copy, if there is one. A file of the user's is left alone.
func (in *input) Close() error {
	if !in.Spooled {
		return nil
	}
	if err := os.Remove(in.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the spooled copy of %s: %w", in.Name, err)
	}
	return nil
}

// unreadable says in a sentence why a file could not be opened.
func unreadable(name string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return jobs.Errorf(jobs.CodeInvalid, "read %s: there is no such file", name).WithHint("check the path, or give - to read stdin")
	case errors.Is(err, fs.ErrPermission):
		return jobs.Errorf(jobs.CodeInvalid, "read %s: permission denied", name).WithHint("make the file readable for the user who runs fanout")
	}
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		err = pe.Err // its sentence would name the file a second time
	}
	return jobs.Errorf(jobs.CodeInvalid, "read %s: %w", name, err)
}

// spoolInput copies r, expanded if it is gzip, into a temporary file.
func spoolInput(ctx context.Context, name string, r io.Reader, dir string, lim jobs.ExpandLimits) (*input, error) {
	f, err := os.CreateTemp(dir, "fanout-input-*.jsonl")
	if err != nil {
		return nil, fmt.Errorf("spool %s: %w", name, err)
	}
	in := &input{Name: name, Path: f.Name(), Spooled: true}

	// A read of a terminal or a pipe cannot be interrupted. When ctx ends, the copying is left behind: it ends with its
	// next write, since the file is closed, or with the process.
	type copied struct {
		bytes int64
		err   error
	}
	done := make(chan copied, 1)
	go func() {
		n, err := copyInput(ctx, f, r, name, lim)
		done <- copied{n, err}
	}()
	select {
	case c := <-done:
		in.Bytes, err = c.bytes, c.err
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if closeErr := f.Close(); err == nil && closeErr != nil {
		err = fmt.Errorf("spool %s: %w", name, closeErr)
	}
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return in, nil
}

// copyInput copies r to w, expanded if it is gzip, and returns how many bytes it wrote.
func copyInput(ctx context.Context, w io.Writer, r io.Reader, name string, lim jobs.ExpandLimits) (int64, error) {
	n, err := jobs.Expand(ctx, w, r, name, lim)
	failed, copying := errors.AsType[*jobs.CopyError](err)
	switch {
	case copying && failed.Writing:
		return n, (&jobs.Error{Code: jobs.CodeInternal, Err: fmt.Errorf("spool %s: %w", name, failed.Err)}).
			WithHint("set TMPDIR to a directory with more room")
	case copying:
		return n, unreadable(name, failed.Err)
	default:
		return n, err
	}
}
