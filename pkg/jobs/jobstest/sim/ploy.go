package sim

import (
	"strings"
	"time"
)

// Ploy arranges a misfortune for one port call, where chance would take long to find it. Calls are known by the words of
// the log, as "save chunk/batch_sim/000000/0000000000000000 (3): p1/2 dead #1".
type Ploy struct {
	Op    string        // words that the call's line holds, in this order, with … for anything between
	Nth   int           // which of them, from 1 …
	After time.Duration // … of those from this time on
	Slow  time.Duration // before it happens
	Wait  time.Duration // after it has happened
	Fate  fate
	Then  []Event // set off when the call begins
}

func (p *Ploy) matches(op string) bool {
	for word := range strings.SplitSeq(p.Op, "…") {
		_, rest, ok := strings.Cut(op, word)
		if !ok {
			return false
		}
		op = rest
	}
	return true
}

// ploy is what the ploys of the plan have in store for a call.
func (w *World) ploy(a *actor, op string) (slow, wait time.Duration, f fate) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.met == nil {
		w.met = make([]int, len(w.plan.Ploys))
	}
	for i := range w.plan.Ploys {
		p := &w.plan.Ploys[i]
		if time.Since(w.began) < p.After || !p.matches(op) {
			continue
		}
		if w.met[i]++; w.met[i] != p.Nth {
			continue
		}
		slow, wait, f = slow+p.Slow, wait+p.Wait, p.Fate
		w.pending = append(w.pending, p.Then...)
		if w.keepLog {
			w.log = append(w.log, "                "+a.name+": "+op+": here comes the ploy")
		}
	}
	return slow, wait, f
}

// unmet are ploys whose call never came: their scenario has shown nothing.
func (w *World) unmet() []string {
	var ops []string
	for i, p := range w.plan.Ploys {
		if w.met == nil || w.met[i] < p.Nth {
			ops = append(ops, p.Op)
		}
	}
	return ops
}
