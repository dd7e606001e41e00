package jobs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/dchest/siphash"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// putIDs writes ids as runs of a few entries and splits of a few runs; id(i) is that of line i of the input.
func putIDs(tb rapid.TB, files Files, total, perRun, runsPerSplit int, id func(i int) uint64) []idRun {
	tb.Helper()
	var runs []idRun
	var b [8]byte
	for start := 0; start < total; start += perRun {
		split := len(runs) / runsPerSplit
		entries := make([]idEntry, 0, perRun)
		for i := start; i < min(start+perRun, total); i++ {
			binary.LittleEndian.PutUint64(b[:], id(i))
			hi, lo := siphash.Hash128(1, 2, b[:])
			entries = append(entries, idEntry{hi, lo, uint32(i - split*perRun*runsPerSplit)})
		}
		sortIDs(entries)
		name := fmt.Sprintf("ids-%d", len(runs))
		if err := saveIDs(context.Background(), files, name, entries); err != nil {
			tb.Fatal(err)
		}
		runs = append(runs, idRun{split: split, file: FileRef{Name: name}})
	}
	return runs
}

func TestEarliestLineWinsAndAllLaterOnesLose(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ids := rapid.SliceOfN(rapid.Uint64Range(0, 3000), 0, 3000).Draw(t, "ids")
		if rapid.Bool().Draw(t, "all equal") {
			for i := range ids {
				ids[i] = 7
			}
		}
		const perRun, runsPerSplit = 100, 3
		files := newMemFiles()
		runs := putIDs(t, files, len(ids), perRun, runsPerSplit, func(i int) uint64 { return ids[i] })
		line := func(r lineRef) int { return r.split*perRun*runsPerSplit + int(r.line) }
		got, want := map[int]int{}, map[int]int{}
		err := duplicates(context.Background(), files, runs, 1, func(loser, winner lineRef) error {
			if _, twice := got[line(loser)]; twice {
				t.Fatalf("line %d is yielded twice", line(loser))
			}
			got[line(loser)] = line(winner)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for i, id := range ids {
			if first := slices.Index(ids, id); first < i {
				want[i] = first
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("losers (-want +got):\n%s", d)
		}
	})
}

func TestDuplicatesStayWithinTheirBudget(t *testing.T) {
	const total, perRun, budget = 400_000, 20_000, 1 << 20
	for name, id := range map[string]func(i int) uint64{
		"all different": func(i int) uint64 { return uint64(i) },
		"all equal":     func(int) uint64 { return 1 },
		"each twice":    func(i int) uint64 { return uint64(i % (total / 2)) },
	} {
		t.Run(name, func(t *testing.T) {
			files := newMemFiles()
			runs := putIDs(t, files, total, perRun, 2, id)
			files.reads.Store(0)
			var before, now runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			losers := 0
			err := duplicates(context.Background(), files, runs, budget, func(_, _ lineRef) error {
				losers++
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			runtime.ReadMemStats(&now)
			// All that was ever allotted, not only what lives: the search makes no garbage to speak of.
			if used := now.TotalAlloc - before.TotalAlloc; used > budget+budget/2 {
				t.Errorf("it took %d bytes for a budget of %d", used, budget)
			}
			different := map[string]int{"all different": total, "all equal": 1, "each twice": total / 2}[name]
			if losers != total-different {
				t.Errorf("%d losers, want %d", losers, total-different)
			}
			slices := total/int(winnersIn(budget)) + 2
			if reads := int(files.reads.Load()); reads > len(runs)*(slices+1) {
				t.Errorf("%d reads for %d runs and about %d slices", reads, len(runs), slices)
			}
		})
	}
}

func TestSlicesCoverAllHashesAndFitTheTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var totals [idBuckets]int64
		for range rapid.IntRange(0, 20).Draw(t, "buckets") {
			totals[rapid.IntRange(0, 255).Draw(t, "bucket")] = rapid.Int64Range(0, 5000).Draw(t, "entries")
		}
		const most = 1000
		last := sliceIDs(totals, most)
		if last[len(last)-1] != 1<<64-1 || !slices.IsSorted(last) || len(slices.Compact(slices.Clone(last))) != len(last) {
			t.Fatalf("slices end at %x", last)
		}
		var from float64
		for _, l := range last {
			var sum float64 // entries of the slice, if the hashes are spread evenly within their bucket
			for b, n := range totals {
				low, high := max(float64(b)*(1<<56), from), min(float64(b+1)*(1<<56), float64(l)+1)
				sum += float64(n) * max(high-low, 0) / (1 << 56)
			}
			if sum > most+1 {
				t.Fatalf("the slice up to %x has %.0f entries", l, sum)
			}
			from = float64(l) + 1
		}
	})
}

func TestSortIDsSorts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		kinds := uint64(rapid.SampledFrom([]int{1, 3, 1 << 20}).Draw(t, "kinds"))
		entries := make([]idEntry, rapid.IntRange(0, 3000).Draw(t, "entries"))
		for i := range entries {
			entries[i] = idEntry{r.Uint64N(kinds) << rapid.SampledFrom([]int{0, 44}).Draw(t, "shift"), r.Uint64N(kinds), r.Uint32()}
		}
		want := slices.SortedFunc(slices.Values(entries), compareIDs)
		sortIDs(entries)
		if !slices.Equal(want, entries) {
			t.Fatal("not sorted, or not the same entries")
		}
	})
}

func TestDamagedIDsAreRefused(t *testing.T) {
	ctx := context.Background()
	files := newMemFiles()
	runs := putIDs(t, files, 300, 100, 1, func(i int) uint64 { return uint64(i) })
	whole, _ := files.get("ids-1")
	for name, data := range map[string][]byte{
		"cut off": whole[:len(whole)-1], "no header": whole[:100], "something else": append([]byte("x"), whole[1:]...),
	} {
		files.put("ids-1", data)
		err := duplicates(ctx, files, slices.Clone(runs), 1<<20, func(_, _ lineRef) error { return nil })
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	files.put("ids-1", whole)
	stop := errors.New("stop")
	files = newMemFiles()
	runs = putIDs(t, files, 10, 5, 1, func(int) uint64 { return 1 })
	if err := duplicates(ctx, files, runs, 1<<20, func(_, _ lineRef) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("error %v, want that of yield", err)
	}
}

// BenchmarkDuplicates searches ten million ids within the usual budget.
func BenchmarkDuplicates(b *testing.B) {
	const total = 10_000_000
	files := newMemFiles()
	runs := putIDs(b, files, total, 330_000, 1, func(i int) uint64 { return uint64(i) })
	b.ReportAllocs()
	for b.Loop() {
		err := duplicates(context.Background(), files, slices.Clone(runs), duplicateBudget, func(_, _ lineRef) error { return nil })
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(total)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mids/s")
}
