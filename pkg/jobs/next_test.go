package jobs

import (
	"maps"
	"slices"
	"testing"
	"time"
)

var allPhases = []Phase{PhaseValidating, PhaseInProgress, PhaseFinalizing, PhaseCompleted, PhaseCancelled, PhaseExpired, PhaseFailed}

// standings are all jobs as far as Next tells them apart, by letter: o = open, s = stopped and not ended, e = ended,
// f = failed.
func standings() map[byte][]Job {
	all := map[byte][]Job{}
	for _, phase := range allPhases {
		for _, stop := range []*Stop{nil, {As: PhaseCancelled}, {As: PhaseExpired}, {As: PhaseFailed}} {
			j := Job{ID: "j", Phase: phase, Stop: stop}
			letter := byte('o')
			switch {
			case phase == PhaseFailed:
				letter = 'f'
			case phase.Ended():
				letter = 'e'
			case stop != nil:
				letter = 's'
			}
			all[letter] = append(all[letter], j)
		}
	}
	return all
}

func TestNextForSplitTable(t *testing.T) {
	// job, checked, scanned, dispatched, folded, settled, compacted
	table := decisionTable(t, map[string]Step{
		"f******": StepNone,

		"o*0****": StepScan,
		"o01****": StepNone, // the job's turn: check
		"o110***": StepDispatch,
		"o1110**": StepFold,
		"o11110*": StepNone, // wait for workers
		"o111110": StepCompact,
		"o111111": StepNone, // the job's turn: finalize

		"s0*****": StepNone, // nothing was dispatched: the job ends without files
		"s1**0**": StepFold,
		"s1**10*": StepNone, // wait for leases
		"s1**110": StepCompact,
		"s1**111": StepNone,

		"e0*****": StepNone,
		"e1**0**": StepFold, // a late save is published too
		"e1**10*": StepNone,
		"e1**110": StepCompact,
		"e1**111": StepNone,
	})
	for letter, jobs := range standings() {
		for _, j := range jobs {
			table.check([]string{string(letter), "01", "01", "01", "01", "01", "01"}, func(key string) Step {
				s := Split{Dispatched: key[3] == '1', Settled: key[5] == '1', Fold: Generation{7}}
				if key[1] == '1' {
					j.Checked = &Checked{}
				} else {
					j.Checked = nil
				}
				if key[2] == '1' {
					s.Scanned = &Scanned{}
				}
				if key[6] == '1' {
					s.Compacted, s.PiecesOf = true, s.Fold
				}
				return NextForSplit(&j, &s, key[4] == '1')
			})
		}
	}
}

func TestSplitIsCompactedOnlyWithAllPiecesOfItsFold(t *testing.T) {
	j := Job{Phase: PhaseInProgress, Checked: &Checked{}}
	fold, older := Generation{1}, Generation{2}
	for _, row := range []struct {
		name string
		s    Split
		want Step
	}{
		{"no pieces", Split{Fold: fold}, StepCompact},
		{"some pieces of it", Split{Fold: fold, PiecesOf: fold, Pieces: []Piece{{To: 1}}}, StepCompact},
		{"all pieces of an older fold", Split{Fold: fold, PiecesOf: older, Compacted: true}, StepCompact},
		{"all pieces of it", Split{Fold: fold, PiecesOf: fold, Compacted: true}, StepNone},
	} {
		row.s.Scanned, row.s.Dispatched, row.s.Settled = &Scanned{}, true, true
		if got := NextForSplit(&j, &row.s, true); got != row.want {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
	}
}

func TestNextForJobTable(t *testing.T) {
	now := time.Unix(10_000, 0)
	// job, checked, all scanned, all sent, all ready, files (n = none, o = of an older generation, t = of this one), folded, untold
	table := decisionTable(t, map[string]Step{
		"f******0": StepNone,
		"f******1": StepNotify,

		"o00*****": StepNone, // the splits' turn: scan
		"o01*****": StepCheck,
		"o1*0****": StepDispatch,
		"o1*11***": StepFinalize,
		"o1*10*0*": StepFold,
		"o1*10*1*": StepNone, // the splits' turn

		"s0******": StepFinalize, // nothing to publish
		"s1**1***": StepFinalize,
		"s1**0*0*": StepFold,
		"s1**0*1*": StepNone,

		"e******1": StepNotify, // first of all: what is published may change once more
		"e0*****0": StepNone,
		"e1**1n*0": StepFinalize,
		"e1**1o*0": StepFinalize, // a late save is published too
		"e1**1t00": StepFold,
		"e1**1t10": StepNone,
		"e1**0*00": StepFold,
		"e1**0*10": StepNone,
	})
	for letter, jobs := range standings() {
		for _, j := range jobs {
			table.check([]string{string(letter), "01", "01", "01", "01", "not", "01", "01"}, func(key string) Step {
				all := Survey{Scanned: key[2] == '1', Sent: key[3] == '1', Ready: key[4] == '1', Fold: Generation{7}}
				j.Checked, j.Outputs, j.Fold = nil, nil, Generation{6}
				if key[1] == '1' {
					j.Checked = &Checked{}
				}
				switch key[5] {
				case 'o':
					j.Outputs = &Outputs{Of: Generation{6}}
				case 't':
					j.Outputs = &Outputs{Of: all.Fold}
				}
				if key[6] == '1' {
					j.Fold = all.Fold
				}
				j.Entered, j.Notified = map[Phase]time.Time{j.Phase: now}, now
				if key[7] == '1' {
					j.Notified = now.Add(-time.Hour) // of an end before it was reopened
				}
				return NextForJob(&j, all)
			})
		}
	}
}

func TestEveryStepIsDoneByItsOwner(t *testing.T) {
	want := map[Step]QueueName{
		StepScan: QueueIngest, StepCheck: QueueIngest, StepDispatch: QueueIngest,
		StepFold: QueueAggregate, StepCompact: QueueAggregate, StepFinalize: QueueAggregate, StepNotify: QueueAggregate,
	}
	p := Ports{Now: time.Now}
	done := map[Step]QueueName{}
	for _, v := range []visitor{NewIngest(p, IngestOptions{}).visitor, NewAggregate(p, AggregateOptions{}).visitor} {
		for _, step := range slices.Concat(slices.Collect(maps.Keys(v.split)), slices.Collect(maps.Keys(v.job))) {
			done[step] = v.queue
		}
	}
	for step, owner := range want {
		if step.Owner() != owner {
			t.Errorf("%s belongs to %s, want %s", step, step.Owner(), owner)
		}
	}
	if !maps.Equal(done, want) {
		t.Errorf("steps are done by %v, want %v", done, want)
	}
}
