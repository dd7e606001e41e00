package cli

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

const twoLines = "{\"custom_id\":\"a\"}\n{\"custom_id\":\"b\"}\n"

func TestPlainFileIsReadInPlace(t *testing.T) {
	path := write(t, "in.jsonl", []byte(twoLines))
	in := open(t, path, nil)
	if in.Path != path || in.Spooled || in.Bytes != int64(len(twoLines)) {
		t.Errorf("opened %+v, want the file itself", in)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("closing the input touched the user's file: %v", err)
	}
}

func TestEverythingElseIsSpooledAndRemoved(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, arg string
		stdin     []byte
		fifo      []byte
	}{
		{name: "stdin", arg: "-", stdin: []byte(twoLines)},
		{name: "stdin that is gzip", arg: "-", stdin: gzipped(t, []byte(twoLines))},
		{name: "gzip, whatever its name", arg: write(t, "in.jsonl", gzipped(t, []byte(twoLines)))},
		{name: "gzip of two members", arg: write(t, "two.gz", append(gzipped(t, []byte(twoLines[:17])), gzipped(t, []byte(twoLines[17:]))...))},
		{name: "named pipe", arg: fifo, fifo: []byte(twoLines)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			written := make(chan error, 1)
			go func() {
				if tt.fifo == nil {
					written <- nil
					return
				}
				written <- os.WriteFile(tt.arg, tt.fifo, 0)
			}()
			in := open(t, tt.arg, bytes.NewReader(tt.stdin))
			if err := <-written; err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(in.Path)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != twoLines || in.Bytes != int64(len(twoLines)) || !in.Spooled {
				t.Errorf("spooled %q as %+v, want %q", got, in, twoLines)
			}
			if err := in.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(in.Path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the spooled copy is still there: %v", err)
			}
		})
	}
}

func TestInputThatCannotBeReadIsASentence(t *testing.T) {
	whole := gzipped(t, bytes.Repeat([]byte(twoLines), 100))
	flipped := bytes.Clone(whole)
	flipped[len(flipped)-6] ^= 1 // in the checksum
	dir := t.TempDir()
	small := jobs.ExpandLimits{Bytes: 20, Ratio: 1000}

	tests := []struct {
		name, arg string
		stdin     io.Reader
		lim       jobs.ExpandLimits
		want      string
	}{
		{name: "missing", arg: filepath.Join(dir, "missing.jsonl"), want: "read " + dir + "/missing.jsonl: there is no such file"},
		{name: "directory", arg: dir, want: "read " + dir + ": it is a directory, not a file"},
		{name: "name too long", arg: strings.Repeat("x", 300), want: "read " + strings.Repeat("x", 300) + ": file name too long"},
		{name: "gzip cut off", arg: "-", stdin: bytes.NewReader(whole[:len(whole)/2]), want: "expand stdin: the gzip data ends early"},
		{name: "gzip cut off in its header", arg: "-", stdin: bytes.NewReader(whole[:4]), want: "expand stdin: the gzip data ends early"},
		{name: "gzip damaged", arg: "-", stdin: bytes.NewReader(flipped), want: "expand stdin: the gzip data is damaged: gzip: invalid checksum"},
		{name: "gzip of zeros", arg: "-", stdin: bytes.NewReader(gzipped(t, make([]byte, 8<<20))), want: "expand stdin: it grows more than 1000-fold"},
		{name: "too large", arg: "-", stdin: strings.NewReader(twoLines), lim: small, want: "read stdin: it is larger than 20 bytes"},
		{name: "too large expanded", arg: "-", stdin: bytes.NewReader(gzipped(t, []byte(twoLines))), lim: small, want: "read stdin: it is larger than 20 bytes"},
		{name: "breaks off", arg: "-", stdin: io.MultiReader(strings.NewReader("{"), broken{}), want: "read stdin: the line is dead"},
		{name: "breaks off in gzip", arg: "-", stdin: io.MultiReader(bytes.NewReader(whole[:20]), broken{}), want: "read stdin: the line is dead"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			lim := tt.lim
			if lim == (jobs.ExpandLimits{}) {
				lim = defaultSpoolLimits
			}
			spool := t.TempDir()
			_, err := openInput(t.Context(), tt.arg, tt.stdin, spool, lim)
			wantInvalid(t, err, tt.want)
			if left, _ := os.ReadDir(spool); len(left) > 0 {
				t.Errorf("left %v behind", left)
			}
		})
	}
}

// Root may read everything, so the refusal is not provoked but given.
func TestUnreadableFileIsASentence(t *testing.T) {
	err := unreadable("in.jsonl", &fs.PathError{Op: "open", Path: "in.jsonl", Err: syscall.EACCES})
	wantInvalid(t, err, "read in.jsonl: permission denied")
	err = unreadable("in.jsonl", &fs.PathError{Op: "read", Path: "in.jsonl", Err: syscall.EIO})
	wantInvalid(t, err, "read in.jsonl: input/output error")
}

func TestFullDiskSaysWhereToFindRoom(t *testing.T) {
	_, err := copyInput(t.Context(), full{}, strings.NewReader(twoLines), "stdin", defaultSpoolLimits)
	var e *jobs.Error
	if !errors.As(err, &e) || e.Code != jobs.CodeInternal || !errors.Is(err, syscall.ENOSPC) || !strings.Contains(e.Hint, "TMPDIR") {
		t.Errorf("got %v, want the full disk as an internal error that hints at TMPDIR", err)
	}
}

func TestWaitingForStdinEndsWithTheContext(t *testing.T) {
	stdin, keepOpen := io.Pipe()
	defer keepOpen.Close()
	ctx, cancel := context.WithCancel(t.Context())
	reads := make(chan struct{}, 8)
	dir := t.TempDir()
	go func() {
		<-reads
		cancel()
	}()
	_, err := openInput(ctx, "-", signalling{stdin, reads}, dir, defaultSpoolLimits)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want it to be cancelled", err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left %v behind", left)
	}
}

// signalling raises reads when it is read.
type signalling struct {
	r     io.Reader
	reads chan<- struct{}
}

func (s signalling) Read(p []byte) (int, error) {
	s.reads <- struct{}{}
	return s.r.Read(p)
}

// broken is a reader that fails.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("the line is dead") }

// full is a disk without room.
type full struct{}

func (full) Write([]byte) (int, error) {
	return 0, &fs.PathError{Op: "write", Path: "spool", Err: syscall.ENOSPC}
}

func open(t *testing.T, arg string, stdin io.Reader) *input {
	t.Helper()
	in, err := openInput(t.Context(), arg, stdin, t.TempDir(), defaultSpoolLimits)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func wantInvalid(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil {
		t.Fatalf("got no error, want %q", want)
	}
	if got := fmt.Sprint(err); got != want || jobs.CodeOf(err) != jobs.CodeInvalid {
		t.Errorf("got %s error %q\nwant invalid %q", jobs.CodeOf(err), got, want)
	}
}

func write(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
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
