package jobs

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"
)

// KindDead entries name jobs that have had dead chunks: owner = deadOwner, id = the job. A job is named before its totals say
// so, and stays named; what is in the dead letters its chunks say.
const KindDead Kind = "dead"

const deadOwner = "all"

// nameDeadJob notes that the job has dead chunks.
func (p *Ports) nameDeadJob(ctx context.Context, j *Job) error {
	e := Entry{Kind: KindDead, Owner: deadOwner, ID: string(j.ID), Body: []byte("{}")}
	if !j.Deadline.IsZero() {
		e.Expires = laterOf(j.Deadline, p.Now()).Add(RecordsKept)
	}
	if err := p.Registry.SaveEntry(ctx, &e); err != nil && !errors.Is(err, ErrConflict) {
		return fmt.Errorf("note that job %s has dead chunks: %w", j.ID, err)
	}
	return nil
}

// DeadQuery is which dead chunks are meant. The zero value means all.
type DeadQuery struct {
	Tenant string
	Job    JobID
	Code   string    // of the commonest last error
	Before time.Time // dead since before then
	From   ChunkID   // this one and what follows it, by job, split and offset; zero = from the first
	Max    int       // at most so many; 0 = all
	Until  time.Time // the walk ends then, with one that is DeadLater; zero = when all are seen

	alone bool // From, and nothing that follows it
}

// String is for the audit log.
func (q DeadQuery) String() string {
	var all []string
	if q.Code != "" {
		all = append(all, "code "+q.Code)
	}
	if !q.Before.IsZero() {
		all = append(all, "dead before "+q.Before.UTC().Format(time.RFC3339))
	}
	if q.Max > 0 {
		all = append(all, fmt.Sprintf("at most %d", q.Max))
	}
	return strings.Join(all, ", ")
}

// DeadState is how a dead chunk stands.
type DeadState string

// How dead chunks stand.
const (
	DeadWaiting  DeadState = "waiting"    // for somebody to redrive it
	DeadOnItsWay DeadState = "on_its_way" // it was redriven, and nobody has taken it up yet
	DeadRefused  DeadState = "refused"    // its job would not take it back
	DeadLater    DeadState = "later"      // it was time to end: nothing was looked at from here on, and only the ID is set
)

// DeadChunk is a chunk in the dead letters, as the ledger has it.
type DeadChunk struct {
	ID       ChunkID
	Tenant   string
	Line     int64 // of its first line, from 1
	Lines    int
	Items    int    // open ones
	Code     string // of the commonest last error of these
	Message  string
	Attempts int
	Burial   int
	At       time.Time // when it was found dead; zero = not known
	State    DeadState
	Refused  string // code of the reason
	Why      string // the reason, a sentence

	chunk   Chunk
	message *ChunkMessage
}

// Dead yields the dead chunks that a query means, by job, split and offset. A chunk that was buried a moment ago may still be
// missed, unless its job is named.
func (i *Inspector) Dead(ctx context.Context, q DeadQuery) iter.Seq2[DeadChunk, error] {
	return func(yield func(DeadChunk, error) bool) {
		w := deadWalk{i: i, q: q, yield: yield, children: childStates{}}
		if err := w.jobs(ctx); err != nil && !errors.Is(err, errEnough) {
			yield(DeadChunk{}, fmt.Errorf("list dead chunks: %w", err))
		}
	}
}

// deadWalk walks jobs, splits and chunks.
type deadWalk struct {
	i     *Inspector
	q     DeadQuery
	yield func(DeadChunk, error) bool
	n     int

	children childStates
}

var errEnough = errors.New("enough")

func (w *deadWalk) jobs(ctx context.Context) error {
	if w.q.Job != "" {
		return w.job(ctx, w.q.Job)
	}
	for e, err := range w.i.ports.Registry.Entries(ctx, KindDead, deadOwner) {
		if err != nil {
			return err
		}
		if JobID(e.ID) < w.q.From.Job {
			continue
		}
		if w.over(ChunkID{Job: JobID(e.ID)}) {
			return errEnough
		}
		if err := w.job(ctx, JobID(e.ID)); err != nil && !errors.Is(err, ErrNotFound) { // one that is gone has no chunks
			return err
		}
	}
	return nil
}

// over tells whether it is time to end, and then where to go on.
func (w *deadWalk) over(next ChunkID) bool {
	if w.q.Until.IsZero() || w.i.ports.Now().Before(w.q.Until) {
		return false
	}
	w.yield(DeadChunk{ID: next, State: DeadLater}, nil)
	return true
}

func (w *deadWalk) job(ctx context.Context, id JobID) error {
	p := &w.i.ports
	j, err := p.Ledger.Job(ctx, id)
	if err != nil {
		return fmt.Errorf("read job %s: %w", id, err)
	}
	if w.q.Tenant != "" && j.Tenant != w.q.Tenant {
		return nil
	}
	for s, err := range p.Ledger.Splits(ctx, id) {
		if err != nil {
			return fmt.Errorf("read the splits of job %s: %w", id, err)
		}
		if s.Scanned == nil || s.Settled && s.Totals.Dead == 0 || id == w.q.From.Job && s.N < w.q.From.Split || w.q.alone && s.N != w.q.From.Split {
			continue
		}
		if err := w.split(ctx, &j, &s); err != nil {
			return err
		}
	}
	return nil
}

func (w *deadWalk) split(ctx context.Context, j *Job, s *Split) error {
	p := &w.i.ports
	var after OffsetRange
	if j.ID == w.q.From.Job && s.N == w.q.From.Split {
		after.From = w.q.From.Offset
	}
	if w.q.alone {
		after = At(w.q.From.Offset)
	}
	var messages map[int64]*ChunkMessage
	for c, err := range p.Ledger.Chunks(ctx, j.ID, s.N, after) {
		if err != nil {
			return fmt.Errorf("read the chunks of job %s: %w", j.ID, err)
		}
		if w.over(c.ID) {
			return errEnough
		}
		if !c.Dead || !c.Buried || c.Done() || c.Purged {
			continue
		}
		d := deadChunk(j, &c)
		if w.q.Code != "" && d.Code != w.q.Code || !w.q.Before.IsZero() && !d.At.Before(w.q.Before) {
			continue
		}
		if messages == nil {
			if messages, err = p.messagesOf(ctx, j, s); err != nil {
				return fmt.Errorf("split %d of job %s: %w", s.N, j.ID, err)
			}
		}
		if d.message = messages[c.ID.Offset]; d.message == nil {
			return Errorf(CodeInternal, "the scan of job %s knows no chunk %s", j.ID, c.ID)
		}
		d.Line = d.message.Line
		if err := w.stand(ctx, j, s, &d); err != nil {
			return err
		}
		if !w.yield(d, nil) {
			return errEnough
		}
		if w.n++; w.n == w.q.Max && w.q.Max > 0 {
			return errEnough
		}
	}
	return nil
}

// stand says how a dead chunk stands.
func (w *deadWalk) stand(ctx context.Context, j *Job, s *Split, d *DeadChunk) error {
	d.State = DeadWaiting
	no, err := w.i.ports.refuses(ctx, j, &d.chunk, w.children)
	switch {
	case err != nil:
		return err
	case no != nil:
		d.State, d.Refused, d.Why = DeadRefused, no.code, no.why
	case s.reopens(&d.chunk) && !j.Phase.Ended(): // else a redrive broke off before it came to the job
		d.State = DeadOnItsWay
	}
	return nil
}

func deadChunk(j *Job, c *Chunk) DeadChunk {
	why := burialOf(c)
	return DeadChunk{
		ID: c.ID, Tenant: j.Tenant, Lines: c.Lines, Items: c.Open().Count(), Code: why.Code, Message: why.Message,
		Attempts: c.Attempt, Burial: c.Burial, At: c.DiedAt, chunk: *c,
	}
}

// DeadItem is an item that waits in the dead letters.
type DeadItem struct {
	Line          int64 // of the input, from 1
	CustomID      string
	Code, Message string // its last error
	Status        int    // of HTTP; 0 = there was no answer
	Calls         int    // that were counted against it
	Crashes       int    // of its process, while it was in hand
}

// DeadChunk finds one dead chunk, with its items. ErrNotFound if it is not in the dead letters.
func (i *Inspector) DeadChunk(ctx context.Context, id ChunkID) (DeadChunk, []DeadItem, error) {
	for d, err := range i.Dead(ctx, DeadQuery{Job: id.Job, From: id, alone: true}) {
		if err != nil {
			return d, nil, err
		}
		items, err := i.deadItems(ctx, &d)
		return d, items, err
	}
	return DeadChunk{}, nil, fmt.Errorf("find dead chunk %s: %w", id, ErrNotFound)
}

// deadItems reads which they are. Where the input is gone they have no ids.
func (i *Inspector) deadItems(ctx context.Context, d *DeadChunk) ([]DeadItem, error) {
	j, err := i.ports.Ledger.Job(ctx, d.ID.Job)
	if err != nil {
		return nil, fmt.Errorf("read job %s: %w", d.ID.Job, err)
	}
	data, err := readChunkBytes(ctx, i.ports.Files, &j, d.message)
	if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrChanged) {
		return nil, err
	}
	ids := map[int]string{}
	if err == nil {
		parser := newLineParser(j.Endpoint, j.Cut.LineBytes)
		for ordinal, l := range splitLines(data, d.message.Offset, d.message.Lines) {
			parsed, _ := parser.parse(l.content)
			ids[ordinal] = string(parsed.id)
		}
	}
	var items []DeadItem
	for ordinal := range d.chunk.Open().Ordinals {
		item := DeadItem{Line: d.Line + int64(ordinal), CustomID: ids[ordinal], Calls: d.chunk.Calls[ordinal], Crashes: d.chunk.Felled[ordinal].Times}
		for _, g := range d.chunk.Errors {
			if g.Items.Has(ordinal) {
				item.Code, item.Message, item.Status = g.Code, g.Message, g.Status
			}
		}
		items = append(items, item)
	}
	return items, nil
}
