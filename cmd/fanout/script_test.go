package main

import (
	"errors"
	"flag"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/fanout-inference/fanout/pkg/upstream/upstreamtest"
)

var update = flag.Bool("update", false, "write what is seen into the golden files and scripts instead of comparing")

// TestMain makes this test binary answer to the name fanout as well, so that tests run the real main in a process of its own.
func TestMain(m *testing.M) {
	// Most tests here wait for back-offs and timeouts of another process, not for a core.
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	testscript.Main(tests{m}, map[string]func(){"fanout": main, "fanout-crashing": crashing, "peak-memory": peakMemory})
}

// tests are all tests, and what is to be tidied up after them.
type tests struct{ *testing.M }

func (m tests) Run() int {
	code := m.M.Run()
	if builtIn != "" && os.RemoveAll(builtIn) != nil {
		return max(code, 1)
	}
	return code
}

// TestScripts runs testdata/script. $EXAMPLES is the folder of example inputs, $UPSTREAM the URL of an upstream of the
// script's own, and $UPSTREAM_NAME its name.
func TestScripts(t *testing.T) {
	t.Parallel()
	examples, err := filepath.Abs("../../examples")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       *update,
		Setup: func(env *testscript.Env) error {
			upstream := newScriptUpstream()
			server := httptest.NewServer(upstream)
			env.Defer(func() {
				server.CloseClientConnections()
				server.Close()
			})
			env.Values[upstreamOfScript] = upstream
			served := &serving{}
			env.Values[servingKey{}] = served
			env.Defer(func() {
				if served.cmd != nil {
					_ = served.stop(true) // the script has failed
				}
			})
			env.Setenv("UPSTREAM", server.URL)
			env.Setenv("UPSTREAM_NAME", strings.TrimPrefix(server.URL, "http://"))
			env.Setenv("EXAMPLES", examples)
			env.Setenv("TMPDIR", filepath.Join(env.WorkDir, ".tmp"))
			return os.MkdirAll(filepath.Join(env.WorkDir, ".tmp"), 0o700)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":   exits,
			"empty":   empty,
			"weather": setWeather,
			"calls":   calls,
			"needkey": needKey,
			"called":  called,
			"serve":   serve,
			"stop":    stop,
			"capture": capture,
			"appears": appears,
			"until":   until,
		},
	})
}

// scriptUpstream is the upstream of a script. called is closed at its first call.
type scriptUpstream struct {
	upstreamtest.Server
	called <-chan struct{}
}

type scriptKey struct{}

var upstreamOfScript = scriptKey{}

func newScriptUpstream() *scriptUpstream {
	u := new(scriptUpstream)
	u.OnCall, u.called = callsUntil(1)
	return u
}

func upstreamOf(ts *testscript.TestScript) *scriptUpstream {
	return ts.Value(upstreamOfScript).(*scriptUpstream)
}

// setWeather WORDS... makes the weather of every request that asks for none; no words are fair.
func setWeather(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("usage: weather WORDS...")
	}
	ts.Check(upstreamOf(ts).SetWeather(strings.Join(args, " ")))
}

// needKey KEY makes the upstream refuse calls without that key.
func needKey(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: needkey KEY")
	}
	upstreamOf(ts).Key = args[0]
}

// calls N [TEXT] compares how many calls came so far, in all or with that text.
func calls(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: calls N [TEXT]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := upstreamOf(ts).Calls()
	if len(args) == 2 {
		got = upstreamOf(ts).CallsOf(args[1])
	}
	if got != want {
		ts.Fatalf("%d calls, want %d", got, want)
	}
}

// called waits for the first call.
func called(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: called")
	}
	select {
	case <-upstreamOf(ts).called:
	case <-time.After(patience):
		ts.Fatalf("waited in vain for a call")
	}
}

// capture NAME makes a variable of the first word that the last command printed.
func capture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: capture NAME")
	}
	words := strings.Fields(ts.ReadFile("stdout"))
	if len(words) == 0 {
		ts.Fatalf("nothing was printed")
	}
	ts.Setenv(args[0], words[0])
}

// exits CODE COMMAND... runs a command that must end with that exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	code := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
}

// empty DIRECTORY... fails if something is in there.
func empty(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: empty DIRECTORY...")
	}
	for _, dir := range args {
		left, err := os.ReadDir(ts.MkAbs(dir))
		ts.Check(err)
		if len(left) > 0 {
			ts.Fatalf("%s holds %v", dir, left)
		}
	}
}
