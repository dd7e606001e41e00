package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Inspector is for who has to see why work stands still, and to set it going again. API and commands are its users. What it
// changes, it notes (Audit).
type Inspector struct {
	ports Ports
	dead  DeadLetters
}

// NewInspector makes an Inspector.
func NewInspector(p Ports, dead DeadLetters) *Inspector { return &Inspector{p.WithDefaults(), dead} }

// Pause holds a job: within five seconds nothing of it is begun any more, and what is in flight is finished. Its window runs
// on. One that had paused by itself is held all the same, and does not go on by itself any more.
func (i *Inspector) Pause(ctx context.Context, id JobID, by, why string) (Job, error) {
	p := &i.ports
	var j Job
	held := false
	err := untilSaved(func() (err error) {
		if j, err = p.Ledger.Job(ctx, id); err != nil {
			return err
		}
		switch {
		case j.Stopped():
			return Errorf(CodeConflict, "it is %s, and nothing of it is begun any more", j.Phase)
		}
		var pause *Pause
		if pause, held = j.Pause.byOperator("paused by an operator; the window runs on", why, p.Now()); !held {
			return nil
		}
		j.Pause = pause
		return p.saveJob(ctx, &j)
	})
	if err == nil && held {
		err = Audit(ctx, *p, AuditRecord{By: by, What: "job.pause", Tenant: j.Tenant, Of: string(id), Why: why})
	}
	if err != nil {
		return j, fmt.Errorf("pause job %s: %w", id, err)
	}
	return j, nil
}

// byOperator is the hold of an operator in the place of this one, if there is one; false if it is an operator's already. It
// says what it was before, since that may still be wrong.
func (p *Pause) byOperator(message, why string, now time.Time) (*Pause, bool) {
	if why != "" {
		message += ": " + cutShort(why)
	}
	held := Pause{Reason: PauseOperator, Message: message, At: now}
	if p != nil {
		if p.Reason == PauseOperator {
			return p, false
		}
		held.Limit, held.Message = p.Limit, cutShort(message+" (before: "+p.Message+")")
	}
	return &held, true
}

// Resume ends the pause of a job, whoever set it. To one that is not paused everything is sent again that the ledger misses.
func (i *Inspector) Resume(ctx context.Context, id JobID, by string) (Job, error) {
	p := &i.ports
	j, was, err := p.unhold(ctx, id, true)
	if err == nil && !j.Phase.Ended() {
		note := AuditRecord{By: by, What: "job.resume", Tenant: j.Tenant, Of: string(id), Why: "it was not paused"}
		if was != nil {
			note.Why = was.Reason
		}
		if err = Audit(context.WithoutCancel(ctx), *p, note); err == nil {
			err = p.releaseNow(ctx, &j)
		}
	}
	if err != nil {
		return j, fmt.Errorf("resume job %s: %w", id, err)
	}
	return p.Ledger.Job(ctx, id)
}

// Trouble is the items of a job whose last error is alike.
type Trouble struct {
	Code    string
	Message string // without what differs from item to item
	Status  int    // of HTTP; 0 = there was no answer
	Failed  int64  // items that have failed with it
	Open    int64  // items that are still to be called, or wait in the dead letters
	Dead    int64  // of Open: those that wait in the dead letters
	Samples []Sample
}

// Sample is one item.
type Sample struct {
	Line     int64 // of the input, from 1
	CustomID string
}

const (
	maxSamples  = 3    // of a trouble
	maxTroubles = 1000 // kinds that are told apart; the rest is counted as "other": messages are an upstream's
)

// Troubles groups the errors of a job as its chunks have them now, commonest first. When it was stopped and has ended, every
// item has its error, also those that were never called.
func (i *Inspector) Troubles(ctx context.Context, id JobID) ([]Trouble, error) {
	j, err := i.ports.Ledger.Job(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("inspect job %s: %w", id, err)
	}
	g := gatherer{ports: &i.ports, job: &j, of: map[kindOfTrouble]*Trouble{}}
	for n := range j.Splits() {
		if err := g.split(ctx, n); err != nil {
			return nil, fmt.Errorf("inspect job %s, split %d: %w", id, n, err)
		}
	}
	all := make([]Trouble, 0, len(g.of))
	for _, t := range g.of {
		all = append(all, *t)
	}
	slices.SortFunc(all, func(a, b Trouble) int {
		return cmp.Or(cmp.Compare(b.Failed+b.Open, a.Failed+a.Open), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Message, b.Message))
	})
	return all, nil
}

// FleetTrouble is the errors of all jobs that are alike, of those that are open, have ended within the hour, or have dead
// chunks.
type FleetTrouble struct {
	Code    string
	Message string
	Items   int64 // failed, or still failing
	Jobs    int
	Samples []JobID // some of these
}

// FleetTroubles groups the errors of all jobs as their last folds have them, commonest first. Each job tells its
// MaxErrorGroups commonest kinds.
func (i *Inspector) FleetTroubles(ctx context.Context) ([]FleetTrouble, error) {
	of := map[[2]string]*FleetTrouble{}
	seen := map[JobID]bool{}
	count := func(j *Job) {
		if seen[j.ID] {
			return
		}
		seen[j.ID] = true
		for _, e := range j.Totals.Errors {
			t := of[[2]string{e.Code, e.Message}]
			if t == nil {
				t = &FleetTrouble{Code: e.Code, Message: e.Message}
				of[[2]string{e.Code, e.Message}] = t
			}
			t.Items += e.Count
			t.Jobs++
			if len(t.Samples) < maxSamples {
				t.Samples = append(t.Samples, j.ID)
			}
		}
	}
	for j, err := range i.ports.Ledger.Jobs(ctx, JobQuery{Open: true}) {
		if err != nil {
			return nil, fmt.Errorf("list the open jobs: %w", err)
		}
		count(&j)
	}
	for e, err := range i.ports.Registry.Entries(ctx, KindDead, deadOwner) {
		if err != nil {
			return nil, fmt.Errorf("list the jobs with dead chunks: %w", err)
		}
		if j, err := i.ports.Ledger.Job(ctx, JobID(e.ID)); err == nil {
			if j.Totals.Dead > 0 { // else what it had is purged, or answered
				count(&j)
			}
		} else if !errors.Is(err, ErrNotFound) {
			return nil, fmt.Errorf("read job %s: %w", e.ID, err)
		}
	}
	all := make([]FleetTrouble, 0, len(of))
	for _, t := range of {
		all = append(all, *t)
	}
	slices.SortFunc(all, func(a, b FleetTrouble) int {
		return cmp.Or(cmp.Compare(b.Items, a.Items), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Message, b.Message))
	})
	return all, nil
}

// gatherer walks the chunks of a job.
type gatherer struct {
	ports *Ports
	job   *Job
	of    map[kindOfTrouble]*Trouble
}

type kindOfTrouble struct {
	code, message string
	status        int
}

func (g *gatherer) split(ctx context.Context, n int) error {
	s, err := g.ports.Ledger.Split(ctx, g.job.ID, n)
	if errors.Is(err, ErrNotFound) || err == nil && s.Scanned == nil {
		return nil
	}
	if err != nil {
		return err
	}
	var messages map[int64]*ChunkMessage // read when a sample is wanted
	for c, err := range g.ports.Ledger.Chunks(ctx, g.job.ID, n, OffsetRange{}) {
		if err != nil {
			return err
		}
		for _, group := range c.Errors {
			t, wanted := g.count(&c, &group)
			if !wanted {
				continue
			}
			if messages == nil {
				if messages, err = g.ports.messagesOf(ctx, g.job, &s); err != nil {
					return err
				}
			}
			if err := g.sample(ctx, t, messages[c.ID.Offset], group.Items.And(c.Open().Or(c.Failed))); err != nil {
				return err
			}
		}
	}
	if g.stopped() {
		return g.ranOut(ctx, &s)
	}
	return nil
}

// stopped tells whether what is open stays so, and has its error. One that failed has no files, and of one that was stopped
// before it was checked nobody knows the items.
func (g *gatherer) stopped() bool {
	return g.job.Phase.Ended() && g.job.Phase != PhaseFailed && g.job.Stop != nil && g.job.Checked != nil
}

// ranOut adds the items of a split that nobody has judged.
func (g *gatherer) ranOut(ctx context.Context, s *Split) error {
	messages, err := g.ports.messagesOf(ctx, g.job, s)
	if err != nil {
		return err
	}
	code, message := ranOut(g.job)
	add := func(m *ChunkMessage, items Bits) error {
		if items.Empty() {
			return nil
		}
		t := g.kind(kindOfTrouble{code: code, message: message})
		t.Failed += int64(items.Count())
		if len(t.Samples) == maxSamples {
			return nil
		}
		return g.sample(ctx, t, m, items)
	}
	for c, err := range g.ports.Ledger.Chunks(ctx, g.job.ID, s.N, OffsetRange{}) {
		if err != nil {
			return err
		}
		m := messages[c.ID.Offset]
		delete(messages, c.ID.Offset)
		if m == nil || c.Dead {
			continue
		}
		if err := add(m, c.Open()); err != nil {
			return err
		}
	}
	for _, offset := range slices.Sorted(maps.Keys(messages)) { // nobody ever claimed these
		if err := add(messages[offset], newChunk(messages[offset]).Open()); err != nil {
			return err
		}
	}
	return nil
}

// count adds a chunk's items of one kind, and tells whether samples of them are wanted.
func (g *gatherer) count(c *Chunk, group *ErrorGroup) (t *Trouble, wanted bool) {
	failed, open := int64(group.Items.And(c.Failed).Count()), int64(group.Items.And(c.Open()).Count())
	switch {
	case c.Purged, g.stopped() && c.Dead:
		failed, open = failed+open, 0 // nobody asks for them any more
	case g.stopped():
		open = 0 // they ran out of time, or were cancelled
	}
	if failed+open == 0 {
		return nil, false // or they were answered since
	}
	t = g.kind(kindOfTrouble{group.Code, group.Message, group.Status})
	t.Failed += failed
	t.Open += open
	if c.Dead {
		t.Dead += open
	}
	return t, len(t.Samples) < maxSamples
}

func (g *gatherer) kind(k kindOfTrouble) *Trouble {
	t := g.of[k]
	if t == nil && len(g.of) >= maxTroubles {
		k = kindOfTrouble{code: otherCode, message: otherMessage}
		t = g.of[k]
	}
	if t == nil {
		t = &Trouble{Code: k.code, Message: k.message, Status: k.status}
		g.of[k] = t
	}
	return t
}

// sample reads which items they are. An input that is gone, or was changed, has no samples.
func (g *gatherer) sample(ctx context.Context, t *Trouble, m *ChunkMessage, items Bits) error {
	if m == nil {
		return nil
	}
	data, err := readChunkBytes(ctx, g.ports.Files, g.job, m)
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrChanged) {
		return nil
	}
	if err != nil {
		return err
	}
	parser := newLineParser(g.job.Endpoint, g.job.Cut.LineBytes)
	for ordinal, l := range splitLines(data, m.Offset, m.Lines) {
		if items.Has(ordinal) && len(t.Samples) < maxSamples {
			parsed, _ := parser.parse(l.content)
			t.Samples = append(t.Samples, Sample{Line: m.Line + int64(ordinal), CustomID: string(parsed.id)})
		}
	}
	return nil
}
