package sim

import (
	"fmt"
	"strings"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Plan is what a run is to be: it follows from the seed alone.
type Plan struct {
	Items     int
	Blank     map[int]bool // a blank line stands before the item
	Bad       map[int]bool // the item is no valid request
	Cut       jobs.Cut
	Processes int
	Lambda    bool
	Weather   Weather
	Odds      Odds
	Window    time.Duration
	Events    []Event

	input   string
	offsets []int64 // of each item's line
	chunks  []planned
}

// planned is a chunk, as the scan will cut it.
type planned struct {
	id    jobs.ChunkID
	items map[int]int // item → ordinal
}

// Event is something that an operator does, or that happens to a queue.
type Event struct {
	At   time.Duration
	What string // cancel, purge, redrive, heal, pause, resume
	Arg  jobs.QueueName
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

// newPlan makes the plan of a seed.
func newPlan(w *World) *Plan {
	d := draw{w}
	p := &Plan{
		Items:     1 + d.n("items", 30),
		Processes: 1 + d.n("processes", 3),
		Lambda:    d.odds("lambda", 5000),
		Window:    24 * time.Hour,
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
	if d.odds("short", 1500) {
		p.Window = d.between("window", 2*time.Minute, time.Hour)
	}
	p.misfortune(d)
	p.drawWeather(d)
	p.drawEvents(d)
	p.write()
	return p
}

// misfortune draws how unkind the ports are.
func (p *Plan) misfortune(d draw) {
	level := []int{0, 20, 100, 300}[d.n("level", 4)]
	one := func(name string) int { return d.n(name, level+1) }
	p.Odds = Odds{
		FailBefore: one("fail before"), FailAfter: one("fail after"), CrashBefore: one("crash before") / 4, CrashAfter: one("crash after") / 4,
		Slow: one("slow") / 4, Redeliver: 3 * one("redeliver"), LoseAck: one("lose ack"), Unsent: one("unsent"),
	}
	if d.odds("lossy", 2000) {
		p.Odds.LoseAdvance = 300
	}
}

func (p *Plan) drawWeather(d draw) {
	m := &p.Weather
	outage := func(name string, shortest, longest time.Duration, f jobs.Fault) {
		from := d.between(name+" from", 0, 10*time.Second)
		m.Outages = append(m.Outages, Outage{from, from + d.between(name, shortest, longest), f})
	}
	fault := func(status int) jobs.Fault {
		return jobs.Fault{Cause: jobs.CauseStatus, Status: status, Code: fmt.Sprint("http_", status), Message: "down", IsObject: true}
	}
	switch d.n("weather", 10) {
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
	}
	if d.odds("refused", 2000) {
		m.Refused = d.set("refused", p.Items, 2)
	}
}

func (p *Plan) drawEvents(d draw) {
	if d.odds("cancel", 1200) {
		p.Events = append(p.Events, Event{At: d.between("cancel at", time.Second, 2*time.Minute), What: "cancel"})
	}
	if d.odds("purge", 800) {
		q := []jobs.QueueName{jobs.QueueIngest, jobs.QueueWork, jobs.QueueAggregate}[d.n("which", 3)]
		p.Events = append(p.Events, Event{At: d.between("purge at", time.Second, time.Minute), What: "purge", Arg: q})
	}
	if len(p.Weather.Sick) > 0 {
		p.Events = append(p.Events, Event{At: d.between("heal at", time.Minute, 40*time.Minute), What: "heal"})
		for i := range 3 {
			p.Events = append(p.Events, Event{At: d.between(fmt.Sprint("redrive at", i), 10*time.Second, 90*time.Minute), What: "redrive"})
		}
	}
	if d.odds("pause", 800) {
		at := d.between("pause at", time.Second, time.Minute)
		p.Events = append(p.Events, Event{At: at, What: "pause"}, Event{At: at + d.between("resume at", time.Second, 20*time.Minute), What: "resume"})
	}
}

// write writes the input, and where each item stands in it.
func (p *Plan) write() {
	var s strings.Builder
	for i := range p.Items {
		if p.Blank[i] {
			s.WriteString("\n")
		}
		p.offsets = append(p.offsets, int64(s.Len()))
		method := "POST"
		if p.Bad[i] {
			method = "GET"
		}
		fmt.Fprintf(&s, `{"custom_id":"c%d","method":%q,"url":"/v1/x","body":{"model":"m","N":%d}}`+"\n", i, method, i)
	}
	p.input = s.String()
}

// learn notes how the scan has cut the input.
func (p *Plan) learn(c jobs.ChunkID, blank jobs.Bits, next int64) {
	for _, k := range p.chunks {
		if k.id == c {
			return
		}
	}
	k := planned{id: c, items: map[int]int{}}
	ordinal := 0
	for i, offset := range p.offsets {
		if offset < c.Offset || offset >= next {
			continue
		}
		for blank.Has(ordinal) {
			ordinal++
		}
		k.items[i] = ordinal
		ordinal++
	}
	p.chunks = append(p.chunks, k)
}

// place is where an item stands.
func (p *Plan) place(item int) (jobs.ChunkID, int) {
	for _, k := range p.chunks {
		if o, ok := k.items[item]; ok {
			return k.id, o
		}
	}
	return jobs.ChunkID{}, -1
}
