package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fanout-inference/fanout/pkg/upstream/upstreamtest"
)

// patience is after how long a test that waits for something gives up.
const patience = 60 * time.Second

// process is a fanout that runs in a process of its own.
type process struct {
	*exec.Cmd
	stdout bytes.Buffer
	stderr talk
}

// start runs a program in dir. It is killed at the end of the test, should it still run.
func start(t *testing.T, dir, program string, args ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.CommandContext(t.Context(), program, args...)}
	p.Dir, p.Stdout, p.Stderr = dir, &p.stdout, &p.stderr
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

// exit waits for the end of the process and returns its exit code, -1 if a signal ended it.
func (p *process) exit(t *testing.T) int {
	t.Helper()
	late := time.AfterFunc(patience, func() { _ = p.Process.Kill() })
	defer late.Stop()
	if err := p.Wait(); err != nil {
		if _, ended := errors.AsType[*exec.ExitError](err); !ended {
			t.Fatal(err)
		}
	}
	return p.ProcessState.ExitCode()
}

// run runs a program to its end, which must be this exit code, and returns what it said on stderr.
func run(t *testing.T, want int, dir, program string, args ...string) string {
	t.Helper()
	p := start(t, dir, program, args...)
	if got := p.exit(t); got != want {
		t.Fatalf("%s %s: exit code %d, want %d; it said:\n%s", program, strings.Join(args, " "), got, want, p.stderr.String())
	}
	return p.stderr.String()
}

// talk is what a process says, as it says it.
type talk struct {
	mu     sync.Mutex
	said   bytes.Buffer
	waits  []*regexp.Regexp
	signal []chan struct{}
}

func (w *talk) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said.Write(b)
	for i, re := range w.waits {
		if w.signal[i] != nil && re.Match(w.said.Bytes()) {
			close(w.signal[i])
			w.signal[i] = nil
		}
	}
	return len(b), nil
}

func (w *talk) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.said.String()
}

// await waits until what was said matches.
func (w *talk) await(t *testing.T, pattern string) {
	t.Helper()
	re, signal := regexp.MustCompile(pattern), make(chan struct{})
	w.mu.Lock()
	w.waits, w.signal = append(w.waits, re), append(w.signal, signal)
	w.mu.Unlock()
	_, _ = w.Write(nil) // it may have been said already
	await(t, signal, fmt.Sprintf("%q on stderr", pattern), w)
}

func await(t *testing.T, signal <-chan struct{}, what string, said fmt.Stringer) {
	t.Helper()
	select {
	case <-signal:
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s; said until then:\n%s", what, said)
	}
}

// callsUntil returns an OnCall and a signal that it raises at the n-th call.
func callsUntil(n int) (func(upstreamtest.Call), <-chan struct{}) {
	signal := make(chan struct{})
	var mu sync.Mutex
	return func(upstreamtest.Call) {
		mu.Lock()
		defer mu.Unlock()
		if n--; n == 0 {
			close(signal)
		}
	}, signal
}

// request is a line of input that says text.
func request(id, text string) string {
	return fmt.Sprintf(`{"custom_id":%q,"method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[{"role":"user","content":%q}]}}`, id, text)
}

// requests are n lines of input, item-0 …, each with a text of its own in the weather given ("" = fair).
func requests(n int, weather string) []string {
	lines := make([]string, n)
	for i := range lines {
		lines[i] = request(fmt.Sprintf("item-%d", i), strings.TrimSpace(fmt.Sprintf("text %d %s", i, weather)))
	}
	return lines
}

// folder is a new directory with in.jsonl in it.
func folder(t *testing.T, lines ...string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "in.jsonl"), lines...)
	return dir
}

func write(t *testing.T, path string, lines ...string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// outcome is a line of an output or error file, as far as tests look at it.
type outcome struct {
	CustomID string `json:"custom_id"`
	Response *struct {
		Status int `json:"status_code"`
		Body   struct {
			Error struct{ Code, Message string }
		}
	}
	Error *struct{ Code, Message string }
}

func outcomes(t *testing.T, path ...string) (o []outcome) {
	t.Helper()
	for line := range strings.Lines(read(t, path...)) {
		var one outcome
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatalf("%s: %v: %s", filepath.Join(path...), err, line)
		}
		o = append(o, one)
	}
	return o
}

// ids are the custom ids of lines of an output or error file, in order.
func ids(t *testing.T, path ...string) (ids []string) {
	t.Helper()
	for _, o := range outcomes(t, path...) {
		ids = append(ids, o.CustomID)
	}
	return ids
}

// inputIDs are the custom ids of input lines, without those left out.
func inputIDs(t *testing.T, lines []string, without ...string) (ids []string) {
	t.Helper()
	for _, line := range lines {
		var one outcome
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(without, one.CustomID) {
			ids = append(ids, one.CustomID)
		}
	}
	return ids
}

// holds fails unless dir holds just these names.
func holds(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if diff := cmp.Diff(names, got); diff != "" {
		t.Errorf("%s holds (-want +got):\n%s", dir, diff)
	}
}

// says fails unless what was said holds each of the parts.
func says(t *testing.T, said string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(said, part) {
			t.Errorf("it does not say %q but:\n%s", part, said)
		}
	}
}
