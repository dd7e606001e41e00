package jobstest

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

func copiesAreOfOneVersion(t *testing.T, f jobs.Files) {
	big := strings.Repeat("big ", 2<<20) // larger than S3's least part
	for name, want := range map[string]string{"empty": "", "small": "small\n", "big": big} {
		source := put(t, f, "inbox/t/"+name, want)
		for to, from := range map[string]jobs.FileRef{"this": source.FileRef, "any": {Name: source.Name}} {
			info, err := f.Copy(t.Context(), from, "files/t/"+name+"-"+to)
			if err != nil || info.Name != "files/t/"+name+"-"+to || info.Bytes != int64(len(want)) || info.Version == "" {
				t.Errorf("copy %s version of %s: %+v, %v; want %d bytes", to, name, info, err, len(want))
				continue
			}
			stat, err := f.Stat(t.Context(), info.Name)
			if err != nil || stat.FileRef != info.FileRef {
				t.Errorf("stat of the copy of %s: %+v, %v; the copy said %+v", name, stat, err, info)
			}
			if got := content(t, f, info.FileRef, 0, -1); got != want {
				t.Errorf("the copy of %s has %d other bytes", name, len(got))
			}
		}
	}
}

func copiesAreWholeOrNotAtAll(t *testing.T, f jobs.Files) {
	source, other := put(t, f, "a", "source"), put(t, f, "b", "another size, another content")
	put(t, f, "taken", "taken")
	changed := jobs.FileRef{Name: "a", Version: other.Version}
	for _, c := range []struct {
		what string
		from jobs.FileRef
		to   string
		want error
	}{
		{"to a taken name", source.FileRef, "taken", jobs.ErrExists},
		{"of any version to a taken name", jobs.FileRef{Name: "a"}, "taken", jobs.ErrExists},
		{"onto itself", source.FileRef, "a", jobs.ErrExists},
		{"of another version", changed, "new", jobs.ErrChanged},
		{"of an absent object", jobs.FileRef{Name: "absent"}, "new", jobs.ErrNotFound},
		{"of an absent object's version", jobs.FileRef{Name: "absent", Version: source.Version}, "new", jobs.ErrNotFound},
	} {
		if _, err := f.Copy(t.Context(), c.from, c.to); !errors.Is(err, c.want) {
			t.Errorf("copy %s: %v, want %v", c.what, err, c.want)
		}
	}
	if exists(t, f, "new") || whole(t, f, "taken") != "taken" || whole(t, f, "a") != "source" {
		t.Error("a refused copy left something behind")
	}
}

func copiesOutliveTheirSource(t *testing.T, f jobs.Files) {
	first := put(t, f, "inbox/t/in", "first")
	if _, err := f.Copy(t.Context(), first.FileRef, "files/t/1"); err != nil {
		t.Fatal(err)
	}
	if err := f.Delete(t.Context(), "inbox/t/in"); err != nil {
		t.Fatal(err)
	}
	second := put(t, f, "inbox/t/in", "second, longer")
	if _, err := f.Copy(t.Context(), first.FileRef, "files/t/2"); !errors.Is(err, jobs.ErrChanged) {
		t.Errorf("copy of what was overwritten: %v, want ErrChanged", err)
	}
	if _, err := f.Copy(t.Context(), second.FileRef, "files/t/3"); err != nil {
		t.Error(err)
	}
	if one, three := whole(t, f, "files/t/1"), whole(t, f, "files/t/3"); one != "first" || three != "second, longer" || exists(t, f, "files/t/2") {
		t.Errorf("the copies are %q and %q", one, three)
	}
}

func oneOfManyRacingCopiesWins(t *testing.T, f jobs.Files) {
	source := put(t, f, "inbox/t/in", strings.Repeat("0123456789", 10_000))
	var won atomic.Int32
	var racing sync.WaitGroup
	for range 10 {
		racing.Go(func() {
			switch _, err := f.Copy(t.Context(), source.FileRef, "files/t/copy"); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, jobs.ErrExists):
				t.Errorf("racing copy: %v", err)
			}
		})
	}
	racing.Wait()
	if won.Load() != 1 || whole(t, f, "files/t/copy") != whole(t, f, "inbox/t/in") {
		t.Errorf("%d of 10 racing copies won, want 1", won.Load())
	}
}
