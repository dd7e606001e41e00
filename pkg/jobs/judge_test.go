package jobs

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// statusClasses is what every HTTP status means: when the API itself spoke (an OpenAI error object), when other JSON came,
// when no JSON came, and when the API asked to wait.
var statusClasses = []struct {
	ranges                [][2]int
	api, json, bare, wait Class
}{
	{[][2]int{{100, 299}}, ClassSuspect, ClassSuspect, ClassSuspect, ClassSuspect},
	{[][2]int{{300, 399}}, ClassHeld, ClassHeld, ClassHeld, ClassHeld},
	{[][2]int{{400, 400}}, ClassFailed, ClassFailed, ClassHeld, ClassFailed},
	{[][2]int{{401, 401}, {403, 403}}, ClassHeld, ClassHeld, ClassHeld, ClassHeld},
	{[][2]int{{404, 404}}, ClassFailed, ClassHeld, ClassHeld, ClassFailed},
	{[][2]int{{408, 409}, {425, 425}, {429, 429}, {503, 503}, {529, 529}}, ClassWeather, ClassWeather, ClassWeather, ClassWeather},
	{[][2]int{{402, 402}, {405, 407}, {410, 424}, {426, 428}, {430, 499}}, ClassFailed, ClassFailed, ClassFailed, ClassFailed},
	{[][2]int{{500, 502}, {504, 528}, {530, 599}}, ClassSuspect, ClassSuspect, ClassSuspect, ClassWeather},
}

func TestEveryStatusHasItsClass(t *testing.T) {
	seen := map[int]bool{}
	for _, row := range statusClasses {
		for _, r := range row.ranges {
			for status := r[0]; status <= r[1]; status++ {
				if seen[status] {
					t.Fatalf("status %d is in two rows", status)
				}
				seen[status] = true
				for _, answer := range []struct {
					kind string
					f    Fault
					want Class
				}{
					{"of the API", Fault{IsObject: true, Body: []byte(`{}`)}, row.api},
					{"of JSON", Fault{Body: []byte(`{}`)}, row.json},
					{"without JSON", Fault{}, row.bare},
					{"of the API that asks to wait", Fault{IsObject: true, Body: []byte(`{}`), RetryAfter: time.Second}, row.wait},
				} {
					f := answer.f
					f.Cause, f.Status = CauseStatus, status
					if got := f.Class(); got != answer.want {
						t.Errorf("status %d %s is %s, want %s", status, answer.kind, got, answer.want)
					}
				}
			}
		}
	}
	if len(seen) != 500 {
		t.Errorf("the table has %d statuses, want all 500", len(seen))
	}
}

func TestEveryOtherCauseHasItsClassWhateverTheStatus(t *testing.T) {
	for cause, want := range map[Cause]Class{
		CauseUnreachable: ClassWeather,
		CauseReset:       ClassSuspect,
		CauseTimeout:     ClassSuspect,
		CauseMalformed:   ClassSuspect,
		CausePanic:       ClassSuspect,
		CauseTooLarge:    ClassFailed,
		CauseAborted:     ClassAborted,
	} {
		for _, status := range []int{0, 200, 302, 400, 401, 404, 429, 500, 503} {
			for _, wait := range []time.Duration{0, time.Second} {
				f := Fault{Cause: cause, Status: status, RetryAfter: wait}
				if got := f.Class(); got != want {
					t.Errorf("%s with status %d is %s, want %s", cause, status, got, want)
				}
			}
		}
	}
}

func TestOnlyTimeoutsAnd429And503AskForFewerCalls(t *testing.T) {
	for status := 100; status < 600; status++ {
		f := Fault{Cause: CauseStatus, Status: status}
		if got, want := f.Throttles(), status == 429 || status == 503; got != want {
			t.Errorf("status %d throttles: %t", status, got)
		}
	}
	for _, cause := range []Cause{CauseUnreachable, CauseReset, CauseTimeout, CauseMalformed, CausePanic, CauseTooLarge, CauseAborted} {
		f := Fault{Cause: cause}
		if got, want := f.Throttles(), cause == CauseTimeout; got != want {
			t.Errorf("%s throttles: %t", cause, got)
		}
	}
}

// Faults of each class.
var (
	badRequest = &Fault{Cause: CauseStatus, Status: 422, IsObject: true}
	refusal    = &Fault{Cause: CauseStatus, Status: 401}
	throttled  = &Fault{Cause: CauseStatus, Status: 429}
	broken     = &Fault{Cause: CauseStatus, Status: 500}
	slow       = &Fault{Cause: CauseTimeout}
	aborted    = &Fault{Cause: CauseAborted}
)

func throttledFor(d time.Duration) *Fault {
	return &Fault{Cause: CauseStatus, Status: 429, RetryAfter: d}
}

func TestJudgeTable(t *testing.T) {
	const second = time.Second
	answered, lone, only := Evidence{AnsweredSince: true}, Evidence{LoneRefusal: true}, Evidence{OnlyAccused: true}
	for _, row := range []struct {
		name string
		f    *Fault
		e    Evidence
		t    Tally
		want Verdict
	}{
		{"the item's own fault", badRequest, Evidence{}, Tally{}, Verdict{Action: ActSettle}},
		{"its own fault, accused and used up", badRequest, answered, Tally{Accused: true, Calls: 7}, Verdict{Action: ActSettle}},

		{"refused, nobody answered", refusal, Evidence{}, Tally{}, Verdict{Action: ActHold}},
		{"refused, others answered since", refusal, answered, Tally{}, Verdict{Action: ActSettle}},
		{"refused alone among answers", refusal, lone, Tally{}, Verdict{Action: ActSettle}},
		{"refused again, nobody answered", refusal, Evidence{}, Tally{FailedBefore: true, Accused: true, Calls: 7}, Verdict{Action: ActHold}},

		{"aborted says nothing", aborted, answered, Tally{FailedBefore: true, Room: 30 * second}, Verdict{Action: ActDefer}},
		{"aborted forgets nothing", aborted, answered, Tally{Accused: true, Calls: 7}, Verdict{Action: ActDefer, Accused: true}},

		{"throttled for the first time", throttled, Evidence{}, Tally{Room: 30 * second}, Verdict{Action: ActRetry, Wait: second / 2}},
		{"throttled for the fourth time", throttled, Evidence{}, Tally{Retries: 3, Room: 30 * second}, Verdict{Action: ActRetry, Wait: 4 * second}},
		{"throttled for long", throttled, Evidence{}, Tally{Retries: 40, Room: 30 * second}, Verdict{Action: ActRetry, Wait: 16 * second}},
		{"throttled, no room", throttled, Evidence{}, Tally{Room: second/2 - 1}, Verdict{Action: ActDeferAll, Wait: second / 2}},
		{"told to wait", throttledFor(3 * second), Evidence{}, Tally{Room: 30 * second}, Verdict{Action: ActRetry, Wait: 3 * second}},
		{"told to wait again", throttledFor(3 * second), Evidence{}, Tally{Retries: 1, Room: 30 * second}, Verdict{Action: ActRetry, Wait: 6 * second}},
		{"told to wait longer than we ever would", throttledFor(20 * second), Evidence{}, Tally{Retries: 9, Room: 30 * second}, Verdict{Action: ActRetry, Wait: 20 * second}},
		{"told to wait too long", throttledFor(31 * second), Evidence{}, Tally{Room: 30 * second}, Verdict{Action: ActDeferAll, Wait: 31 * second}},
		{"throttled again while others were answered", throttled, answered, Tally{FailedBefore: true, Attempt: 1, Room: 30 * second}, Verdict{Action: ActRetry, Wait: second / 2, Accused: true}},
		{"accused, throttled in a fourth attempt", throttled, answered, Tally{Accused: true, Attempt: 4, Calls: 6, Room: 30 * second}, Verdict{Action: ActRetry, Wait: second / 2, Accused: true, Counted: true}},
		{"accused, throttled twice in a fourth attempt", throttled, answered, Tally{Accused: true, Attempt: 4, Calls: 7, Retries: 1, Room: 30 * second}, Verdict{Action: ActRetry, Wait: second, Accused: true}},
		{"accused, throttled in a fifth attempt", throttled, answered, Tally{Accused: true, Attempt: 5, Calls: 7, Room: 30 * second}, Verdict{Action: ActRetry, Wait: second / 2, Accused: true}},
		{"used up by weather", throttled, answered, Tally{Accused: true, Attempt: 8, Calls: 7, Room: 30 * second}, Verdict{Action: ActDefer, Wait: second / 2, Accused: true, Counted: true, Spent: true}},
		{"used up by weather that would put all off", throttled, answered, Tally{Accused: true, Attempt: 8, Calls: 7}, Verdict{Action: ActDefer, Wait: second / 2, Accused: true, Counted: true, Spent: true}},

		{"broken for the first time", broken, answered, Tally{Room: 30 * second}, Verdict{Action: ActRetry, Wait: second / 2}},
		{"broken again, nobody answered", broken, Evidence{}, Tally{FailedBefore: true, Retries: 1, Room: 30 * second}, Verdict{Action: ActRetry, Wait: second}},
		{"broken again while others were answered", broken, answered, Tally{FailedBefore: true, Retries: 1, Room: 30 * second}, Verdict{Action: ActRetry, Wait: second, Accused: true, Counted: true}},
		{"broken, retries used", broken, Evidence{}, Tally{FailedBefore: true, Retries: 2, Room: 30 * second}, Verdict{Action: ActDefer, Wait: 2 * second}},
		{"broken, no room", broken, Evidence{}, Tally{}, Verdict{Action: ActDefer, Wait: second / 2}},
		{"slow is not retried in place", slow, Evidence{}, Tally{Room: 30 * second}, Verdict{Action: ActDefer, Wait: second / 2}},
		{"accused and slow", slow, answered, Tally{Accused: true, Calls: 6, Room: 30 * second}, Verdict{Action: ActDefer, Wait: second / 2, Accused: true, Counted: true}},
		{"accused, and only the accused fail", broken, only, Tally{Accused: true, Calls: 6, Room: 30 * second}, Verdict{Action: ActRetry, Wait: second / 2, Accused: true, Counted: true}},
		{"accused, in an outage", broken, Evidence{}, Tally{Accused: true, Calls: 7, Room: 30 * second}, Verdict{Action: ActRetry, Wait: second / 2, Accused: true}},
		{"accused, throttled in an outage", throttled, Evidence{}, Tally{Accused: true, Attempt: 4, Calls: 7, Room: 30 * second}, Verdict{Action: ActRetry, Wait: second / 2, Accused: true}},
		{"only the accused fail, but it is not", broken, only, Tally{FailedBefore: true, Calls: 7, Room: 30 * second}, Verdict{Action: ActRetry, Wait: second / 2}},
		{"used up", broken, answered, Tally{Accused: true, Calls: 7, Room: 30 * second}, Verdict{Action: ActDefer, Wait: second / 2, Accused: true, Counted: true, Spent: true}},
		{"used up with the call that accuses it", broken, answered, Tally{FailedBefore: true, Calls: 7, Room: 30 * second}, Verdict{Action: ActDefer, Wait: second / 2, Accused: true, Counted: true, Spent: true}},
		{"broken again, and others were answered between the attempts", broken, Evidence{}, Tally{FailedBefore: true, Passed: true, Room: 30 * second}, Verdict{Action: ActRetry, Wait: second / 2, Accused: true}},
		{"broken again in the tail", broken, Evidence{}, Tally{FailedBefore: true, Tail: true, Room: 30 * second}, Verdict{Action: ActRetry, Wait: second / 2, Counted: true}},
		{"broken twice in an attempt in the tail", broken, Evidence{}, Tally{FailedBefore: true, Tail: true, Retries: 1, Room: 30 * second}, Verdict{Action: ActRetry, Wait: second}},
		{"broken for the first time in the tail", broken, Evidence{}, Tally{Tail: true, Room: 30 * second}, Verdict{Action: ActRetry, Wait: second / 2}},
		{"used up in the tail", slow, Evidence{}, Tally{FailedBefore: true, Tail: true, Calls: 7}, Verdict{Action: ActDefer, Wait: second / 2, Counted: true, Spent: true}},
		{"counted in the tail for all calls of an attempt", broken, Evidence{FailureOdds: 0.4}, Tally{FailedBefore: true, Tail: true, Calls: 7}, Verdict{Action: ActDefer, Wait: second / 2, Counted: true, Spent: true}},
		{"in the tail of what fails nearly always", broken, Evidence{FailureOdds: 0.75}, Tally{FailedBefore: true, Tail: true, Calls: 7, Room: 30 * second}, Verdict{Action: ActRetry, Wait: second / 2, Counted: true}},
		{"throttled in the tail", throttled, Evidence{}, Tally{FailedBefore: true, Tail: true, Attempt: 4, Calls: 7, Room: 30 * second}, Verdict{Action: ActRetry, Wait: second / 2}},
		{"not used up where healthy items fail as well", broken, Evidence{AnsweredSince: true, FailureOdds: 0.5}, Tally{Accused: true, Calls: 7, Room: 30 * second}, Verdict{Action: ActRetry, Wait: second / 2, Accused: true, Counted: true}},
	} {
		t.Run(row.name, func(t *testing.T) {
			row.t.MaxCalls = DefaultMaxCalls
			if d := cmp.Diff(row.want, Judge(row.f, row.e, row.t)); d != "" {
				t.Errorf("verdict (-want +got):\n%s", d)
			}
		})
	}
}

func TestVerdictsKeepTheirPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := &Fault{
			Cause:      rapid.SampledFrom([]Cause{CauseStatus, CauseUnreachable, CauseReset, CauseTimeout, CauseMalformed, CauseTooLarge, CausePanic, CauseAborted}).Draw(t, "cause"),
			Status:     rapid.SampledFrom([]int{0, 301, 400, 401, 404, 422, 429, 500, 503, 529}).Draw(t, "status"),
			RetryAfter: time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "retry after")) * time.Duration(rapid.IntRange(0, 1).Draw(t, "asked")),
			IsObject:   rapid.Bool().Draw(t, "object"),
		}
		e := Evidence{
			AnsweredSince: rapid.Bool().Draw(t, "answered since"), OnlyAccused: rapid.Bool().Draw(t, "only accused"),
			LoneRefusal: rapid.Bool().Draw(t, "lone"), FailureOdds: rapid.Float64Range(0, 1).Draw(t, "odds"),
		}
		y := Tally{
			FailedBefore: rapid.Bool().Draw(t, "failed before"), Passed: rapid.Bool().Draw(t, "passed"), Tail: rapid.Bool().Draw(t, "tail"), Accused: rapid.Bool().Draw(t, "accused"),
			Calls: rapid.IntRange(0, 30).Draw(t, "calls"), Attempt: rapid.IntRange(1, 12).Draw(t, "attempt"),
			Retries: rapid.IntRange(0, 5).Draw(t, "retries"), Room: time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "room")),
			MaxCalls: rapid.IntRange(1, 20).Draw(t, "max calls"),
		}
		v, class := Judge(f, e, y), f.Class()
		for _, promise := range []struct {
			kept bool
			what string
		}{
			{v == Judge(f, e, y), "the same is judged alike"},
			{slices.Contains([]Action{ActSettle, ActRetry, ActDefer, ActDeferAll, ActHold}, v.Action), "there is an action"},
			{!v.Spent || v.Counted && v.Action == ActDefer, "a spent item is put off, and by a call that counts"},
			{!v.Counted || v.Accused || y.Tail, "only an accused item's calls are counted, but in the tail"},
			{!v.Counted || e.AnsweredSince || e.OnlyAccused || y.Tail, "in an outage nobody's calls are counted, but in the tail"},
			{!v.Counted || e.AnsweredSince || e.OnlyAccused && v.Accused || y.Retries == 0, "in the tail one failure an attempt is counted"},
			{!v.Accused || y.Accused || y.FailedBefore && (e.AnsweredSince || y.Passed), "nobody is accused without evidence"},
			{!v.Counted || class == ClassWeather || class == ClassSuspect, "only weather and suspect failures are counted"},
			{!v.Spent || y.Calls+1 >= y.MaxCalls, "nobody is spent before the calls that were promised"},
			{v.Action != ActSettle || !v.Spent && !v.Counted && !v.Accused, "what is settled is not blamed"},
			{v.Action != ActRetry || v.Wait > 0 && v.Wait <= y.Room, "a retry waits, and its wait fits"},
			{v.Action != ActRetry || v.Wait >= f.RetryAfter || class != ClassWeather, "an upstream's wish to wait is respected"},
			{v.Action != ActRetry || f.Cause != CauseTimeout, "a timeout is not retried in place"},
			{v.Action != ActDeferAll || class == ClassWeather, "only weather puts all off"},
			{(v.Action == ActSettle) == (class == ClassFailed || class == ClassHeld && (e.AnsweredSince || e.LoneRefusal)), "it is settled where the table says so"},
			{(v.Action == ActHold) == (class == ClassHeld && !e.AnsweredSince && !e.LoneRefusal), "it is held where the table says so"},
			{!y.Accused || v.Accused || v.Action == ActSettle || v.Action == ActHold, "an accusation is not lost"},
		} {
			if !promise.kept {
				t.Fatalf("broken: %s; %s gives %+v", promise.what, class, v)
			}
		}
	})
}

func TestAllowanceIsMaxCallsAtOrdinaryOdds(t *testing.T) {
	for _, odds := range []float64{0, 0.01, 0.05, 0.1} {
		for _, calls := range []int{1, 8, 100} {
			if got := Allowance(calls, odds); got != calls {
				t.Errorf("Allowance(%d, %g) = %d", calls, odds, got)
			}
		}
	}
}

func TestAllowanceKeepsTheOddsOfGivingUpAHealthyItem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		calls := rapid.IntRange(1, 50).Draw(t, "calls")
		odds := rapid.Float64Range(0.1, 0.98).Draw(t, "odds")
		n := float64(Allowance(calls, odds))
		// In logarithms, and with a little for rounding.
		promised, slack := float64(calls)*math.Log(0.1), 1e-9
		if n*math.Log(odds) > promised+slack {
			t.Errorf("%g calls at odds %g are too few for %d at 0.1", n, odds, calls)
		}
		if (n-1)*math.Log(odds) < promised-slack {
			t.Errorf("%g calls at odds %g are more than %d at 0.1 ask for", n, odds, calls)
		}
	})
}

func TestAllowanceIsMonotoneAndBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		calls := rapid.IntRange(1, 10_000).Draw(t, "calls")
		low := rapid.Float64Range(0, 1.5).Draw(t, "low")
		high := rapid.Float64Range(low, 2).Draw(t, "high")
		n := Allowance(calls, low)
		if n < calls || n > 10_000 {
			t.Errorf("Allowance(%d, %g) = %d, want one from %d to 10,000", calls, low, n, calls)
		}
		if more := Allowance(calls, high); more < n {
			t.Errorf("Allowance(%d, …) falls from %d at %g to %d at %g", calls, n, low, more, high)
		}
		if more := Allowance(min(calls+1, 10_000), low); more < n {
			t.Errorf("Allowance(…, %g) falls from %d for %d to %d for one more", low, n, calls, more)
		}
	})
}

func TestAllowanceNeverFallsBelowMaxCalls(t *testing.T) {
	const never = 1_000_000
	for _, odds := range []float64{0.05, 0.2, 0.9, 1} {
		if got := Allowance(never, odds); got < never {
			t.Errorf("Allowance(%d, %g) = %d, fewer than the job asked for", never, odds, got)
		}
	}
}

func TestBackOffDoublesUpToItsLongest(t *testing.T) {
	var got []time.Duration
	for n := range 6 {
		got = append(got, backOff(time.Second, n, 10*time.Second))
	}
	want := []time.Duration{1e9, 2e9, 4e9, 8e9, 10e9, 10e9}
	if !slices.Equal(got, want) {
		t.Errorf("waits %v, want %v", got, want)
	}
	if got := backOff(time.Second, math.MaxInt, 24*time.Hour); got != 24*time.Hour {
		t.Errorf("after very many: %v", got)
	}
	if got := backOff(time.Minute, 0, time.Second); got != time.Second {
		t.Errorf("a first wait above the longest: %v", got)
	}
}
