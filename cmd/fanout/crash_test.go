package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fanout-inference/fanout/pkg/upstream/upstreamtest"
)

// crashing is fanout with its upstream in the same process, so that the item that asks for [[exit]] ends both, each time it
// is called. The upstream's listener is inherited: its address outlives the process.
func crashing() {
	l, err := net.FileListener(os.NewFile(3, "upstream"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(70)
	}
	go func() { _ = http.Serve(l, new(upstreamtest.Server)) }() //nolint:gosec // ends with the process
	main()
}

// exitCrashed is what [[exit]] ends the process with.
const exitCrashed = 1

func TestAnItemThatFellsItsProcessFailsAloneAndTheRestIsAnswered(t *testing.T) {
	t.Parallel()
	const mostRuns = 8
	tests := []struct{ items, poison int }{{10, 0}, {10, 5}, {10, 9}, {250, 123}}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("item %d of %d", tt.poison, tt.items), func(t *testing.T) {
			t.Parallel()
			lines := requests(tt.items, "")
			lines[tt.poison] = request("poison", "[[exit]]")
			dir := folder(t, lines...)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			inherited, err := l.(*net.TCPListener).File()
			if err != nil {
				t.Fatal(err)
			}
			defer inherited.Close()

			runs, code, said := 0, exitCrashed, ""
			for ; code == exitCrashed && runs < mostRuns; runs++ {
				p := &process{Cmd: exec.CommandContext(t.Context(), "fanout-crashing", "run", "in.jsonl", "-o", "out.jsonl",
					"--upstream", "http://"+l.Addr().String(), "--chunk-items", "50", "--split-bytes", "1000000")}
				p.Dir, p.Stderr, p.ExtraFiles = dir, &p.stderr, []*os.File{inherited}
				if err := p.Start(); err != nil {
					t.Fatal(err)
				}
				code, said = p.exit(t), p.stderr.String()
				if strings.Contains(said, "fanout: ") {
					t.Fatalf("run %d ended by itself: %s", runs+1, said)
				}
			}
			if code != 3 {
				t.Fatalf("exit code %d after %d runs, want 3: %s", code, runs, said)
			}
			t.Logf("it took %d runs", runs)
			if diff := cmp.Diff(inputIDs(t, lines, "poison"), ids(t, dir, "out.jsonl")); diff != "" {
				t.Errorf("output (-want +got):\n%s", diff)
			}
			failed := outcomes(t, dir, "out.errors.jsonl")
			if len(failed) != 1 || failed[0].CustomID != "poison" || failed[0].Error == nil || failed[0].Error.Code != "worker_crash" {
				t.Errorf("errors: %+v, want worker_crash of poison alone", failed)
			}
			holds(t, dir, "in.jsonl", "out.errors.jsonl", "out.jsonl")
		})
	}
}
