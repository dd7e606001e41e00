package sim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// check holds what came out to what was promised.
func (w *World) check() {
	j := w.job
	switch {
	case j == nil:
		w.failf("there is no job")
		return
	case !j.Phase.Ended():
		w.failf("the job is %s", j.Phase)
		return
	}
	w.checkTold(j)
	switch {
	case j.Phase == jobs.PhaseFailed:
		switch code := jobs.Code(j.Stop.Code); {
		case code == "input_modified" && w.plan.overwritten():
		case code == jobs.CodeInternal && w.plan.rough() && j.Stop.At.Sub(j.Created) >= 6*time.Hour: // no try has ended for so long (ADR 0011)
		default:
			w.failf("the job failed: %+v", j.Stop)
		}
		return
	case j.Outputs == nil:
		if j.Checked != nil {
			w.failf("the job ended %s without files", j.Phase)
		}
		return
	}
	if j.Phase == jobs.PhaseExpired && w.plan.Window >= longWindow && j.Totals.Answered > 0 {
		w.failf("the job expired after %s, though its upstream was well for most of it", w.plan.Window)
	}
	answered := w.lines(j.Outputs.Answers, true)
	failed := w.lines(j.Outputs.Errors, false)
	w.checkLines(answered, failed)
	w.checkFacts(answered)
	w.checkKind(j, failed)
	w.checkDead(j)
	w.checkRedriven(j)
	if w.plan.calm() {
		w.checkThrift()
	}
}

// lines are the items of a file.
func (w *World) lines(info *jobs.FileInfo, answers bool) []int {
	if info == nil {
		return nil
	}
	var items []int
	for raw := range bytes.Lines(w.fleet.files.objects[info.Name]) {
		var l struct {
			CustomID string `json:"custom_id"`
			Response *struct {
				Body struct{ Answer int }
			} `json:"response"`
			Error *struct{ Code string }
		}
		var n int
		if err := json.Unmarshal(raw, &l); err != nil {
			w.failf("output line %q: %v", raw, err)
			continue
		}
		if _, err := fmt.Sscanf(l.CustomID, "c%d", &n); err != nil {
			w.failf("output line %q has no id", raw)
			continue
		}
		if answers && (l.Response == nil || l.Response.Body.Answer != n) {
			w.failf("item %d was answered with %s", n, raw)
		}
		items = append(items, n)
	}
	return items
}

// checkCounts: what is published counts what stands in its own files (rule 2).
func (w *World) checkCounts(out *jobs.Outputs) {
	lines := func(info *jobs.FileInfo) int64 {
		if info == nil {
			return 0
		}
		return int64(bytes.Count(w.fleet.files.objects[info.Name], []byte("\n")))
	}
	t, answered, failed := out.Totals, lines(out.Answers), lines(out.Errors)
	if t.Answered != answered || t.Failed != failed || t.Items != int64(w.plan.Items) {
		w.failf("counts are %d items, %d answered, %d failed; the files have %d and %d lines", t.Items, t.Answered, t.Failed, answered, failed)
	}
}

// checkLines: each item has one line in one of the files, in the order of the input.
func (w *World) checkLines(answered, failed []int) {
	for _, items := range [][]int{answered, failed} {
		if !slices.IsSorted(items) {
			w.failf("the output is not in the order of the input: %v", items)
		}
	}
	all := map[int]int{}
	for _, n := range slices.Concat(answered, failed) {
		all[n]++
	}
	for i := range w.plan.Items {
		if all[i] != 1 {
			w.failf("item %d has %d lines in the output", i, all[i])
		}
	}
}

// checkFacts: the files that stand in the end say what the records say in the end.
func (w *World) checkFacts(answered []int) {
	var recorded []int
	for _, c := range w.chunks() {
		for item, ordinal := range w.plan.itemsOf(c.ID) {
			if c.Resolved.Has(ordinal) && !c.Failed.Has(ordinal) {
				recorded = append(recorded, item)
			}
		}
	}
	slices.Sort(recorded)
	if !slices.Equal(recorded, answered) {
		w.failf("the records say that %v were answered, the files %v", recorded, answered)
	}
}

// checkKind: an item fails only for a reason.
func (w *World) checkKind(j *jobs.Job, failed []int) {
	for _, n := range failed {
		m := w.plan.Weather
		switch {
		case w.plan.Bad[n], m.Refused[n], m.Sick[n], m.Killers[n]:
		case j.Stop != nil: // it ran out of time
		case w.fell[n] >= 3: // of other causes, while they ran it alone: three are blame enough (ADR 0006)
		default:
			w.failf("item %d failed though nothing was wrong with it", n)
		}
	}
	if len(w.plan.Weather.Sick) == 0 && len(w.judged) > 0 {
		w.failf("%d chunks were given up though no item is sick", len(w.judged))
	}
}

// checkDead: the dead letters hold all that was judged, and nothing else.
func (w *World) checkDead(j *jobs.Job) {
	letters := w.letters()
	for l := range letters {
		if !w.judged[l] {
			w.failf("dead letter %s: nobody has judged it", l)
		}
	}
	for _, c := range w.chunks() {
		if !c.Dead || c.Done() || j.Stop != nil && !c.Buried {
			continue
		}
		if !c.Buried || !letters[burialKey(c.ID, c.Burial)] {
			w.failf("chunk %s is dead (%d, buried %v), but not in the dead letters", c.ID, c.Burial, c.Buried)
		}
	}
}

// checkRedriven: a redrive converges. Whatever was sent back was opened, and has come to an end again.
func (w *World) checkRedriven(j *jobs.Job) {
	if j.Stop != nil {
		return // it may have been refused
	}
	for _, c := range w.chunks() {
		if c.Dead && !c.Done() && w.redriven[burialKey(c.ID, c.Burial)] {
			w.failf("chunk %s was redriven with burial %d, and lies there still", c.ID, c.Burial)
		}
	}
}

// checkThrift: where nothing goes wrong nothing is asked twice.
func (w *World) checkThrift() {
	for _, item := range slices.Sorted(maps.Keys(w.fleet.upstream.calls)) {
		if n := w.fleet.upstream.calls[item]; n > 1 {
			w.failf("item %d was called %d times, though nothing went wrong", item, n)
		}
	}
}
