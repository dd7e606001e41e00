package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// usage is what a process took, as the kernel counted it.
type usage struct {
	Wall time.Duration
	CPU  time.Duration // of user and system
	RSS  int64         // the most memory that it had resident, in bytes
}

func (u usage) String() string {
	return fmt.Sprintf("%.2f s, %.2f s CPU, %d MiB", u.Wall.Seconds(), u.CPU.Seconds(), u.RSS>>20)
}

// measure runs a command to its end.
//
// On Linux a process inherits the peak of whoever started it until it executes its own program. So nothing here may take
// much memory itself: inputs are written and outputs are compared line by line.
func measure(ctx context.Context, name string, args ...string) (usage, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var talk bytes.Buffer
	cmd.Stderr = &talk
	started := time.Now()
	err := cmd.Run()
	wall := time.Since(started)
	if err != nil {
		return usage{}, fmt.Errorf("run %s: %w\n%s", filepath.Base(name), errors.Join(err, ctx.Err()), talk.Bytes())
	}
	u := usage{Wall: wall, CPU: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
	r, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return usage{}, fmt.Errorf("run %s: this system does not tell its memory", filepath.Base(name))
	}
	u.RSS = r.Maxrss
	if runtime.GOOS != "darwin" {
		u.RSS <<= 10 // others count in KiB
	}
	return u, nil
}

// build builds a command of this module into dir.
func build(ctx context.Context, dir, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", dir+string(filepath.Separator), pkg)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// server is a process that prints its base URL as its first line and ends when its stdin does. It is one of its own so that
// what it takes counts for nobody.
type server struct {
	url   string
	cmd   *exec.Cmd
	stdin io.Closer
}

func startServer(ctx context.Context, binary string, args ...string) (*server, error) {
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(binary), err)
	}
	s := &server{cmd: cmd, stdin: stdin}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("read the URL of %s: %w", filepath.Base(binary), errors.Join(err, s.stop()))
	}
	s.url = strings.TrimSpace(strings.TrimPrefix(line, "base URL: ")) // as fanout serve says it
	return s, nil
}

// stop closes its stdin, with which it ends.
func (s *server) stop() error {
	_ = s.stdin.Close()
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("end %s: %w", filepath.Base(s.cmd.Path), err)
	}
	return nil
}

// kill ends it at once, with whatever it is at.
func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait() // which says that it was killed
}

// sameLines makes sure that both did the same work: their outputs are equal but for the ids of the lines.
func sameLines(a, b string) (err error) {
	x, err := os.Open(a)
	if err != nil {
		return err
	}
	defer x.Close()
	y, err := os.Open(b)
	if err != nil {
		return err
	}
	defer y.Close()
	left, right := bufio.NewScanner(x), bufio.NewScanner(y)
	n := 0
	for left.Scan() {
		n++
		if !right.Scan() || !bytes.Equal(withoutID(left.Bytes()), withoutID(right.Bytes())) {
			return fmt.Errorf("compare %s and %s: line %d differs", filepath.Base(a), filepath.Base(b), n)
		}
	}
	if right.Scan() {
		return fmt.Errorf("compare %s and %s: the second is longer than %d lines", filepath.Base(a), filepath.Base(b), n)
	}
	return errors.Join(left.Err(), right.Err())
}

// withoutID is what follows the first member of a line.
func withoutID(line []byte) []byte {
	_, rest, _ := bytes.Cut(line, []byte(`,`))
	return rest
}
