package jobs

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var testGate = GateID{"u", "m"}

// gateAt is a gate of this width, which may rise to the ceiling.
func gateAt(width float64, ceiling int) *Gate {
	g := newGate(testGate, ceiling)
	g.width = width
	return g
}

// failsAt ends a call of an item that is not accused.
func (g *Gate) failsAt(now, started time.Time, f *Fault) { g.failed(now, started, f, "item", false) }

func TestGateWidensByOneForEveryWidthOfAnswers(t *testing.T) {
	for width := range 64 {
		w := float64(width + 1)
		g := gateAt(w, 1000)
		for range width + 1 {
			g.inFlight++
			g.answered(time.Time{}, 0)
		}
		if grown := g.width - w; grown > 1 || grown < w/(w+1) {
			t.Errorf("after %g answers a width of %g has grown by %g", w, w, grown)
		}
	}
}

func TestGateNeverWidensAboveItsCeiling(t *testing.T) {
	g := gateAt(3, 4)
	for range 100 {
		g.inFlight++
		g.answered(time.Time{}, 0)
	}
	if g.width != 4 {
		t.Errorf("width %g, want 4", g.width)
	}
}

func TestGateHalvesOnceARoundTripAndNeverBelowOne(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	g := gateAt(16, 16)
	for _, row := range []struct {
		name         string
		started, now int
		f            *Fault
		want         float64
	}{
		{"the first one throttled", 0, 10, throttled, 8},
		{"started before the halving", 1, 11, throttled, 8},
		{"started just before the halving", 9, 12, slow, 8},
		{"started with the halving", 10, 20, throttled, 4},
		{"started before the second halving", 15, 21, throttled, 4},
		{"broken does not throttle", 22, 23, broken, 4},
		{"refused does not throttle", 22, 23, refusal, 4},
		{"unavailable does", 24, 30, &Fault{Cause: CauseStatus, Status: 503}, 2},
		{"a timeout does", 31, 40, slow, 1},
		{"but never below one", 41, 50, throttled, 1},
	} {
		g.inFlight++
		if g.failsAt(at(row.now), at(row.started), row.f); g.width != row.want {
			t.Errorf("%s: width %g, want %g", row.name, g.width, row.want)
		}
	}
	if g.inFlight != 0 {
		t.Errorf("%d are still in flight", g.inFlight)
	}
}

// waiter is a turn whose waking is noted in a list.
func waiter(woken *[]string, name string) *turn {
	return &turn{wake: func() { *woken = append(*woken, name) }}
}

func enters(t *testing.T, g *Gate, w *turn) bool {
	t.Helper()
	ok, opens := g.enter(w, time.Unix(0, 0))
	if !opens.IsZero() {
		t.Fatalf("the gate is closed until %v", opens)
	}
	return ok
}

func TestGateServesInTheOrderOfComing(t *testing.T) {
	var woken []string
	g := gateAt(1, 64)
	a, b, c, d := waiter(&woken, "a"), waiter(&woken, "b"), waiter(&woken, "c"), waiter(&woken, "d")
	if !enters(t, g, a) {
		t.Fatal("the first does not enter")
	}
	for _, w := range []*turn{b, c, d, b} {
		if enters(t, g, w) {
			t.Fatal("one enters a full gate")
		}
	}
	g.giveBack()
	if enters(t, g, a) || enters(t, g, c) {
		t.Error("one enters on the place that is reserved for another")
	}
	if !enters(t, g, b) || enters(t, g, b) {
		t.Error("whose turn it is does not enter, or enters twice")
	}
	for _, w := range []*turn{c, d, a, b} {
		g.giveBack()
		if !enters(t, g, w) {
			t.Error("whose turn it is does not enter")
		}
	}
	if want := []string{"b", "c", "d", "a", "b"}; !slices.Equal(woken, want) {
		t.Errorf("woken %v, want %v", woken, want)
	}
}

func TestTurnGivenBackIsPassedOn(t *testing.T) {
	var woken []string
	g := gateAt(1, 64)
	g.inFlight = 1
	b, c, d := waiter(&woken, "b"), waiter(&woken, "c"), waiter(&woken, "d")
	for _, w := range []*turn{b, c, d} {
		enters(t, g, w)
	}
	g.quit(c) // while it waits
	g.giveBack()
	g.quit(b) // with a place that is reserved for it
	if want := []string{"b", "d"}; !slices.Equal(woken, want) {
		t.Errorf("woken %v, want %v", woken, want)
	}
	g.quit(c) // once more
	if !enters(t, g, d) || g.inFlight != 1 || len(g.waiting) != 0 {
		t.Errorf("%d in flight and %d waiting, want 1 and 0", g.inFlight, len(g.waiting))
	}
}

func TestRetryAfterClosesTheGate(t *testing.T) {
	var woken []string
	now := time.Unix(1000, 0)
	g := gateAt(4, 64)
	g.inFlight = 4
	a, b, c := waiter(&woken, "a"), waiter(&woken, "b"), waiter(&woken, "c")
	for _, w := range []*turn{a, b} {
		enters(t, g, w)
	}
	g.giveBack() // reserved for a
	g.failsAt(now, now, throttledFor(20*time.Second))
	g.failsAt(now, now, throttledFor(10*time.Second)) // a shorter wish does not open it sooner
	g.failsAt(now, now, &Fault{Cause: CauseTooLarge, RetryAfter: time.Hour})
	for _, w := range []*turn{a, b, c} {
		if ok, opens := g.enter(w, now.Add(20*time.Second-1)); ok || !opens.Equal(now.Add(20*time.Second)) {
			t.Errorf("entered %t, opens %v; want no, in 20 s", ok, opens)
		}
	}
	if g.inFlight != 0 || len(g.waiting) != 0 {
		t.Errorf("a closed gate has %d in flight and %d waiting", g.inFlight, len(g.waiting))
	}
	if ok, _ := g.enter(c, now.Add(20*time.Second)); !ok {
		t.Error("it does not open")
	}
}

func TestRetryAfterClosesTheGateOnlyWhereNobodyIsAnsweredAndNotForLong(t *testing.T) {
	at := func(seconds int) time.Time { return time.Unix(1000, 0).Add(time.Duration(seconds) * time.Second) }
	for _, row := range []struct {
		name                   string
		answered, started, now int
		f                      *Fault
		opens                  time.Time
	}{
		{"nobody was answered", -1, 10, 20, throttledFor(5 * time.Second), at(25)},
		{"one was before the call", 9, 10, 20, throttledFor(5 * time.Second), at(25)},
		{"one was since the call began", 11, 10, 20, throttledFor(5 * time.Second), time.Time{}},
		{"one was as it began", 10, 10, 20, throttledFor(5 * time.Second), time.Time{}},
		{"for long", -1, 10, 20, throttledFor(time.Hour), at(50)},
		{"not asked to wait", -1, 10, 20, throttled, time.Time{}},
	} {
		g := gateAt(4, 64)
		g.inFlight = 2
		if row.answered >= 0 {
			g.answered(at(row.answered), 0)
		}
		if g.failsAt(at(row.now), at(row.started), row.f); !g.opensAt.Equal(row.opens) {
			t.Errorf("%s: it opens at %v, want %v", row.name, g.opensAt, row.opens)
		}
	}
}

func TestGateNeverLetsInMoreThanItsWidthAndNobodyWaitsBesideAFreePlace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := gateAt(rapid.Float64Range(1, 6).Draw(t, "width"), 8)
		now := time.Unix(1000, 0)
		turns := make([]*turn, 6)
		var line []int // who waits, in order of coming
		places := map[int]int{}
		served := func(i int) {
			if len(line) == 0 || line[0] != i {
				t.Fatalf("%d is served, the line is %v", i, line)
			}
			line = line[1:]
			if g.inFlight > int(g.width) {
				t.Fatalf("%d are let in at width %g", g.inFlight, g.width)
			}
		}
		for i := range turns {
			turns[i] = &turn{wake: func() { served(i) }}
		}
		leave := func(i int) { line = slices.DeleteFunc(line, func(w int) bool { return w == i }) }
		used := func(t *rapid.T) { // one who has a place is done with it
			i := rapid.IntRange(0, len(turns)-1).Draw(t, "user")
			if places[i] == 0 {
				t.Skip("it has none")
			}
			places[i]--
		}
		t.Repeat(map[string]func(*rapid.T){
			"enter": func(t *rapid.T) {
				i := rapid.IntRange(0, len(turns)-1).Draw(t, "turn")
				if !turns[i].granted && !slices.Contains(line, i) {
					line = append(line, i)
				}
				reserved, waiting := turns[i].granted, len(line)
				ok, _ := g.enter(turns[i], now)
				if reserved && !ok {
					t.Fatalf("%d is not let in on its place", i)
				}
				if ok {
					places[i]++
					if !reserved && waiting == len(line) {
						served(i)
					}
				}
			},
			"quit": func(t *rapid.T) {
				i := rapid.IntRange(0, len(turns)-1).Draw(t, "turn")
				leave(i)
				g.quit(turns[i])
			},
			"answered":  func(t *rapid.T) { used(t); g.answered(now, 0) },
			"give back": func(t *rapid.T) { used(t); g.giveBack() },
			"throttled": func(t *rapid.T) { used(t); now = now.Add(1); g.failsAt(now, now, throttled) },
			"": func(t *rapid.T) {
				inFlight := 0
				for i, w := range turns {
					inFlight += places[i]
					if w.granted {
						inFlight++
					}
				}
				if g.inFlight != inFlight {
					t.Fatalf("the gate counts %d in flight, there are %d", g.inFlight, inFlight)
				}
				if len(line) > 0 && g.inFlight < int(g.width) {
					t.Fatalf("%v wait beside %d free places", line, int(g.width)-g.inFlight)
				}
				if g.width < 1 || g.width > g.ceiling {
					t.Fatalf("width %g", g.width)
				}
			},
		})
	})
}

func TestOddsFollowTheRuleOfThree(t *testing.T) {
	g := gateAt(64, 64)
	answer := func(n, failures int) {
		for range n {
			g.inFlight++
			g.answered(time.Time{}, failures)
		}
	}
	for _, row := range []struct {
		name        string
		n, failures int
		want        float64
	}{
		{"nothing is known", 0, 0, 0},
		{"one answer", 1, 0, 3.0 / 4},
		{"27 answers: one in ten", 26, 0, 3.0 / 30},
		{"as many as are remembered", 229, 0, 3.0 / 259},
		{"more than are remembered", 300, 0, 3.0 / 259},
		{"half of them had failed once", 128, 1, 131.0 / 387},
		{"all had failed once", 128, 1, 259.0 / 515},
		{"all are well again", 256, 0, 3.0 / 259},
		{"very many failures", 256, 1 << 20, (3 + 256*255.0) / (3 + 256*255 + 256)},
	} {
		if answer(row.n, row.failures); math.Abs(g.odds()-row.want) > 1e-12 {
			t.Errorf("%s: odds %g, want %g", row.name, g.odds(), row.want)
		}
	}
}

func TestEvidenceIsOfWhatCameSince(t *testing.T) {
	g := gateAt(64, 64)
	answer := func() {
		g.inFlight++
		g.answered(time.Time{}, 0)
	}
	fail := func(f *Fault, item string, accused bool) {
		g.inFlight++
		g.failed(time.Unix(9, 0), time.Time{}, f, item, accused)
	}
	check := func(name string, mark uint64, since, only, lone bool) {
		t.Helper()
		want := Evidence{AnsweredSince: since, OnlyAccused: only, LoneRefusal: lone, FailureOdds: g.odds()}
		if d := cmp.Diff(want, g.evidence("me", mark)); d != "" || g.answeredSince(mark) != since {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
	first := g.mark()
	check("nothing seen", first, false, false, false)
	fail(refusal, "a", false)
	check("the first is refused", first, false, false, false)
	answer()
	second := g.mark()
	check("one answered after the first mark", first, true, true, true)
	check("none after the second", second, false, true, true)
	fail(broken, "a", true)
	check("an accused one fails", second, false, true, true)
	fail(broken, "me", false)
	check("the item itself fails", second, false, true, true)
	fail(broken, "b", false)
	check("another one fails, too", second, false, false, true)
	fail(broken, "b", true)
	check("that is accused now", second, false, true, true)
	fail(broken, "c", false)
	answer()
	third := g.mark()
	check("answered again", second, true, true, true)
	fail(refusal, "a", true)
	fail(refusal, "a", true)
	check("two refusals after an answer", third, false, true, true)
	fail(refusal, "a", true)
	check("three refusals", third, false, true, false)
	fail(broken, "a", true)
	check("broken is no refusal, and no answer", third, false, true, false)
	answer()
	check("answered at last", third, true, true, true)
}
