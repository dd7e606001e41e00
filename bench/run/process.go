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

// upstreamProcess is the upstream: a process of its own, so that what it takes counts for nobody.
type upstreamProcess struct {
	url   string
	cmd   *exec.Cmd
	stdin io.Closer
}

func startUpstream(ctx context.Context, binary string) (*upstreamProcess, error) {
	cmd := exec.CommandContext(ctx, binary)
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
		return nil, fmt.Errorf("start the upstream: %w", err)
	}
	u := &upstreamProcess{cmd: cmd, stdin: stdin}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("read the upstream's URL: %w", errors.Join(err, u.stop()))
	}
	u.url = strings.TrimSpace(line)
	return u, nil
}

// stop closes its stdin, with which it ends.
func (u *upstreamProcess) stop() error {
	_ = u.stdin.Close()
	if err := u.cmd.Wait(); err != nil {
		return fmt.Errorf("end the upstream: %w", err)
	}
	return nil
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
