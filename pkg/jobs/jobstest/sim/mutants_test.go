package sim

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var (
	mutate = flag.Bool("mutants", false, "check that every mutant is caught; takes minutes")
	share  = flag.Int("share", 1, "of the mutants only one in so many, others each day")
)

// mutant is a small fault in the code under test, as a careless change might bring it in. It is compiled in by an overlay, so
// that the product has no hook for it.
type mutant struct {
	name    string
	changes []change
}

// change replaces text that stands once in a file of pkg/jobs.
type change struct{ file, old, new string }

// caughtWithin is how many seeds may run before a mutant is caught, if no scenario has caught it.
const caughtWithin = 1500

var mutants = []mutant{{
	"the message is acknowledged before its outcomes are recorded",
	[]change{
		{"settle.go", `	f, err := a.letGo(ctx)
`, `	f, err := a.letGo(ctx)
	if err != nil {
		return nil
	}
`},
		{"worker.go", `insistTries = 3`, `insistTries = 1`}, // else it takes three failures in a row to see it
	},
}, {
	"bits are overwritten instead of turned on",
	[]change{{"settle.go", `c.Resolved = c.Resolved.Or(mask)`, `c.Resolved = mask`}},
}, {
	"a save takes outcomes for items that have one",
	[]change{{"settle.go", `h.mask(outAnswer, outError).Without(c.Resolved).And(c.Items())`, `h.mask(outAnswer, outError).And(c.Items())`}},
}, {
	"a lost compare-and-swap is overwritten",
	[]change{{"settle.go", `			return errors.Join(err, a.w.readChunk(ctx, c.ID, a.c))`, `			var now Chunk
			if err := a.w.readChunk(ctx, c.ID, &now); err != nil {
				return err
			}
			c.Revision = now.Revision
			err = a.w.Ledger.SaveChunk(ctx, &c)`}},
}, {
	"a fold compares with a revision that it read after the facts",
	[]change{{"aggregate.go", `	news := f.Generation != s.Fold ||`, `	if now, err := a.Ledger.Split(ctx, j.ID, s.N); err == nil {
		s.Revision = now.Revision
	}
	news := f.Generation != s.Fold ||`}},
}, {
	"a job is read before its split",
	[]change{
		{"visit.go", `	s, err := v.Ledger.Split(ctx, m.Job, m.Split)
	if errors.Is(err, ErrNotFound) {`, `	j, err := v.readJob(ctx, m.Job)
	if err != nil || m.Split >= j.Splits() {
		return task{}, err
	}
	s, err := v.Ledger.Split(ctx, m.Job, m.Split)
	if errors.Is(err, ErrNotFound) {`},
		{"visit.go", `	j, err := v.readJob(ctx, m.Job)
	if err != nil || m.Split >= j.Splits() {
		return task{}, err
	}
	step := NextForSplit(`, `	step := NextForSplit(`},
	},
}, {
	"pieces are taken whatever generation they are of",
	[]change{{"next.go", `s.Compacted && s.PiecesOf == s.Fold }`, `s.Compacted }`}},
}, {
	"pieces are made of chunks that have changed since the fold",
	[]change{{"compact.go", `if f.Generation != s.Fold || !f.Settled {`, `if !f.Settled {`}},
}, {
	"files are joined from splits that have changed since they were looked at",
	[]change{{"finalize.go", `if !again.Ready || again.Fold != all.Fold {`, `if !again.Ready {`}},
}, {
	"finalize ends the job whatever has become of it",
	[]change{{"finalize.go", `	if !j.Phase.Ended() {
		end :=`, `	if now, err := a.Ledger.Job(ctx, j.ID); err == nil {
		j.Revision = now.Revision
	}
	if !j.Phase.Ended() {
		end :=`}},
}, {
	"leases move the generation",
	[]change{{"fold.go", `binary.BigEndian.PutUint64(fact[8:], uint64(c.Burial))`, `binary.BigEndian.PutUint64(fact[8:], uint64(c.Attempt))`}},
}, {
	"nobody looks again after the claim",
	[]change{{"claim.go", `	j, err := a.w.lookAgain(ctx, a.m.Job)
	if err == nil {
		a.job = j`, `	j, err := a.job, error(nil)
	if err == nil {`}},
}, {
	"a redrive goes bottom up",
	[]change{{"claim.go", `			if ok, err := w.redrive(ctx, d, c); !ok || err != nil {
				return nil, false, err
			}
			c.forgive()
		}
		orphan = c.Owner != ""`, `			before := *c
			defer func() {
				if err == nil {
					_, err = w.redrive(ctx, d, &before)
				}
			}()
			c.forgive()
		}
		orphan = c.Owner != ""`}},
}, {
	"a redrive does not name its chunk in the split",
	[]change{{"redrive.go", `		s.Reopening, s.Settled = named, false`, `		s.Settled = false`}},
}, {
	"a redrive forgives nothing",
	[]change{{"claim.go", `	c.Accused, c.Passed, c.Spent, c.Calls, c.Failures, c.Felled, c.InHand = nil, nil, nil, nil, nil, nil, nil
`, ``}},
}, {
	"any message for a dead chunk is taken for a redrive",
	[]change{{"claim.go", `	case c.Dead && m.Burial == c.Burial:`, `	case c.Dead:`}},
}, {
	"an interrupted burial is not finished",
	[]change{{"claim.go", `		case standUnburied:
			return nil, false, w.bury(ctx, d, c)`, `		case standUnburied:
			return nil, false, nil`}},
}, {
	"a burial is noted before the dead letters have it",
	[]change{{"bury.go", `	if err := w.sendToDead(ctx, d, c, burialOf(c)); err != nil {
		return err
	}
	number := c.Burial`, `	why := burialOf(c)
	defer func() { _ = w.sendToDead(ctx, d, c, why) }()
	number := c.Burial`}},
}, {
	"failures are counted without accusation",
	[]change{{"judge.go", `v.Counted = v.Accused && e.blames()
		if`, `v.Counted = true
		if`}},
}, {
	"failures are counted in an outage",
	[]change{{"judge.go", `return e.AnsweredSince || e.OnlyAccused }`, `return true }`}},
}, {
	"one death is blame enough",
	[]change{{"claim.go", `if f.Strong >= strongFells || f.Times >= weakFells {`, `if f.Times >= 1 {`}},
}, {
	"a chunk whose process died is not isolated",
	[]change{{"claim.go", `if (c.Crashes >= isolateFrom || len(c.Felled) > 0) && !alone {`, `if false {`}},
}, {
	"what is held at the deadline is lost",
	[]change{{"settle.go", `	failed := insist(func() error { return a.writePart(ctx) })
`, `	var failed error
	if a.stop != stopDrain {
		failed = insist(func() error { return a.writePart(ctx) })
	}
`}},
}, {
	"a part is written again under the name of one whose commit failed",
	[]change{
		{"attempt.go", `	a.seq++ // also if this fails: it may be there all the same, and the next part has more in it
	h := &partHeader{V: SchemaVersion, Chunk: a.c.ID, Attempt: a.attempt, Seq: a.seq, Outcomes: a.outcomes}`,
			`	h := &partHeader{V: SchemaVersion, Chunk: a.c.ID, Attempt: a.attempt, Seq: a.seq + 1, Outcomes: a.outcomes}`},
		{"attempt.go", `	a.unsaved = append(a.unsaved, h)
	a.w.unwritten`, `	a.seq++
	a.unsaved = append(a.unsaved, h)
	a.w.unwritten`},
	},
}, {
	"parts of a lost worker are not adopted",
	[]change{{"settle.go", `	if !a.orphan {
		return nil
	}
	known`, `	if true {
		return nil
	}
	known`}},
}, {
	"a parked chunk is not noted as waiting",
	[]change{{"claim.go", `		c.Waits = parkedByJob
		err :=`, `		err :=`}},
}, {
	"a job leaves the sweep whatever its files say",
	[]change{{"sweep.go", `	if hasFiles && a.Now()`, `	if false && hasFiles && a.Now()`}},
}, {
	"an attempt calls on after its lease has run out",
	[]change{{"launch.go", `func (a *attempt) overslept() bool { return !a.w.Now().Before(a.c.Lease) }`, `func (a *attempt) overslept() bool { return false }`}},
}, {
	"a claim that had run out is renewed without another look",
	[]change{{"settle.go", `		a.mustLook = true //`, `		a.mustLook = false //`}},
}}

// knownBy are seeds that have caught mutants which no scenario catches. They are tried first, which saves minutes; where one
// no longer does, all others follow.
var knownBy = map[string]uint64{
	"a fold compares with a revision that it read after the facts": 48,
	"a job is read before its split":                               5247,
	"one death is blame enough":                                    692,
	"an attempt calls on after its lease has run out":              48,
}

// TestMutantsAreCaught shows that the simulator has teeth: with each of the mutants some scenario or seed must fail.
func TestMutantsAreCaught(t *testing.T) {
	if !*mutate {
		t.Skip("each is compiled and run for itself, which takes minutes: scripts/sim -mutants")
	}
	for i, m := range mutants {
		if i%max(1, *share) != time.Now().YearDay()%max(1, *share) {
			m.overlay(t) // that it still is one is seen every day
			continue
		}
		t.Run(strings.ReplaceAll(m.name, " ", "-"), func(t *testing.T) {
			t.Parallel() // a link uses one core
			bin := m.build(t)
			out, err := m.run(bin)
			if err == nil {
				t.Fatalf("nothing has caught it in %d seeds", caughtWithin)
			}
			if bytes.Contains(out, []byte("test timed out")) {
				t.Fatalf("it runs for ever:\n%s", out[:min(len(out), 2000)])
			}
			t.Logf("caught: %s", firstComplaint(string(out)))
		})
	}
}

// slow is the scenario that takes longer than all others together.
const slow = "who-was-accused-before-an-outage"

// run runs what may catch the mutant, what is quick and likely first, until something does.
func (m *mutant) run(bin string) (out []byte, err error) {
	tries := [][]string{
		{"-test.run=TestScenarios$", "-test.skip=/" + slow},
		{"-test.run=TestScenarios$/" + slow},
		{"-test.run=TestSeeds$", fmt.Sprint("-seeds=", caughtWithin)},
	}
	if seed := knownBy[m.name]; seed != 0 {
		tries = append([][]string{{"-test.run=TestSeeds$", "-seeds=1", fmt.Sprint("-first=", seed)}}, tries...)
	}
	for _, args := range tries {
		if out, err = exec.Command(bin, append(args, "-test.failfast", "-test.timeout=10m")...).CombinedOutput(); err != nil {
			return out, err
		}
	}
	return out, nil
}

// build compiles this package's tests with the mutant in them.
func (m *mutant) build(t *testing.T) string {
	t.Helper()
	file := m.overlay(t)
	bin := filepath.Join(t.TempDir(), "sim.test")
	if out, err := exec.Command("go", "test", "-c", "-ldflags=-s -w", "-overlay", file, "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("compile it: %v\n%s", err, out)
	}
	return bin
}

// overlay writes the changed files, and the file that puts them in the place of ours.
func (m *mutant) overlay(t *testing.T) (file string) {
	t.Helper()
	dir := t.TempDir()
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for i, c := range m.changes {
		path, err := filepath.Abs(filepath.Join("..", "..", c.file))
		if err != nil {
			t.Fatal(err)
		}
		from := path
		if changed := overlay.Replace[path]; changed != "" {
			from = changed
		}
		source, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(source), c.old); n != 1 {
			t.Fatalf("%s has the text that it changes %d times:\n%s", c.file, n, c.old)
		}
		to := filepath.Join(dir, fmt.Sprint(i, ".go"))
		if err := os.WriteFile(to, []byte(strings.Replace(string(source), c.old, c.new, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		overlay.Replace[path] = to
	}
	spec, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, spec, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// firstComplaint is the first sentence of a failed run that says what was broken.
func firstComplaint(out string) string {
	for line := range strings.Lines(out) {
		if strings.Contains(line, "seed ") || strings.Contains(line, "panic:") || strings.Contains(line, "item ") {
			return strings.TrimSpace(line)
		}
	}
	return out
}
