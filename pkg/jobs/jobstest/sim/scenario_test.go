package sim

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// scenario is a trace that chance takes long to find: what reviews and a model of the rules found most dangerous. It runs
// on kind ports but for what it arranges, with several seeds, so in several orders.
type scenario struct {
	name  string
	plan  func(p *Plan)
	shows []Behaviour // in every run
	ends  jobs.Phase  // "" = completed
	holds func(t *testing.T, w *World)
}

const scenarioSeeds = 12

// sick makes one item of ten chunks sick until it is healed; its chunk is given up after some minutes.
func sick(p *Plan) { p.Weather.Sick = map[int]bool{17: true} }

func workPurged() Event { return Event{What: PurgeOf, Arg: jobs.QueueWork} }

var scenarios = []scenario{{
	name: "a part that a lost worker wrote is adopted, and nobody is asked again",
	plan: func(p *Plan) {
		p.Ploys = []Ploy{{Op: "commit jobs/batch_sim/parts", Nth: 1, Fate: fateCrashAfter}}
	},
	shows: []Behaviour{Crash, Adoption},
	holds: everyoneAnswered,
}, {
	name: "a save that fails brings the message back",
	plan: func(p *Plan) {
		p.Ploys = []Ploy{{Op: "save chunk/…attempt 1 by nobody has 0", Nth: 2, Fate: fateFailBefore}}
	},
	holds: func(t *testing.T, w *World) {
		if w.Saw(Resent) {
			t.Error("nothing but the sweep, an hour later, brought it back")
		}
		everyoneAnswered(t, w)
	},
}, {
	name: "a part is there though its commit failed, and the next has more in it",
	plan: func(p *Plan) {
		p.Cut.ChunkLines, p.Weather.Latency = 15, 20*time.Second // so that the first part of an attempt is not its last
		p.Ploys = []Ploy{{Op: "commit jobs/batch_sim/parts", Nth: 1, Fate: fateFailAfter}}
	},
	shows: []Behaviour{LostResponse},
	holds: everyoneAnswered,
}, {
	name: "a redriven item is called as often as at first",
	plan: func(p *Plan) {
		sick(p)
		p.Events = []Event{{At: time.Hour, What: Redrive}}
	},
	shows: []Behaviour{Burial, RedriveAfter, SecondFiles},
	holds: func(t *testing.T, w *World) {
		if n := w.fleet.upstream.calls[17]; n < 2*jobs.DefaultMaxCalls {
			t.Errorf("it was called %d times in all", n)
		}
		if c := w.chunkOf(17); c.Burial != 2 {
			t.Errorf("its chunk was buried %d times", c.Burial)
		}
	},
}, {
	name: "a redriven item that is well is answered",
	plan: func(p *Plan) {
		sick(p)
		p.Events = []Event{{At: time.Hour, What: Heal}, {At: time.Hour + 1, What: Redrive}}
	},
	shows: []Behaviour{Burial, RedriveAfter, SecondFiles},
	holds: everyoneAnswered,
}, {
	name: "a redrive opens a chunk while finalize publishes",
	plan: func(p *Plan) {
		sick(p)
		p.Ploys = []Ploy{{Op: "concat ", Nth: 1, Slow: 40 * time.Second, Then: then(Heal, Redrive)}}
	},
	shows: []Behaviour{Burial, RedriveFinal, LostCAS},
	holds: everyoneAnswered,
}, {
	name: "a redrive opens a chunk while its split is compacted",
	plan: func(p *Plan) {
		sick(p)
		p.Ploys = []Ploy{{Op: "save split/batch_sim/000001…: compacted", Nth: 1, Slow: 40 * time.Second, Then: then(Heal, Redrive)}}
	},
	shows: []Behaviour{Burial, Redriven, LostCAS},
	holds: everyoneAnswered,
}, {
	name: "a crash between the record of a death and the dead letters, and then a purge",
	plan: func(p *Plan) {
		sick(p)
		p.Ploys = []Ploy{{Op: "bury ", Nth: 1, Fate: fateCrashBefore, Then: []Event{workPurged()}}}
	},
	shows: []Behaviour{Crash, Purge, Resent, Burial, BurialFinished},
	holds: func(t *testing.T, w *World) {
		if c := w.chunkOf(17); c.Burial != 1 || w.Saw(Redriven) {
			t.Errorf("the letter that the sweep sent was taken for a redrive: it was buried %d times", c.Burial)
		}
	},
}, {
	name: "a crash between the dead letters and the note of it, and then a purge",
	plan: func(p *Plan) {
		sick(p)
		p.Ploys = []Ploy{{Op: ", dead…, buried", Nth: 1, Fate: fateCrashBefore, Then: []Event{workPurged()}}}
	},
	shows: []Behaviour{Crash, Purge, Resent, Burial, BurialFinished},
}, {
	name: "a redrive by hand before the burial was noted",
	plan: func(p *Plan) {
		sick(p)
		p.Ploys = []Ploy{{Op: ", dead…, buried", Nth: 1, Slow: 30 * time.Second, Then: then(Heal, Redrive)}}
	},
	shows: []Behaviour{Redriven, LostCAS},
	holds: everyoneAnswered,
}, {
	name: "a redrive is cut off between the split and the job, and its message is lost",
	plan: func(p *Plan) {
		sick(p)
		p.Events = []Event{{At: time.Hour, What: Heal}, {At: time.Hour + 1, What: Redrive}}
		p.Ploys = []Ploy{{Op: ": reopening", Nth: 1, Fate: fateCrashAfter, Then: []Event{workPurged()}}}
	},
	shows: []Behaviour{Burial, Crash, Purge},
	holds: func(t *testing.T, w *World) {
		everyoneAnswered(t, w)
	},
}, {
	name: "nothing moves but leases, and so no generation does",
	plan: func(p *Plan) {
		p.Weather.Latency, p.Weather.Slow = time.Minute, 5000
		p.Odds.Redeliver = 5000
	},
	shows: []Behaviour{Redelivery},
	holds: func(t *testing.T, w *World) {
		if w.Saw(SecondFiles) {
			t.Error("files of a second generation were published")
		}
	},
}, {
	name: "a late message comes after the job was cancelled, and finds a part that nobody saved",
	plan: func(p *Plan) {
		p.Ploys = []Ploy{{Op: "commit jobs/batch_sim/parts", Nth: 2, Fate: fateCrashAfter, Then: then(Cancel)}}
	},
	ends:  jobs.PhaseCancelled,
	shows: []Behaviour{Crash},
	holds: func(t *testing.T, w *World) {
		if w.Saw(Adoption) {
			t.Error("a part was adopted")
		}
	},
}, {
	name: "a lost worker saves after the last fold of a stopped job, and its nudge is lost",
	plan: func(p *Plan) {
		p.Ploys = []Ploy{{Op: "save chunk/…attempt 1 by nobody has 0", Nth: 3, Slow: 5 * time.Minute, Then: then(Cancel)}}
		p.Deaf = [2]time.Duration{4 * time.Minute, 30 * time.Minute}
	},
	ends:  jobs.PhaseCancelled,
	shows: []Behaviour{LateFiles, SecondFiles},
}, {
	name: "outcomes are saved late, between the fold and the pieces that are made of it",
	plan: func(p *Plan) {
		p.Ploys = []Ploy{
			{Op: "save chunk/…attempt 1 by nobody has 0", Nth: 3, Slow: 150 * time.Second, Then: then(Cancel)}, // its lease ends at 120 s
			{Op: "open jobs/batch_sim/check/splits", After: time.Minute, Nth: 1, Slow: time.Minute},
		}
		p.Deaf = [2]time.Duration{140 * time.Second, 210 * time.Second} // its nudge is lost: perhaps the job is visited first
	},
	ends: jobs.PhaseCancelled,
}, {
	name: "outcomes are saved late, and compacted while finalize is at its files",
	plan: func(p *Plan) {
		p.Ploys = []Ploy{
			{Op: "save chunk/…attempt 1 by nobody has 0", Nth: 3, Slow: 150 * time.Second, Then: then(Cancel)},
			{Op: ": finalizing, at finalize", Nth: 1, Wait: time.Minute},
		}
	},
	ends: jobs.PhaseCancelled,
}, {
	name: "the time of a function runs out in the middle of a chunk",
	plan: func(p *Plan) {
		p.Lambda, p.Items, p.Cut.ChunkLines, p.Cut.SplitBytes, p.Weather.Latency = true, 120, 60, 1<<20, 45*time.Second
	},
	shows: []Behaviour{GivenBack, Checkpoint},
	holds: everyoneAnswered,
}, {
	name: "a pause ends, and everything goes on at once",
	plan: func(p *Plan) {
		p.Weather.Latency = 20 * time.Second
		p.Events = []Event{{At: time.Second, What: PauseJob}, {At: 10 * time.Minute, What: ResumeJob}}
	},
	shows: []Behaviour{Parking},
	holds: func(t *testing.T, w *World) {
		if w.Saw(Resent) {
			t.Error("nothing but the sweep, an hour later, brought it back")
		}
		everyoneAnswered(t, w)
	},
}, {
	name: "who was accused before an outage is not given up in it",
	plan: func(p *Plan) {
		p.Items, p.Weather.Flaky = 90, 6000
		p.Weather.Outages = []Downtime{{3 * time.Second, time.Hour, jobs.Fault{Cause: jobs.CauseStatus, Status: 500, Code: "http_500", Message: "down"}}}
	},
	shows: []Behaviour{Accusation, OutagePause},
	holds: everyoneAnswered,
}, {
	name: "a worker stands still in a checkpoint, while its job is cancelled and ends",
	plan: func(p *Plan) {
		p.Cut.ChunkLines, p.Weather.Latency = 15, 20*time.Second
		p.Ploys = []Ploy{{Op: "commit jobs/batch_sim/parts", Nth: 1, Slow: 5 * time.Minute, Then: then(Cancel)}}
	},
	ends:  jobs.PhaseCancelled,
	shows: []Behaviour{LateFiles},
}, {
	name:  "every advance is lost the first time",
	plan:  func(p *Plan) { p.LoseFirst = true },
	shows: []Behaviour{LostMessage},
	holds: everyoneAnswered,
}, {
	name: "a cancel settles between a worker's look at the job and its claim",
	plan: func(p *Plan) {
		p.Ploys = []Ploy{{Op: "save chunk/… (0): ", Nth: 4, Slow: 3 * time.Second, Then: then(Cancel)}} // what it saw is not old enough to look again
	},
	ends:  jobs.PhaseCancelled,
	shows: []Behaviour{StopBetween},
}, {
	name: "a worker stands still between its look at the job and its claim while a cancel settles",
	plan: func(p *Plan) {
		p.Lambda = true
		p.Ploys = []Ploy{{Op: "save chunk/… (0): ", Nth: 4, Slow: 30 * time.Second, Then: then(Cancel)}}
	},
	ends:  jobs.PhaseCancelled,
	shows: []Behaviour{StopBetween},
}, {
	name:  "one item kills the process each time, among nine healthy chunks",
	plan:  func(p *Plan) { p.Weather.Killers = map[int]bool{17: true} },
	shows: []Behaviour{Crash, Isolation, CrashOutcome},
	holds: func(t *testing.T, w *World) {
		if n := w.fleet.upstream.calls[17]; n > 8 {
			t.Errorf("it killed %d processes", n)
		}
		answeredBut(t, w, 17)
	},
}, {
	name: "a process is killed from outside while a healthy item beside a killer is in hand",
	plan: func(p *Plan) {
		p.Weather.Killers = map[int]bool{17: true}
		p.Ploys = []Ploy{{Op: "save chunk/batch_sim/000001/000000000000051a…attempt 3", Nth: 2, Fate: fateCrashAfter}}
	},
	shows: []Behaviour{Crash, Isolation, CrashOutcome},
	holds: func(t *testing.T, w *World) { answeredBut(t, w, 17) },
}, {
	name:  "the last item of a job is poison",
	plan:  func(p *Plan) { p.Weather.Sick = map[int]bool{p.Items - 1: true} },
	shows: []Behaviour{Burial},
	holds: func(t *testing.T, w *World) { answeredBut(t, w, w.plan.Items-1) },
}, {
	name:  "half of all calls fail, and nobody is buried for it",
	plan:  func(p *Plan) { p.Weather.Flaky = 5000 },
	holds: everyoneAnswered,
}, {
	name: "everybody fails for a minute, and nobody is buried for it",
	plan: func(p *Plan) {
		p.Weather.Outages = []Downtime{{time.Second, time.Minute, jobs.Fault{Cause: jobs.CauseStatus, Status: 500, Code: "http_500", Message: "down"}}}
	},
	shows: []Behaviour{Deferral},
	holds: everyoneAnswered,
}, {
	name: "the input is changed under the same version, after it was scanned",
	plan: func(p *Plan) {
		p.Ploys = []Ploy{{Op: "save chunk/… (0): ", Nth: 1, Then: then(Overwrite)}}
	},
	ends:  jobs.PhaseFailed,
	shows: []Behaviour{InputChanged},
}, {
	name: "the input is replaced when only what nobody called must be read again",
	plan: func(p *Plan) {
		p.Ploys = []Ploy{{Op: "commit jobs/batch_sim/parts", Nth: 1, Then: then(Cancel, Replace)}}
	},
	ends:  jobs.PhaseFailed,
	shows: []Behaviour{InputChanged},
}, {
	name: "the input is replaced when the last answer of what was given up is kept, and nothing must be read again",
	plan: func(p *Plan) {
		sick(p)
		p.Ploys = []Ploy{{Op: "bury ", Nth: 1, Then: then(Replace)}}
	},
	shows: []Behaviour{Burial},
	holds: func(t *testing.T, w *World) { answeredBut(t, w, 17) },
}}

// thousands is a scenario of its own: it is large.
var thousands = scenario{
	name: "an outage of hours with thousands of chunks",
	plan: func(p *Plan) {
		p.Items, p.Cut.ChunkLines, p.Cut.SplitBytes, p.PieceBytes, p.Processes = 4000, 2, 100_000, 1<<20, 3
		p.Weather.Outages = []Downtime{{0, 2 * time.Hour, jobs.Fault{Cause: jobs.CauseUnreachable, Code: "upstream_unreachable", Message: "refused"}}}
	},
	shows: []Behaviour{OutagePause, Parking, Probe},
	holds: func(t *testing.T, w *World) {
		everyoneAnswered(t, w)
		if most := 10 * len(w.chunks()); w.deliveries > most {
			t.Errorf("the chunks were delivered %d times: more than %d", w.deliveries, most)
		}
	},
}

func everyoneAnswered(t *testing.T, w *World) {
	t.Helper()
	answeredBut(t, w)
}

func answeredBut(t *testing.T, w *World, failed ...int) {
	t.Helper()
	for _, c := range w.chunks() {
		for item, ordinal := range w.plan.itemsOf(c.ID) {
			answered := c.Resolved.Has(ordinal) && !c.Failed.Has(ordinal)
			if answered == slices.Contains(failed, item) {
				t.Errorf("item %d: answered is %v", item, answered)
			}
		}
	}
}

func (w *World) chunkOf(item int) *jobs.Chunk {
	id, _ := w.plan.place(item)
	return w.ledger().records[chunkKey(id)].value.(*jobs.Chunk)
}

// kind is a plan in which nothing goes wrong: ten chunks of three items in two splits.
func kind(p *Plan) {
	*p = Plan{Items: 30, Cut: jobs.Cut{SplitBytes: 1300, ChunkLines: 3, ChunkBytes: 1 << 20, LineBytes: 1 << 20}, Processes: 2, PieceBytes: 400,
		Weather: Weather{Latency: 200 * time.Millisecond}, Window: longWindow}
}

func TestScenarios(t *testing.T) {
	for _, s := range scenarios {
		t.Run(strings.ReplaceAll(s.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(scenarioSeeds) {
				s.run(t, seed+1)
			}
		})
	}
}

func TestOutageOfHoursWithThousandsOfChunks(t *testing.T) {
	if raceEnabled {
		t.Skip("it takes a minute with -race; scripts/sim runs it")
	}
	thousands.run(t, 1)
}

func (s *scenario) run(t *testing.T, seed uint64) {
	w := start(t, seed, *showLog, func(p *Plan) {
		kind(p)
		s.plan(p)
	})
	if *showLog {
		t.Logf("seed %d:\n%s", seed, w.Log())
	}
	for _, b := range w.Broken() {
		t.Errorf("seed %d: %s", seed, b)
	}
	for _, op := range w.unmet() {
		t.Errorf("seed %d: there was no %q", seed, op)
	}
	for _, b := range s.shows {
		if !w.Saw(b) {
			t.Errorf("seed %d does not show: %s", seed, b)
		}
	}
	ends := s.ends
	if ends == "" {
		ends = jobs.PhaseCompleted
	}
	if w.job.Phase != ends {
		t.Errorf("seed %d: the job is %s, not %s", seed, w.job.Phase, ends)
	}
	if s.holds != nil {
		s.holds(t, w)
	}
	if t.Failed() {
		t.Fatalf("see what happens: go test ./pkg/jobs/jobstest/sim -run '%s' -show", t.Name())
	}
}
