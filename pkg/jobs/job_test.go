package jobs

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestLegalMovesTable(t *testing.T) {
	// To:  validating, in_progress, finalizing, completed, cancelled, expired, failed.
	for from, row := range map[Phase]string{
		"":              "x......",
		PhaseValidating: ".xx....",
		PhaseInProgress: "..x....",
		PhaseFinalizing: ".x.xxxx",
		PhaseCompleted:  ".x.....",
		PhaseExpired:    ".x.....",
		PhaseCancelled:  ".......",
		PhaseFailed:     ".......",
		"unknown":       ".......",
	} {
		for i, to := range allPhases {
			if got, want := from.CanMove(to), row[i] == 'x'; got != want {
				t.Errorf("from %q to %q: %t, want %t", from, to, got, want)
			}
			j := Job{Phase: from}
			if got, want := panics(func() { j.moveTo(to, time.Unix(5, 0)) }), row[i] != 'x' && from != to; got != want {
				t.Errorf("moving from %q to %q panics: %t, want %t", from, to, got, want)
			}
		}
		if from.CanMove("") || from.CanMove("unknown") {
			t.Errorf("%q may move to no known phase", from)
		}
	}
}

func panics(f func()) (yes bool) {
	defer func() { yes = recover() != nil }()
	f()
	return false
}

func TestEveryOpenPhaseLeadsToEveryEndThroughFinalizing(t *testing.T) {
	for _, p := range allPhases {
		if !p.Ended() && p != PhaseFinalizing && !p.CanMove(PhaseFinalizing) {
			t.Errorf("a stop in %s leads nowhere", p)
		}
		if p.Ended() && !PhaseFinalizing.CanMove(p) {
			t.Errorf("%s cannot be reached", p)
		}
		if p.Ended() && p.CanMove(PhaseFinalizing) {
			t.Errorf("%s goes back to finalizing", p)
		}
	}
}

func TestJobStopsWithAStopOrItsEnd(t *testing.T) {
	for phase, ended := range map[Phase]bool{
		PhaseValidating: false, PhaseInProgress: false, PhaseFinalizing: false,
		PhaseCompleted: true, PhaseCancelled: true, PhaseExpired: true, PhaseFailed: true,
	} {
		if phase.Ended() != ended {
			t.Errorf("%s has ended: %t", phase, phase.Ended())
		}
		if j := (Job{Phase: phase}); j.Stopped() != ended {
			t.Errorf("a job that is %s is stopped: %t", phase, j.Stopped())
		}
		if j := (Job{Phase: phase, Stop: &Stop{}}); !j.Stopped() {
			t.Errorf("a job that is %s, with a stop, is not stopped", phase)
		}
	}
}

func TestMoveNotesWhenEachPhaseWasEntered(t *testing.T) {
	first, second, third := time.Unix(1, 0), time.Unix(2, 0), time.Unix(3, 0)
	var j Job
	j.moveTo(PhaseValidating, first)
	j.moveTo(PhaseInProgress, second)
	j.moveTo(PhaseInProgress, third)
	want := Job{Phase: PhaseInProgress, MovedAt: third, Entered: map[Phase]time.Time{PhaseValidating: first, PhaseInProgress: third}}
	if d := cmp.Diff(want, j); d != "" {
		t.Errorf("job (-want +got):\n%s", d)
	}
}

func TestOnlyOpenAndCompletedJobsTakeWorkBack(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for left, want := range map[time.Duration]bool{0: false, time.Hour: false, sealedBefore + time.Hour: true} {
		if j := (Job{Phase: PhaseCompleted, Deadline: now.Add(left - RecordsKept)}); j.takesBack(now) != want {
			t.Errorf("a job whose records are kept for %s more takes work back: %t", left, j.takesBack(now))
		}
	}
	for phase, want := range map[Phase]bool{
		PhaseValidating: true, PhaseInProgress: true, PhaseFinalizing: true, PhaseCompleted: true,
		PhaseCancelled: false, PhaseExpired: false, PhaseFailed: false,
	} {
		if j := (Job{Phase: phase}); j.takesBack(now) != want {
			t.Errorf("a job that is %s takes work back: %t", phase, j.takesBack(now))
		}
		if j := (Job{Phase: phase, Stop: &Stop{As: PhaseCancelled}}); j.takesBack(now) {
			t.Errorf("a stopped job that is %s takes work back", phase)
		}
	}
}

func TestReopenedJobHasAWindowAgain(t *testing.T) {
	now, window := time.Unix(1000, 0), 600*time.Second
	for _, row := range []struct {
		name           string
		phase          Phase
		deadline, want time.Time
	}{
		{"none before, none now", PhaseCompleted, time.Time{}, time.Time{}},
		{"nearly over", PhaseCompleted, now.Add(1), now.Add(window)},
		{"much is left", PhaseCompleted, now.Add(2 * window), now.Add(2 * window)},
		{"just over", PhaseCompleted, now, now.Add(window)},
		{"long over", PhaseExpired, now.Add(-time.Hour), now.Add(window)},
		{"while it runs", PhaseInProgress, now.Add(5), now.Add(5)},
		{"while it is finalized", PhaseFinalizing, now.Add(5), now.Add(5)},
	} {
		j := Job{Phase: row.phase, Deadline: row.deadline, Window: window, Closed: true, Resends: 5, ResentAt: now}
		j.reopen(now)
		if j.Phase != PhaseInProgress || !j.Deadline.Equal(row.want) {
			t.Errorf("%s: %s until %v; want in_progress until %v", row.name, j.Phase, j.Deadline, row.want)
		}
		if j.Closed || j.Resends != 0 || !j.ResentAt.IsZero() {
			t.Errorf("%s: the sweep does not begin anew: closed %t, %d resends", row.name, j.Closed, j.Resends)
		}
	}
}

func TestSplitsCoverTheInput(t *testing.T) {
	for _, row := range []struct {
		bytes, split int64
		want         int
	}{
		{0, 100, 1}, {1, 100, 1}, {99, 100, 1}, {100, 100, 1}, {101, 100, 2}, {200, 100, 2}, {201, 100, 3}, {5, 1, 5},
	} {
		j := Job{InputBytes: row.bytes, Cut: Cut{SplitBytes: row.split}}
		if got := j.Splits(); got != row.want {
			t.Errorf("%d bytes in splits of %d: %d splits, want %d", row.bytes, row.split, got, row.want)
		}
	}
}

func TestDefaultCutTable(t *testing.T) {
	const mib, gib = 1 << 20, 1 << 30
	usual := Cut{SplitBytes: 64 * mib, ChunkLines: 100, ChunkBytes: 4 * mib, FloorBytes: 16 << 10, LineBytes: 20 * mib}
	large := usual
	large.SplitBytes, large.FloorBytes = 512*mib, 128<<10
	for bytes, want := range map[int64]Cut{0: usual, 1: usual, gib: usual, 8000 * 64 * mib: usual, 8000 * 512 * mib: large} {
		if d := cmp.Diff(want, DefaultCut(bytes)); d != "" {
			t.Errorf("cut of %d bytes (-want +got):\n%s", bytes, d)
		}
	}
}

func TestDefaultCutKeepsTheLimitOfSplits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bytes := rapid.Int64Range(0, 1<<50).Draw(t, "bytes")
		j := Job{InputBytes: bytes, Cut: DefaultCut(bytes)}
		if n := j.Splits(); n < 1 || n > MaxJobSplits {
			t.Errorf("%d bytes make %d splits", bytes, n)
		}
	})
}

func TestDefaultCutAtItsFloorKeepsTheLimitOfChunks(t *testing.T) {
	const splits = MaxJobSplits * 64 << 20 // the largest input with splits of 64 MiB
	for _, bytes := range []int64{0, 1, 64 << 20, splits, splits + 1, splits + 1<<30, 1<<40 + 12345, 1 << 50} {
		cut := DefaultCut(bytes)
		if n := (cut.SplitBytes + cut.FloorBytes - 1) / cut.FloorBytes; n > MaxSplitChunks {
			t.Errorf("an input of %d bytes has splits of %d with %d chunks of %d; at most %d are allowed", bytes, cut.SplitBytes, n, cut.FloorBytes, MaxSplitChunks)
		}
	}
}
