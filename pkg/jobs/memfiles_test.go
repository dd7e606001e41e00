package jobs

import (
	"bytes"
	"context"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// memFiles keeps objects in memory.
type memFiles struct {
	mu      sync.Mutex
	objects map[string][]byte
	reads   atomic.Int64
}

var _ Files = (*memFiles)(nil)

func newMemFiles() *memFiles { return &memFiles{objects: map[string][]byte{}} }

func (f *memFiles) put(name string, data []byte) FileRef {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.objects[name] = data
	return FileRef{Name: name}
}

func (f *memFiles) get(name string) ([]byte, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	data, ok := f.objects[name]
	return data, ok
}

func (f *memFiles) Stat(_ context.Context, name string) (FileInfo, error) {
	data, ok := f.get(name)
	if !ok {
		return FileInfo{}, ErrNotFound
	}
	return FileInfo{FileRef: FileRef{Name: name}, Bytes: int64(len(data))}, nil
}

func (f *memFiles) Read(ctx context.Context, ref FileRef, offset, length int64) (io.ReadCloser, error) {
	f.reads.Add(1)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	data, ok := f.get(ref.Name)
	if !ok {
		return nil, ErrNotFound
	}
	data = data[min(offset, int64(len(data))):]
	if length >= 0 {
		data = data[:min(length, int64(len(data)))]
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

func (f *memFiles) Create(_ context.Context, name string) (FileWriter, error) {
	return &memWriter{files: f, name: name}, nil
}

func (f *memFiles) Concat(ctx context.Context, name string, parts []FileRef) (FileInfo, error) {
	w := &memWriter{files: f, name: name}
	for _, p := range parts {
		data, ok := f.get(p.Name)
		if !ok {
			return FileInfo{}, ErrNotFound
		}
		_, _ = w.Write(data) // a buffer takes all
	}
	return w.Commit(ctx)
}

func (f *memFiles) Copy(ctx context.Context, from FileRef, to string) (FileInfo, error) {
	return f.Concat(ctx, to, []FileRef{from})
}

func (f *memFiles) List(ctx context.Context, prefix string) iter.Seq2[FileInfo, error] {
	return func(yield func(FileInfo, error) bool) {
		f.mu.Lock()
		names := slices.Sorted(maps.Keys(f.objects))
		f.mu.Unlock()
		for _, name := range names {
			if !strings.HasPrefix(name, prefix) {
				continue
			}
			if info, err := f.Stat(ctx, name); err == nil && !yield(info, nil) {
				return
			}
		}
	}
}

func (f *memFiles) Delete(_ context.Context, names ...string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range names {
		delete(f.objects, name)
	}
	return nil
}

type memWriter struct {
	files *memFiles
	name  string
	data  bytes.Buffer
}

func (w *memWriter) Write(p []byte) (int, error) { return w.data.Write(p) }

func (w *memWriter) Commit(ctx context.Context) (FileInfo, error) {
	w.files.mu.Lock()
	if _, taken := w.files.objects[w.name]; taken {
		w.files.mu.Unlock()
		return FileInfo{}, ErrExists
	}
	w.files.objects[w.name] = w.data.Bytes()
	w.files.mu.Unlock()
	return w.files.Stat(ctx, w.name)
}

func (w *memWriter) Abort() error { return nil }
