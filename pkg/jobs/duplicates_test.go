package jobs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
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

func TestIDsOfMoreThanARunHoldsAreRefused(t *testing.T) {
	files := newMemFiles()
	runs := putIDs(t, files, 300, 100, 1, func(i int) uint64 { return uint64(i) })
	whole, _ := files.get("ids-1")
	damaged := slices.Clone(whole)
	for b := range idBuckets {
		binary.BigEndian.PutUint32(damaged[len(idMagic)+4*b:], 1<<32-1)
	}
	files.put("ids-1", damaged)
	err := duplicates(t.Context(), files, runs, duplicateBudget, func(_, _ lineRef) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "ids-1") {
		t.Errorf("error %v, want one that names the run", err)
	}
}

func TestCheckRefusesDamagedScans(t *testing.T) {
	for _, row := range []struct {
		name, object string
		damage       func(data []byte) []byte
	}{
		{"a duplicate on line 4278190081", idsName("j", 0, 0), func(data []byte) []byte {
			data[len(data)-idEntryBytes+16] = 0xff
			return data
		}},
		{"cuts of another split", cutsName("j", 0), func(data []byte) []byte {
			return bytes.Replace(data, []byte(`"split":0`), []byte(`"split":7`), 1)
		}},
	} {
		files, ledger := newMemFiles(), &memLedger{}
		input := request("", "") + "\n" + request("", "") + "\n"
		j := Job{ID: "j", Input: files.put("in", []byte(input)), InputBytes: int64(len(input)), Endpoint: chatURL, Cut: DefaultCut(0)}
		scanned, err := scanToFiles(t.Context(), files, &j, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := ledger.SaveSplit(t.Context(), &Split{V: SchemaVersion, Job: "j", Scanned: &scanned}); err != nil {
			t.Fatal(err)
		}
		whole, _ := files.get(row.object)
		files.put(row.object, row.damage(bytes.Clone(whole)))
		before := allotted()
		err = guard(func() error {
			_, err := checkToFiles(t.Context(), files, ledger, &j, 1<<20)
			return err
		})
		if _, died := errors.AsType[*stepPanic](err); err == nil || died {
			t.Errorf("%s: %v", row.name, err)
		}
		if took := allotted() - before; took > 16<<20 {
			t.Errorf("%s: it took %d MiB", row.name, took>>20)
		}
	}
}

// FuzzDuplicates searches two runs, of which the second is any object. It is refused, or what is found is in it: a line, and
// another one with the same hash. It stays within its budget.
func FuzzDuplicates(f *testing.F) {
	const budget = 1 << 20
	files := newMemFiles()
	putIDs(f, files, 40, 20, 1, func(i int) uint64 { return uint64(i % 15) })
	first, _ := files.get("ids-0")
	second, _ := files.get("ids-1")
	firstEntries := entriesOf(first)
	f.Add(second)
	f.Add(second[:len(second)-1])
	f.Add(second[:idHeaderBytes])
	f.Add(second[:idHeaderBytes-1])
	f.Add(second[:len(idMagic)])
	for i := 0; i < len(second); i += 61 {
		damaged := slices.Clone(second)
		damaged[i] ^= 1 << (i % 8)
		f.Add(damaged)
	}
	f.Fuzz(func(t *testing.T, second []byte) {
		entries := entriesOf(second)
		files := newMemFiles()
		runs := []idRun{{split: 0, file: files.put("first", first)}, {split: 1, file: files.put("second", second)}}
		found, before := 0, allotted()
		err := duplicates(t.Context(), files, runs, budget, func(loser, winner lineRef) error {
			found++
			of := map[int]map[uint32][]idEntry{0: firstEntries, 1: entries}
			same := slices.ContainsFunc(of[loser.split][loser.line], func(l idEntry) bool {
				return slices.ContainsFunc(of[winner.split][winner.line], func(w idEntry) bool { return l.hi == w.hi && l.lo == w.lo })
			})
			if !same || loser == winner {
				t.Fatalf("%v loses to %v", loser, winner)
			}
			return nil
		})
		if took := allotted() - before; took > budget+budget/2+uint64(len(second))*16 {
			t.Fatalf("it took %d bytes, %v", took, err)
		}
		if err == nil && (len(second) < idHeaderBytes || found > 20+len(second)/idEntryBytes) {
			t.Fatalf("%d duplicates are found in %d bytes", found, len(second))
		}
	})
}

// entriesOf are the entries that stand in an ids object, whatever its header says, by line.
func entriesOf(object []byte) map[uint32][]idEntry {
	entries := map[uint32][]idEntry{}
	for at := idHeaderBytes; at+idEntryBytes <= len(object); at += idEntryBytes {
		e := idEntry{binary.BigEndian.Uint64(object[at:]), binary.BigEndian.Uint64(object[at+8:]), binary.BigEndian.Uint32(object[at+16:])}
		entries[e.line] = append(entries[e.line], e)
	}
	return entries
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
