package jobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"unicode/utf8"
)

// writeObject writes a small object whole. That it is there already means that an earlier try at the same step wrote the
// same bytes.
func writeObject(ctx context.Context, files Files, name string, body []byte) error {
	w, err := files.Create(ctx, name)
	if err != nil {
		return fmt.Errorf("create %s: %w", name, err)
	}
	defer w.Abort()
	if _, err := w.Write(body); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if _, err := w.Commit(ctx); err != nil && !errors.Is(err, ErrExists) {
		return fmt.Errorf("commit %s: %w", name, err)
	}
	return nil
}

// readObject reads a small object, or a range of one, whole.
func readObject(ctx context.Context, files Files, ref FileRef, offset, length int64) ([]byte, error) {
	r, err := files.Read(ctx, ref, offset, length)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", ref.Name, err)
	}
	defer r.Close()
	var body bytes.Buffer
	if _, err := io.Copy(&body, r); err != nil {
		return nil, fmt.Errorf("read %s: %w", ref.Name, err)
	}
	return body.Bytes(), nil
}

// CheckName refuses names of objects that are no plain path, and those that only one of the drivers could keep.
func CheckName(name string) error {
	switch {
	case name == "":
		return Errorf(CodeInvalid, "an object needs a name")
	case len(name) > 1024:
		return Errorf(CodeInvalid, "object name %.40q… has more than 1,024 bytes", name)
	case !utf8.ValidString(name), strings.ContainsRune(name, 0):
		return Errorf(CodeInvalid, "object name %.40q is not plain text", name)
	case path.IsAbs(name), path.Clean(name) != name, name == ".", name == "..", strings.HasPrefix(name, "../"):
		return Errorf(CodeInvalid, "object name %.40q is not a plain path such as jobs/a/b", name)
	}
	return nil
}
