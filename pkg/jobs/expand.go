package jobs

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
)

// ExpandLimits bound what an input may grow to, so that a small gzip file cannot fill the disk.
type ExpandLimits struct {
	Bytes int64
	Ratio int64 // of expanded to compressed bytes
}

// CopyError is what the reader or the writer of a copy said, as opposed to what is wrong with what was copied.
type CopyError struct {
	Writing bool
	Err     error
}

func (e *CopyError) Error() string { return e.Err.Error() }

// Unwrap gives the chain to errors.Is and errors.As.
func (e *CopyError) Unwrap() error { return e.Err }

var gzipMagic = []byte{0x1f, 0x8b}

// IsGzip tells from its first bytes whether an input is gzip, whatever its name.
func IsGzip(head []byte) bool { return bytes.HasPrefix(head, gzipMagic) }

// GzipHead is how many bytes IsGzip looks at.
const GzipHead = 2

// Expand copies an input from r to w, expanded if it is gzip, in constant memory, and returns how many bytes it wrote. Its
// sentences call the input name. What is wrong with the input, or over a limit, is an Error of code invalid; what r or w
// says is a CopyError; the end of ctx is seen between two pieces.
func Expand(ctx context.Context, w io.Writer, r io.Reader, name string, lim ExpandLimits) (int64, error) {
	packed := &meter{r: r}
	buffered := bufio.NewReaderSize(packed, 64<<10)
	plain, ratio := io.Reader(buffered), int64(0)
	head, _ := buffered.Peek(GzipHead) // an input may be shorter
	if packed.err != nil {             // the next read might succeed, and take gzip for plain
		return 0, &CopyError{Err: packed.err}
	}
	if IsGzip(head) {
		z, err := gzip.NewReader(buffered)
		if err != nil {
			return 0, unexpandable(name, err, packed.err)
		}
		plain, ratio = z, lim.Ratio
	}

	buf := make([]byte, 256<<10)
	for total := int64(0); ; {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		n, err := plain.Read(buf)
		total += int64(n)
		switch {
		case total > lim.Bytes:
			return 0, Errorf(CodeInvalid, "read %s: it is larger than %d bytes", name, lim.Bytes).WithHint("split it into several inputs")
		case ratio > 0 && total > ratio*packed.n:
			return 0, Errorf(CodeInvalid, "expand %s: it grows more than %d-fold", name, ratio).
				WithHint("expand it with gunzip if it is what you think it is")
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return 0, &CopyError{Writing: true, Err: err}
		}
		switch {
		case errors.Is(err, io.EOF):
			return total, nil
		case err != nil && ratio > 0:
			return 0, unexpandable(name, err, packed.err)
		case err != nil:
			return 0, &CopyError{Err: err}
		}
	}
}

// unexpandable says why gzip did not expand: because it could not be read, because it ends early, or because it is damaged.
func unexpandable(name string, err, readErr error) error {
	const hint = "copy the file again; gzip -t tells whether it is whole"
	switch {
	case readErr != nil:
		return &CopyError{Err: readErr}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return Errorf(CodeInvalid, "expand %s: the gzip data ends early", name).WithHint(hint)
	default:
		return Errorf(CodeInvalid, "expand %s: the gzip data is damaged: %w", name, err).WithHint(hint)
	}
}

// meter counts what was read, and keeps the error of the reading itself apart from those of the expanding.
type meter struct {
	r   io.Reader
	n   int64
	err error
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		m.err = err
	}
	return n, err
}
