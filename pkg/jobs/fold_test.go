package jobs

import (
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// seqOf yields records, and then an error unless it is nil.
func seqOf[R any](err error, records ...R) iter.Seq2[R, error] {
	return func(yield func(R, error) bool) {
		for _, r := range records {
			if !yield(r, nil) {
				return
			}
		}
		if err != nil {
			var none R
			yield(none, err)
		}
	}
}

var neverAlive = func(*Chunk) bool { return false }

// foldOf folds a split that is all of these chunks.
func foldOf(t rapid.TB, chunks ...Chunk) splitFold {
	t.Helper()
	s := Split{Scanned: &Scanned{Chunks: len(chunks)}}
	for _, c := range chunks {
		s.Scanned.Items += int64(c.Items().Count())
	}
	f, err := foldSplit(&Job{}, &s, seqOf(nil, chunks...), neverAlive)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// outcomeOf is the one outcome that an item ever has, here: some fail, in so many ways.
func outcomeOf(chunk, ordinal, kinds int) outcome {
	n := chunk*31 + ordinal
	if n%3 == 0 {
		return outcome{Ordinal: ordinal, Kind: outError, Code: fmt.Sprintf("code-%d", n%kinds), Status: 400, Message: "no"}
	}
	return outcome{Ordinal: ordinal, Kind: outAnswer, Seconds: float64(n%16) / 8, Usage: &Usage{Input: int64(n), Output: 2, Total: int64(n) + 2}}
}

func TestFoldIsTheSameForAnyOrderAndRepetitionOfFacts(t *testing.T) {
	now := time.Unix(100, 0)
	type fact struct {
		chunk int
		part  partHeader
	}
	rapid.Check(t, func(t *rapid.T) {
		var born []Chunk
		var facts []fact
		want := Totals{}
		kinds := rapid.SampledFrom([]int{4, 100}).Draw(t, "kinds of error")
		for i := range rapid.IntRange(1, 4).Draw(t, "chunks") {
			c := Chunk{ID: ChunkID{"j", 0, int64(i) * 1000}, Lines: rapid.IntRange(1, 20).Draw(t, "lines")}
			if kinds > 4 {
				c.Lines *= 4
			}
			_, c.Blank = drawSet(t, "blank")
			c.Blank = c.Blank.And(AllBits(c.Lines))
			born = append(born, c)
			want.Items += int64(c.Items().Count())
			resolved := Bits{}
			for attempt := range rapid.IntRange(0, 4).Draw(t, "parts") {
				h := partHeader{Chunk: c.ID, Attempt: attempt + 1, Seq: 1}
				for o := range c.Items().Ordinals {
					if rapid.Bool().Draw(t, "in it") {
						h.Outcomes = append(h.Outcomes, outcomeOf(i, o, kinds))
						resolved.Set(o)
					}
				}
				facts = append(facts, fact{i, h})
			}
			for o := range resolved.Ordinals {
				if out := outcomeOf(i, o, kinds); out.Kind == outError {
					want.Failed++
				} else {
					want.Answered++
					want.Seconds += out.Seconds
					want.Latencies = want.Latencies.Add(classOf(out.Seconds))
					want.Usage = want.Usage.Add(*out.Usage)
					want.LastAnswer = now
				}
			}
		}
		inOrder := slices.Clone(born)
		for _, f := range facts {
			inOrder[f.chunk].merge(&f.part, now)
		}
		anyOrder := slices.Clone(born)
		again := slices.Concat(facts, facts, facts[:len(facts)/2])
		rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "order"), 0)).Shuffle(len(again), func(i, j int) { again[i], again[j] = again[j], again[i] })
		for i, f := range again {
			c := &anyOrder[f.chunk]
			c.merge(&f.part, now)
			c.Owner, c.Attempt, c.Lease = fmt.Sprint("w/", i), i, now.Add(time.Duration(i)) // claimed once more in between
		}
		x, y := foldOf(t, inOrder...), foldOf(t, anyOrder...)
		if errorsOf(x.Totals) != want.Failed || errorsOf(y.Totals) != want.Failed {
			t.Fatalf("%d and %d errors of %d failed items", errorsOf(x.Totals), errorsOf(y.Totals), want.Failed)
		}
		if kinds > 4 { // which of too many kinds are told apart may depend on who came first
			x.Totals.Errors, y.Totals.Errors = nil, nil
		}
		if d := cmp.Diff(x, y); d != "" {
			t.Fatalf("fold (-in order +in any order):\n%s", d)
		}
		x.Totals.Errors = nil
		if d := cmp.Diff(want, x.Totals); d != "" {
			t.Fatalf("totals (-want +got):\n%s", d)
		}
	})
}

func errorsOf(t Totals) (all int64) {
	for _, e := range t.Errors {
		all += e.Count
	}
	return all
}

func someChunks() []Chunk {
	return []Chunk{
		{ID: ChunkID{"j", 0, 0}, Lines: 10, Resolved: AllBits(10)},
		{ID: ChunkID{"j", 0, 500}, Lines: 10, Resolved: BitsOf(3), Burial: 1, Dead: true, Buried: true},
		{ID: ChunkID{"j", 0, 900}, Lines: 10},
	}
}

func TestGenerationChangesWithEveryFact(t *testing.T) {
	seen := map[Generation]string{}
	for _, row := range []struct {
		fact   string
		change func(c []Chunk) []Chunk
	}{
		{"none", func(c []Chunk) []Chunk { return c }},
		{"an item resolved", func(c []Chunk) []Chunk { c[2].Resolved = BitsOf(0); return c }},
		{"another item resolved", func(c []Chunk) []Chunk { c[2].Resolved = BitsOf(9); return c }},
		{"a chunk dead", func(c []Chunk) []Chunk { c[2].Dead = true; return c }},
		{"a dead chunk open", func(c []Chunk) []Chunk { c[1].Dead = false; return c }},
		{"buried once more", func(c []Chunk) []Chunk { c[1].Burial++; return c }},
		{"a chunk born", func(c []Chunk) []Chunk { return append(c, Chunk{ID: ChunkID{"j", 0, 1000}, Lines: 1}) }},
		{"another chunk born", func(c []Chunk) []Chunk { return append(c, Chunk{ID: ChunkID{"j", 0, 1001}, Lines: 1}) }},
		{"the last chunk not born", func(c []Chunk) []Chunk { return c[:2] }},
		{"no chunk born", func(c []Chunk) []Chunk { return nil }},
	} {
		g := foldOf(t, row.change(someChunks())...).Generation
		if other, twice := seen[g]; twice {
			t.Errorf("%s: the same generation as with %s", row.fact, other)
		}
		seen[g] = row.fact
	}
}

func TestGenerationIsUnmovedByWhatIsNoFact(t *testing.T) {
	changes := []func(c *Chunk, at time.Time){
		func(c *Chunk, at time.Time) { c.Owner, c.Lease = "w/1", at },
		func(c *Chunk, at time.Time) { c.Owner, c.Lease = "", time.Time{} },
		func(c *Chunk, at time.Time) { c.Lease = at },
		func(c *Chunk, at time.Time) { c.NotBefore = at },
		func(c *Chunk, at time.Time) { c.Attempt++ },
		func(c *Chunk, at time.Time) { c.Revision++ },
		func(c *Chunk, at time.Time) { c.Idle, c.Crashes = c.Idle+1, 2 },
		func(c *Chunk, at time.Time) {
			c.Accused, c.Spent, c.Calls, c.Failures = BitsOf(4), BitsOf(4), map[int]int{4: 3}, map[int]int{4: 5}
		},
		func(c *Chunk, at time.Time) { n := 4; c.InHand, c.Felled = &n, map[int]Felled{4: {Times: 1}} },
		func(c *Chunk, at time.Time) { c.Waits = parkedByJob },
		func(c *Chunk, at time.Time) { c.Errors = addError(c.Errors, 4, "c", 500, "m") },
		func(c *Chunk, at time.Time) { c.Resolved = append(slices.Clone(c.Resolved), 0, 0) },
	}
	want := foldOf(t, someChunks()...).Generation
	rapid.Check(t, func(t *rapid.T) {
		chunks := someChunks()
		for range rapid.IntRange(1, 8).Draw(t, "changes") {
			change := rapid.IntRange(0, len(changes)-1).Draw(t, "change")
			at := time.Unix(rapid.Int64Range(0, 1000).Draw(t, "at"), 0)
			changes[change](&chunks[rapid.IntRange(0, 2).Draw(t, "chunk")], at)
		}
		if got := foldOf(t, chunks...).Generation; got != want {
			t.Fatal("another generation")
		}
	})
}

func TestSplitIsSettledByTheseRules(t *testing.T) {
	lease := time.Unix(200, 0)
	at := func(offset int64, c Chunk) Chunk {
		c.ID, c.Lines = ChunkID{"j", 0, offset}, 2
		return c
	}
	done, open := at(0, Chunk{Resolved: AllBits(2)}), at(50, Chunk{Resolved: BitsOf(1)})
	unburied, buried := at(50, Chunk{Dead: true, Burial: 3}), at(50, Chunk{Dead: true, Burial: 3, Buried: true})
	purged, late := at(50, Chunk{Dead: true, Burial: 3, Buried: true, Purged: true}), at(50, Chunk{Dead: true, Burial: 3, Buried: true, Resolved: AllBits(2)})
	held, heldLonger := at(50, Chunk{Owner: "w/1", Lease: lease}), at(60, Chunk{Owner: "w/2", Lease: lease.Add(time.Second)})
	expired := &Stop{As: PhaseExpired}
	for _, row := range []struct {
		name      string
		stop      *Stop
		scanned   int
		reopening map[int64]int
		chunks    []Chunk
		settled   bool
		still     map[int64]int // reopening
		ends      time.Time
	}{
		{name: "no chunks at all", settled: true},
		{name: "all done", scanned: 1, chunks: []Chunk{done}, settled: true},
		{name: "one not born", scanned: 2, chunks: []Chunk{done}},
		{name: "one open", scanned: 2, chunks: []Chunk{done, open}},
		{name: "one held", scanned: 2, chunks: []Chunk{done, held}, ends: lease},
		{name: "dead and not buried", scanned: 2, chunks: []Chunk{done, unburied}},
		{name: "dead and buried", scanned: 2, chunks: []Chunk{done, buried}, settled: true},

		{name: "a redrive is on its way", scanned: 2, reopening: map[int64]int{50: 3}, chunks: []Chunk{done, buried}, still: map[int64]int{50: 3}},
		{name: "a redrive of another burial", scanned: 2, reopening: map[int64]int{50: 2}, chunks: []Chunk{done, buried}, settled: true},
		{name: "a redrive came", scanned: 2, reopening: map[int64]int{50: 3}, chunks: []Chunk{done, open}},
		{name: "a redrive of what was purged", scanned: 2, reopening: map[int64]int{50: 3}, chunks: []Chunk{done, purged}, settled: true},
		{name: "a redrive of what a late save has finished", scanned: 2, reopening: map[int64]int{50: 3}, chunks: []Chunk{done, late}, settled: true},
		{name: "a redrive came to an end", scanned: 2, reopening: map[int64]int{0: 1}, chunks: []Chunk{done, buried}, settled: true},
		{name: "a redrive of what is not there", scanned: 1, reopening: map[int64]int{50: 3}, chunks: []Chunk{done}, still: map[int64]int{50: 3}},

		{name: "stopped, all done", stop: expired, scanned: 1, chunks: []Chunk{done}, settled: true},
		{name: "stopped, one open", stop: expired, scanned: 2, chunks: []Chunk{done, open}, settled: true},
		{name: "stopped, none born", stop: expired, scanned: 9, settled: true},
		{name: "stopped, not buried", stop: expired, scanned: 1, chunks: []Chunk{unburied}, settled: true},
		{name: "stopped, a redrive on its way", stop: expired, scanned: 2, reopening: map[int64]int{50: 3}, chunks: []Chunk{done, buried}, settled: true, still: map[int64]int{50: 3}},
		{name: "stopped, two held", stop: expired, scanned: 2, chunks: []Chunk{held, heldLonger}, ends: lease},
		{name: "stopped, two held the other way", stop: expired, scanned: 2, chunks: []Chunk{at(1, heldLonger), at(2, held)}, ends: lease},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := Split{Scanned: &Scanned{Chunks: row.scanned}, Reopening: row.reopening}
			before := len(row.reopening)
			f, err := foldSplit(&Job{Stop: row.stop}, &s, seqOf(nil, row.chunks...), func(c *Chunk) bool { return c.Owner != "" })
			if err != nil {
				t.Fatal(err)
			}
			if f.Settled != row.settled || !f.LeaseEnds.Equal(row.ends) {
				t.Errorf("settled %t, leases end %v; want %t, %v", f.Settled, f.LeaseEnds, row.settled, row.ends)
			}
			if len(f.Reopening)+len(row.still) > 0 && !cmp.Equal(f.Reopening, row.still) {
				t.Errorf("reopening %v, want %v", f.Reopening, row.still)
			}
			if len(row.reopening) != before {
				t.Error("the split that was read has changed")
			}
		})
	}
}

func TestPurgedItemsAreCountedApartAndMakeNoOtherFiles(t *testing.T) {
	fold := func(c Chunk) splitFold {
		c.ID, c.Lines = ChunkID{"j", 0, 0}, 5
		f, err := foldSplit(&Job{}, &Split{Scanned: &Scanned{Chunks: 1, Items: 5}}, seqOf(nil, c), neverAlive)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	dead := Chunk{Dead: true, Buried: true, Burial: 1, Resolved: BitsOf(0, 1)}
	waits := fold(dead)
	dead.Purged = true
	purged := fold(dead)
	if waits.Totals.Dead != 1 || waits.Totals.DeadItems != 3 || waits.Totals.PurgedItems != 0 {
		t.Errorf("a dead chunk counts as %+v", waits.Totals)
	}
	if purged.Totals.Dead != 0 || purged.Totals.DeadItems != 0 || purged.Totals.PurgedItems != 3 || purged.Generation != waits.Generation || !purged.Settled {
		t.Errorf("a purged chunk counts as %+v, settled %t, of another generation: %t", purged.Totals, purged.Settled, purged.Generation != waits.Generation)
	}
	j := Job{Phase: PhaseCompleted, Checked: &Checked{}, Outputs: &Outputs{}, Totals: waits.Totals}
	all := Survey{Scanned: true, Sent: true, Ready: true, Totals: purged.Totals}
	if step := NextForJob(&j, all); step != StepFold {
		t.Errorf("the job's next step is %q, want a fold", step)
	}
	j.noteFold(all, time.Unix(1, 0))
	if step := NextForJob(&j, all); step != StepNone {
		t.Errorf("and then %q", step)
	}
}

func TestStopIsAFactOnlyOfWhatItCutShort(t *testing.T) {
	generation := func(stop *Stop, chunks ...Chunk) Generation {
		f, err := foldSplit(&Job{Stop: stop}, &Split{Scanned: &Scanned{Chunks: 3}}, seqOf(nil, chunks...), neverAlive)
		if err != nil {
			t.Fatal(err)
		}
		return f.Generation
	}
	cancelled, expired := &Stop{As: PhaseCancelled}, &Stop{As: PhaseExpired}
	open := someChunks()
	if a, b, c := generation(nil, open...), generation(cancelled, open...), generation(expired, open...); a == b || b == c || a == c {
		t.Error("the error lines of open items differ with the stop, the generation does not")
	}
	whole := someChunks()
	whole[2].Resolved = AllBits(10)
	if generation(nil, whole...) != generation(cancelled, whole...) {
		t.Error("a stop that came too late makes another generation")
	}
}

func TestFoldCountsDeadAndParkedChunksAndWhatWasScanned(t *testing.T) {
	chunks := someChunks()
	chunks[2].Waits = parkedByJob
	chunks[0].Dead = true // a late save has resolved all of it
	chunks[1].Errors = addError(nil, 4, "c", 500, "m")
	s := Split{Scanned: &Scanned{Chunks: 5, Items: 77}}
	f, err := foldSplit(&Job{}, &s, seqOf(nil, chunks...), neverAlive)
	if err != nil {
		t.Fatal(err)
	}
	want := Totals{Items: 77, Dead: 1, DeadItems: 9, Parked: 1, Errors: []ErrorCount{{"c", "m", 1}}}
	if d := cmp.Diff(want, f.Totals); d != "" {
		t.Errorf("totals (-want +got):\n%s", d)
	}
}

func TestFoldAndSurveyEndWithTheErrorOfTheLedger(t *testing.T) {
	gone := errors.New("gone")
	if _, err := foldSplit(&Job{}, &Split{Scanned: &Scanned{Chunks: 1}}, seqOf(gone, someChunks()...), neverAlive); !errors.Is(err, gone) {
		t.Errorf("fold ends with %v", err)
	}
	if _, err := survey(&Job{}, seqOf(gone, Split{})); !errors.Is(err, gone) {
		t.Errorf("survey ends with %v", err)
	}
}

func TestSurveyTable(t *testing.T) {
	fold, older := Generation{1}, Generation{2}
	ready := Split{Scanned: &Scanned{Items: 5}, Dispatched: true, Settled: true, Fold: fold, PiecesOf: fold, Compacted: true, Totals: Totals{Items: 5, Answered: 4}}
	with := func(change func(s *Split)) []Split {
		s := ready
		change(&s)
		return []Split{s}
	}
	both := Totals{Items: 10, Answered: 8}
	for _, row := range []struct {
		name   string
		second []Split // of two
		want   Survey
	}{
		{"absent", nil, Survey{Totals: Totals{Items: 5, Answered: 4}}},
		{"not scanned", []Split{{}}, Survey{Totals: Totals{Items: 5, Answered: 4}}},
		{"not dispatched", []Split{{Scanned: &Scanned{Items: 3}}}, Survey{Scanned: true, Totals: Totals{Items: 8, Answered: 4}}},
		{"not folded", []Split{{Scanned: &Scanned{Items: 3}, Dispatched: true}}, Survey{Scanned: true, Sent: true, Totals: Totals{Items: 8, Answered: 4}}},
		{"not settled", with(func(s *Split) { s.Settled = false }), Survey{Scanned: true, Sent: true, Totals: both}},
		{"not compacted", with(func(s *Split) { s.Compacted = false }), Survey{Scanned: true, Sent: true, Totals: both}},
		{"compacted of an older fold", with(func(s *Split) { s.PiecesOf = older }), Survey{Scanned: true, Sent: true, Totals: both}},
		{"settled and not sent", with(func(s *Split) { s.Dispatched = false }), Survey{Scanned: true, Ready: true, Totals: both}},
		{"ready", []Split{ready}, Survey{Scanned: true, Sent: true, Ready: true, Totals: both}},
	} {
		j := Job{InputBytes: 20, Cut: Cut{SplitBytes: 10}}
		got, err := survey(&j, seqOf(nil, append([]Split{ready}, row.second...)...))
		if err != nil {
			t.Fatal(err)
		}
		got.Fold = Generation{}
		if d := cmp.Diff(row.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", row.name, d)
		}
	}
}

func TestSurveyIsOfTheFoldsOfItsSplitsInOrder(t *testing.T) {
	a, b := Split{Fold: Generation{1}}, Split{Fold: Generation{2}}
	seen := map[Generation]bool{}
	for _, splits := range [][]Split{nil, {a}, {b}, {a, b}, {b, a}, {a, a}} {
		all, err := survey(&Job{}, seqOf(nil, splits...))
		if err != nil {
			t.Fatal(err)
		}
		seen[all.Fold] = true
	}
	if len(seen) != 6 {
		t.Errorf("6 different jobs have %d generations", len(seen))
	}
}

func TestGenerationReadsBackAsItWasWritten(t *testing.T) {
	for _, g := range []Generation{{}, {1}, {15: 255}} {
		text, err := g.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		read := Generation{9}
		if err := read.UnmarshalText(text); err != nil || read != g {
			t.Errorf("%s is written %q and read %s, %v", g, text, read, err)
		}
		if g.IsZero() != (len(text) == 0) {
			t.Errorf("%s is written %q", g, text)
		}
	}
	for _, text := range []string{"0", "zz000000000000000000000000000000", "0000000000000000000000000000000", "000000000000000000000000000000000"} {
		var g Generation
		if g.UnmarshalText([]byte(text)) == nil {
			t.Errorf("%q is read as %s", text, g)
		}
	}
}

// FuzzGeneration reads any text as a generation: it is refused, or means the same when it is written.
func FuzzGeneration(f *testing.F) {
	for _, text := range []string{"", "0", Generation{}.String(), Generation{1, 15: 255}.String(), "AB000000000000000000000000000000", "zz000000000000000000000000000000", Generation{1}.String() + "00"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		read := Generation{9}
		if err := read.UnmarshalText(text); err != nil {
			return
		}
		want := strings.ToLower(string(text))
		if read.IsZero() {
			want = "" // as all zeros are
		}
		written, err := read.MarshalText()
		var again Generation
		if err := errors.Join(err, again.UnmarshalText(written)); err != nil || string(written) != want || again != read {
			t.Fatalf("%q is written %q and read %s, %v", text, written, again, err)
		}
	})
}

// classOf is one latency.
func classOf(seconds float64) Latencies {
	var l Latencies
	for _, bound := range latencyBounds {
		if seconds <= bound {
			break
		}
		l = append(l, 0)
	}
	return append(l, 1)
}
