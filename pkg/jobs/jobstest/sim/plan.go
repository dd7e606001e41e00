package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Plan is what a run is to be: it follows from the seed alone.
type Plan struct {
	Items      int
	Blank      map[int]bool // a blank line stands before the item
	Bad        map[int]bool // the item is no valid request
	TwoModels  bool         // odd items are for another model
	Cut        jobs.Cut
	Processes  int
	Lambda     bool
	Sole       bool // no other process ever opens the ledger
	PieceBytes int64
	Hook       bool // the tenant wants to be told
	Weather    Weather
	Odds       Odds
	LoseFirst  bool             // every advance is lost the first time that it is sent
	Deaf       [2]time.Duration // every advance that is sent between is lost
	Window     time.Duration
	Events     []Event
	Ploys      []Ploy

	input   string
	offsets []int64                      // of each item's line
	chunks  map[jobs.ChunkID]map[int]int // item → ordinal, of those that somebody has claimed
	places  map[int]jobs.ChunkID
}

// Event is something that an operator does, or that happens to the world.
type Event struct {
	At   time.Duration
	What Doing
	Arg  jobs.QueueName
}

// Doing is what an event does.
type Doing string

// The doings.
const (
	Cancel    Doing = "cancel"
	PurgeOf   Doing = "purge"   // the queue Arg
	Redrive   Doing = "redrive" // all dead letters, by hand
	Reopen    Doing = "reopen"  // the job, which redrives all that is dead
	Heal      Doing = "heal"    // the sick items
	PauseJob  Doing = "pause"
	ResumeJob Doing = "resume"
	Overwrite Doing = "overwrite" // the input, under the same version
	Replace   Doing = "replace"   // the input, by a new version
)

// overwritten tells whether somebody changes the input.
func (p *Plan) overwritten() bool {
	events := slices.Clone(p.Events)
	for _, ploy := range p.Ploys {
		events = append(events, ploy.Then...)
	}
	return slices.ContainsFunc(events, func(e Event) bool { return e.What == Overwrite || e.What == Replace })
}

// calm tells whether nothing at all goes wrong.
func (p *Plan) calm() bool {
	return p.Odds == Odds{} && !p.LoseFirst && len(p.Events) == 0 && len(p.Ploys) == 0 && p.Weather.Name == "healthy" && len(p.Weather.Refused) == 0
}

// draw draws numbers of a plan by name, so that another draw more changes no others.
type draw struct{ w *World }

func (d draw) n(name string, below int) int { return int(d.w.hash("plan", name) % uint64(below)) }

func (d draw) odds(name string, of10000 int) bool { return d.n(name, 10_000) < of10000 }

func (d draw) between(name string, lo, hi time.Duration) time.Duration {
	return lo + time.Duration(d.w.hash("plan", name)%uint64(hi-lo+1))
}

func (d draw) set(name string, items, size int) map[int]bool {
	set := map[int]bool{}
	for i := range size {
		set[d.n(fmt.Sprint(name, i), items)] = true
	}
	return set
}

// longWindow is a time in which every job should be done: no weather lasts so long.
const longWindow = 24 * time.Hour

// newPlan makes the plan of a seed.
func newPlan(w *World) *Plan {
	d := draw{w}
	p := &Plan{
		Items:      1 + d.n("items", 30),
		Processes:  1 + d.n("processes", 3),
		Lambda:     d.odds("lambda", 5000),
		Window:     longWindow,
		PieceBytes: 400,
		Cut: jobs.Cut{SplitBytes: int64(200 + d.n("split", 2000)), ChunkLines: 1 + d.n("chunk", 6), ChunkBytes: 1 << 20,
			LineBytes: 1 << 20},
		Weather: Weather{Name: "healthy", Latency: 200 * time.Millisecond},
	}
	if d.odds("blanks", 3000) {
		p.Blank = d.set("blank", p.Items, 3)
	}
	if d.odds("bads", 3000) {
		p.Bad = d.set("bad", p.Items, 2)
	}
	p.TwoModels = d.odds("two models", 3000)
	p.Sole = p.Processes == 1 && d.odds("sole", 5000)
	if d.odds("short", 1500) {
		p.Window = d.between("window", 2*time.Minute, time.Hour)
	}
	p.Hook = d.odds("hook", 3000)
	p.misfortune(d)
	p.drawWeather(d)
	p.drawEvents(d)
	p.drawPloys(d)
	p.write()
	return p
}

// misfortune draws how unkind the ports are.
func (p *Plan) misfortune(d draw) {
	level := []int{0, 20, 100, 300}[d.n("level", 4)]
	if level == 300 { // no step is made of so many calls that one in every try must fail
		p.Cut.SplitBytes = max(p.Cut.SplitBytes, int64(p.Items)*30)
	}
	one := func(name string) int { return d.n(name, level+1) }
	p.Odds = Odds{
		FailBefore: one("fail before"), FailAfter: one("fail after"), CrashBefore: one("crash before") / 8, CrashAfter: one("crash after") / 8,
		Slow: one("slow") / 4, Redeliver: 3 * one("redeliver"), LoseAck: one("lose ack"), Unsent: one("unsent"),
	}
	if d.odds("lossy", 2000) {
		p.Odds.LoseAdvance = 300
	}
	if d.odds("freezing", 1000) {
		p.Odds.Freeze = 10 + d.n("freeze", 100)
	}
	p.LoseFirst = d.odds("lose first", 300)
}

func (p *Plan) drawWeather(d draw) {
	m := &p.Weather
	outage := func(name string, shortest, longest time.Duration, f jobs.Fault) {
		from := d.between(name+" from", 0, 10*time.Second)
		m.Outages = append(m.Outages, Downtime{from, from + d.between(name, shortest, longest), f})
	}
	fault := func(status int) jobs.Fault {
		return jobs.Fault{Cause: jobs.CauseStatus, Status: status, Code: fmt.Sprint("http_", status), Message: "down", IsObject: true}
	}
	switch d.n("weather", 12) {
	case 0:
		m.Name, m.Latency, m.Slow = "slow", 10*time.Second, 300
	case 1:
		m.Name, m.Limit = "throttling", 1+d.n("limit", 4)
	case 2:
		m.Name, m.Flaky = "flaky", []int{500, 2000, 5000}[d.n("flaky", 3)]
	case 3, 4:
		m.Name, m.Sick = "sick items", d.set("sick", p.Items, 1+d.n("how many sick", 3))
	case 5:
		m.Name, m.Killers = "an item that kills", d.set("killer", p.Items, 1)
	case 6:
		m.Name = "a minute of 500"
		outage("minute", time.Minute, 90*time.Second, fault(500))
	case 7:
		m.Name = "a long outage"
		outage("long", 20*time.Minute, 5*time.Hour, jobs.Fault{Cause: jobs.CauseUnreachable, Code: "upstream_unreachable", Message: "refused"})
	case 8:
		m.Name, m.Deny = "a broken credential", d.between("deny", time.Second, 20*time.Minute)
	case 9:
		m.Name, m.Down, p.TwoModels = "one model is down", "odd", true
		outage("model", 20*time.Minute, 3*time.Hour, fault(503))
	case 10:
		m.Name, m.Latency = "sluggish", 40*time.Second
		p.Items, p.Cut.ChunkLines = 2*p.Items, 10+d.n("long chunk", 30) // a chunk takes longer than a function may
	}
	if d.odds("refused", 2000) {
		m.Refused = d.set("refused", p.Items, 2)
	}
}

func (p *Plan) drawEvents(d draw) {
	if d.odds("cancel", 1200) {
		p.Events = append(p.Events, Event{At: d.between("cancel at", time.Second, 2*time.Minute), What: Cancel})
	}
	if d.odds("purge", 800) {
		q := []jobs.QueueName{jobs.QueueIngest, jobs.QueueWork, jobs.QueueAggregate}[d.n("which", 3)]
		p.Events = append(p.Events, Event{At: d.between("purge at", time.Second, time.Minute), What: PurgeOf, Arg: q})
	}
	if len(p.Weather.Sick) > 0 {
		p.Events = append(p.Events, Event{At: d.between("heal at", time.Minute, 40*time.Minute), What: Heal})
		for i := range 3 {
			what := Redrive
			if d.odds(fmt.Sprint("reopen", i), 1500) {
				what = Reopen
			}
			p.Events = append(p.Events, Event{At: d.between(fmt.Sprint("redrive at", i), 10*time.Second, 90*time.Minute), What: what})
		}
		if d.odds("cancel late", 2500) {
			at := d.between("cancel late at", 5*time.Minute, time.Hour)
			p.Events = append(p.Events, Event{At: at, What: Cancel}, Event{At: at + d.between("redrive late", 0, time.Hour), What: Redrive})
		}
	}
	if d.odds("pause", 800) {
		at := d.between("pause at", time.Second, time.Minute)
		p.Events = append(p.Events, Event{At: at, What: PauseJob}, Event{At: at + d.between("resume at", time.Second, 20*time.Minute), What: ResumeJob})
	}
	if d.odds("overwrite", 300) {
		p.Events = append(p.Events, Event{At: d.between("overwrite at", 0, time.Minute), What: []Doing{Overwrite, Replace}[d.n("how", 2)]})
	}
}

// drawPloys draws a misfortune where review and models found that it hurts most.
func (p *Plan) drawPloys(d draw) {
	if !d.odds("ploy", 3000) && !(len(p.Weather.Sick) > 0 && d.odds("ploy for the sick", 5000)) {
		return
	}
	a := func(name string) int { return 1 + d.n(name, 4) }
	fates := []fate{fateFailAfter, fateCrashBefore, fateCrashAfter}
	f := fates[d.n("fate of the ploy", len(fates))]
	ploys := []Ploy{
		{Op: "save chunk/… has ", Nth: 4 * a("claim"), Slow: d.between("slow claim", time.Second, 30*time.Second), Then: then(Cancel)}, // a cancel settles meanwhile
		{Op: "save chunk/… has ", Nth: 4 * a("late"), Slow: 5 * time.Minute},                                                           // its lease runs out
		{Op: "commit jobs/batch_sim/parts", Nth: a("part"), Slow: 5 * time.Minute},
		{Op: "read entry ", Nth: a("gate"), Slow: 5 * time.Minute}, // the last thing before a call
		{Op: "commit jobs/batch_sim/parts", Nth: a("part"), Fate: f},
		{Op: "commit jobs/batch_sim/pieces", Nth: a("piece"), Fate: f},
		{Op: "send 1 to aggregate", Nth: 3 * a("nudge"), Fate: f},
		{Op: "concat ", Nth: 1, Slow: 30 * time.Second, Then: then(Cancel)},
	}
	if len(p.Weather.Sick) > 0 {
		ploys = []Ploy{
			{Op: ", dead", Nth: a("dead"), Fate: f},
			{Op: "bury ", Nth: a("bury"), Fate: f},
			{Op: ", dead…, buried", Nth: a("buried"), Fate: f},
			{Op: ", dead…, buried", Nth: 1, Then: then(Cancel, Redrive)},
			{Op: ": reopening", Nth: 1, Fate: f},
			{Op: "concat ", Nth: 1, Slow: 30 * time.Second, Then: then(Redrive)},
			{Op: ": compacted", Nth: a("compacted"), Slow: 30 * time.Second, Then: then(Redrive)},
			{Op: ": finalizing", Nth: 1, Slow: 5 * time.Second, Then: then(Redrive)},
		}
	}
	p.Ploys = []Ploy{ploys[d.n("which ploy", len(ploys))]}
}

// then is what happens when a ploy's call comes.
func then(what ...Doing) []Event {
	var events []Event
	for _, w := range what {
		events = append(events, Event{What: w})
	}
	return events
}

// write writes the input, and where each item stands in it.
func (p *Plan) write() {
	var s strings.Builder
	p.offsets, p.chunks, p.places = nil, map[jobs.ChunkID]map[int]int{}, map[int]jobs.ChunkID{}
	for i := range p.Items {
		if p.Blank[i] {
			s.WriteString("\n")
		}
		p.offsets = append(p.offsets, int64(s.Len()))
		method := "POST"
		if p.Bad[i] {
			method = "GET"
		}
		model := "m"
		if p.TwoModels && i%2 == 1 {
			model = "odd"
		}
		fmt.Fprintf(&s, `{"custom_id":"c%d","method":%q,"url":"/v1/x","body":{"model":%q,"N":%d}}`+"\n", i, method, model, i)
	}
	p.input = s.String()
}

// learn notes how the scan has cut the input.
func (p *Plan) learn(c jobs.ChunkID, blank jobs.Bits, next int64) {
	if p.chunks[c] != nil {
		return
	}
	items := map[int]int{}
	ordinal := 0
	from, _ := slices.BinarySearch(p.offsets, c.Offset)
	for i := from; i < len(p.offsets) && p.offsets[i] < next; i++ {
		for blank.Has(ordinal) {
			ordinal++
		}
		items[i] = ordinal
		p.places[i] = c
		ordinal++
	}
	p.chunks[c] = items
}

// itemsOf are the items of a chunk, with their ordinals.
func (p *Plan) itemsOf(c jobs.ChunkID) map[int]int { return p.chunks[c] }

// place is where an item stands, if its chunk was claimed.
func (p *Plan) place(item int) (jobs.ChunkID, int) {
	c, ok := p.places[item]
	if !ok {
		return c, -1
	}
	return c, p.chunks[c][item]
}
