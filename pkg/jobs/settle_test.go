package jobs

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// drawParts draws parts of a chunk that may contradict each other, as those of a worker that lost its lease and those of
// the next one may: an item may be answered in one and have failed in another. Some name lines that are no items.
func drawParts(t *rapid.T) (Chunk, []partHeader) {
	c := Chunk{ID: ChunkID{"j", 1, 7}, Lines: rapid.IntRange(1, 24).Draw(t, "lines"), Blank: BitsOf(2, 5)}
	c.Blank = c.Blank.And(AllBits(c.Lines))
	var parts []partHeader
	for n := range rapid.IntRange(1, 6).Draw(t, "parts") {
		h := partHeader{Chunk: c.ID, Attempt: 1 + n/2, Seq: 1 + n%2}
		for o := range c.Lines + 2 {
			switch kind := rapid.SampledFrom([]outKind{"", outAnswer, outError, outSample}).Draw(t, "kind"); kind {
			case "":
			case outAnswer:
				h.Outcomes = append(h.Outcomes, outcome{Ordinal: o, Kind: kind, Usage: &Usage{Total: 1}})
			default:
				code := fmt.Sprintf("code-%02d", rapid.IntRange(0, 20).Draw(t, "code"))
				h.Outcomes = append(h.Outcomes, outcome{Ordinal: o, Kind: kind, Code: code, Status: 500, Message: "m"})
			}
		}
		parts = append(parts, h)
	}
	return c, parts
}

func asJSON(t rapid.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestMergeGivesEachItemOneOutcomeInAnyOrder(t *testing.T) {
	now := time.Unix(9, 0)
	rapid.Check(t, func(t *rapid.T) {
		c, parts := drawParts(t)
		named := Bits{} // by any part
		for _, h := range parts {
			named = named.Or(h.mask(outAnswer, outError))
		}
		again := slices.Concat(parts, parts)
		rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "order"), 0)).Shuffle(len(again), func(i, j int) { again[i], again[j] = again[j], again[i] })
		for _, h := range again {
			before := c
			was := asJSON(t, before)
			c.merge(&h, now)
			if got := asJSON(t, before); got != was {
				t.Fatalf("merging changed the record that was read:\n%s\n%s", was, got)
			}
			if lost := before.Resolved.Without(c.Resolved); !lost.Empty() {
				t.Fatalf("items %s were turned off", lost)
			}
			once := asJSON(t, c)
			c.merge(&h, now.Add(time.Hour))
			if twice := asJSON(t, c); once != twice {
				t.Fatalf("merging it twice is not merging it once:\n%s\n%s", once, twice)
			}
		}
		checkOutcomes(t, &c, parts)
		if want := named.And(c.Items()); !c.Resolved.Equal(want) {
			t.Fatalf("resolved %s, want %s", c.Resolved, want)
		}
	})
}

// checkOutcomes checks that the masks of a chunk's parts are disjoint and make up what is resolved, and that the outcome
// of each item is that of the part it is taken from.
func checkOutcomes(t *rapid.T, c *Chunk, parts []partHeader) {
	t.Helper()
	union, failed := Bits{}, Bits{}
	for _, p := range c.Parts {
		if twice := union.And(p.Mask); !twice.Empty() {
			t.Fatalf("items %s are in two masks", twice)
		}
		union = union.Or(p.Mask)
		i := slices.IndexFunc(parts, func(h partHeader) bool { return h.Attempt == p.Attempt && h.Seq == p.Seq })
		failed = failed.Or(p.Mask.And(parts[i].mask(outError)))
		if stray := p.Mask.Without(parts[i].mask(outAnswer, outError)); !stray.Empty() {
			t.Fatalf("items %s are not in the part they are taken from", stray)
		}
	}
	if !union.Equal(c.Resolved) || !failed.Equal(c.Failed) {
		t.Fatalf("masks make up %s, failed %s; the record says %s, %s", union, failed, c.Resolved, c.Failed)
	}
	answered := int64(c.Resolved.Without(c.Failed).Count())
	if got := c.Totals; got.Failed != int64(failed.Count()) || got.Answered != answered || got.Usage.Total != answered {
		t.Fatalf("totals %+v of %d failed and %d answered", got, failed.Count(), answered)
	}
	grouped := Bits{}
	for _, g := range c.Errors {
		if twice := grouped.And(g.Items); !twice.Empty() {
			t.Fatalf("items %s are in two error groups", twice)
		}
		grouped = grouped.Or(g.Items)
	}
	if !grouped.Equal(c.Failed) || len(c.Errors) > MaxErrorGroups {
		t.Fatalf("%d error groups of %s, want those of %s", len(c.Errors), grouped, c.Failed)
	}
}

func TestMergesIntoTheSameRecordShareNothing(t *testing.T) {
	part := func(attempt int) *partHeader {
		return &partHeader{Attempt: attempt, Seq: 1, Outcomes: []outcome{{Ordinal: attempt, Kind: outAnswer}}}
	}
	read := Chunk{Lines: 9, Parts: make([]Part, 0, 8)} // room to append in place
	first, second := read, read
	first.merge(part(1), time.Time{})
	was := asJSON(t, first)
	second.merge(part(2), time.Time{})
	if got := asJSON(t, first); got != was {
		t.Errorf("a second merge changed the first:\n%s\n%s", was, got)
	}
}

func TestLateAnswerTakesTheItemOutOfItsErrorGroup(t *testing.T) {
	c := Chunk{Lines: 3, Errors: addError(addError(nil, 0, "c", 500, "m"), 1, "c", 500, "m")}
	c.merge(&partHeader{Attempt: 1, Seq: 1, Outcomes: []outcome{{Ordinal: 0, Kind: outAnswer}}}, time.Time{})
	want := []ErrorGroup{{"c", 500, "m", BitsOf(1)}}
	if d := cmp.Diff(want, c.Errors); d != "" {
		t.Errorf("last errors (-want +got):\n%s", d)
	}
}

func TestPartOfSamplesAloneIsKeptAndResolvesNothing(t *testing.T) {
	c := Chunk{Lines: 3}
	c.merge(&partHeader{Attempt: 1, Seq: 1, Outcomes: []outcome{{Ordinal: 1, Kind: outSample}}}, time.Time{})
	c.merge(&partHeader{Attempt: 1, Seq: 2}, time.Time{})
	want := Chunk{Lines: 3, Parts: []Part{{Attempt: 1, Seq: 1, Samples: BitsOf(1)}}}
	if d := cmp.Diff(want, c); d != "" {
		t.Errorf("chunk (-want +got):\n%s", d)
	}
}

func TestKeepErrorsDropsItemsAndThenGroups(t *testing.T) {
	groups := []ErrorGroup{{"a", 500, "m", BitsOf(1, 2)}, {"b", 0, "m", BitsOf(3)}, {"c", 0, "m", BitsOf(4, 400)}}
	was := asJSON(t, groups)
	want := []ErrorGroup{{"a", 500, "m", BitsOf(2)}, {"c", 0, "m", BitsOf(4)}}
	if d := cmp.Diff(want, keepErrors(groups, BitsOf(0, 2, 4, 9))); d != "" {
		t.Errorf("kept (-want +got):\n%s", d)
	}
	if got := asJSON(t, groups); got != was {
		t.Errorf("keeping some changed the groups that were read: %s, now %s", was, got)
	}
	if got := keepErrors(groups, nil); got != nil {
		t.Errorf("kept %v of nothing", got)
	}
}

func TestAddErrorMovesTheItemToItsLastError(t *testing.T) {
	var groups []ErrorGroup
	add := func(ordinal int, code string, status int, message string) {
		was, snapshot := groups, asJSON(t, groups)
		groups = addError(groups, ordinal, code, status, message)
		if got := asJSON(t, was); got != snapshot {
			t.Fatalf("adding one changed the groups that were read: %s, now %s", snapshot, got)
		}
	}
	add(0, "a", 500, "m")
	add(1, "a", 500, "m")
	add(1, "a", 502, "m") // another status is another kind
	add(2, "a", 502, "m")
	add(3, "a", 502, "n") // so is another message
	add(2, "a", 502, "n")
	add(2, "a", 502, "n")
	want := []ErrorGroup{{"a", 500, "m", BitsOf(0)}, {"a", 502, "m", BitsOf(1)}, {"a", 502, "n", BitsOf(2, 3)}}
	if d := cmp.Diff(want, groups); d != "" {
		t.Errorf("groups (-want +got):\n%s", d)
	}
}

func TestErrorGroupsAboveTheLimitAreOther(t *testing.T) {
	var groups []ErrorGroup
	for i := range 40 {
		groups = addError(groups, i, fmt.Sprint(i), 500, "m")
	}
	if len(groups) != MaxErrorGroups {
		t.Fatalf("%d groups, want %d", len(groups), MaxErrorGroups)
	}
	want := ErrorGroup{"other", 0, "other errors", AllBits(40).Without(AllBits(15))}
	if d := cmp.Diff(want, groups[15]); d != "" {
		t.Errorf("the last group (-want +got):\n%s", d)
	}
	if groups = addError(groups, 30, "3", 500, "m"); !groups[3].Items.Equal(BitsOf(3, 30)) {
		t.Errorf("an item of a known kind went to %v", groups)
	}
	if got := errorItems(groups); !got.Equal(AllBits(40)) {
		t.Errorf("items %s have an error", got)
	}
}

func TestErrorGroupsHoldEachItemOnceAndStayWithinTheLimit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var groups []ErrorGroup
		want := Bits{}
		for range rapid.IntRange(0, 60).Draw(t, "errors") {
			o := rapid.IntRange(0, 30).Draw(t, "item")
			groups = addError(groups, o, fmt.Sprint(rapid.IntRange(0, 25).Draw(t, "code")), 0, "m")
			want.Set(o)
			total := 0
			for _, g := range groups {
				total += g.Items.Count()
			}
			if got := errorItems(groups); !got.Equal(want) || total != want.Count() || len(groups) > MaxErrorGroups {
				t.Fatalf("%d groups of %d items %s, want %s", len(groups), total, got, want)
			}
		}
	})
}

func TestCrashIsBlamedOnTheItemInHandOnlyAfterSomeOfThem(t *testing.T) {
	// Each letter is one crash with item 4 in hand: a = another item was answered since the last one, c = none was,
	// n = nothing was in hand, o = with item 5 in hand.
	for _, row := range []struct {
		crashes string
		felled  map[int]Felled
		blamed  Bits
	}{
		{"n", nil, nil},
		{"nnnnnnn", nil, nil},
		{"c", map[int]Felled{4: {1, 1, 0}}, nil},
		{"cc", map[int]Felled{4: {2, 1, 0}}, nil},
		{"cccc", map[int]Felled{4: {4, 1, 0}}, nil},
		{"ccccc", map[int]Felled{4: {5, 1, 0}}, BitsOf(4)},
		{"aa", map[int]Felled{4: {2, 2, 2}}, nil},
		{"aaa", map[int]Felled{4: {3, 3, 3}}, BitsOf(4)},
		{"cnaca", map[int]Felled{4: {4, 3, 2}}, BitsOf(4)},
		{"caoo", map[int]Felled{4: {2, 2, 1}, 5: {2, 1, 1}}, nil},
	} {
		c := Chunk{Lines: 20}
		next := 10 // to be answered
		for _, crash := range row.crashes {
			item := 4
			switch crash {
			case 'n':
				c.noteCrash()
				continue
			case 'a':
				c.Resolved.Set(next)
				next++
			case 'o':
				item = 5
			}
			was := maps.Clone(c.Felled)
			read := c.Felled
			c.InHand = &item
			c.noteCrash()
			if !maps.Equal(was, read) {
				t.Fatalf("%s: noting a crash changed the record that was read", row.crashes)
			}
		}
		if c.InHand != nil || c.Crashes != len(row.crashes) {
			t.Errorf("%s: %d crashes, item in hand %v", row.crashes, c.Crashes, c.InHand)
		}
		if d := cmp.Diff(row.felled, c.Felled); d != "" {
			t.Errorf("%s: felled (-want +got):\n%s", row.crashes, d)
		}
		if !c.blamed().Equal(row.blamed) {
			t.Errorf("%s: blamed %s, want %s", row.crashes, c.blamed(), row.blamed)
		}
	}
}

func TestOnlyOpenItemsAreBlamed(t *testing.T) {
	c := Chunk{Lines: 9, Felled: map[int]Felled{4: {9, 9, 0}, 5: {9, 9, 0}}, Resolved: BitsOf(4)}
	if got := c.blamed(); !got.Equal(BitsOf(5)) {
		t.Errorf("blamed %s, want 5", got)
	}
}

func TestForgivenChunkKeepsItsOutcomesAndNothingAgainstItsItems(t *testing.T) {
	item := 4
	c := Chunk{
		V: 1, ID: ChunkID{"j", 0, 0}, Lines: 9, Attempt: 7, Resolved: BitsOf(0, 1), Failed: BitsOf(1),
		Accused: BitsOf(4), Calls: map[int]int{4: 8}, Failures: map[int]int{4: 9, 5: 1}, Spent: BitsOf(4), Felled: map[int]Felled{4: {1, 1, 1}}, InHand: &item,
		Crashes: 2, Idle: 3, NotBefore: time.Unix(1, 0), Burial: 2, Dead: true, Buried: true,
		Parts: []Part{{1, 1, BitsOf(0, 1), nil}}, Totals: Totals{Answered: 1, Failed: 1},
		Errors: []ErrorGroup{{"a", 500, "m", BitsOf(1, 4)}, {"b", 500, "m", BitsOf(5)}},
	}
	want := Chunk{
		V: 1, ID: ChunkID{"j", 0, 0}, Lines: 9, Attempt: 7, Resolved: BitsOf(0, 1), Failed: BitsOf(1),
		Burial: 2, Parts: []Part{{1, 1, BitsOf(0, 1), nil}}, Totals: Totals{Answered: 1, Failed: 1},
		Errors: []ErrorGroup{{"a", 500, "m", BitsOf(1)}},
	}
	c.forgive()
	if d := cmp.Diff(want, c); d != "" {
		t.Errorf("chunk (-want +got):\n%s", d)
	}
}

// endOf is an attempt that is about to end, and its chunk: d = every item is done, s = every open one is spent,
// o = some are open; and why it stopped.
func endOf(items byte, stop stopReason) (*attempt, *Chunk) {
	w := &Worker{Ports: Ports{Now: func() time.Time { return time.Unix(50, 0) }}, opt: WorkerOptions{DeferMost: time.Minute}}
	a := &attempt{w: w, owner: "w/1", resolvedAtClaim: 1, stop: stop, stopWhy: throttled}
	c := &Chunk{Lines: 4, Owner: "w/1", Resolved: BitsOf(0), Crashes: 1, Burial: 2, Idle: 3, Lease: time.Unix(60, 0)}
	switch items {
	case 'd':
		c.Resolved = AllBits(4)
	case 's':
		c.Spent = BitsOf(1, 2, 3)
	}
	return a, c
}

func TestFateTable(t *testing.T) {
	reasons := map[byte]stopReason{'-': stopNot, 'd': stopDrain, 'j': stopJob, 'w': stopWeather, 'p': stopPaused, 'h': stopHeld, 'l': stopLost, 'b': stopBroken}
	// items, why the attempt stopped
	decisionTable(t, map[string]fate{
		"d*": fateDone,
		"sj": fateReleased, "oj": fateReleased,
		"s-": fateDead, "sd": fateDead, "sw": fateDead, "sp": fateDead, "sh": fateDead, "sl": fateDead, "sb": fateDead,
		"op": fateParked, "oh": fateParked,
		"od": fateReturned,
		"o-": fateDeferred, "ow": fateDeferred, "ol": fateDeferred, "ob": fateDeferred,
	}).check([]string{"dso", "-djwphlb"}, func(key string) fate {
		a, c := endOf(key[0], reasons[key[1]])
		return a.fateOf(c)
	})
}

func TestGivenUpClaimIsMarkedForItsFate(t *testing.T) {
	put := func(seconds int) time.Time { return time.Unix(50, 0).Add(time.Duration(seconds) * time.Second) }
	for _, row := range []struct {
		name  string
		items byte
		stop  stopReason
		gate  GateID
		why   *Fault
		more  bool // progress since the claim
		want  func(c *Chunk)
	}{
		{name: "done", items: 'd', want: func(*Chunk) {}},
		{name: "dead", items: 's', want: func(c *Chunk) { c.Dead, c.Burial, c.DiedAt = true, 3, put(0) }},
		{name: "parked by its job", items: 'o', stop: stopPaused, want: func(c *Chunk) { c.Waits = parkedByJob }},
		{name: "parked by a gate", items: 'o', stop: stopPaused, gate: GateID{"u", "m"}, want: func(c *Chunk) { c.Waits = "u/m" }},
		{name: "refused, so its job is paused", items: 'o', stop: stopHeld, gate: GateID{"u", "m"}, want: func(c *Chunk) { c.Waits = parkedByJob }},
		{name: "returned", items: 'o', stop: stopDrain, want: func(*Chunk) {}},
		{name: "released", items: 'o', stop: stopJob, want: func(*Chunk) {}},
		{name: "deferred for the fourth time", items: 'o', stop: stopWeather, want: func(c *Chunk) { c.NotBefore, c.Idle = put(8), 4 }},
		{name: "deferred after progress", items: 'o', stop: stopWeather, more: true, want: func(c *Chunk) { c.NotBefore = put(8) }},
		{name: "deferred as long as was asked", items: 'o', stop: stopWeather, why: throttledFor(20 * time.Second), want: func(c *Chunk) { c.NotBefore, c.Idle = put(20), 4 }},
		{name: "deferred not so long as was asked", items: 'o', stop: stopWeather, why: throttledFor(time.Hour), want: func(c *Chunk) { c.NotBefore, c.Idle = put(60), 4 }},
		{name: "asked to wait, but others were answered", items: 'o', stop: stopWeather, why: throttledFor(time.Hour), more: true, want: func(c *Chunk) { c.NotBefore = put(8) }},
		{name: "a port failed", items: 'o', stop: stopBroken, want: func(c *Chunk) { c.NotBefore, c.Idle = put(8), 4 }},
	} {
		a, c := endOf(row.items, row.stop)
		a.stopGate = row.gate
		if row.why != nil {
			a.stopWhy = row.why
		}
		if row.more {
			a.resolvedAtClaim = 0
		}
		want := *c
		want.Owner, want.Lease, want.Crashes = "", time.Time{}, 0
		row.want(&want)
		a.giveUp(c, time.Second)
		if d := cmp.Diff(&want, c); d != "" {
			t.Errorf("%s (-want +got):\n%s", row.name, d)
		}
	}
}
