package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
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
// on. One that is paused already stays so, for the reason that it had.
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
		case j.Pause != nil:
			return nil
		}
		message := "paused by an operator; the window runs on"
		if why != "" {
			message += ": " + cutShort(why)
		}
		j.Pause = &Pause{Reason: PauseOperator, Message: message, At: p.Now()}
		held = true
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

// Resume ends the pause of a job, whoever set it. One that is not paused is left as it is.
func (i *Inspector) Resume(ctx context.Context, id JobID, by string) (Job, error) {
	p := &i.ports
	was, err := p.Ledger.Job(ctx, id)
	if err != nil {
		return was, fmt.Errorf("resume job %s: %w", id, err)
	}
	if err := Resume(ctx, *p, id); err != nil {
		return was, err
	}
	if was.Pause != nil {
		if err := Audit(ctx, *p, AuditRecord{By: by, What: "job.resume", Tenant: was.Tenant, Of: string(id), Why: was.Pause.Reason}); err != nil {
			return was, err
		}
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

const maxSamples = 3 // of a trouble

// Troubles groups the errors of a job as its chunks have them now, commonest first.
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
			count(&j)
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
	return nil
}

// count adds a chunk's items of one kind, and tells whether samples of them are wanted.
func (g *gatherer) count(c *Chunk, group *ErrorGroup) (t *Trouble, wanted bool) {
	failed, open := int64(group.Items.And(c.Failed).Count()), int64(group.Items.And(c.Open()).Count())
	if failed+open == 0 {
		return nil, false // they were answered since
	}
	kind := kindOfTrouble{group.Code, group.Message, group.Status}
	if t = g.of[kind]; t == nil {
		t = &Trouble{Code: kind.code, Message: kind.message, Status: kind.status}
		g.of[kind] = t
	}
	t.Failed += failed
	t.Open += open
	if c.Dead {
		t.Dead += open
	}
	return t, len(t.Samples) < maxSamples
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
