package sim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// check holds what came out to what was promised.
func (w *World) check(f *fleet) {
	rec, ok := w.ledger.records[jobKey(jobID)]
	if !ok {
		w.failf("there is no job")
		return
	}
	j, err := jobs.DecodeRecord[jobs.Job](rec.body, rec.revision)
	if err != nil {
		w.failf("read the job: %v", err)
		return
	}
	if !j.Phase.Ended() {
		for _, key := range slices.Sorted(maps.Keys(w.ledger.records)) {
			w.logf("%s: %s", key, w.ledger.records[key].body)
		}
		w.failf("the job is %s", j.Phase)
		return
	}
	if j.Phase == jobs.PhaseFailed {
		w.failf("the job failed: %+v", j.Stop)
		return
	}
	if j.Outputs == nil {
		if j.Checked != nil {
			w.failf("the job ended %s without files", j.Phase)
		}
		return
	}
	answered := w.lines(f, j.Outputs.Answers, true)
	failed := w.lines(f, j.Outputs.Errors, false)
	w.checkOrder(answered)
	w.checkOrder(failed)
	all := map[int]int{}
	for _, n := range slices.Concat(answered, failed) {
		all[n]++
	}
	for i := range w.plan.Items {
		if all[i] != 1 {
			w.failf("item %d has %d lines in the output", i, all[i])
		}
	}
	t := j.Outputs.Totals
	if t.Answered != int64(len(answered)) || t.Failed != int64(len(failed)) || t.Items != int64(w.plan.Items) {
		w.failf("counts are %d items, %d answered, %d failed; the files have %d and %d lines", t.Items, t.Answered, t.Failed, len(answered), len(failed))
	}
	w.checkKind(f, &j, failed)
	w.checkDead(f, &j)
}

// lines are the items of a file.
func (w *World) lines(f *fleet, info *jobs.FileInfo, answers bool) []int {
	if info == nil {
		return nil
	}
	var items []int
	for raw := range bytes.Lines(f.files.objects[info.Name]) {
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

func (w *World) checkOrder(items []int) {
	if !slices.IsSorted(items) {
		w.failf("the output is not in the order of the input: %v", items)
	}
}

// checkKind: an item fails only for a reason.
func (w *World) checkKind(f *fleet, j *jobs.Job, failed []int) {
	for _, n := range failed {
		m := w.plan.Weather
		switch {
		case w.plan.Bad[n], m.Refused[n], m.Sick[n], m.Killers[n]:
		case j.Stop != nil: // it ran out of time
		default:
			w.failf("item %d failed though nothing was wrong with it", n)
		}
	}
	if len(w.plan.Weather.Sick) == 0 && len(f.queue.dead) > 0 {
		w.failf("%d messages were buried though no item is sick", len(f.queue.dead))
	}
}

// checkDead: the dead letters hold all that was judged, and nothing else.
func (w *World) checkDead(f *fleet, j *jobs.Job) {
	letters := map[string]bool{}
	for _, d := range f.queue.dead {
		b, err := jobs.DecodeMessage(d.body)
		if err != nil || b.Chunk == nil {
			w.failf("dead letter %s: %v", d.body, err)
			continue
		}
		letters[fmt.Sprintf("%s#%d", chunkKey(b.Chunk.ID()), b.Chunk.Burial)] = true
		rec, ok := w.ledger.records[chunkKey(b.Chunk.ID())]
		if !ok {
			w.failf("dead letter %s: nobody knows the chunk", d.body)
			continue
		}
		c, err := jobs.DecodeRecord[jobs.Chunk](rec.body, rec.revision)
		if err != nil || c.Burial < b.Chunk.Burial {
			w.failf("dead letter %s: the chunk was buried %d times", d.body, c.Burial)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(w.ledger.records)) {
		if !strings.HasPrefix(key, "chunk/") {
			continue
		}
		rec := w.ledger.records[key]
		c, err := jobs.DecodeRecord[jobs.Chunk](rec.body, rec.revision)
		if err != nil || !c.Dead || c.Done() || j.Stop != nil {
			continue
		}
		if !c.Buried || !letters[fmt.Sprintf("%s#%d", key, c.Burial)] {
			w.failf("chunk %s is dead (%d, buried %v), but not in the dead letters", c.ID, c.Burial, c.Buried)
		}
	}
}
