package main

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fanout-inference/fanout/pkg/upstream/upstreamtest"
)

// visitor is an upstream that goes away and comes back to the same address.
type visitor struct {
	handler http.Handler
	address string
	server  *http.Server
	gone    sync.WaitGroup
}

func newVisitor(t *testing.T, h http.Handler) *visitor {
	t.Helper()
	v := &visitor{handler: h, address: "127.0.0.1:0"}
	v.comeBack(t)
	t.Cleanup(func() { v.leave(t) })
	return v
}

func (v *visitor) comeBack(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", v.address)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: v.handler} //nolint:gosec // its only client is the test's
	v.address, v.server = l.Addr().String(), server
	v.gone.Go(func() { _ = server.Serve(l) }) // joined by leave
}

func (v *visitor) leave(t *testing.T) {
	t.Helper()
	if err := v.server.Close(); err != nil {
		t.Error(err)
	}
	v.gone.Wait()
}

func (v *visitor) url() string { return "http://" + v.address }

func TestAnUpstreamThatNeverAnswersEndsTheRun(t *testing.T) {
	t.Parallel()
	lines := requests(3, "")
	dir := folder(t, lines...)
	v := newVisitor(t, new(upstreamtest.Server))
	v.leave(t)
	args := []string{"run", "in.jsonl", "-o", "out.jsonl", "--upstream", v.url(), "--first-answer-within", "1s"}
	said := run(t, 1, dir, "fanout", args...)
	says(t, said, "has not answered one call within 1s of the first", "connection refused", "Try: whether it runs", "the same command again (fanout run in.jsonl -o out.jsonl --upstream http://127.0.0.1:")
	holds(t, dir, "in.jsonl", "out.jsonl.fanout")

	v.comeBack(t)
	run(t, 0, dir, "fanout", args...)
	if diff := cmp.Diff(inputIDs(t, lines), ids(t, dir, "out.jsonl")); diff != "" {
		t.Errorf("output (-want +got):\n%s", diff)
	}
	holds(t, dir, "in.jsonl", "out.jsonl")
}

func TestAKeyThatIsRefusedEndsTheRunAtOnceAndSaysSo(t *testing.T) {
	t.Parallel()
	upstream := &upstreamtest.Server{Key: "right"}
	dir := folder(t, requests(500, "")...)
	args := []string{"run", "in.jsonl", "-o", "out.jsonl", "--upstream", upstream.Start(t), "--upstream-key-env", "KEY"}
	wrong := append([]string{"KEY=wrong", "fanout"}, args...)
	said := run(t, 1, dir, "env", wrong...)
	says(t, said, "refuses every call", "the API key is wrong", "the key (--upstream-key-env)", "to go on")
	if strings.Contains(said, "paused") || strings.Contains(said, "=wrong") {
		t.Errorf("it says too much:\n%s", said)
	}
	if n := upstream.Calls(); n > 200 {
		t.Errorf("%d calls were refused before it stopped, of 500 items", n)
	}
	holds(t, dir, "in.jsonl", "out.jsonl.fanout")

	run(t, 0, dir, "env", append([]string{"KEY=right", "fanout"}, args...)...)
	if n := len(ids(t, dir, "out.jsonl")); n != 500 {
		t.Errorf("%d answers with the right key, want 500", n)
	}
}

func TestWeatherThatPassesFailsNobody(t *testing.T) {
	t.Parallel()
	for _, weather := range []string{
		"reset times=1", "drop times=1", "cut times=2", "hang times=1", "html times=1", "empty times=2", "status=500 times=2",
		"status=502 times=4", "status=503 times=2", "status=429 times=2", "status=429 retry-after=1 times=1",
		"status=429 retry-after-ms=50 times=3", "status=529 times=1", "status=500 retry-after=1 times=1", "gzip", "pretty", "nousage",
	} {
		t.Run(weather, func(t *testing.T) {
			t.Parallel()
			upstream := new(upstreamtest.Server)
			lines := requests(5, "")
			lines[2] = request("item-2", "text 2 [["+weather+"]]")
			dir := folder(t, lines...)
			run(t, 0, dir, "fanout", "run", "in.jsonl", "-o", "out.jsonl", "--upstream", upstream.Start(t), "--timeout", "10s")
			if diff := cmp.Diff(inputIDs(t, lines), ids(t, dir, "out.jsonl")); diff != "" {
				t.Errorf("output (-want +got):\n%s", diff)
			}
			holds(t, dir, "in.jsonl", "out.jsonl")
			for _, text := range []string{"text 0", "text 1", "text 3", "text 4"} {
				if n := upstream.CallsOf(text); n != 1 {
					t.Errorf("%q was called %d times, want once", text, n)
				}
			}
		})
	}
}

func TestAnOutageOfAllFailsNobody(t *testing.T) {
	t.Parallel()
	const items = 20
	onCall, thrice := callsUntil(3 * items) // each item's first call and both retries: all are put off then
	upstream := &upstreamtest.Server{OnCall: onCall}
	if err := upstream.SetWeather("status=500"); err != nil {
		t.Fatal(err)
	}
	lines := requests(items, "")
	dir := folder(t, lines...)
	p := start(t, dir, "fanout", "run", "in.jsonl", "-o", "out.jsonl", "--upstream", upstream.Start(t), "--max-calls", "1")
	await(t, thrice, "three calls of each item", &p.stderr)
	if err := upstream.SetWeather(""); err != nil {
		t.Fatal(err)
	}
	if code := p.exit(t); code != 0 {
		t.Fatalf("exit code %d: %s", code, p.stderr.String())
	}
	if diff := cmp.Diff(inputIDs(t, lines), ids(t, dir, "out.jsonl")); diff != "" {
		t.Errorf("output (-want +got):\n%s", diff)
	}
}

func TestAnItemThatAlwaysFailsDiesAloneAndIsRetriedAlone(t *testing.T) {
	t.Parallel()
	upstream := new(upstreamtest.Server)
	if err := upstream.SetWeather("status=500"); err != nil { // the sick item's alone: all others ask for their own
		t.Fatal(err)
	}
	lines := requests(300, "[[delay=40ms]]")
	lines[7] = request("sick", "text 7")
	dir := folder(t, lines...)
	args := []string{"run", "in.jsonl", "-o", "out.jsonl", "--upstream", upstream.Start(t), "--concurrency", "4", "--chunk-items", "10", "--split-bytes", "1000000", "--max-calls", "2"}
	said := run(t, 3, dir, "fanout", args...)
	says(t, said, "299 of 300 items answered", "1 failed: out.errors.jsonl", "status_500", "to ask again for what was given up: the same command again with --retry")
	if diff := cmp.Diff(inputIDs(t, lines, "sick"), ids(t, dir, "out.jsonl")); diff != "" {
		t.Errorf("output (-want +got):\n%s", diff)
	}
	failed := outcomes(t, dir, "out.errors.jsonl")
	if len(failed) != 1 || failed[0].CustomID != "sick" || failed[0].Response == nil || failed[0].Response.Status != 500 {
		t.Errorf("errors: %+v, want the status 500 of sick", failed)
	}
	holds(t, dir, "in.jsonl", "out.errors.jsonl", "out.jsonl", "out.jsonl.fanout")

	before := upstream.Calls()
	if err := upstream.SetWeather(""); err != nil {
		t.Fatal(err)
	}
	run(t, 0, dir, "fanout", append(args, "--retry")...)
	if n := upstream.Calls() - before; n != 1 {
		t.Errorf("the retry made %d calls, want one", n)
	}
	if diff := cmp.Diff(inputIDs(t, lines), ids(t, dir, "out.jsonl")); diff != "" {
		t.Errorf("output after the retry (-want +got):\n%s", diff)
	}
	holds(t, dir, "in.jsonl", "out.jsonl")
}

// TestEachEndlessMisbehaviourEndsInAnErrorLine: what never comes right is told per item, and its neighbours are answered.
func TestEachEndlessMisbehaviourEndsInAnErrorLine(t *testing.T) {
	t.Parallel()
	rows := []struct {
		weather string
		code    string // of the error line, or of the body of its response
		said    string // somewhere in the message
	}{
		{"status=400 code=context_length_exceeded", "context_length_exceeded", "status 400"},
		{"status=422", "status_422", "status 422"},
		{"hang", "batch_expired", "gave no whole answer within"},
		{"trickle", "batch_expired", "gave no whole answer within"},
		{"html", "batch_expired", "with text/html instead of a JSON object"},
		{"latin1", "batch_expired", "with text that is not UTF-"},
		{"reset", "batch_expired", "Last error: "},
	}
	upstream := new(upstreamtest.Server)
	var lines []string
	for _, row := range rows {
		lines = append(lines, request(row.weather, "[["+row.weather+"]]"), request("fair-"+row.weather, "fair "+row.weather))
	}
	dir := folder(t, lines...)
	said := run(t, 3, dir, "fanout", "run", "in.jsonl", "-o", "out.jsonl", "--upstream", upstream.Start(t), "--timeout", "6s", "--give-up-after", "16s")
	says(t, said, "7 of 14 items answered", "gave up: 127.0.0.1:", "has not answered for 16s")
	failed := outcomes(t, dir, "out.errors.jsonl")
	if len(failed) != len(rows) {
		t.Fatalf("%d error lines, want %d:\n%s", len(failed), len(rows), read(t, dir, "out.errors.jsonl"))
	}
	for i, row := range rows {
		var code, message string
		switch o := failed[i]; {
		case o.CustomID != row.weather:
			t.Errorf("error line %d is of %s, want %s", i+1, o.CustomID, row.weather)
		case o.Response != nil:
			code, message = o.Response.Body.Error.Code, o.Response.Body.Error.Message
		case o.Error != nil:
			code, message = o.Error.Code, o.Error.Message
		}
		if code != row.code || !strings.Contains(message, row.said) {
			t.Errorf("%s: code %s, message %q; want %s, with %q", row.weather, code, message, row.code, row.said)
		}
	}
	for _, row := range rows {
		if n := upstream.CallsOf("fair " + row.weather); n != 1 {
			t.Errorf("the neighbour of %s was called %d times", row.weather, n)
		}
	}
}

func TestAnAnswerOverTheLimitFailsItsItemAndIsNotReadToItsEnd(t *testing.T) {
	t.Parallel()
	for _, weather := range []string{"huge", "huge gzip"} {
		t.Run(weather, func(t *testing.T) {
			t.Parallel()
			upstream := new(upstreamtest.Server)
			dir := folder(t, request("huge", "[["+weather+"]]"), request("fair", "text"))
			run(t, 3, dir, "fanout", "run", "in.jsonl", "-o", "out.jsonl", "--upstream", upstream.Start(t))
			failed := outcomes(t, dir, "out.errors.jsonl")
			if len(failed) != 1 || failed[0].CustomID != "huge" || failed[0].Error == nil || failed[0].Error.Code != "response_too_large" {
				t.Errorf("errors: %+v, want response_too_large of huge alone", failed)
			}
			if n := upstream.Written(); weather == "huge" && n > 50<<20 {
				t.Errorf("%d MiB were taken of an answer of 100 MiB, whose limit is 8", n>>20)
			}
		})
	}
}

func TestAnUpstreamThatComesBackIsWaitedFor(t *testing.T) {
	t.Parallel()
	onCall, some := callsUntil(10)
	upstream := &upstreamtest.Server{OnCall: onCall}
	v := newVisitor(t, upstream)
	lines := requests(200, "[[delay=20ms]]")
	dir := folder(t, lines...)
	p := start(t, dir, "fanout", "run", "in.jsonl", "-o", "out.jsonl", "--upstream", v.url(), "--concurrency", "4", "--notice-after", "300ms")
	await(t, some, "ten calls", &p.stderr)
	v.leave(t)
	p.stderr.await(t, `waiting for 127\.0\.0\.1:\d+, which has not answered since [\d:]+: .*; giving up at [\d:]+ \(--give-up-after 1h0m0s\)`)
	v.comeBack(t)
	p.stderr.await(t, `127\.0\.0\.1:\d+ answers again`)
	if code := p.exit(t); code != 0 {
		t.Fatalf("exit code %d: %s", code, p.stderr.String())
	}
	if diff := cmp.Diff(inputIDs(t, lines), ids(t, dir, "out.jsonl")); diff != "" {
		t.Errorf("output (-want +got):\n%s", diff)
	}
}

func TestAnUpstreamThatStaysAwayIsGivenUpWithoutLoss(t *testing.T) {
	t.Parallel()
	onCall, some := callsUntil(60)
	upstream := &upstreamtest.Server{OnCall: onCall}
	v := newVisitor(t, upstream)
	lines := requests(200, "[[delay=20ms]]")
	dir := folder(t, lines...)
	args := []string{"run", "in.jsonl", "-o", "out.jsonl", "--upstream", v.url(), "--concurrency", "4", "--chunk-items", "10", "--split-bytes", "1000000", "--give-up-after", "2s"}
	p := start(t, dir, "fanout", args...)
	await(t, some, "sixty calls", &p.stderr)
	v.leave(t)
	if code := p.exit(t); code != 3 {
		t.Fatalf("exit code %d, want 3: %s", code, p.stderr.String())
	}
	says(t, p.stderr.String(), "gave up: ", "has not answered for 2s", "with --retry")
	answered := ids(t, dir, "out.jsonl")
	if len(answered) < 50 {
		t.Errorf("%d answers are in the output, of at least 56 that were given", len(answered))
	}
	paid := map[string]int{}
	for _, o := range outcomes(t, dir, "out.errors.jsonl") {
		if o.Error == nil || o.Error.Code != "batch_expired" {
			t.Errorf("%s failed with %+v, want batch_expired", o.CustomID, o.Error)
		}
	}
	says(t, read(t, dir, "out.errors.jsonl"), "connection refused")
	for _, line := range lines {
		text := textOf(line)
		paid[text] = upstream.CallsOf(text)
	}

	v.comeBack(t)
	run(t, 0, dir, "fanout", append(args, "--retry")...)
	if diff := cmp.Diff(inputIDs(t, lines), ids(t, dir, "out.jsonl")); diff != "" {
		t.Errorf("output after the retry (-want +got):\n%s", diff)
	}
	for i, line := range lines {
		id := inputIDs(t, lines[i:i+1])[0]
		if text := textOf(line); upstream.CallsOf(text) != paid[text] && strings.Contains(strings.Join(answered, " ")+" ", id+" ") {
			t.Errorf("%s was answered, and asked again by the retry", id)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "out.errors.jsonl")); !os.IsNotExist(err) {
		t.Errorf("the errors of the first run are still there: %v", err)
	}
	holds(t, dir, "in.jsonl", "out.jsonl")
}

// textOf is the text of a line that request wrote.
func textOf(line string) string {
	_, text, _ := strings.Cut(line, `"content":"`)
	text, _, _ = strings.Cut(text, `"`)
	return text
}
