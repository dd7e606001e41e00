package jobs

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// gateClock is a set of gates over a registry, with a clock to be set.
type gateClock struct {
	*Gates
	registry *memRegistry
	now      time.Time
}

func newGateClock(r *memRegistry) *gateClock {
	c := &gateClock{registry: r, now: time.Unix(10_000, 0)}
	c.Gates = newGates(r, func() time.Time { return c.now }, 64, false)
	return c
}

func (c *gateClock) gate(t *testing.T) *Gate {
	t.Helper()
	g, err := c.at(t.Context(), testGate)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func (c *gateClock) tell(t *testing.T, g *Gate, answered bool, why string) {
	t.Helper()
	if err := c.report(t.Context(), g, answered, why); err != nil {
		t.Fatal(err)
	}
}

func (c *gateClock) saved(t *testing.T) gateRecord {
	t.Helper()
	rec, _, err := readGate(t.Context(), c.registry, testGate)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

func TestOutageOfFifteenMinutesPausesTheGateAndAnAnswerEndsIt(t *testing.T) {
	c := newGateClock(newMemRegistry())
	g := c.gate(t)
	began := c.now
	c.tell(t, g, false, "") // nothing was called
	if c.registry.saves != 0 {
		t.Error("no news was saved")
	}
	c.tell(t, g, false, "status 502: bad: gateway")
	want := gateRecord{V: SchemaVersion, Width: 64, FailingSince: began, Why: "status 502: bad: gateway"}
	if d := cmp.Diff(want, c.saved(t)); d != "" {
		t.Errorf("the first failure (-want +got):\n%s", d)
	}
	c.now = began.Add(15*time.Minute - 1)
	c.tell(t, g, false, "still")
	if g.pause() != nil || c.registry.saves != 1 {
		t.Errorf("paused too soon: %+v, %d saves", g.pause(), c.registry.saves)
	}
	c.now = began.Add(15 * time.Minute)
	c.tell(t, g, false, "status 504: slow: gateway")
	want.Why = "status 504: slow: gateway"
	want.Pause = &Pause{Reason: PauseOutage, At: c.now, ProbeAt: c.now.Add(time.Minute),
		Message: "no answer from u/m since 1970-01-01T02:46:40Z: status 504: slow: gateway"}
	if d := cmp.Diff(want, c.saved(t)); d != "" {
		t.Errorf("the outage (-want +got):\n%s", d)
	}
	if d := cmp.Diff(want.Pause, g.pause()); d != "" {
		t.Errorf("the gate's pause (-want +got):\n%s", d)
	}
	c.tell(t, g, false, "still") // no news
	if c.registry.saves != 2 {
		t.Errorf("%d saves, want 2", c.registry.saves)
	}
	c.tell(t, g, true, "")
	if d := cmp.Diff(gateRecord{V: SchemaVersion, Width: 64}, c.saved(t)); d != "" || g.pause() != nil {
		t.Errorf("answered (-want +got):\n%s", d)
	}
}

func TestAnswerInBetweenBeginsTheOutageAnew(t *testing.T) {
	c := newGateClock(newMemRegistry())
	g := c.gate(t)
	for range 5 {
		c.tell(t, g, false, "status 502")
		c.now = c.now.Add(14 * time.Minute)
		c.tell(t, g, true, "")
		c.now = c.now.Add(14 * time.Minute)
	}
	if p := g.pause(); p != nil {
		t.Errorf("paused: %+v", p)
	}
}

func TestAnswerEndsNoPauseThatAnOperatorSet(t *testing.T) {
	c := newGateClock(newMemRegistry())
	pause := &Pause{Reason: PauseOperator, Message: "maintenance"}
	if _, err := saveGate(t.Context(), c.registry, testGate, gateRecord{V: 1, FailingSince: c.now.Add(-time.Hour), Pause: pause}, 0, c.now); err != nil {
		t.Fatal(err)
	}
	g := c.gate(t)
	c.tell(t, g, false, "status 502") // nor does an outage replace it
	c.tell(t, g, true, "")
	if d := cmp.Diff(pause, g.pause()); d != "" {
		t.Errorf("the pause (-want +got):\n%s", d)
	}
}

func TestGateBeginsWhereItLastStood(t *testing.T) {
	r := newMemRegistry()
	c := newGateClock(r)
	g := c.gate(t)
	c.tell(t, g, true, "")
	if r.saves != 0 {
		t.Error("a gate at its ceiling was saved")
	}
	g.width = 5.7
	c.tell(t, g, true, "")
	if got := c.saved(t).Width; got != 5 {
		t.Errorf("width %d was saved, want 5", got)
	}
	if got := newGateClock(r).gate(t).width; got != 5 {
		t.Errorf("another process begins with %g, want 5", got)
	}
	small := newGates(r, time.Now, 2, false)
	if g, err := small.at(t.Context(), testGate); err != nil || g.width != 2 {
		t.Errorf("one with a ceiling of 2 begins with %g, %v", g.width, err)
	}
}

func TestGateSavesItsWidthOnceAMinute(t *testing.T) {
	c := newGateClock(newMemRegistry())
	g := c.gate(t)
	for range 180 {
		g.width = 3 + math.Mod(g.width, 7)
		c.tell(t, g, true, "")
		c.now = c.now.Add(time.Second)
	}
	if c.registry.saves != 3 {
		t.Errorf("%d saves in 3 minutes", c.registry.saves)
	}
}

func TestPauseOfElsewhereIsSeenWithinFiveSeconds(t *testing.T) {
	c := newGateClock(newMemRegistry())
	c.gate(t)
	_, err := saveGate(t.Context(), c.registry, testGate, gateRecord{V: 1, Width: 3, Pause: &Pause{Reason: PauseOperator}}, 0, c.now)
	if err != nil {
		t.Fatal(err)
	}
	c.now = c.now.Add(5*time.Second - 1)
	if g := c.gate(t); g.pause() != nil || c.registry.reads != 1 {
		t.Errorf("pause %v after %d reads; want one read in 5 s", g.pause(), c.registry.reads)
	}
	c.now = c.now.Add(1)
	g := c.gate(t)
	if g.pause() == nil || c.registry.reads != 2 {
		t.Errorf("pause %v after %d reads; want one after 2", g.pause(), c.registry.reads)
	}
	if g.width != 64 {
		t.Errorf("a gate in use took the width %g of another process", g.width)
	}
}

func TestReportsOfTwoProcessesAreMerged(t *testing.T) {
	r := newMemRegistry()
	a, b := newGateClock(r), newGateClock(r)
	g, h := a.gate(t), b.gate(t)
	a.tell(t, g, false, "status 502: first")
	b.now = b.now.Add(time.Hour)
	b.tell(t, h, false, "status 502: second") // it has not seen the first
	if rec := a.saved(t); rec.Pause == nil || !rec.FailingSince.Equal(a.now) {
		t.Errorf("record %+v, want an outage since the first failure", rec)
	}
}

func TestReportGivesUpAgainstMany(t *testing.T) {
	r := newMemRegistry()
	c := newGateClock(r)
	g := c.gate(t)
	r.rival = func() {
		e := r.entries[keyOf(KindGate, "u", "m")]
		e.Kind, e.Owner, e.ID, e.Body = KindGate, "u", "m", []byte(`{"V":1}`)
		e.Revision++
		r.entries[keyOf(KindGate, "u", "m")] = e
	}
	c.tell(t, g, false, "status 502")
	if r.saves != gateConflict {
		t.Errorf("%d tries, want %d", r.saves, gateConflict)
	}
}

func TestGateTellsWhatItsRegistryCannot(t *testing.T) {
	gone := errors.New("gone")
	c := newGateClock(newMemRegistry())
	c.registry.fail = gone
	if _, err := c.at(t.Context(), testGate); !errors.Is(err, gone) || !strings.Contains(err.Error(), "read gate u/m") {
		t.Errorf("reading: %v", err)
	}
	c.now = c.now.Add(time.Minute)
	g := c.gate(t)
	c.registry.fail = gone
	if err := c.report(t.Context(), g, false, "why"); !errors.Is(err, gone) || !strings.Contains(err.Error(), "save gate u/m") {
		t.Errorf("saving: %v", err)
	}
	for body, want := range map[string]error{`{"V":2}`: ErrNewer, `{`: nil} {
		c := newGateClock(newMemRegistry())
		c.registry.entries[keyOf(KindGate, "u", "m")] = Entry{Kind: KindGate, Owner: "u", ID: "m", Revision: 1, Body: []byte(body)}
		if _, err := c.at(t.Context(), testGate); err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("record %s: %v", body, err)
		}
	}
}

func TestGateIsReadAgainAfterAReadThatFailed(t *testing.T) {
	c := newGateClock(newMemRegistry())
	rec := gateRecord{V: 1, Width: 3, Pause: &Pause{Reason: PauseOperator}}
	if _, err := saveGate(t.Context(), c.registry, testGate, rec, 0, c.now); err != nil {
		t.Fatal(err)
	}
	c.registry.fail = errors.New("gone")
	if _, err := c.at(t.Context(), testGate); err == nil {
		t.Fatal("the first read did not fail")
	}
	if g := c.gate(t); g.pause() == nil || g.width != 3 {
		t.Errorf("pause %v and width %g; want those of the record, which was never read", g.pause(), g.width)
	}
}

func TestIdleGatesAreForgottenAndBusyOnesKept(t *testing.T) {
	c := newGateClock(newMemRegistry())
	id := func(n int) GateID { return GateID{"u", fmt.Sprint(n)} }
	gates := map[int]*Gate{}
	for n := range maxGates + 100 {
		g, err := c.at(t.Context(), id(n))
		if err != nil {
			t.Fatal(err)
		}
		gates[n] = g
		switch n {
		case 3:
			g.inFlight = 1
		case 5:
			g.waiting = []*turn{{}}
		}
	}
	if len(c.gates) != maxGates || len(c.order) != maxGates {
		t.Errorf("%d gates are kept, %d in order; want %d", len(c.gates), len(c.order), maxGates)
	}
	for n, g := range gates {
		want := n >= 102 || n == 3 || n == 5
		if kept := c.gates[id(n)] == g; kept != want {
			t.Errorf("gate %d is kept: %t, want %t", n, kept, want)
		}
	}
}

func TestOneProcessTellsOnceAMinuteWhatIsInFlight(t *testing.T) {
	registry := newMemRegistry()
	one, other := newGateClock(registry), newGateClock(registry)
	one.gate(t)
	if registry.saves != 0 {
		t.Error("what was never called was told of")
	}
	call := func(c *gateClock, n int) {
		g := c.gate(t)
		g.inFlight += n + 1
		g.answered(c.now, 0)
	}
	look := func(c *gateClock, after time.Duration) {
		c.now = c.now.Add(after)
		c.gate(t)
	}
	call(one, 7)
	call(other, 9)
	look(one, gateReadAge)
	if rec := one.saved(t); rec.InFlight != 7 || !rec.ToldAt.Equal(one.now) {
		t.Errorf("its first calls are told as %+v", rec)
	}
	for range 11 {
		look(one, gateReadAge)
		look(other, gateReadAge)
	}
	if registry.saves != 1 {
		t.Errorf("%d saves within a minute", registry.saves)
	}
	look(other, 2*gateReadAge)
	if rec := one.saved(t); rec.InFlight != 9 || registry.saves != 2 {
		t.Errorf("a minute later it is %+v, after %d saves", rec, registry.saves)
	}
	other.gate(t).inFlight, one.gate(t).inFlight = 0, 0
	look(other, gateSaveAge)
	look(other, gateSaveAge)
	if rec := one.saved(t); rec.InFlight != 0 || registry.saves != 3 {
		t.Errorf("at the end it is %+v, after %d saves", rec, registry.saves)
	}
	e, err := registry.Entry(t.Context(), KindGate, testGate.Upstream, testGate.Model)
	if err != nil || !e.Expires.Equal(one.saved(t).ToldAt.Add(gateKept)) {
		t.Errorf("its record is kept until %s, %v", e.Expires, err)
	}
}

func TestWhatNamesNoModelHasNoRecord(t *testing.T) {
	c := newGateClock(newMemRegistry())
	g, err := c.at(t.Context(), GateID{"upstream", ""})
	if err != nil {
		t.Fatal(err)
	}
	g.inFlight++
	g.answered(c.now, 0)
	c.tell(t, g, true, "")
	if c.registry.saves != 0 || c.begun != 0 {
		t.Errorf("%d saves, and %d records begun", c.registry.saves, c.begun)
	}
}

func TestAProcessBeginsSoManyRecordsOnly(t *testing.T) {
	c := newGateClock(newMemRegistry())
	for n := range 2 * mostNew {
		g, err := c.at(t.Context(), GateID{"upstream", fmt.Sprint("model-", n)})
		if err != nil {
			t.Fatal(err)
		}
		g.inFlight++
		g.answered(c.now, 0)
		c.tell(t, g, true, "")
	}
	if c.registry.saves != mostNew {
		t.Errorf("%d records of models that a stranger has named, want %d", c.registry.saves, mostNew)
	}
}

// TestAProcessThatKnowsNothingBelievesWhatAnotherHasSeen: else it would take a healthy item of a flaky upstream for poison.
func TestAProcessThatKnowsNothingBelievesWhatAnotherHasSeen(t *testing.T) {
	registry := newMemRegistry()
	old, young := newGateClock(registry), newGateClock(registry)
	answers := func(g *Gate, n, failures int) {
		for range n {
			g.inFlight++
			g.answered(time.Time{}, failures)
		}
	}
	old.tell(t, old.gate(t), true, "")
	answers(old.gate(t), 10, 0)
	old.tell(t, old.gate(t), true, "")
	if rec := old.saved(t); registry.saves != 1 || rec.Answered != 0 {
		t.Errorf("%d saves, though nothing has failed and it was told of once: %+v", registry.saves, rec)
	}
	answers(old.gate(t), 10, 1)
	old.tell(t, old.gate(t), true, "")
	g := young.gate(t)
	if want := 13.0 / 33; g.odds() != want {
		t.Errorf("a process without an answer takes the odds for %g, want %g", g.odds(), want)
	}
	answers(g, 1, 0)
	if want := 3.0 / 4; g.odds() != want {
		t.Errorf("one that has an answer of its own takes the odds for %g, want %g", g.odds(), want)
	}
	young.tell(t, g, true, "")
	if rec := young.saved(t); rec.Answered != 20 {
		t.Errorf("one that has seen a single answer recorded %d of them, in the place of 20", rec.Answered)
	}
	old.now = old.now.Add(gateSaveAge)
	answers(old.gate(t), 3, 0)
	old.tell(t, old.gate(t), true, "")
	if rec := old.saved(t); rec.Answered != 23 || rec.Failures != 10 {
		t.Errorf("the record is %+v, though 23 were answered by now", rec)
	}
	old.now = old.now.Add(gateSaveAge)
	answers(old.gate(t), 256, 0)
	old.tell(t, old.gate(t), true, "")
	if rec := old.saved(t); rec.Failures != 0 {
		t.Errorf("what is well again is still recorded with %d failures", rec.Failures)
	}
}
