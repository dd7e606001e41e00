package sim

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// witness sees every save while it happens, and holds it to the rules.
type witness struct {
	job    *jobs.Job
	claims map[string]jobs.Bits // by actor: what was resolved when it claimed
	owners map[string]string    // by actor: under which name it claimed
	leases map[string]time.Time // by that name: until when
	late   map[string]bool      // by actor: it claimed when the job was stopped already

	stopMoved time.Time // when the job's stop was last written, or taken back

	facts    map[int]time.Time            // by split: when a fact of it last changed
	judged   map[string]bool              // burials that a record has announced: key#number
	deadBy   map[jobs.ChunkID]string      // the actor that announced the last one
	opened   map[jobs.ChunkID]time.Time   // when it was last redriven
	before   map[jobs.ChunkID]map[int]int // calls of its items before that
	redriven map[string]bool              // dead letters that were sent back: key#number

	ended map[jobs.Phase][]time.Time // when the job came to which end

	fell map[int]int // by item: how many processes died that ran it alone

	deliveries int // of chunk messages
}

func newWitness() witness {
	return witness{claims: map[string]jobs.Bits{}, owners: map[string]string{}, leases: map[string]time.Time{}, late: map[string]bool{}, facts: map[int]time.Time{},
		judged: map[string]bool{}, deadBy: map[jobs.ChunkID]string{}, opened: map[jobs.ChunkID]time.Time{},
		before: map[jobs.ChunkID]map[int]int{}, redriven: map[string]bool{}, ended: map[jobs.Phase][]time.Time{}, fell: map[int]int{}}
}

func burialKey(c jobs.ChunkID, number int) string { return fmt.Sprintf("%s#%d", c, number) }

// watchJob sees every save of the job.
func (w *World) watchJob(_ *actor, before, after *jobs.Job) {
	w.job = after
	if before == nil {
		return
	}
	if (before.Stop == nil) != (after.Stop == nil) {
		w.stopMoved = time.Now()
	}
	if before.Phase != after.Phase {
		if after.Phase.Ended() {
			w.ended[after.Phase] = append(w.ended[after.Phase], after.Entered[after.Phase])
		}
		w.watchMove(before.Phase, after)
	}
	if before.Outputs != nil && after.Outputs != nil && before.Outputs.Of != after.Outputs.Of {
		w.saw(SecondFiles)
		if after.Stop != nil {
			w.saw(LateFiles)
		}
	}
	if after.Outputs != nil && (before.Outputs == nil || before.Outputs.Of != after.Outputs.Of) {
		w.checkCounts(after.Outputs)
	}
	if after.Resends > before.Resends {
		w.saw(Resent)
	}
	if p := after.Pause; p != nil {
		if p.Reason == jobs.PauseCredential {
			w.saw(Refusals)
		}
		if p.Probe != nil {
			w.saw(Probe)
		}
	}
}

func (w *World) watchMove(from jobs.Phase, j *jobs.Job) {
	switch j.Phase {
	case jobs.PhaseCompleted:
		w.saw(Completed)
	case jobs.PhaseCancelled:
		w.saw(Cancelled)
	case jobs.PhaseExpired:
		w.saw(Expired)
	case jobs.PhaseInProgress:
		switch from {
		case jobs.PhaseFinalizing:
			w.saw(RedriveFinal)
		case jobs.PhaseCompleted:
			w.saw(RedriveAfter)
		}
	case jobs.PhaseFailed:
		if j.Stop.Code == "input_modified" {
			w.saw(InputChanged)
		}
	}
	throughFinalizing := from.CanMove(jobs.PhaseFinalizing) && jobs.PhaseFinalizing.CanMove(j.Phase)
	if !from.CanMove(j.Phase) && !throughFinalizing {
		w.failf("the job moved from %s to %s", from, j.Phase)
	}
}

// watchSplit sees every save of a split: its generation moves only with the facts (rule 2).
func (w *World) watchSplit(_ *actor, before, after *jobs.Split) {
	if before == nil || before.FoldedAt.IsZero() || before.Fold == after.Fold {
		return
	}
	if w.facts[after.N].Before(before.FoldedAt) && w.stopMoved.Before(before.FoldedAt) {
		w.failf("split %d has a new generation, though no fact has changed since it was folded", after.N)
	}
}

// watchChunk sees every save of a chunk.
func (w *World) watchChunk(a *actor, before, after *jobs.Chunk) {
	w.plan.learn(after.ID, after.Blank, after.ID.Offset+after.Length)
	if before == nil {
		before = &jobs.Chunk{ID: after.ID, Lines: after.Lines, Blank: after.Blank}
		w.facts[after.ID.Split] = time.Now()
	}
	if !before.Resolved.Equal(after.Resolved) || before.Dead != after.Dead || before.Burial != after.Burial {
		w.facts[after.ID.Split] = time.Now()
	}
	if after.Owner != "" {
		w.leases[after.Owner] = after.Lease
	}
	w.watchBits(a, before, after)
	w.watchClaim(a, before, after)
	w.watchDeath(a, before, after)
	if after.NotBefore.After(before.NotBefore) {
		w.saw(Deferral)
	}
	if !after.Accused.Without(before.Accused).Empty() {
		w.saw(Accusation)
	}
	if after.Waits != "" && before.Waits == "" {
		w.saw(Parking)
	}
	for _, g := range after.Errors {
		if g.Code == jobs.ItemWorkerCrash {
			w.saw(CrashOutcome)
		}
	}
}

// watchBits holds a save to rule 1.
func (w *World) watchBits(a *actor, before, after *jobs.Chunk) {
	if lost := before.Resolved.Without(after.Resolved); !lost.Empty() {
		w.failf("chunk %s: bits %s were turned off", after.ID, lost)
	}
	var all jobs.Bits
	for _, p := range after.Parts {
		if both := all.And(p.Mask); !both.Empty() {
			w.failf("chunk %s: items %s have two outcomes", after.ID, both)
		}
		all = all.Or(p.Mask)
		if _, ok := w.fleet.files.objects[partName(after.ID, p)]; !ok {
			w.failf("chunk %s: part %d-%d is not there", after.ID, p.Attempt, p.Seq)
		}
	}
	if !all.Equal(after.Resolved) {
		w.failf("chunk %s: its parts resolve %s, it says %s", after.ID, all, after.Resolved)
	}
	if after.Attempt > before.Attempt || before.Resolved.Equal(after.Resolved) {
		return
	}
	if w.late[a.name] {
		w.failf("chunk %s: %s saves outcomes, though it claimed when the job was stopped already", after.ID, a.name)
	}
	switch {
	case w.owners[a.name] != before.Owner:
		w.saw(LateSave)
	case after.Parts[len(after.Parts)-1].Attempt < after.Attempt:
		w.saw(Adoption)
	case after.Owner != "":
		w.saw(Checkpoint)
	}
}

func partName(c jobs.ChunkID, p jobs.Part) string {
	return fmt.Sprintf("jobs/%s/parts/%05d/%016x-%06d-%04d", c.Job, c.Split, c.Offset, p.Attempt, p.Seq)
}

func (w *World) watchClaim(a *actor, before, after *jobs.Chunk) {
	if after.Attempt <= before.Attempt {
		return
	}
	if before.Owner != "" {
		w.saw(ClaimAgain)
	}
	if after.Crashes >= 2 || len(after.Felled) > 0 {
		w.saw(Isolation)
	}
	w.claims[a.name] = after.Resolved
	w.owners[a.name] = after.Owner
	if w.job.Stop != nil {
		w.saw(StopBetween)
		w.late[a.name] = true
	}
}

// watchDeath holds burials and redrives to section 4 of the design: what is dead was tried and judged.
func (w *World) watchDeath(a *actor, before, after *jobs.Chunk) {
	switch {
	case !before.Dead && after.Dead:
		w.judged[burialKey(after.ID, after.Burial)] = true
		w.deadBy[after.ID] = a.name
		for item, ordinal := range w.plan.itemsOf(after.ID) {
			tried := w.fleet.upstream.calls[item] - w.before[after.ID][item]
			if after.Open().Has(ordinal) && tried < jobs.DefaultMaxCalls {
				w.failf("chunk %s: item %d was given up after %d calls", after.ID, item, tried)
			}
		}
	case before.Dead && !after.Dead:
		w.opened[after.ID] = time.Now()
		w.before[after.ID] = maps.Clone(w.fleet.upstream.calls)
		if w.job.Phase != jobs.PhaseInProgress && w.job.Stop == nil {
			w.failf("chunk %s was opened while its job is %s", after.ID, w.job.Phase)
		}
		s, _ := w.ledger().records[splitKey(jobID, after.ID.Split)].value.(*jobs.Split)
		if s.Reopening[after.ID.Offset] != before.Burial {
			w.failf("chunk %s was opened, but its split does not name it", after.ID)
		}
		w.saw(Redriven)
	case after.Buried && !before.Buried:
		w.saw(Burial)
		if w.deadBy[after.ID] != a.name {
			w.saw(BurialFinished)
		}
	}
}

// died sees every death of a process.
func (w *World) died(p *process) {
	w.world.Lock()
	defer w.world.Unlock()
	for _, c := range w.chunks() {
		if c.InHand == nil || !strings.HasPrefix(c.Owner, p.name+"/") {
			continue
		}
		for item, ordinal := range w.plan.itemsOf(c.ID) {
			if ordinal == *c.InHand {
				w.fell[item]++
			}
		}
	}
}

// watchEntry sees every save of the registry.
func (w *World) watchEntry(e *jobs.Entry) {
	if e.Kind != jobs.KindGate {
		return
	}
	if bytes.Contains(e.Body, []byte(jobs.PauseOutage)) {
		w.saw(OutagePause)
	}
	if bytes.Contains(e.Body, []byte(`"Probe"`)) {
		w.saw(Probe)
	}
}

// delivered sees every delivery.
func (w *World) delivered(m *jobs.Message) {
	b, err := jobs.DecodeMessage(m.Body)
	if err != nil || b.Chunk == nil {
		return
	}
	w.deliveries++
	c, ok := w.ledger().records[chunkKey(b.Chunk.ID())].value.(*jobs.Chunk)
	switch {
	case !ok:
	case c.Done():
		w.saw(DoneAgain)
	case c.Dead && c.Burial == b.Chunk.Burial && w.job.Stop != nil:
		w.saw(RedriveRefused)
	}
}

// called sees every call, and holds it to: no call for an item whose outcome was recorded when its attempt claimed it, or
// that was answered to a worker that had no trouble; and none of who claimed when the job was stopped, or ended.
func (w *World) called(a *actor, item int) {
	w.world.Lock()
	defer w.world.Unlock()
	w.fleet.upstream.calls[item]++
	id, ordinal := w.plan.place(item)
	if w.claims[a.name].Has(ordinal) {
		w.failf("%s calls item %d, whose outcome was recorded before it claimed %s", a.name, item, id)
	}
	if w.late[a.name] {
		w.failf("%s calls item %d, though it claimed %s when the job was stopped already", a.name, item, id)
	}
	got := w.fleet.upstream.got[item]
	c, ok := w.ledger().records[chunkKey(id)].value.(*jobs.Chunk)
	switch {
	case !ok:
		w.failf("%s calls item %d of a chunk that nobody has claimed", a.name, item)
	case time.Since(w.leases[w.owners[a.name]]) > time.Second:
		w.failf("%s calls item %d, though its lease has run out", a.name, item)
	case c.Owner != w.owners[a.name]: // a moment ago
	case w.job.Phase == jobs.PhaseFailed || c.Done(): // it will look; or a late save of another was faster, and it cannot know
	case w.job.Phase.Ended():
		w.failf("%s calls item %d of a job that has ended", a.name, item)
	case got != nil && got.ended && !got.hurt && !got.proc.isDead():
		w.failf("%s calls item %d, which was answered to %s, who had no trouble", a.name, item, got.name)
	}
}

func (w *World) ledger() *ledger { return w.fleet.ledger }

// letters are the burials in the dead letters: key#number.
func (w *World) letters() map[string]bool {
	letters := map[string]bool{}
	for _, d := range w.fleet.queue.dead {
		b, err := jobs.DecodeMessage(d.body)
		if err != nil || b.Chunk == nil {
			w.failf("dead letter %s: %v", d.body, err)
			continue
		}
		letters[burialKey(b.Chunk.ID(), b.Chunk.Burial)] = true
	}
	return letters
}

// chunks are the records of chunks, in order.
func (w *World) chunks() []*jobs.Chunk {
	var chunks []*jobs.Chunk
	for _, key := range w.ledger().keys {
		if c, ok := w.ledger().records[key].value.(*jobs.Chunk); ok && strings.HasPrefix(key, "chunk/") {
			chunks = append(chunks, c)
		}
	}
	return slices.Clip(chunks)
}
