package bench

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fanout-inference/fanout/internal/cli"
)

// items is how many a run of BenchmarkRun has.
const items = 20_000

// BenchmarkRun is `fanout run` in this process, for profiles of what it costs; scripts/bench measures the real binary.
//
//	go test ./bench -run '^$' -bench Run -benchtime 5x -cpuprofile cpu.prof -memprofile heap.prof
func BenchmarkRun(b *testing.B) {
	url := startUpstream(b)
	dir := b.TempDir()
	input := filepath.Join(dir, "input.jsonl")
	if err := WriteInput(input, items); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		var talk bytes.Buffer
		code := cli.Main(b.Context(), []string{"run", input, "-o", filepath.Join(dir, "output.jsonl"), "--upstream", url},
			strings.NewReader(""), io.Discard, &talk)
		if code != 0 {
			b.Fatalf("exit code %d: %s", code, talk.String())
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*items), "µs/item")
}

// startUpstream builds and starts the upstream as a process of its own, so that it is not in the profile.
func startUpstream(b *testing.B) (url string) {
	b.Helper()
	binary := filepath.Join(b.TempDir(), "upstream")
	if out, err := exec.CommandContext(b.Context(), "go", "build", "-o", binary, "./upstream").CombinedOutput(); err != nil {
		b.Fatalf("build the upstream: %v\n%s", err, out)
	}
	cmd := exec.Command(binary)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = stdin.Close() // it ends with its stdin
		if err := cmd.Wait(); err != nil {
			b.Errorf("end the upstream: %v", err)
		}
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		b.Fatalf("read the upstream's URL: %v", err)
	}
	return strings.TrimSpace(line)
}
