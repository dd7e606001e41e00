package main

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/localjobs"
	"github.com/fanout-inference/fanout/pkg/upstream/upstreamtest"
)

// built is the path of the binary as a user builds it, without -race.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "fanout-built-*") // it outlives the test that asks first
	if err != nil {
		return "", err
	}
	builtIn = dir
	path := filepath.Join(dir, "fanout")
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", &exec.Error{Name: "go build: " + string(out), Err: err}
	}
	return path, nil
})

var builtIn string // the folder that TestMain removes

func binary(t *testing.T) string {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// killed is an input that is run, killed and run again.
type killed struct {
	dir      string
	lines    []string
	upstream *upstreamtest.Server
	args     []string
}

func newKilled(t *testing.T, url string, upstream *upstreamtest.Server) *killed {
	t.Helper()
	k := &killed{lines: requests(300, "[[delay=15ms]]"), upstream: upstream}
	for i := 20; i < len(k.lines); i += 70 { // failed items are recorded too
		k.lines[i] = request("wrong-"+strconv.Itoa(i), "text "+strconv.Itoa(i)+" [[status=400]]")
	}
	k.dir = folder(t, k.lines...)
	k.args = []string{"run", "in.jsonl", "-o", "out.jsonl", "--upstream", url, "--concurrency", "6", "--chunk-items", "7", "--split-bytes", "9000"}
	return k
}

// recorded are the texts of the items that the ledger says have their outcome. It reads a copy: what the next run finds is
// what the kill has left.
func (k *killed) recorded(t *testing.T) map[string]bool {
	t.Helper()
	data := filepath.Join(k.dir, "out.jsonl.fanout")
	if _, err := os.Stat(filepath.Join(data, "ledger.db")); err != nil {
		return nil // it was killed before it had one, or after the end
	}
	look := t.TempDir()
	if err := os.CopyFS(look, os.DirFS(data)); err != nil {
		t.Fatal(err)
	}
	local, err := localjobs.Open(t.Context(), look, localjobs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := local.Close(); err != nil {
			t.Error(err)
		}
	}()
	input := read(t, k.dir, "in.jsonl")
	texts := map[string]bool{}
	for j, err := range local.Store.Jobs(t.Context(), jobs.JobQuery{Tenant: "local"}) {
		if err != nil {
			t.Fatal(err)
		}
		for split := range j.Splits() {
			for c, err := range local.Store.Chunks(t.Context(), j.ID, split, jobs.OffsetRange{}) {
				if err != nil {
					t.Fatal(err)
				}
				lines := strings.SplitAfter(input[c.ID.Offset:c.ID.Offset+c.Length], "\n")
				for ordinal := range c.Resolved.Ordinals {
					texts[textOf(lines[ordinal])] = true
				}
			}
		}
	}
	return texts
}

// ended tells whether the output is there and nothing to go on from.
func (k *killed) ended(t *testing.T) bool {
	t.Helper()
	_, errOutput := os.Stat(filepath.Join(k.dir, "out.jsonl"))
	_, errData := os.Stat(filepath.Join(k.dir, "out.jsonl.fanout"))
	return errOutput == nil && os.IsNotExist(errData)
}

// Kills come within killWithin of a start, and within twice as much after each that left hardly anything to be recorded: on a
// machine so busy that a process gets to its second item only, the third kill would rightly be laid to that item.
const (
	killWithin = 700 * time.Millisecond
	hardly     = 10 // items
)

// mostLate is how many kills a round may see once every item is recorded: enough to hit what is left to do, and it ends.
const mostLate = 3

// TestAKillLosesNothingAndPaysForNothingTwice kills the built binary at random moments and runs the same command until it
// ends. FANOUT_KILLS is how many kills are wanted, FANOUT_KILL_SEED where the moments begin.
func TestAKillLosesNothingAndPaysForNothingTwice(t *testing.T) {
	t.Parallel()
	program := binary(t)
	wanted, seed := number(t, "FANOUT_KILLS", 8), number(t, "FANOUT_KILL_SEED", 1)
	moments := rand.New(rand.NewPCG(uint64(seed), 0))
	upstream := new(upstreamtest.Server)
	url := upstream.Start(t)

	calm := newKilled(t, url, upstream)
	run(t, 3, calm.dir, program, calm.args...)
	wantOutput, wantErrors := read(t, calm.dir, "out.jsonl"), read(t, calm.dir, "out.errors.jsonl")

	for kills, saved := 0, 0; kills < wanted || saved == 0; {
		k := newKilled(t, url, upstream)
		base := map[string]int{} // calls before this round
		for _, line := range k.lines {
			base[textOf(line)] = upstream.CallsOf(textOf(line))
		}
		done := map[string]int{} // recorded before a kill → calls so far
		within := killWithin
		for late := 0; ; {
			p := start(t, k.dir, program, k.args...)
			moment := time.AfterFunc(time.Duration(moments.Int64N(int64(within))), func() {
				if late < mostLate {
					_ = p.Process.Kill()
				}
			})
			code := p.exit(t)
			moment.Stop()
			if code >= 0 {
				if code != 3 {
					t.Fatalf("seed %d, after %d kills: exit code %d: %s", seed, kills, code, p.stderr.String())
				}
				holds(t, k.dir, "in.jsonl", "out.errors.jsonl", "out.jsonl")
				break
			}
			kills++
			if k.ended(t) {
				break // all but the goodbye: the same command would begin anew
			}
			before := len(done)
			for text := range k.recorded(t) {
				if _, known := done[text]; !known {
					done[text] = upstream.CallsOf(text)
					saved++
				}
			}
			if within *= 2; len(done)-before >= hardly {
				within = killWithin
			}
			if len(done) == len(k.lines) {
				late++
			}
		}
		if diff := cmp.Diff(wantOutput, read(t, k.dir, "out.jsonl")); diff != "" {
			t.Errorf("seed %d, after %d kills: the output differs from that of an undisturbed run (-want +got):\n%s", seed, kills, diff)
		}
		if diff := cmp.Diff(wantErrors, read(t, k.dir, "out.errors.jsonl")); diff != "" {
			t.Errorf("seed %d, after %d kills: the errors differ (-want +got):\n%s", seed, kills, diff)
		}
		for text, calls := range done {
			if now := upstream.CallsOf(text); now != calls {
				t.Errorf("seed %d: %q was recorded after %d calls and called %d times more", seed, text, calls-base[text], now-calls)
			}
		}
	}
}

func TestAnInterruptIsOrderlyAndSaysHowToGoOn(t *testing.T) {
	t.Parallel()
	program := binary(t)
	onCall, some := callsUntil(50)
	upstream := &upstreamtest.Server{OnCall: onCall}
	url := upstream.Start(t)
	k := newKilled(t, url, upstream)

	p := start(t, k.dir, program, k.args...)
	await(t, some, "fifty calls", &p.stderr)
	if err := p.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := p.exit(t); code != 130 {
		t.Fatalf("exit code %d, want 130: %s", code, p.stderr.String())
	}
	says(t, p.stderr.String(), "interrupted: finishing the calls in flight", "fanout: interrupted; what was answered is kept in out.jsonl.fanout",
		"Try: the same command again (fanout run in.jsonl -o out.jsonl --upstream "+url+" …), to go on")
	holds(t, k.dir, "in.jsonl", "out.jsonl.fanout")
	if calls, recorded := upstream.Calls(), len(k.recorded(t)); calls != recorded {
		t.Errorf("%d calls were made and %d items recorded: an orderly end loses none in flight", calls, recorded)
	}

	said := run(t, 3, k.dir, program, k.args...)
	says(t, said, "going on: ", " of 300 items have their outcome already")
	if n := upstream.Calls(); n != len(k.lines) {
		t.Errorf("%d calls for %d items", n, len(k.lines))
	}
	calm := newKilled(t, url, upstream)
	run(t, 3, calm.dir, program, calm.args...)
	if diff := cmp.Diff(read(t, calm.dir, "out.jsonl"), read(t, k.dir, "out.jsonl")); diff != "" {
		t.Errorf("the output differs from that of an undisturbed run (-want +got):\n%s", diff)
	}
}

// number is a setting of this test run.
func number(t *testing.T, name string, fallback int) int {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		return fallback
	}
	n, err := strconv.Atoi(value)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}
