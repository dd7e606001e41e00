package sim

import (
	_ "embed"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

var (
	seeds = flag.Uint64("seeds", 40, "how many seeds to run")
	first = flag.Uint64("first", 1, "the first seed")
	one   = flag.Uint64("seed", 0, "run this seed alone and print its log")

	showLog = flag.Bool("show", false, "print the log of every scenario that runs")
)

// coveredBy is how many seeds visit every behaviour, with room to spare.
const coveredBy = 2000

// TestSeeds runs many seeds and holds each to what is promised.
func TestSeeds(t *testing.T) {
	if *one != 0 {
		replay(t, *one)
		return
	}
	seen, ran := runSeeds(t, *first, *seeds)
	t.Logf("of %d runs, so many showed:\n%s", ran, seen)
	if missing := seen.Missing(); ran >= coveredBy && len(missing) > 0 {
		t.Errorf("no run showed: %q", missing)
	}
}

func replay(t *testing.T, seed uint64) {
	w := RunLogged(t, seed)
	_, _ = os.Stdout.WriteString(w.Log())
	for _, b := range w.Broken() {
		t.Error(b)
	}
}

// runSeeds runs seeds on all cores, until too many have failed.
func runSeeds(t *testing.T, first, n uint64) (Coverage, uint64) {
	var (
		next, ran, broken atomic.Uint64
		mu                sync.Mutex
		seen              = Coverage{}
	)
	t.Run("seeds", func(t *testing.T) {
		for core := range runtime.GOMAXPROCS(0) {
			t.Run(fmt.Sprint("core ", core), func(t *testing.T) {
				t.Parallel()
				for i := next.Add(1); i <= n && broken.Load() < 10; i = next.Add(1) {
					seed := first + i - 1
					w := Run(t, seed)
					mu.Lock()
					seen.Add(w)
					mu.Unlock()
					ran.Add(1)
					for _, b := range w.Broken() {
						t.Errorf("seed %d: %s\nreplay: scripts/sim -seed %d", seed, b, seed)
						broken.Add(1)
					}
				}
			})
		}
	})
	return seen, ran.Load()
}

// TestASeedIsASchedule runs seeds twice: what happens in one may not depend on anything but the seed.
func TestASeedIsASchedule(t *testing.T) {
	for seed := *first; seed < *first+20; seed++ {
		a, b := RunLogged(t, seed).Log(), RunLogged(t, seed).Log()
		if a == b {
			continue
		}
		x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
		for i := range x {
			if i >= len(y) || x[i] != y[i] {
				t.Errorf("seed %d went two ways, from line %d on:\n%s\n%s", seed, i, x[i], y[min(i, len(y)-1)])
				break
			}
		}
	}
}

//go:embed testdata/once-failed.txt
var onceFailed string

// TestSeedsThatOnceFailed runs seeds that found something. Their runs are others than on that day wherever a port is called
// otherwise since; what they found has its own test where it belongs.
func TestSeedsThatOnceFailed(t *testing.T) {
	for line := range strings.Lines(onceFailed) {
		number, _, _ := strings.Cut(line, " ")
		seed, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			t.Fatalf("testdata/once-failed.txt: %q: %v", line, err)
		}
		for _, b := range Run(t, seed).Broken() {
			t.Errorf("seed %d: %s\nreplay: scripts/sim -seed %d", seed, b, seed)
		}
	}
}
