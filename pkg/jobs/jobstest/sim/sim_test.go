package sim

import (
	"flag"
	"os"
	"testing"
)

var (
	seeds = flag.Uint64("seeds", 60, "how many seeds to run")
	first = flag.Uint64("first", 1, "the first seed")
	one   = flag.Uint64("seed", 0, "run this seed alone and print its log")
)

// onceFailed are seeds that found something; their runs differ from those of the day whenever a port is called otherwise.
var onceFailed = []uint64{
	1716, // a part was written again under its name, with more in it, after its commit had said that it failed
	1830, // a stopped job whose files could not be made stayed in finalizing
	7244, // tries that failed and tries that died were added up
}

func TestSeedsThatOnceFailed(t *testing.T) {
	for _, seed := range onceFailed {
		for _, b := range Run(t, seed).Broken() {
			t.Errorf("seed %d: %s", seed, b)
		}
	}
}

// TestSeeds runs many seeds and holds each to what is promised.
func TestSeeds(t *testing.T) {
	if *one != 0 {
		w := Run(t, *one)
		_, _ = os.Stdout.WriteString(w.Log())
		for _, b := range w.Broken() {
			t.Error(b)
		}
		return
	}
	seen := Coverage{}
	broken := 0
	for seed := *first; seed < *first+*seeds; seed++ {
		w := Run(t, seed)
		seen.Add(w)
		for _, b := range w.Broken() {
			t.Errorf("seed %d: %s\nreplay: go test ./pkg/jobs/jobstest/sim -run TestSeeds -seed %d", seed, b, seed)
			broken++
		}
		if broken > 10 {
			t.Fatal("and so on")
		}
	}
	t.Logf("of %d runs, so many showed:\n%s", *seeds, seen)
}
