package jobs

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestQuantilesLieInTheClassOfTheirRank(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		took := rapid.SliceOfN(rapid.Float64Range(0, 400), 1, 60).Draw(t, "seconds")
		q := rapid.Float64Range(0.01, 1).Draw(t, "q")
		var l Latencies
		for _, s := range took {
			l = l.observe(s)
		}
		slices.Sort(took)
		exact := took[max(0, min(len(took)-1, int(q*float64(len(took))-1e-9)))]
		class, _ := slices.BinarySearch(latencyBounds, exact)
		low, high := 0.0, latencyBounds[len(latencyBounds)-1]
		if class > 0 {
			low = latencyBounds[class-1]
		}
		if class < len(latencyBounds) {
			high = latencyBounds[class]
		}
		if got := l.Quantile(q); got < seconds(low)-time.Microsecond || got > seconds(high)+time.Microsecond {
			t.Errorf("quantile %g of %v is %s, want it from %g to %g s", q, took, got, low, high)
		}
	})
	if got := (Latencies)(nil).Quantile(0.5); got != 0 {
		t.Errorf("of none: %s", got)
	}
}

func TestLatenciesOfAReadRecordAreNotChangedByASum(t *testing.T) {
	a, b := Latencies{1, 2, 3}, Latencies{10}
	if sum := a.Add(b); !slices.Equal(sum, Latencies{11, 2, 3}) || !slices.Equal(a, Latencies{1, 2, 3}) || !slices.Equal(b.Add(a), sum) {
		t.Errorf("sum %v, then %v", sum, a)
	}
	if more := b.observe(0.2); !slices.Equal(more, Latencies{10, 1}) || len(b) != 1 {
		t.Errorf("observed %v, then %v", more, b)
	}
}
