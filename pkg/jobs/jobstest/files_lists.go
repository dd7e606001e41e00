package jobstest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

func concatIsOneAfterTheOther(t *testing.T, f jobs.Files) {
	big := strings.Repeat("big ", 300_000)
	one, two := put(t, f, "p/1", "one\n"), put(t, f, "p/2", big)
	empty, three := put(t, f, "p/empty", ""), put(t, f, "p/3", "three\n")
	for name, c := range map[string]struct {
		parts []jobs.FileRef
		want  string
	}{
		"of-nothing":   {nil, ""},
		"of-an-empty":  {[]jobs.FileRef{empty.FileRef}, ""},
		"of-one":       {[]jobs.FileRef{one.FileRef}, "one\n"},
		"of-a-big-one": {[]jobs.FileRef{two.FileRef}, big},
		"of-two":       {[]jobs.FileRef{three.FileRef, one.FileRef}, "three\none\n"},
		"of-many":      {[]jobs.FileRef{one.FileRef, two.FileRef, empty.FileRef, three.FileRef, {Name: "p/1"}}, "one\n" + big + "three\none\n"},
	} {
		info, err := f.Concat(t.Context(), "out/"+name, c.parts)
		if err != nil || info.Name != "out/"+name || info.Bytes != int64(len(c.want)) {
			t.Errorf("concat %s: %+v, %v; want %d bytes", name, info, err, len(c.want))
			continue
		}
		if got := content(t, f, info.FileRef, 0, -1); got != c.want {
			t.Errorf("concat %s has %d other bytes", name, len(got))
		}
	}
}

func concatRefuses(t *testing.T, f jobs.Files) {
	one, two := put(t, f, "1", "one"), put(t, f, "2", "two")
	for _, parts := range [][]jobs.FileRef{{one.FileRef}, {one.FileRef, two.FileRef}, nil} {
		if _, err := f.Concat(t.Context(), "2", parts); !errors.Is(err, jobs.ErrExists) {
			t.Errorf("concat of %d to a taken name: %v, want ErrExists", len(parts), err)
		}
	}
	for _, parts := range [][]jobs.FileRef{{{Name: "absent"}}, {one.FileRef, {Name: "absent"}}} {
		if _, err := f.Concat(t.Context(), "out", parts); !errors.Is(err, jobs.ErrNotFound) {
			t.Errorf("concat with an absent part: %v, want ErrNotFound", err)
		}
	}
	if exists(t, f, "out") || whole(t, f, "2") != "two" {
		t.Error("a refused concat left something behind")
	}
}

func concatOutlivesItsParts(t *testing.T, f jobs.Files) {
	one := put(t, f, "1", "one")
	if _, err := f.Concat(t.Context(), "out", []jobs.FileRef{one.FileRef}); err != nil {
		t.Fatal(err)
	}
	if err := f.Delete(t.Context(), "1"); err != nil {
		t.Fatal(err)
	}
	put(t, f, "1", "another")
	if got := whole(t, f, "out"); got != "one" {
		t.Errorf("content %q, want that of the part when it was made", got)
	}
}

func listIsByNameAndPrefix(t *testing.T, f jobs.Files) {
	want := []string{"a-b", "a.b", "a/b", "a/b-1", "a/b/c", "a0", "ab/c/d/e", "b", "é", "作业/1"}
	// An object and a folder of one name cannot both be kept on a disk.
	want = slices.DeleteFunc(want, func(name string) bool { return name == "a/b" })
	for _, name := range slices.Backward(want) {
		put(t, f, name, name)
	}
	for _, c := range []struct {
		prefix string
		want   []string
	}{
		{"", want},
		{"a", []string{"a-b", "a.b", "a/b-1", "a/b/c", "a0", "ab/c/d/e"}},
		{"a/", []string{"a/b-1", "a/b/c"}},
		{"a/b", []string{"a/b-1", "a/b/c"}},
		{"a/b/", []string{"a/b/c"}},
		{"a/b/c", []string{"a/b/c"}},
		{"a/b/c/", nil},
		{"ab/c", []string{"ab/c/d/e"}},
		{"ab/c/d/e/f", nil},
		{"作业/", []string{"作业/1"}},
		{"zzz/absent/", nil},
		{"../", nil},
		{"/", nil},
	} {
		if diff := cmp.Diff(c.want, names(t, f, c.prefix)); diff != "" {
			t.Errorf("list %q (-want +got):\n%s", c.prefix, diff)
		}
	}
	for info, err := range f.List(t.Context(), "a.b") {
		stat, statErr := f.Stat(t.Context(), "a.b")
		if err := errors.Join(err, statErr); err != nil || info.FileRef != stat.FileRef || info.Bytes != stat.Bytes {
			t.Errorf("listed %+v, stat says %+v (error: %v)", info, stat, err)
		}
	}
	for _, err := range f.List(t.Context(), "") {
		if err != nil {
			t.Errorf("list: %v", err)
		}
		break // a caller may have seen enough
	}
}

func listFindsWhatWasCommitted(t *testing.T, f jobs.Files) {
	made := map[string]bool{}
	rapid.Check(t, func(r *rapid.T) {
		// Folders end in "f", objects do not, so no name is both.
		folders := rapid.SliceOfN(rapid.StringMatching(`[ab.-]{0,2}f`), 0, 3).Draw(r, "folders")
		name := strings.Join(append(folders, rapid.StringMatching(`[ab.-]{0,2}[xy]`).Draw(r, "last")), "/")
		if !made[name] {
			if _, err := tryPut(t.Context(), f, name, ""); err != nil {
				r.Fatalf("put %s: %v", name, err)
			}
			made[name] = true
		}
		prefix := name[:rapid.IntRange(0, len(name)).Draw(r, "prefix")]
		var want, got []string
		for n := range made {
			if strings.HasPrefix(n, prefix) {
				want = append(want, n)
			}
		}
		slices.Sort(want)
		for info, err := range f.List(t.Context(), prefix) {
			if err != nil {
				r.Fatal(err)
			}
			got = append(got, info.Name)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			r.Fatalf("list %q (-want +got):\n%s", prefix, diff)
		}
	})
}

func objectsCanBeDeletedWhileListing(t *testing.T, f jobs.Files) {
	for i := range 30 {
		put(t, f, fmt.Sprintf("%d/%02d", i%3, i), "x")
	}
	seen := 0
	for info, err := range f.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		seen++
		if err := f.Delete(t.Context(), info.Name); err != nil {
			t.Fatal(err)
		}
	}
	if left := names(t, f, ""); seen != 30 || len(left) > 0 {
		t.Errorf("saw %d of 30 objects, and left %v", seen, left)
	}
}

func deletedObjectsAreGone(t *testing.T, f jobs.Files) {
	put(t, f, "a/1", "x")
	put(t, f, "a/2", "x")
	put(t, f, "b", "x")
	if err := f.Delete(t.Context(), "a/1", "absent", "a/absent/deeper", "b"); err != nil {
		t.Errorf("delete: %v", err)
	}
	if err := f.Delete(t.Context(), "a"); err != nil { // a folder is no object
		t.Errorf("delete of a folder's name: %v", err)
	}
	if err := f.Delete(t.Context()); err != nil {
		t.Errorf("delete of nothing: %v", err)
	}
	if diff := cmp.Diff([]string{"a/2"}, names(t, f, "")); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	if err := f.Delete(t.Context(), "a/2"); err != nil {
		t.Fatal(err)
	}
	put(t, f, "a/2", "again")
	if got := whole(t, f, "a/2"); got != "again" {
		t.Errorf("made again: %q", got)
	}
}
