package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestRefusals holds testdata/refusals*.golden against the real binary: what it says, and how it ends, when it is called
// wrongly or given input that it cannot take. Each file is a transcript:
//
//	$ fanout COMMAND... [< FILE]
//	a line of stdout
//	! a line of stderr
//	= exit code
//
// A case is added by writing its "$" line and running the test with -update; read what it wrote before you commit it.
// Inputs are the files in testdata/refusals, and the binary ones of binaryInputs. Times are written as "…".
func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, golden := range []string{"testdata/refusals.golden", "testdata/refusals-run.golden"} {
		t.Run(golden, func(t *testing.T) { holdTranscript(t, golden) })
	}
}

func holdTranscript(t *testing.T, golden string) {
	t.Helper()
	transcript, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/refusals")); err != nil {
		t.Fatal(err)
	}
	for name, content := range binaryInputs(t) {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("good.jsonl", filepath.Join(dir, "link.jsonl")); err != nil {
		t.Fatal(err)
	}

	var now strings.Builder
	for block := range strings.SplitSeq(strings.TrimSpace(string(transcript)), "\n\n") {
		command, isCommand := strings.CutPrefix(strings.SplitN(block, "\n", 2)[0], "$ ")
		if !isCommand {
			fmt.Fprintf(&now, "%s\n\n", block) // a comment
			continue
		}
		got := transcribe(t, dir, command)
		fmt.Fprintf(&now, "%s\n", got)
		if diff := cmp.Diff(block, strings.TrimSpace(got)); diff != "" && !*update {
			t.Errorf("%s (-want +got):\n%s", command, diff)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, "*.fanout*"))
	if err != nil || len(left) > 0 {
		t.Errorf("what was refused, or ended, left %v (error: %v)", left, err)
	}
	if *update {
		if err := os.WriteFile(golden, []byte(strings.TrimSpace(now.String())+"\n"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

var elapsed = regexp.MustCompile(`answered in [\d.]+ ?m?s:`)

// transcribe runs a command line in dir and writes down what came of it.
func transcribe(t *testing.T, dir, line string) string {
	t.Helper()
	command, stdin, _ := strings.Cut(line, "< ")
	args := strings.Fields(command)
	if args[0] == "fanout" {
		args[0] = binary(t) // a hundred starts of the one with -race would take half a minute
	}
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "EMPTY=") // a variable that is there, and no key
	if stdin != "" {
		f, err := os.Open(filepath.Join(dir, stdin))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.Stdin = f
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if _, ended := errors.AsType[*exec.ExitError](err); !ended {
			t.Fatal(err)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "$ %s\n%s", line, stdout.String())
	for said := range strings.Lines(stderr.String()) {
		fmt.Fprintf(&b, "! %s", said)
	}
	fmt.Fprintf(&b, "= %d\n", cmd.ProcessState.ExitCode())
	return elapsed.ReplaceAllString(b.String(), "answered in …:")
}

// binaryInputs are the inputs that an editor or a diff would spoil.
func binaryInputs(t *testing.T) map[string][]byte {
	t.Helper()
	good := []byte(`{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"builtin/echo"}}` + "\n")
	whole := gzipped(t, good)
	damaged := bytes.Clone(whole)
	damaged[len(damaged)-6] ^= 1 // in the checksum
	fair := request("b", "Call me Ishmael.")
	fair = strings.ReplaceAll(fair, `"m"`, `"builtin/sentiment"`) + "\n"
	second := strings.Replace(fair, `"b"`, `"c"`, 1)
	crlf := "\xef\xbb\xbf" + strings.ReplaceAll(fair+" \n"+second, "\n", "\r\n")
	return map[string][]byte{
		"fair-crlf.jsonl":   []byte(crlf),
		"fair-cut.jsonl":    []byte(fair + second[:60]),
		"fair-twice.jsonl":  []byte(fair + second + fair),
		"fair-latin1.jsonl": []byte(fair + strings.Replace(second, "Ishmael", "Isma\xebl", 1)),
		"fair-nul.jsonl":    []byte(strings.Replace(second, "Ishmael", "Ish\x00mael", 1) + fair),
		"fair-long.jsonl":   []byte(fair + strings.Replace(second, "Ishmael", strings.Repeat("Ishmael ", 25<<17), 1)),
		"cut-off.gz":        whole[:len(whole)/2],
		"damaged.gz":        damaged,
		"zeros.gz":          gzipped(t, make([]byte, 8<<20)),
		"latin1.jsonl":      bytes.Replace(good, []byte(`"a"`), []byte("\"caf\xe9\""), 1),
		"nul.jsonl":         bytes.Replace(good, []byte(`"a"`), []byte("\"a\x00\""), 1),
		"utf16.jsonl":       append([]byte{0xff, 0xfe}, bytes.Join(bytes.Split(good, nil), []byte{0})...),
		"picture.jsonl":     append([]byte("\x89PNG\r\n\x1a\n"), make([]byte, 32)...),
		"empty.jsonl":       {},
		"blank.jsonl":       []byte("\r\n\n  \n"),
		"bom.jsonl":         []byte("\xef\xbb\xbf"),
		"toolong.jsonl":     append(append(good, bytes.Repeat([]byte("x"), 20<<20+1)...), '\n'),
		"bad.jsonl.gz":      gzipped(t, bytes.Repeat(good, 2)),
	}
}

func gzipped(t *testing.T, plain []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
