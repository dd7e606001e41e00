package functions

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// built is the path of the binary as a user builds it.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "fanout-built-*") // it outlives the test that asks first
	if err != nil {
		return "", err
	}
	builtIn = dir
	path := filepath.Join(dir, "fanout")
	if out, err := exec.Command("go", "build", "-o", path, "../cmd/fanout").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build fanout: %w\n%s", err, out)
	}
	return path, nil
})

var builtIn string // the folder that TestMain removes

func TestMain(m *testing.M) {
	// Most tests here wait for what comes by the clock, not for a core.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	code := m.Run()
	if code == 0 {
		if err := leastPrivilege(flag.Lookup("test.run").Value.String() == ""); err != nil {
			fmt.Println(err)
			code = 1
		}
	}
	if err := os.RemoveAll(builtIn); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// process is a `fanout worker`.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}

	mu   sync.Mutex
	said bytes.Buffer  // on stderr
	more chan struct{} // closed, and replaced, when it says more
}

// run starts a worker, which is killed at the end of the test, should it still run.
func (s *stage) run(t *testing.T, args ...string) *process {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{
		cmd:   exec.Command(path, append([]string{"worker"}, args...)...),
		ended: make(chan struct{}), more: make(chan struct{}),
	}
	p.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "AWS_REGION=us-east-1", fmt.Sprint("FANOUT_CONCURRENCY=", stayWidth)}
	for name, value := range s.env {
		if service, ok := strings.CutPrefix(name, "AWS_ENDPOINT_URL_"); ok {
			value = s.via(workerElsewhere, strings.ToLower(service), value)
		}
		p.cmd.Env = append(p.cmd.Env, name+"="+value)
	}
	p.cmd.Stderr = p
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the process
		defer close(p.ended)
		_ = p.cmd.Wait() // its state says how
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may be gone
		<-p.ended
	})
	return p
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.said.Write(b)
	close(p.more)
	p.more = make(chan struct{})
	return len(b), nil
}

// String is what it said so far on stderr.
func (p *process) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.String()
}

func (p *process) await(t *testing.T, words string) {
	t.Helper()
	for {
		p.mu.Lock()
		said, more := strings.Contains(p.said.String(), words), p.more
		p.mu.Unlock()
		if said {
			return
		}
		select {
		case <-more:
		case <-p.ended:
			t.Fatalf("it has ended and did not say %s:\n%s", words, p)
		}
	}
}

func (p *process) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
}

// exit waits for the end and returns the exit code, -1 if a signal ended it.
func (p *process) exit(t *testing.T) int {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(time.Minute):
		t.Fatalf("it does not end; it said:\n%s", p)
	}
	return p.cmd.ProcessState.ExitCode()
}
