package localjobs

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestWhatAKillLeftBesideAFileIsRemovedAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	long := strings.Repeat("l", 255)
	left := map[string]string{}
	for _, name := range []string{"out.jsonl", "other.jsonl", long} {
		f, err := os.CreateTemp(dir, Beside(name))
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		left[name] = filepath.Base(f.Name())
	}
	folder := filepath.Join(dir, strings.Replace(Beside("out.jsonl"), "*", "7", 1))
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	mine := []string{".fanout-1", ".out.jsonl.fanout-x", "out.jsonl", "out.jsonl.fanout-1"}
	for _, name := range append(mine, filepath.Join(filepath.Base(folder), "object")) {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct{ of, stay []string }{
		{[]string{"out.jsonl", filepath.Join("elsewhere", long)}, append(mine, left["other.jsonl"])},
		{nil, mine},
	} {
		if err := RemoveBeside(dir, step.of...); err != nil {
			t.Fatal(err)
		}
		var stay []string
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			stay = append(stay, e.Name())
		}
		if want := slices.Sorted(slices.Values(step.stay)); !slices.Equal(stay, want) {
			t.Errorf("after %v there are %q, want %q", step.of, stay, want)
		}
	}
}
