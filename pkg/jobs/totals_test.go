package jobs

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// drawCounts draws error counts as a fold makes them: by merging, of up to so many kinds.
func drawCounts(t *rapid.T, kinds int, name string) []ErrorCount {
	var counts []ErrorCount
	for range rapid.IntRange(0, 30).Draw(t, name) {
		code := fmt.Sprintf("code-%02d", rapid.IntRange(0, kinds-1).Draw(t, name+" kind"))
		counts = mergeErrors(counts, []ErrorCount{{code, "m", rapid.Int64Range(1, 5).Draw(t, name+" count")}})
	}
	return counts
}

func countOf(counts ...[]ErrorCount) (sum int64) {
	for _, e := range slices.Concat(counts...) {
		sum += e.Count
	}
	return sum
}

func TestErrorCountsAreBoundedAndLoseNone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawCounts(t, 60, "a"), drawCounts(t, 60, "b")
		x, y := slices.Clone(a), slices.Clone(b)
		merged := mergeErrors(a, b)
		if len(merged) > MaxErrorGroups {
			t.Fatalf("%d kinds are kept", len(merged))
		}
		if got, want := countOf(merged), countOf(a, b); got != want {
			t.Fatalf("%d errors are left of %d", got, want)
		}
		if !slices.Equal(a, x) || !slices.Equal(b, y) {
			t.Fatal("merging changed what was merged")
		}
	})
}

func TestErrorCountsOfFewKindsAreTheirSums(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := drawCounts(t, MaxErrorGroups, "a"), drawCounts(t, MaxErrorGroups, "b"), drawCounts(t, MaxErrorGroups, "c")
		sum := map[string]int64{}
		for _, e := range slices.Concat(a, b, c) {
			sum[e.Code] += e.Count
		}
		merged := mergeErrors(mergeErrors(a, b), c)
		for i, e := range merged {
			if e.Count != sum[e.Code] {
				t.Fatalf("%d errors of kind %s, want %d", e.Count, e.Code, sum[e.Code])
			}
			if i > 0 && merged[i-1].Count < e.Count {
				t.Fatalf("the commonest do not come first: %v", merged)
			}
		}
		if len(merged) != len(sum) {
			t.Fatalf("%d kinds, want %d", len(merged), len(sum))
		}
		if other := mergeErrors(c, mergeErrors(b, a)); !slices.Equal(other, merged) {
			t.Fatalf("the order of merging counts: %v and %v", merged, other)
		}
	})
}

func kinds(from, to int) []ErrorCount {
	var counts []ErrorCount
	for i := from; i < to; i++ {
		counts = append(counts, ErrorCount{fmt.Sprintf("code-%02d", i), "m", 1})
	}
	return counts
}

func TestTheRarestErrorsBecomeOther(t *testing.T) {
	counts := kinds(0, 20)
	for i := range counts {
		counts[i].Count = int64(100 - i)
	}
	want := append(slices.Clone(counts[:15]), ErrorCount{"other", "other errors", 85 + 84 + 83 + 82 + 81})
	if d := cmp.Diff(want, mergeErrors(nil, counts)); d != "" {
		t.Errorf("merged (-want +got):\n%s", d)
	}
}

func TestOtherErrorsAreOneKindHoweverOftenTheyAreMerged(t *testing.T) {
	merged := mergeErrors(mergeErrors(nil, kinds(0, 60)), kinds(60, 90))
	others := 0
	for _, e := range merged {
		if e.Code == "other" {
			others++
		}
	}
	if others != 1 {
		t.Errorf("%d rows of other errors, want 1: %v", others, merged)
	}
}

func TestTotalsAreSums(t *testing.T) {
	early, late := time.Unix(1, 0), time.Unix(2, 0)
	a := Totals{1, 2, 3, Usage{4, 5, 6, 7, 8}, 0.5, late, 9, 10, 12, 11, []ErrorCount{{"x", "m", 1}}, nil, 0}
	b := Totals{10, 20, 30, Usage{40, 50, 60, 70, 80}, 0.25, early, 90, 100, 120, 110, []ErrorCount{{"y", "m", 2}, {"x", "m", 3}}, nil, 0}
	want := Totals{11, 22, 33, Usage{44, 55, 66, 77, 88}, 0.75, late, 99, 110, 132, 121, []ErrorCount{{"x", "m", 4}, {"y", "m", 2}}, nil, 0}
	if d := cmp.Diff(want, a.Add(b)); d != "" {
		t.Errorf("a + b (-want +got):\n%s", d)
	}
	if d := cmp.Diff(want, b.Add(a)); d != "" {
		t.Errorf("b + a (-want +got):\n%s", d)
	}
	if d := cmp.Diff(a, a.Add(Totals{})); d != "" {
		t.Errorf("a + nothing (-want +got):\n%s", d)
	}
}
