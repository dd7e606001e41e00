package jobstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// TestFiles proves that a store of objects keeps its promises. open returns an empty one; it is called once a claim.
func TestFiles(t *testing.T, open func(t *testing.T) jobs.Files) {
	for _, claim := range []struct {
		name string
		test func(t *testing.T, f jobs.Files)
	}{
		{"AbsentObjectsAreNotFound", absentObjectsAreNotFound},
		{"ObjectsComeBackAsTheyWereWritten", objectsComeBackAsTheyWereWritten},
		{"ObjectsAreSeenWholeOrNotAtAll", objectsAreSeenWholeOrNotAtAll},
		{"CommittedObjectsAreNeverReplaced", committedObjectsAreNeverReplaced},
		{"OneOfManyRacingCommitsWins", oneOfManyRacingCommitsWins},
		{"AbortedObjectsAreNeverSeen", abortedObjectsAreNeverSeen},
		{"AbortAfterCommitDoesNothing", abortAfterCommitDoesNothing},
		{"EndedWritersRefuse", endedWritersRefuse},
		{"RangesAreCutAtTheEnd", rangesAreCutAtTheEnd},
		{"AnotherVersionIsErrChanged", anotherVersionIsErrChanged},
		{"ConcatIsOneAfterTheOther", concatIsOneAfterTheOther},
		{"ConcatRefusesTakenNamesAndMissingParts", concatRefuses},
		{"ConcatOutlivesItsParts", concatOutlivesItsParts},
		{"CopiesAreOfOneVersion", copiesAreOfOneVersion},
		{"CopiesAreWholeOrNotAtAll", copiesAreWholeOrNotAtAll},
		{"CopiesOutliveTheirSource", copiesOutliveTheirSource},
		{"OneOfManyRacingCopiesWins", oneOfManyRacingCopiesWins},
		{"ListIsByNameAndPrefix", listIsByNameAndPrefix},
		{"ListFindsWhatWasCommitted", listFindsWhatWasCommitted},
		{"ObjectsCanBeDeletedWhileListing", objectsCanBeDeletedWhileListing},
		{"DeletedObjectsAreGone", deletedObjectsAreGone},
		{"ReadersDoNotDisturbEachOther", readersDoNotDisturbEachOther},
		{"NamesOutsideAreRefused", namesOutsideAreRefused},
		{"AnEndedContextEndsWork", anEndedContextEndsWork},
	} {
		t.Run(claim.name, func(t *testing.T) { claim.test(t, open(t)) })
	}
}

// put makes an object.
func put(t *testing.T, f jobs.Files, name, content string) jobs.FileInfo {
	t.Helper()
	info, err := tryPut(t.Context(), f, name, content)
	if err != nil {
		t.Fatalf("put %s: %v", name, err)
	}
	return info
}

func tryPut(ctx context.Context, f jobs.Files, name, content string) (jobs.FileInfo, error) {
	w, err := f.Create(ctx, name)
	if err != nil {
		return jobs.FileInfo{}, err
	}
	if _, err := io.WriteString(w, content); err != nil {
		return jobs.FileInfo{}, errors.Join(err, w.Abort())
	}
	return w.Commit(ctx)
}

func content(t *testing.T, f jobs.Files, ref jobs.FileRef, offset, length int64) string {
	t.Helper()
	r, err := f.Read(t.Context(), ref, offset, length)
	if err != nil {
		t.Fatalf("read %s: %v", ref.Name, err)
	}
	b, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatalf("read %s: %v", ref.Name, err)
	}
	return string(b)
}

func whole(t *testing.T, f jobs.Files, name string) string {
	t.Helper()
	return content(t, f, jobs.FileRef{Name: name}, 0, -1)
}

func exists(t *testing.T, f jobs.Files, name string) bool {
	t.Helper()
	_, err := f.Stat(t.Context(), name)
	if err != nil && !errors.Is(err, jobs.ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

func names(t *testing.T, f jobs.Files, prefix string) (found []string) {
	t.Helper()
	for _, info := range all(t, f.List(t.Context(), prefix)) {
		found = append(found, info.Name)
	}
	return found
}

func absentObjectsAreNotFound(t *testing.T, f jobs.Files) {
	put(t, f, "folder/object", "x")
	for _, name := range []string{"absent", "folder", "folder/absent", "folder/object/below"} {
		if _, err := f.Stat(t.Context(), name); !errors.Is(err, jobs.ErrNotFound) {
			t.Errorf("Stat %s: %v, want ErrNotFound", name, err)
		}
		if r, err := f.Read(t.Context(), jobs.FileRef{Name: name}, 0, -1); !errors.Is(err, jobs.ErrNotFound) {
			t.Errorf("Read %s: %v, %v, want ErrNotFound", name, r, err)
		}
	}
}

func objectsComeBackAsTheyWereWritten(t *testing.T, f jobs.Files) {
	for name, want := range map[string]string{
		"plain":                       "hello\n",
		"jobs/j/parts/0/12-1-0":       strings.Repeat("0123456789abcdef", 1<<16), // 1 MiB
		"empty":                       "",
		"files/tenant ü/name 作业 +%&#": "\x00\xff",
	} {
		info := put(t, f, name, want)
		if info.Name != name || info.Bytes != int64(len(want)) || info.Version == "" || info.At.IsZero() {
			t.Errorf("commit of %s says %+v", name, info)
		}
		stat, err := f.Stat(t.Context(), name)
		if err != nil || stat.FileRef != info.FileRef || stat.Bytes != info.Bytes {
			t.Errorf("stat of %s: %+v, %v; commit said %+v", name, stat, err, info)
		}
		if got := content(t, f, info.FileRef, 0, -1); got != want {
			t.Errorf("%s came back with %d bytes, want %d", name, len(got), len(want))
		}
	}
}

func objectsAreSeenWholeOrNotAtAll(t *testing.T, f jobs.Files) {
	w, err := f.Create(t.Context(), "a/b")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := w.Write(bytes.Repeat([]byte("x"), 100_000)); err != nil {
			t.Fatal(err)
		}
		if exists(t, f, "a/b") || len(names(t, f, "")) > 0 {
			t.Fatal("an object was seen before its commit")
		}
	}
	if _, err := w.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := whole(t, f, "a/b"); len(got) != 300_000 {
		t.Errorf("%d bytes after the commit, want 300,000", len(got))
	}
}

func committedObjectsAreNeverReplaced(t *testing.T, f jobs.Files) {
	first := put(t, f, "a/b", "first")
	if _, err := tryPut(t.Context(), f, "a/b", "second"); !errors.Is(err, jobs.ErrExists) {
		t.Errorf("commit to a taken name: %v, want ErrExists", err)
	}
	if got := content(t, f, first.FileRef, 0, -1); got != "first" {
		t.Errorf("content %q, want the first", got)
	}
}

func oneOfManyRacingCommitsWins(t *testing.T, f jobs.Files) {
	var winner atomic.Value
	var won atomic.Int32
	var racing sync.WaitGroup
	for i := range 20 {
		racing.Go(func() {
			mine := strings.Repeat(fmt.Sprintf("%02d", i), 10_000)
			switch _, err := tryPut(t.Context(), f, "new/folder/object", mine); {
			case err == nil:
				won.Add(1)
				winner.Store(mine)
			case !errors.Is(err, jobs.ErrExists):
				t.Errorf("racing commit: %v", err)
			}
		})
	}
	racing.Wait()
	if won.Load() != 1 {
		t.Fatalf("%d of 20 racing commits won, want 1", won.Load())
	}
	if got := whole(t, f, "new/folder/object"); got != winner.Load() {
		t.Error("the object is not the winner's")
	}
}

func abortedObjectsAreNeverSeen(t *testing.T, f jobs.Files) {
	w, err := f.Create(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, "x"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := w.Abort(); err != nil {
			t.Errorf("abort: %v", err)
		}
	}
	if exists(t, f, "a") {
		t.Error("an aborted object is there")
	}
	put(t, f, "a", "the name is free")
}

func abortAfterCommitDoesNothing(t *testing.T, f jobs.Files) {
	w, err := f.Create(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.Abort(); err != nil {
		t.Errorf("abort after commit: %v", err)
	}
	if !exists(t, f, "a") {
		t.Error("abort after commit took the object away")
	}
}

func endedWritersRefuse(t *testing.T, f jobs.Files) {
	for what, end := range map[string]func(w jobs.FileWriter) error{
		"commit": func(w jobs.FileWriter) error { _, err := w.Commit(t.Context()); return err },
		"abort":  func(w jobs.FileWriter) error { return w.Abort() },
	} {
		w, err := f.Create(t.Context(), "after-"+what)
		if err != nil {
			t.Fatal(err)
		}
		if err := end(w); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, "late"); err == nil {
			t.Errorf("write after %s: no error", what)
		}
		if _, err := w.Commit(t.Context()); err == nil {
			t.Errorf("commit after %s: no error", what)
		}
	}
}

func rangesAreCutAtTheEnd(t *testing.T, f jobs.Files) {
	put(t, f, "ten", "0123456789")
	for _, c := range []struct {
		offset, length int64
		want           string
	}{
		{0, -1, "0123456789"}, {0, 10, "0123456789"}, {0, 3, "012"}, {3, 4, "3456"}, {9, 1, "9"}, {3, -1, "3456789"},
		{8, 5, "89"}, {0, 1 << 60, "0123456789"}, {10, -1, ""}, {10, 1, ""}, {99, 5, ""}, {99, -1, ""}, {3, 0, ""},
	} {
		if got := content(t, f, jobs.FileRef{Name: "ten"}, c.offset, c.length); got != c.want {
			t.Errorf("%d bytes from %d: %q, want %q", c.length, c.offset, got, c.want)
		}
	}
	put(t, f, "empty", "")
	if got := content(t, f, jobs.FileRef{Name: "empty"}, 0, 5); got != "" {
		t.Errorf("an empty object has %q", got)
	}
	if _, err := f.Read(t.Context(), jobs.FileRef{Name: "ten"}, -1, 5); jobs.CodeOf(err) != jobs.CodeInvalid {
		t.Errorf("a negative offset: %v, want code invalid", err)
	}
}

func anotherVersionIsErrChanged(t *testing.T, f jobs.Files) {
	info := put(t, f, "a", "x")
	other := put(t, f, "b", "another size, another content")
	wrong := jobs.FileRef{Name: info.Name, Version: other.Version}
	if _, err := f.Read(t.Context(), wrong, 0, -1); !errors.Is(err, jobs.ErrChanged) {
		t.Errorf("read of another version: %v, want ErrChanged", err)
	}
	for _, parts := range [][]jobs.FileRef{{wrong}, {other.FileRef, wrong}} {
		if _, err := f.Concat(t.Context(), "c", parts); !errors.Is(err, jobs.ErrChanged) {
			t.Errorf("concat of another version: %v, want ErrChanged", err)
		}
	}
	if exists(t, f, "c") {
		t.Error("an object was made of it")
	}
}

func readersDoNotDisturbEachOther(t *testing.T, f jobs.Files) {
	var want strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&want, "%06d\n", i)
	}
	ref := put(t, f, "lines", want.String()).FileRef
	var reading sync.WaitGroup
	for i := range 8 {
		reading.Go(func() {
			offset := int64(i * 7 * 1000)
			r, err := f.Read(t.Context(), ref, offset, 70_000)
			if err != nil {
				t.Errorf("read: %v", err)
				return
			}
			got, err := io.ReadAll(r)
			if err := errors.Join(err, r.Close()); err != nil || string(got) != want.String()[offset:offset+70_000] {
				t.Errorf("reader %d got other bytes (error: %v)", i, err)
			}
		})
	}
	reading.Wait()
}

func namesOutsideAreRefused(t *testing.T, f jobs.Files) {
	for _, name := range []string{"", ".", "..", "../x", "a/../../x", "a/../x", "/etc/passwd", "a//b", "a/", "a/./b", "./a", "a\x00b", "\xff", strings.Repeat("x/", 600) + "x"} {
		if w, err := f.Create(t.Context(), name); jobs.CodeOf(err) != jobs.CodeInvalid {
			t.Errorf("create %q: %v, %v; want code invalid", name, w, err)
		}
		if _, err := f.Stat(t.Context(), name); jobs.CodeOf(err) != jobs.CodeInvalid {
			t.Errorf("stat %q: %v, want code invalid", name, err)
		}
		if _, err := f.Read(t.Context(), jobs.FileRef{Name: name}, 0, -1); jobs.CodeOf(err) != jobs.CodeInvalid {
			t.Errorf("read %q: %v, want code invalid", name, err)
		}
		if _, err := f.Concat(t.Context(), name, nil); jobs.CodeOf(err) != jobs.CodeInvalid {
			t.Errorf("concat %q: %v, want code invalid", name, err)
		}
		if _, err := f.Copy(t.Context(), jobs.FileRef{Name: "x"}, name); jobs.CodeOf(err) != jobs.CodeInvalid {
			t.Errorf("copy to %q: %v, want code invalid", name, err)
		}
		if err := f.Delete(t.Context(), name); jobs.CodeOf(err) != jobs.CodeInvalid {
			t.Errorf("delete %q: %v, want code invalid", name, err)
		}
	}
}

func anEndedContextEndsWork(t *testing.T, f jobs.Files) {
	put(t, f, "a", "x")
	w, err := f.Create(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Commit(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("commit: %v, want context.Canceled", err)
	}
	if _, err := f.Read(ctx, jobs.FileRef{Name: "a"}, 0, -1); !errors.Is(err, context.Canceled) {
		t.Errorf("read: %v, want context.Canceled", err)
	}
	if _, err := f.Copy(ctx, jobs.FileRef{Name: "a"}, "b"); !errors.Is(err, context.Canceled) {
		t.Errorf("copy: %v, want context.Canceled", err)
	}
	if err := lastError(f.List(ctx, "")); !errors.Is(err, context.Canceled) {
		t.Errorf("list: %v, want context.Canceled", err)
	}
	if exists(t, f, "b") {
		t.Error("a commit or a copy with an ended context made the object visible")
	}
}
