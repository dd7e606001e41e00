package lambdatest

import (
	"context"
	crand "crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	region  = "us-east-1"
	account = "000000000000"
)

// maxPayload is the most that Lambda hands over in one invocation.
const maxPayload = 6 << 20

// Config is what a function is deployed with.
type Config struct {
	Name      string
	Bootstrap string            // the path of its binary
	Args      []string          // Lambda gives none
	Env       map[string]string // beside the variables that Lambda sets; no other is handed on
	// EnvOf are variables of the nth environment alone, from 1, so that a test can tell which of them called it.
	EnvOf   func(nth int) map[string]string
	Timeout time.Duration // of an invocation; 0 = 3 s
	// Environments is how many processes run at once at most; 0 = 10. An invocation for which there is none waits.
	Environments int
	// Width is how many invocations a process takes at once, as AWS_LAMBDA_MAX_CONCURRENCY tells it; 0 = 1. Wider ones are
	// not frozen. Each invocation that times out takes all others of its process with it.
	Width int
}

// Function is a deployed function. Safe for concurrent use.
type Function struct {
	Config
	ARN string

	group *group
	log   *os.File // of all environments; each line that was written before an answer is there before the answer

	mu           sync.Mutex
	closed       bool
	started      int // environments so far
	environments map[*environment]bool
	idle         []*poll       // the last is taken first
	changed      chan struct{} // closed, and replaced, when an environment becomes idle or is gone
}

// Result is what became of an invocation.
type Result struct {
	RequestID string
	Payload   []byte         // what the handler returned
	Err       *FunctionError // nil = it returned
	Init      time.Duration  // from process start to the first request for work; 0 if the process was there
	Took      time.Duration  // without Init
}

// FunctionError is an invocation that ended without an answer: an error that the runtime told, a process that has ended, or
// the deadline. The types are Lambda's.
type FunctionError struct {
	Type    string `json:"errorType"`
	Message string `json:"errorMessage"`
}

func (e *FunctionError) Error() string { return e.Type + ": " + e.Message }

// Types of errors that the runtime does not tell itself.
const (
	ErrorTimedOut = "Sandbox.Timedout"
	ErrorExit     = "Runtime.ExitError"
	ErrorState    = "Runtime.InvalidState" // asks for work before it has answered
)

var errClosed = errors.New("the test of the function has ended")

// Deploy makes a function. Nothing runs before the first invocation; all ends with the test. If that failed, the end of the
// function's log is told.
func Deploy(t testing.TB, c Config) *Function {
	t.Helper()
	if c.Timeout == 0 {
		c.Timeout = 3 * time.Second
	}
	if c.Environments == 0 {
		c.Environments = 10
	}
	if c.Width == 0 {
		c.Width = 1
	}
	f := &Function{
		Config: c, ARN: fmt.Sprintf("arn:aws:lambda:%s:%s:function:%s", region, account, c.Name),
		environments: map[*environment]bool{}, changed: make(chan struct{}),
	}
	var err error
	if f.log, err = os.CreateTemp(t.TempDir(), "log"); err == nil {
		f.group, err = newGroup()
	}
	if err != nil {
		t.Fatalf("deploy function %s: %v", c.Name, err)
	}
	t.Cleanup(func() {
		if err := f.close(); err != nil {
			t.Errorf("end function %s: %v", c.Name, err)
		}
		if lines := f.Log(t); t.Failed() && len(lines) > 0 {
			last := lines[max(0, len(lines)-40):]
			t.Logf("the log of function %s ends with:\n%s", c.Name, strings.Join(last, "\n"))
		}
	})
	return f
}

// Log is what the function has written so far, to stdout and stderr, by line.
func (f *Function) Log(t testing.TB) []string {
	t.Helper()
	b, err := os.ReadFile(f.log.Name())
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(b), "\n")
	return lines[:len(lines)-1]
}

// Started is how many environments were started so far.
func (f *Function) Started() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.started
}

// Kill kills the nth environments, or all if none is named, in the middle of whatever they do, and returns when they are gone.
func (f *Function) Kill(nth ...int) {
	f.mu.Lock()
	var all []*environment
	for e := range f.environments {
		if len(nth) == 0 || slices.Contains(nth, e.nth) {
			all = append(all, e)
		}
	}
	f.mu.Unlock()
	for _, e := range all {
		e.kill()
	}
}

// close kills what runs. What was invoked and not answered is answered with an error.
func (f *Function) close() error {
	f.mu.Lock()
	f.closed = true
	f.stir()
	f.mu.Unlock()
	f.Kill()
	return errors.Join(f.group.end(), f.log.Close())
}

// Invoke hands the function one payload and returns when it has answered. An error, other than in Result, means that it did
// not get it, because ctx ended first. Once it has it, ctx changes nothing: there is its deadline.
func (f *Function) Invoke(ctx context.Context, payload []byte) (Result, error) {
	return f.invoke(ctx, payload, nil)
}

// InvokeStream is Invoke of a function that streams its answer, which is written to out as it comes.
func (f *Function) InvokeStream(ctx context.Context, payload []byte, out io.Writer) (Result, error) {
	return f.invoke(ctx, payload, out)
}

func (f *Function) invoke(ctx context.Context, payload []byte, stream io.Writer) (Result, error) {
	if len(payload) > maxPayload {
		return Result{}, fmt.Errorf("invoke function %s: a payload of %d bytes is more than %d", f.Name, len(payload), maxPayload)
	}
	for {
		p, init, err := f.take(ctx)
		var failed *FunctionError
		if errors.As(err, &failed) {
			return Result{Err: failed, Init: init}, nil
		}
		if err != nil {
			return Result{}, fmt.Errorf("invoke function %s: %w", f.Name, err)
		}
		i := &invocation{id: newID(8, 4, 4, 4, 12), payload: payload, stream: stream, result: make(chan Result, 1)}
		begun := time.Now()
		select {
		case p.work <- i:
		case <-p.gone: // its process has ended meanwhile
			continue
		}
		r := <-i.result
		r.RequestID, r.Init, r.Took = i.id, init, time.Since(begun)
		return r, nil
	}
}

// invocation is answered once: by who claims it.
type invocation struct {
	id       string
	payload  []byte
	stream   io.Writer // takes an answer that is streamed; nil = none is
	deadline time.Time
	expiry   *time.Timer
	claimed  atomic.Bool
	result   chan Result // takes one
}

func (i *invocation) claim() bool { return i.claimed.CompareAndSwap(false, true) }

// answer tells whether this was the first answer.
func (i *invocation) answer(r Result) bool {
	first := i.claim()
	if first {
		i.result <- r
	}
	return first
}

// take returns an environment's request for work: of one that is idle, else of a new one, else of the next that becomes idle.
func (f *Function) take(ctx context.Context) (*poll, time.Duration, error) {
	for {
		f.mu.Lock()
		if f.closed {
			f.mu.Unlock()
			return nil, 0, errClosed
		}
		if n := len(f.idle); n > 0 {
			p := f.idle[n-1]
			f.idle = f.idle[:n-1]
			f.mu.Unlock()
			return p, 0, nil
		}
		if len(f.environments) < f.Environments {
			e, err := f.start()
			f.mu.Unlock()
			if err != nil {
				return nil, 0, err
			}
			return e.untilReady()
		}
		changed := f.changed
		f.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, 0, fmt.Errorf("no environment was free: %w", context.Cause(ctx))
		}
	}
}

// stir wakes who waits for an environment. f.mu is held.
func (f *Function) stir() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// offer makes an environment's request for work available.
func (f *Function) offer(p *poll) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.of.asked.CompareAndSwap(false, true) { // who started it waits for it
		p.of.first <- p
		return
	}
	if f.Width == 1 {
		freeze(p.of.cmd.Process)
	}
	f.idle = append(f.idle, p)
	f.stir()
}

// withdraw takes it back, if nobody took it.
func (f *Function) withdraw(p *poll) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.idle = slices.DeleteFunc(f.idle, func(other *poll) bool { return other == p })
}

// forget drops an environment that has ended.
func (f *Function) forget(e *environment) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.environments, e)
	f.idle = slices.DeleteFunc(f.idle, func(p *poll) bool { return p.of == e })
	f.stir()
}

// newID is random hexadecimal, in groups of so many digits.
func newID(digits ...int) string {
	groups := make([]string, len(digits))
	for i, n := range digits {
		b := make([]byte, n/2)
		_, _ = crand.Read(b) // never fails
		groups[i] = hex.EncodeToString(b)
	}
	return strings.Join(groups, "-")
}
