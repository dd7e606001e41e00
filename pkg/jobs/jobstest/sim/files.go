package sim

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// files keeps objects in memory. An object is never changed, but that somebody may change the input under a running job.
type files struct {
	w       *World
	objects map[string][]byte
	changed int // versions of the input that were written since
}

const inputName = "files/t/in"

// input is what the job is told of it.
func (f *files) input() jobs.FileRef {
	return jobs.FileRef{Name: inputName, Version: fmt.Sprint("v", f.changed)}
}

// overwrite changes every line of the input. If its version stays, nobody can tell but by its bytes.
func (f *files) overwrite(newVersion bool) {
	f.objects[inputName] = bytes.ReplaceAll(f.objects[inputName], []byte(`"model":"m"`), []byte(`"model":"n"`))
	if newVersion {
		f.changed++
	}
}

func (f *files) info(name string) (jobs.FileInfo, error) {
	body, ok := f.objects[name]
	if !ok {
		return jobs.FileInfo{}, fmt.Errorf("%s: %w", name, jobs.ErrNotFound)
	}
	return jobs.FileInfo{FileRef: jobs.FileRef{Name: name}, Bytes: int64(len(body))}, nil
}

func (f *files) Stat(ctx context.Context, name string) (info jobs.FileInfo, err error) {
	err = f.w.step(ctx, "stat "+name, func() error {
		info, err = f.info(name)
		return err
	})
	return info, err
}

func (f *files) Read(ctx context.Context, ref jobs.FileRef, offset, length int64) (r io.ReadCloser, err error) {
	err = f.w.step(ctx, "open "+ref.Name, func() error {
		body, ok := f.objects[ref.Name]
		if !ok {
			return jobs.ErrNotFound
		}
		if ref.Version != "" && ref != f.input() {
			return fmt.Errorf("%s is no longer %s: %w", ref.Name, ref.Version, jobs.ErrChanged)
		}
		body = body[min(offset, int64(len(body))):]
		if length >= 0 {
			body = body[:min(length, int64(len(body)))]
		}
		r = io.NopCloser(bytes.NewReader(body))
		return nil
	})
	return r, err
}

func (f *files) Create(_ context.Context, name string) (jobs.FileWriter, error) {
	return &fileWriter{files: f, name: name}, nil
}

type fileWriter struct {
	files *files
	name  string
	buf   bytes.Buffer
	done  bool
}

func (w *fileWriter) Write(b []byte) (int, error) { return w.buf.Write(b) }

func (w *fileWriter) Commit(ctx context.Context) (info jobs.FileInfo, err error) {
	err = w.files.w.step(ctx, "commit "+w.name, func() error {
		info, err = w.files.put(w.name, w.buf.Bytes())
		return err
	})
	w.done = err == nil
	return info, err
}

func (w *fileWriter) Abort() error { return nil }

func (f *files) put(name string, body []byte) (jobs.FileInfo, error) {
	if _, taken := f.objects[name]; taken {
		return jobs.FileInfo{}, jobs.ErrExists
	}
	f.objects[name] = bytes.Clone(body)
	return f.info(name)
}

func (f *files) Concat(ctx context.Context, name string, parts []jobs.FileRef) (info jobs.FileInfo, err error) {
	err = f.w.step(ctx, "concat "+name, func() error {
		var whole []byte
		for _, p := range parts {
			body, ok := f.objects[p.Name]
			if !ok {
				return fmt.Errorf("%s: %w", p.Name, jobs.ErrNotFound)
			}
			whole = append(whole, body...)
		}
		info, err = f.put(name, whole)
		return err
	})
	return info, err
}

func (f *files) Copy(ctx context.Context, from jobs.FileRef, to string) (info jobs.FileInfo, err error) {
	err = f.w.step(ctx, "copy "+from.Name, func() error {
		body, ok := f.objects[from.Name]
		if !ok {
			return fmt.Errorf("%s: %w", from.Name, jobs.ErrNotFound)
		}
		if from.Version != "" && from != f.input() {
			return fmt.Errorf("%s is no longer %s: %w", from.Name, from.Version, jobs.ErrChanged)
		}
		info, err = f.put(to, body)
		return err
	})
	return info, err
}

func (f *files) List(ctx context.Context, prefix string) iter.Seq2[jobs.FileInfo, error] {
	return func(yield func(jobs.FileInfo, error) bool) {
		var found []jobs.FileInfo
		err := f.w.step(ctx, "list "+prefix, func() error {
			for _, name := range slices.Sorted(maps.Keys(f.objects)) {
				if strings.HasPrefix(name, prefix) {
					info, err := f.info(name)
					if err != nil {
						return err
					}
					found = append(found, info)
				}
			}
			return nil
		})
		if err != nil {
			yield(jobs.FileInfo{}, err)
			return
		}
		for _, info := range found {
			if !yield(info, nil) {
				return
			}
		}
	}
}

func (f *files) Delete(ctx context.Context, names ...string) error {
	return f.w.step(ctx, "delete", func() error {
		for _, name := range names {
			delete(f.objects, name)
		}
		return nil
	})
}
