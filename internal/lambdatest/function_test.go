package lambdatest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMain is the process that is killed in TestNothingOutlivesTheTestProcess where it is asked to be.
func TestMain(m *testing.M) {
	if bootstrap := os.Getenv("LAMBDATEST_HOLD"); bootstrap != "" {
		hold(bootstrap)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// deploy makes a function of testdata/bootstrap.
func deploy(t *testing.T, c Config) *Function {
	t.Helper()
	c.Name, c.Bootstrap = "told", Build(t, "testdata/bootstrap")
	return Deploy(t, c)
}

// tell is an invocation with one message.
func tell(t *testing.T, f *Function, body string) Result {
	t.Helper()
	payload, err := json.Marshal(event{Records: []record{{MessageID: "m", Body: body}}})
	if err != nil {
		t.Error(err)
	}
	r, err := f.Invoke(t.Context(), payload)
	if err != nil {
		t.Error(err)
	}
	return r
}

func TestAnInvocationEndsOneWay(t *testing.T) {
	rows := []struct {
		body    string
		timeout time.Duration
		payload string
		err     FunctionError // Message: a part of it
		again   bool          // the process lives on
	}{
		{body: `respond {"some":"thing"}`, payload: `{"some":"thing"}`, again: true},
		{body: "fail", err: FunctionError{"errorString", "as told"}, again: true},
		{body: "panic", err: FunctionError{"string", "as told"}},
		{body: "exit", err: FunctionError{ErrorExit, "exit status 3"}},
		{body: "hang", timeout: time.Second, err: FunctionError{ErrorTimedOut, "Task timed out after 1.00 seconds"}},
	}
	for _, row := range rows {
		t.Run(row.body, func(t *testing.T) {
			f := deploy(t, Config{Timeout: row.timeout, Environments: 1})
			r := tell(t, f, row.body)
			if string(r.Payload) != row.payload || r.Init <= 0 || r.RequestID == "" {
				t.Errorf("got %+v, want %q", r, row.payload)
			}
			if got := r.Err; (got != nil) != (row.err.Type != "") || got != nil && (got.Type != row.err.Type || !strings.Contains(got.Message, row.err.Message)) {
				t.Errorf("got %v, want %v", got, &row.err)
			}
			if !slices.Contains(f.Log(t), "told to "+row.body) {
				t.Errorf("the log is %q", f.Log(t))
			}
			f.Timeout = time.Minute
			next := tell(t, f, "respond null")
			if string(next.Payload) != "null" || next.Err != nil {
				t.Errorf("the next got %+v", next)
			}
			if again := next.Init == 0; again != row.again || again != (f.Started() == 1) {
				t.Errorf("the next had the same process: %t, want %t; %d were started", again, row.again, f.Started())
			}
		})
	}
}

func TestAProcessThatDoesNotStartIsAFunctionError(t *testing.T) {
	f := deploy(t, Config{Env: map[string]string{"INIT": "broken"}})
	if r := tell(t, f, "respond null"); r.Err == nil || r.Err.Type != ErrorExit || !strings.Contains(r.Err.Message, "exit status 1") {
		t.Errorf("got %v", r.Err)
	}
	if !slices.Contains(f.Log(t), "init: broken") {
		t.Errorf("the log is %q", f.Log(t))
	}
	f = Deploy(t, Config{Name: "none", Bootstrap: filepath.Join(t.TempDir(), "bootstrap")})
	if _, err := f.Invoke(t.Context(), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a binary: %v", err)
	}
	if _, err := f.Invoke(t.Context(), make([]byte, maxPayload+1)); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("with too much: %v", err)
	}
}

// gate answers requests when n of them wait.
func gate(t *testing.T, n int) (url string) {
	var mu sync.Mutex
	waiting, open := 0, make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		waiting++
		if waiting == n {
			close(open)
		}
		mu.Unlock()
		select {
		case <-open:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestInvocationsRunAtOnceUpToTheLimit(t *testing.T) {
	for _, row := range []struct{ environments, width, invocations, started int }{
		{environments: 3, width: 1, invocations: 3, started: 3},
		{environments: 1, width: 3, invocations: 3, started: 1},
		{environments: 1, width: 1, invocations: 1, started: 1},
	} {
		t.Run(fmt.Sprintf("%d environments of width %d", row.environments, row.width), func(t *testing.T) {
			f := deploy(t, Config{Environments: row.environments, Width: row.width, Timeout: time.Minute})
			url := gate(t, row.invocations)
			var running sync.WaitGroup
			for range row.invocations {
				running.Go(func() {
					if r := tell(t, f, "get "+url); r.Err != nil {
						t.Error(r.Err)
					}
				})
			}
			running.Wait()
			for range 3 { // what waits gets its turn
				running.Go(func() {
					if r := tell(t, f, "get "+gate(t, 1)); r.Err != nil {
						t.Error(r.Err)
					}
				})
			}
			running.Wait()
			if f.Started() != row.started && row.invocations > 1 || f.Started() > row.environments {
				t.Errorf("%d environments, want %d", f.Started(), row.started)
			}
		})
	}
}

func TestKillEndsWhatRuns(t *testing.T) {
	f := deploy(t, Config{Timeout: time.Minute})
	begun := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
	}))
	defer s.Close()
	ended := make(chan Result, 1)
	go func() { ended <- tell(t, f, "get "+s.URL) }() // ends with the kill
	<-begun
	f.Kill()
	if r := <-ended; r.Err == nil || r.Err.Type != ErrorExit || !strings.Contains(r.Err.Message, "killed") {
		t.Errorf("got %v", r.Err)
	}
	if r := tell(t, f, "respond 1"); r.Err != nil || f.Started() != 2 {
		t.Errorf("the next: %v, in environment %d", r.Err, f.Started())
	}
}

func TestAFunctionSeesLambdasEnvironmentAndItsOwnOnly(t *testing.T) {
	t.Setenv("SOME_SECRET", "of the test")
	f := deploy(t, Config{Env: map[string]string{"TABLE": "t", "AWS_ACCESS_KEY_ID": "own"}})
	var got struct {
		Env []string
		PID int
	}
	if err := json.Unmarshal(tell(t, f, "env").Payload, &got); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{}
	for _, variable := range got.Env { // the last one counts
		name, value, _ := strings.Cut(variable, "=")
		env[name] = value
	}
	for name, want := range map[string]string{
		"TABLE": "t", "AWS_ACCESS_KEY_ID": "own", "AWS_LAMBDA_FUNCTION_NAME": "told", "AWS_REGION": region, "SOME_SECRET": "",
		"HOME": "", "AWS_LAMBDA_MAX_CONCURRENCY": "",
	} {
		if env[name] != want {
			t.Errorf("%s=%q, want %q", name, env[name], want)
		}
	}
	if runtime.GOOS == "linux" {
		awaitFrozen(t, got.PID)
	}
}

// awaitFrozen looks until the kernel says that the process is stopped; it fails with the test's time.
func awaitFrozen(t *testing.T, pid int) {
	t.Helper()
	for {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(stat), ") T ") {
			return
		}
		runtime.Gosched()
	}
}

// hold has one frozen process and one at work, says so, and waits for its end.
func hold(bootstrap string) {
	testing.Init()
	begun := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(begun)
		select {}
	}))
	testing.Main(func(_, _ string) (bool, error) { return true, nil }, []testing.InternalTest{{Name: "hold", F: func(t *testing.T) {
		f := Deploy(t, Config{Name: "held", Bootstrap: bootstrap, Timeout: time.Hour})
		go tell(t, f, "get "+s.URL)
		<-begun
		tell(t, f, "respond 1")
		fmt.Println("ready")
		select {}
	}}}, nil, nil)
}

// TestNothingOutlivesTheTestProcess: all that the killed process started inherits the write end of a pipe, so the pipe's end
// is theirs.
func TestNothingOutlivesTheTestProcess(t *testing.T) {
	alive, inherited, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer alive.Close()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.timeout=0")
	cmd.Env = append(os.Environ(), "LAMBDATEST_HOLD="+Build(t, "testdata/bootstrap"))
	cmd.ExtraFiles = []*os.File{inherited}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(cmd.Start(), inherited.Close()); err != nil {
		t.Fatal(err)
	}
	said := bufio.NewScanner(out)
	for said.Scan() && said.Text() != "ready" {
	}
	if said.Text() != "ready" {
		t.Fatal("the process has not got ready")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if err := alive.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, alive); err != nil {
		t.Errorf("what it had started is still there: %v", err)
	}
}
