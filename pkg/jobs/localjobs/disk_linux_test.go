package localjobs

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// smallDisk mounts a disk of its own, or skips where that is not allowed.
func smallDisk(t *testing.T, options string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("skipped: a small disk cannot be mounted here (%v)", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

func TestAFullDiskIsSaidAndOutlived(t *testing.T) {
	dir := smallDisk(t, "size=4m")
	l := openAt(t, dir, Options{})
	small, err := l.Files.Create(t.Context(), "small")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := small.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Queue.Send(t.Context(), jobs.QueueWork, []byte("before")); err != nil {
		t.Fatal(err)
	}

	w, err := l.Files.Create(t.Context(), "big")
	if err != nil {
		t.Fatal(err)
	}
	_, writeErr := w.Write(bytes.Repeat([]byte("x"), 8<<20))
	_, commitErr := w.Commit(t.Context())
	if !errors.Is(writeErr, syscall.ENOSPC) || !errors.Is(commitErr, syscall.ENOSPC) {
		t.Errorf("write: %v; commit: %v; want both to say that the disk is full", writeErr, commitErr)
	}
	if _, err := l.Files.Stat(t.Context(), "big"); !errors.Is(err, jobs.ErrNotFound) {
		t.Errorf("stat after a failed commit: %v, want ErrNotFound", err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "tmp")); err != nil || len(left) > 0 {
		t.Errorf("a failed commit left %v (error: %v)", left, err)
	}

	ballast := filepath.Join(dir, "ballast")
	fill(t, ballast)
	sent := 0
	for ; err == nil && sent < 100; sent++ {
		_, err = l.Queue.Send(t.Context(), jobs.QueueWork, bytes.Repeat([]byte("y"), 100_000))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("send %d to a full disk: %v, want it to say so", sent, err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Queue.Send(t.Context(), jobs.QueueWork, []byte("after")); err != nil {
		t.Errorf("send after space was freed: %v", err)
	}
	d, err := l.Queue.Depth(t.Context(), jobs.QueueWork)
	if want := int64(sent - 1 + 2); err != nil || d.Waiting != want {
		t.Errorf("%d messages wait (error: %v), want the %d whose send returned without error", d.Waiting, err, want)
	}
}

// fill writes a file until the disk has no room.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 64 << 10; size > 0; size /= 2 {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
}

func TestCloseLeavesNoFileOpen(t *testing.T) {
	dir := t.TempDir()
	l := openAt(t, dir, Options{})
	if _, err := l.Queue.Send(t.Context(), jobs.QueueWork, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Queue.Depth(t.Context(), jobs.QueueWork); err != nil {
		t.Fatal(err)
	}
	open := func() (paths []string) {
		fds, err := filepath.Glob("/proc/self/fd/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			if path, err := os.Readlink(fd); err == nil && strings.HasPrefix(path, dir) {
				paths = append(paths, path)
			}
		}
		return paths
	}
	if len(open()) == 0 {
		t.Fatal("nothing is open before the close: this proves nothing")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if left := open(); len(left) > 0 {
		t.Errorf("left open: %v", left)
	}
}

func TestAReadOnlyPlaceIsRefusedWithAHint(t *testing.T) {
	dir := smallDisk(t, "size=1m")
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Skipf("skipped: a disk cannot be made read-only here (%v)", err)
	}
	for _, place := range []string{dir, filepath.Join(dir, "new")} {
		_, err := Open(t.Context(), place, Options{})
		var e *jobs.Error
		if !errors.Is(err, syscall.EROFS) || !errors.As(err, &e) || e.Code != jobs.CodeInvalid || e.Hint == "" {
			t.Errorf("open of %s: %v, want EROFS, code invalid and a hint", place, err)
		}
	}
}

func TestAMountedFileIsReadInPlaceAndNothingElse(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "input.jsonl")
	if err := os.WriteFile(outside, []byte("one\ntwo\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const name = "files/local/input"
	f := openAt(t, t.TempDir(), Options{Mount: map[string]string{name: outside}}).Files

	info, err := f.Stat(t.Context(), name)
	if err != nil || info.Bytes != 8 || info.Name != name {
		t.Fatalf("stat: %+v, %v", info, err)
	}
	r, err := f.Read(t.Context(), info.FileRef, 4, 3)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || string(got) != "two" {
		t.Errorf("read %q, %v", got, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := f.Concat(t.Context(), "copy", []jobs.FileRef{info.FileRef}); err != nil {
		t.Errorf("concat: %v", err)
	}
	for i, err := range f.List(t.Context(), "files/") {
		t.Errorf("a mounted file is listed: %+v, %v", i, err)
	}
	w, err := f.Create(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Commit(t.Context()); !errors.Is(err, jobs.ErrExists) {
		t.Errorf("commit over a mounted file: %v, want ErrExists", err)
	}
	if err := f.Delete(t.Context(), name); err != nil {
		t.Errorf("delete: %v", err)
	}

	// Written in place, as an editor may; the copy made of it stays.
	if err := os.WriteFile(outside, []byte("ONE\nTWO\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(outside, time.Time{}, info.At.Add(time.Nanosecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Read(t.Context(), info.FileRef, 0, -1); !errors.Is(err, jobs.ErrChanged) {
		t.Errorf("read after a change: %v, want ErrChanged", err)
	}
	r, err = f.Read(t.Context(), jobs.FileRef{Name: "copy"}, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || string(got) != "one\ntwo\n" {
		t.Errorf("the copy has %q, %v", got, err)
	}
}
