package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fanout-inference/fanout/pkg/upstream/upstreamtest"
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

func TestAReadOnlyOutputIsRefusedBeforeAnythingIsPaidFor(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, "size=1m")
	if err := syscall.Mount("", disk, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Skipf("skipped: a disk cannot be made read-only here (%v)", err)
	}
	upstream := new(upstreamtest.Server)
	dir := folder(t, requests(3, "")...)
	common := []string{"run", "in.jsonl", "--upstream", upstream.Start(t)}
	tests := map[string]struct {
		args []string
		says string
	}{
		"output": {[]string{"-o", filepath.Join(disk, "out.jsonl"), "--data", "data"}, "fanout: write --output " + disk + "/out.jsonl: read-only file system"},
		"errors": {[]string{"-o", "out.jsonl", "--errors", filepath.Join(disk, "e.jsonl")}, "fanout: write --errors " + disk + "/e.jsonl: read-only file system"},
		"all":    {[]string{"-o", filepath.Join(disk, "out.jsonl")}, "fanout: write --output " + disk + "/out.jsonl: read-only file system"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			said := run(t, 1, dir, "fanout", append(common, tt.args...)...)
			says(t, said, tt.says, "Try: choose a place that can be written with -o and --data")
			holds(t, dir, "in.jsonl")
		})
	}
	if n := upstream.Calls(); n > 0 {
		t.Errorf("%d calls were made for nothing", n)
	}

	said := run(t, 2, dir, "fanout", append(common, "-o", "out.jsonl", "--data", filepath.Join(disk, "data"))...)
	says(t, said, "fanout: open data directory "+disk+"/data: ", "read-only file system", "Try: name a directory that you may write to")
}

func TestAFullDiskIsSaidAndTheRunGoesOnOnceThereIsRoom(t *testing.T) {
	t.Parallel()
	upstream := new(upstreamtest.Server)
	noise := rand.NewChaCha8([32]byte{1})
	var lines []string
	for i := range 400 {
		random := make([]byte, 2<<10) // hardly to be compressed
		_, _ = noise.Read(random)     // never fails
		lines = append(lines, request(fmt.Sprintf("item-%d", i), hex.EncodeToString(random)))
	}
	dir := folder(t, lines...)
	disk := smallDisk(t, "size=6m")
	ballast := filepath.Join(disk, "ballast")
	if err := os.WriteFile(ballast, bytes.Repeat([]byte("x"), 5<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"run", "in.jsonl", "-o", filepath.Join(disk, "out.jsonl"), "--upstream", upstream.Start(t), "--chunk-items", "20", "--concurrency", "20"}
	said := run(t, 1, dir, "fanout", args...)
	says(t, said, "fanout: stopped: ", "Try: free some disk space, then the same command again", "what was answered is kept in "+disk+"/out.jsonl.fanout")
	if _, err := os.Stat(filepath.Join(disk, "out.jsonl")); !os.IsNotExist(err) {
		t.Errorf("there is an output already: %v", err)
	}
	if n := upstream.Calls(); n == 0 || n == len(lines) {
		t.Errorf("%d of %d items were called before the disk was full: this proves nothing", n, len(lines))
	}

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	said = run(t, 0, dir, "fanout", args...)
	says(t, said, "going on: ", "400 of 400 items answered")
	if diff := cmp.Diff(inputIDs(t, lines), ids(t, disk, "out.jsonl")); diff != "" {
		t.Errorf("output (-want +got):\n%s", diff)
	}
	holds(t, disk, "out.jsonl")
}
