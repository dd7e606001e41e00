package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// peakMemory runs a command and prints the most memory that it ever had, in KiB. It is a process of its own, since Linux
// counts for a new process what the one that started it had.
func peakMemory() {
	cmd := exec.Command(os.Args[1], os.Args[2:]...) //nolint:gosec // the test says what
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(70)
	}
	fmt.Println(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)
}

// TestCheckingHoldsItsMemory checks an input of many ids with the binary as users build it. FANOUT_CHECK_ITEMS is how many:
// 300,000 unless set; 10,000,000 make 900 MB of input.
func TestCheckingHoldsItsMemory(t *testing.T) {
	t.Parallel()
	program := binary(t)
	items := number(t, "FANOUT_CHECK_ITEMS", 300_000)
	dir := t.TempDir()
	writeMany(t, filepath.Join(dir, "in.jsonl"), items)
	p := start(t, dir, "peak-memory", program, "check", "in.jsonl")
	if code := p.exit(t); code != 0 {
		t.Fatalf("exit code %d: %s", code, p.stderr.String())
	}
	var peak int64
	if _, err := fmt.Sscan(p.stdout.String(), &peak); err != nil {
		t.Fatal(err)
	}
	const most = 192 << 10 // KiB: 128 MiB of our own, and what the runtime and SQLite keep
	t.Logf("%d MiB at most for %d ids", peak>>10, items)
	if peak > most {
		t.Errorf("%d MiB at most, want at most %d", peak>>10, most>>10)
	}
}
