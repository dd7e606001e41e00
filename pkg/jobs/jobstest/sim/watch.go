package sim

import (
	"github.com/fanout-inference/fanout/pkg/jobs"
)

// watchJob sees every save of the job.
func (w *World) watchJob(before, after *jobs.Job) {
	if before == nil {
		return
	}
	if before.Phase != after.Phase {
		switch after.Phase {
		case jobs.PhaseCompleted:
			w.saw(Completed)
			w.completed = true
		case jobs.PhaseCancelled:
			w.saw(Cancelled)
		case jobs.PhaseExpired:
			w.saw(Expired)
		}
		if !before.Phase.CanMove(after.Phase) && !jumps(before.Phase, after.Phase) {
			w.failf("the job moved from %s to %s", before.Phase, after.Phase)
		}
	}
	if before.Outputs != nil && after.Outputs != nil && before.Outputs.Of != after.Outputs.Of {
		w.saw(SecondFiles)
	}
	w.ended = after.Phase.Ended()
	w.phase = after.Phase
}

// jumps are two moves within one save.
func jumps(from, to jobs.Phase) bool {
	return from.CanMove(jobs.PhaseFinalizing) && jobs.PhaseFinalizing.CanMove(to)
}

// watchChunk sees every save of a chunk, and holds it to rule 1.
func (w *World) watchChunk(a *actor, before, after *jobs.Chunk) {
	w.plan.learn(after.ID, after.Blank, after.ID.Offset+after.Length)
	if before == nil {
		before = &jobs.Chunk{ID: after.ID, Lines: after.Lines, Blank: after.Blank}
	}
	if lost := before.Resolved.Without(after.Resolved); !lost.Empty() {
		w.failf("chunk %s: bits %s were turned off", after.ID, lost)
	}
	var all jobs.Bits
	for _, p := range after.Parts {
		if both := all.And(p.Mask); !both.Empty() {
			w.failf("chunk %s: items %s have two outcomes", after.ID, both)
		}
		all = all.Or(p.Mask)
	}
	if !all.Equal(after.Resolved) {
		w.failf("chunk %s: its parts resolve %s, it says %s", after.ID, all, after.Resolved)
	}
	claimed := after.Attempt > before.Attempt
	switch {
	case claimed && before.Owner != "":
		w.saw(ClaimAgain)
		if after.Crashes >= 2 || len(after.Felled) > 0 {
			w.saw(Isolation)
		}
	case !claimed && after.Owner == "" && before.Owner != "" && len(after.Parts) == len(before.Parts) && w.phase == jobs.PhaseFinalizing:
		w.saw(StopAfterClaim)
	}
	if claimed {
		w.claims[a.name] = after.Resolved
		w.owners[a.name] = after.Owner
	}
	if own := w.owners[a.name]; !claimed && len(after.Parts) > len(before.Parts) {
		switch {
		case own != before.Owner:
			w.saw(LateSave)
		case after.Parts[len(after.Parts)-1].Attempt < after.Attempt:
			w.saw(Adoption)
		case after.Owner != "":
			w.saw(Checkpoint)
		}
	}
	if after.NotBefore.After(before.NotBefore) {
		w.saw(Deferral)
	}
	if !after.Accused.Without(before.Accused).Empty() {
		w.saw(Accusation)
	}
	if after.Buried && !before.Buried {
		w.saw(Burial)
	}
	if after.Waits != "" && before.Waits == "" {
		w.saw(Parking)
	}
	if before.Dead && !after.Dead && w.completed {
		w.saw(RedriveAfter)
	}
	for _, g := range after.Errors {
		if g.Code == jobs.ItemWorkerCrash {
			w.saw(CrashOutcome)
		}
	}
}

// called sees every call, and holds it to: no call for an item whose outcome was recorded when its attempt claimed it, and
// none once the job has ended, but by who lost its claim.
func (w *World) called(a *actor, item int) {
	w.world.Lock()
	defer w.world.Unlock()
	id, ordinal := w.plan.place(item)
	if w.claims[a.name].Has(ordinal) {
		w.failf("%s calls item %d, whose outcome was recorded before it claimed %s", a.name, item, id)
	}
	if w.ended {
		rec, ok := w.ledger.records[chunkKey(id)]
		if !ok {
			w.failf("%s calls item %d of a job that has ended", a.name, item)
			return
		}
		if c, err := jobs.DecodeRecord[jobs.Chunk](rec.body, rec.revision); err == nil && c.Owner == w.owners[a.name] {
			w.failf("%s calls item %d of a job that has ended", a.name, item)
		}
	}
}
