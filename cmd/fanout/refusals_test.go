package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestRefusals holds testdata/refusals.golden against the real binary: what it says, and how it ends, when it is called
// wrongly or given input that it cannot take. The file is a transcript:
//
//	$ fanout COMMAND... [< FILE]
//	a line of stdout
//	! a line of stderr
//	= exit code
//
// A case is added by writing its "$" line and running the test with -update; read what it wrote before you commit it.
// Inputs are the files in testdata/refusals, and the binary ones of binaryInputs.
func TestRefusals(t *testing.T) {
	const golden = "testdata/refusals.golden"
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
	if *update {
		if err := os.WriteFile(golden, []byte(strings.TrimSpace(now.String())+"\n"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// transcribe runs a command line in dir and writes down what came of it.
func transcribe(t *testing.T, dir, line string) string {
	t.Helper()
	command, stdin, _ := strings.Cut(line, "< ")
	args := strings.Fields(command)
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Dir = dir
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
	return b.String()
}

// binaryInputs are the inputs that an editor or a diff would spoil.
func binaryInputs(t *testing.T) map[string][]byte {
	t.Helper()
	good := []byte(`{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"builtin/echo"}}` + "\n")
	whole := gzipped(t, good)
	damaged := bytes.Clone(whole)
	damaged[len(damaged)-6] ^= 1 // in the checksum
	return map[string][]byte{
		"cut-off.gz":    whole[:len(whole)/2],
		"damaged.gz":    damaged,
		"zeros.gz":      gzipped(t, make([]byte, 8<<20)),
		"latin1.jsonl":  bytes.Replace(good, []byte(`"a"`), []byte("\"caf\xe9\""), 1),
		"nul.jsonl":     bytes.Replace(good, []byte(`"a"`), []byte("\"a\x00\""), 1),
		"utf16.jsonl":   append([]byte{0xff, 0xfe}, bytes.Join(bytes.Split(good, nil), []byte{0})...),
		"picture.jsonl": append([]byte("\x89PNG\r\n\x1a\n"), make([]byte, 32)...),
		"empty.jsonl":   {},
		"blank.jsonl":   []byte("\r\n\n  \n"),
		"bom.jsonl":     []byte("\xef\xbb\xbf"),
		"toolong.jsonl": append(append(good, bytes.Repeat([]byte("x"), 20<<20+1)...), '\n'),
		"bad.jsonl.gz":  gzipped(t, bytes.Repeat(good, 2)),
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
