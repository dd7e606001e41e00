package jobs

import (
	"slices"
	"time"
)

// latencyBounds are the upper bounds of the classes that latencies of answered calls are counted in, in seconds; the last
// class has none.
var latencyBounds = []float64{0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300}

// Latencies counts answered calls by how long they took, in the classes of LatencyBounds. Classes at the end that are empty
// are left out.
type Latencies []int64

// LatencyBounds are the upper bounds of the classes, in seconds.
func LatencyBounds() []float64 { return slices.Clone(latencyBounds) }

// observe is l with one more.
func (l Latencies) observe(seconds float64) Latencies {
	class, _ := slices.BinarySearch(latencyBounds, seconds)
	for len(l) <= class {
		l = append(l[:len(l):len(l)], 0)
	}
	l = slices.Clone(l)
	l[class]++
	return l
}

// Add is the sum.
func (l Latencies) Add(o Latencies) Latencies {
	if len(o) == 0 {
		return l
	}
	sum := make(Latencies, max(len(l), len(o)))
	copy(sum, l)
	for class, n := range o {
		sum[class] += n
	}
	return sum
}

// Quantile is about how long the fraction q (from 0 to 1) of the calls took at most; in the last class it is that class's
// lower bound. 0 if there was none.
func (l Latencies) Quantile(q float64) time.Duration {
	var all int64
	for _, n := range l {
		all += n
	}
	rank, below := q*float64(all), int64(0)
	for class, n := range l {
		if n == 0 || float64(below+n) < rank {
			below += n
			continue
		}
		low := 0.0
		if class > 0 {
			low = latencyBounds[class-1]
		}
		if class == len(latencyBounds) {
			return seconds(low)
		}
		return seconds(low + (latencyBounds[class]-low)*(rank-float64(below))/float64(n)) // as if they were spread evenly
	}
	return 0
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
