package jobs

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCutsComeBackAsTheyWereSaved(t *testing.T) {
	ctx := context.Background()
	input := []byte(request("", "") + "\n\nx\n" + request("body", `{"model":"n"}`) + "\n" + request("", "") + "\n")
	scans, _, _ := scanOf(t, input, Cut{SplitBytes: 1000, ChunkLines: 2, ChunkBytes: 1000, LineBytes: 1000})
	files := newMemFiles()
	want := splitCuts{Split: 3, splitScan: scans[0], IDs: []string{idsName("j", 3, 0)}}
	want.Fatal = &Violation{Code: ViolationTasks, Message: "too many"}
	ref, err := saveCuts(ctx, files, cutsName("j", 3), want)
	if err != nil {
		t.Fatal(err)
	}
	first, _ := files.get(ref.Name)
	again, err := saveCuts(ctx, files, cutsName("j", 3), want)
	if err != nil || again != ref {
		t.Errorf("saving the same again: %v, %v", again, err)
	}
	got, err := readCuts(ctx, files, ref)
	if err != nil {
		t.Fatal(err)
	}
	want.V = SchemaVersion
	if d := cmp.Diff(want, got, cmp.AllowUnexported(splitCuts{})); d != "" {
		t.Errorf("cuts (-saved +read):\n%s", d)
	}
	if runs := got.runs(); len(runs) != 1 || runs[0].split != 3 || runs[0].file.Name != "jobs/j/splits/3.ids-0" {
		t.Errorf("runs %+v", runs)
	}
	if _, err := saveCuts(ctx, files, "other", got); err != nil {
		t.Fatal(err)
	}
	if second, _ := files.get("other"); !bytes.Equal(first, second) {
		t.Errorf("equal cuts are written as different bytes:\n%s\n%s", first, second)
	}
}

func TestCutsOfANewerVersionAreLeftAlone(t *testing.T) {
	files := newMemFiles()
	if _, err := readCuts(context.Background(), files, files.put("new", []byte(`{"v":99,"chunks":{"other":"shape"}}`))); !errors.Is(err, ErrNewer) {
		t.Errorf("error %v, want ErrNewer", err)
	}
	if _, err := readCuts(context.Background(), files, files.put("bad", []byte(`{`))); err == nil || errors.Is(err, ErrNewer) {
		t.Errorf("error %v, want one of decoding", err)
	}
}
