package main

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// serving is the fanout serve of a script.
type serving struct {
	cmd *exec.Cmd
	out io.ReadCloser
}

type servingKey struct{}

// serve ARGS... starts fanout serve on a free port, and waits until it says where. FANOUT_API then names it, and FANOUT_KEY is
// the key if it made one.
func serve(ts *testscript.TestScript, neg bool, args []string) {
	s := ts.Value(servingKey{}).(*serving)
	if neg || s.cmd != nil {
		ts.Fatalf("usage: serve ARGS..., one at a time")
	}
	self, err := os.Executable()
	ts.Check(err)
	s.cmd = exec.Command(self, append([]string{"serve", "--addr", "127.0.0.1:0"}, args...)...)
	s.cmd.Args[0] = "fanout" // what makes the test binary be it
	s.cmd.Dir, s.cmd.Stderr = ts.MkAbs("."), os.Stderr
	s.cmd.Env = append(os.Environ(), "TMPDIR="+ts.Getenv("TMPDIR"), "UPSTREAM_KEY="+ts.Getenv("UPSTREAM_KEY"))
	s.out, err = s.cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(s.cmd.Start())
	for said := bufio.NewScanner(s.out); said.Scan(); {
		name, value, _ := strings.Cut(said.Text(), ":")
		switch value = strings.TrimSpace(value); {
		case name == "base URL":
			ts.Setenv("FANOUT_API", value)
		case name == "key" && strings.HasPrefix(value, "fanout_"):
			ts.Setenv("FANOUT_KEY", value)
		case strings.Contains(said.Text(), "curl "): // the last line
			return
		}
	}
	ts.Fatalf("fanout serve ended before it said where it is: %v", s.cmd.Wait())
}

// stop ends fanout serve in an orderly way; "stop -9" kills it.
func stop(ts *testscript.TestScript, neg bool, args []string) {
	s := ts.Value(servingKey{}).(*serving)
	if neg || s.cmd == nil || len(args) > 1 || len(args) == 1 && args[0] != "-9" {
		ts.Fatalf("usage: stop [-9]")
	}
	err := s.stop(len(args) == 1)
	if len(args) == 0 {
		ts.Check(err)
	}
}

// appears FILE waits until there is such a file.
func appears(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: appears FILE")
	}
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for end := time.Now().Add(patience); time.Now().Before(end); <-look.C {
		if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
			return
		}
	}
	ts.Fatalf("waited in vain for %s", args[0])
}

// until PATTERN ARGS... runs fanout with ARGS again and again until it succeeds and what it prints matches.
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until PATTERN ARGS...")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for end := time.Now().Add(patience); time.Now().Before(end); <-look.C {
		if ts.Exec("fanout", args[1:]...) == nil && pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
	}
	ts.Fatalf("waited in vain for %q of fanout %s", args[0], strings.Join(args[1:], " "))
}

func (s *serving) stop(kill bool) error {
	how := os.Signal(syscall.SIGTERM)
	if kill {
		how = syscall.SIGKILL
	}
	_ = s.cmd.Process.Signal(how) // it may have ended
	_, _ = io.Copy(io.Discard, s.out)
	err := s.cmd.Wait()
	s.cmd = nil
	return err
}
