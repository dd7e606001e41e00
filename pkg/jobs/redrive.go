package jobs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// A redrive goes top down (rule 3): a dead chunk is named in its split as reopening, with its burial number; its job is set in
// progress; and only then the chunk is opened and claimed. The worker does so with whatever brings it the message of a dead
// chunk, and who sends such messages from the ledger does the first two before.

// refusedWork is why a job does not take work back.
type refusedWork struct{ code, why string }

// refusal tells why redriven work of the job must not run, or nil: it was stopped, it has ended but by completing, or its
// records are about to go.
func (j *Job) refusal(now time.Time) *refusedWork {
	switch {
	case j.Stop != nil:
		return &refusedWork{"job_" + string(j.Stop.As), fmt.Sprintf("job %s takes no work back: %s", j.ID, j.Stop.Reason)}
	case j.Phase.Ended() && j.Phase != PhaseCompleted:
		return &refusedWork{"job_" + string(j.Phase), fmt.Sprintf("job %s takes no work back: it is %s", j.ID, j.Phase)}
	case j.hasDeadline() && now.After(j.sealedAt()):
		return &refusedWork{"job_sealed", fmt.Sprintf("job %s takes no work back: its records are kept until %s only", j.ID, j.sealedAt().Add(sealedBefore).UTC().Format(time.RFC3339))}
	default:
		return nil
	}
}

// refuses tells why a dead chunk must not be redriven, or nil.
func (p *Ports) refuses(ctx context.Context, j *Job, c *Chunk, known childStates) (*refusedWork, error) {
	if no := j.refusal(p.Now()); no != nil {
		return no, nil
	}
	return p.heldByChild(ctx, j, c, known)
}

// reopening names chunks of a split as reopening and sets their job in progress, in that order. A job that was stopped meanwhile
// refuses them, and so does one whose items were retried meanwhile; then their names are taken back. Once begun it does not end
// with ctx: a job that has ended with chunks that it names is nobody's to heal but another redrive's.
func (p *Ports) reopening(ctx context.Context, id JobID, split int, chunks ...*Chunk) (*refusedWork, error) {
	ctx = context.WithoutCancel(ctx)
	if err := p.name(ctx, id, split, chunks, func(named map[int64]int, c *Chunk) { named[c.ID.Offset] = c.Burial }); err != nil {
		return nil, err
	}
	var no *refusedWork
	err := untilSaved(func() error {
		j, err := p.Ledger.Job(ctx, id)
		if err != nil {
			return err
		}
		children := childStates{}
		for _, c := range chunks { // a retry is noted in the job too, so one of us sees the other
			if no, err = p.refuses(ctx, &j, c, children); no != nil || err != nil {
				return err
			}
		}
		j.reopen(p.Now())
		return p.saveJob(ctx, &j)
	})
	if err != nil {
		return nil, fmt.Errorf("reopen its job: %w", err)
	}
	if no != nil {
		err := p.name(ctx, id, split, chunks, func(named map[int64]int, c *Chunk) {
			if named[c.ID.Offset] == c.Burial {
				delete(named, c.ID.Offset)
			}
		})
		return no, errors.Join(err, nudge(ctx, *p, id, split))
	}
	return nil, nil
}

// name changes which chunks of a split are named as reopening; the split is then folded again.
func (p *Ports) name(ctx context.Context, id JobID, split int, chunks []*Chunk, change func(named map[int64]int, c *Chunk)) error {
	err := untilSaved(func() error {
		s, err := p.Ledger.Split(ctx, id, split)
		if err != nil {
			return err
		}
		named := maps.Clone(s.Reopening)
		if named == nil {
			named = map[int64]int{}
		}
		for _, c := range chunks {
			change(named, c)
		}
		s.Reopening, s.Settled = named, false
		return p.Ledger.SaveSplit(ctx, &s)
	})
	if err != nil {
		return fmt.Errorf("name %d chunks in split %d: %w", len(chunks), split, err)
	}
	return nil
}

// RedriveQuery is which dead chunks are redriven, and how.
type RedriveQuery struct {
	DeadQuery
	Rate   float64 // chunks a second; 0 = as fast as it goes
	DryRun bool    // nothing is moved, only counted
}

// Redriven is what a redrive has moved, or would move.
type Redriven struct {
	Chunks   int64
	Items    int64 // open ones in these chunks
	Jobs     int
	Refused  map[string]int64 // chunks that were left, by the code of the reason
	Cleared  int64            // copies taken out of the dead letters; those that are left do nothing
	Followed []Followed       // what was moved, to follow; at most mostFollowed
	Next     ChunkID          // where to go on, if More
	More     bool
}

// Followed is a chunk that was redriven, as it was before.
type Followed struct {
	ID     ChunkID
	Burial int
	Failed int    // items that had failed for good
	Code   string // of the error that it was dead with
}

const (
	mostFollowed = 1000
	redriveRound = 100             // chunks of one split that are moved together
	clearFor     = 8 * time.Second // how long dead letters are gone through for copies
)

// Redrive moves dead chunks back to work: it sends their messages from the ledger, with their burial number, and then clears
// their copies out of the dead letters. What was moved is on its way at once: a second call does not count it again.
func (i *Inspector) Redrive(ctx context.Context, q RedriveQuery, by string) (Redriven, error) {
	r := redrive{i: i, q: q, done: Redriven{Refused: map[string]int64{}}, jobs: map[JobID]bool{}, sent: map[ChunkID]int{}, began: i.ports.Now()}
	err := r.run(ctx)
	if !q.DryRun && r.done.Chunks > 0 {
		r.done.Cleared = i.clear(ctx, r.sent)
		what := AuditRecord{By: by, What: "dlq.redrive", Tenant: q.Tenant, Of: string(q.Job), Count: r.done.Chunks, Why: q.String()}
		err = errors.Join(err, Audit(context.WithoutCancel(ctx), i.ports, what))
	}
	r.done.Jobs = len(r.jobs)
	if err != nil {
		return r.done, fmt.Errorf("redrive: %w", err)
	}
	return r.done, nil
}

// redrive is one call of Redrive.
type redrive struct {
	i     *Inspector
	q     RedriveQuery
	done  Redriven
	jobs  map[JobID]bool  // of chunks that were moved
	sent  map[ChunkID]int // burial numbers
	began time.Time
	round []DeadChunk // of one split
}

func (r *redrive) run(ctx context.Context) error {
	all := r.q.DeadQuery
	all.Max = 0 // of those that are moved, not of those that are looked at
	for d, err := range r.i.Dead(ctx, all) {
		if err != nil {
			return err
		}
		switch {
		case d.State == DeadLater:
			r.done.More, r.done.Next = true, d.ID
			return r.move(ctx)
		case d.State == DeadOnItsWay:
			continue
		case d.State == DeadRefused:
			r.done.Refused[d.Refused]++
			continue
		}
		if n := len(r.round); n > 0 && (n == r.roundSize() || r.round[0].ID.Job != d.ID.Job || r.round[0].ID.Split != d.ID.Split) {
			if err := r.move(ctx); err != nil {
				return err
			}
		}
		if r.over() {
			r.done.More, r.done.Next = true, d.ID
			break
		}
		r.round = append(r.round, d)
		if r.q.Max > 0 && int(r.done.Chunks)+len(r.round) >= r.q.Max {
			return r.move(ctx)
		}
	}
	return r.move(ctx)
}

// over tells whether the next chunk comes too late for this call.
func (r *redrive) over() bool {
	next := r.i.ports.Now()
	if !r.q.DryRun {
		next = laterOf(next, r.due(len(r.round)))
	}
	return !r.q.Until.IsZero() && !next.Before(r.q.Until)
}

// due is when the next chunk can be moved at the rate, if so many go before it.
func (r *redrive) due(before int) time.Time {
	if r.q.Rate <= 0 {
		return r.began
	}
	return r.began.Add(time.Duration(float64(r.done.Chunks+int64(before)) / r.q.Rate * float64(time.Second)))
}

func (r *redrive) roundSize() int {
	if r.q.Rate > 0 {
		return max(1, min(redriveRound, int(r.q.Rate)))
	}
	return redriveRound
}

// move moves a round, at its time.
func (r *redrive) move(ctx context.Context) error {
	round := r.round
	r.round = nil
	if len(round) == 0 {
		return nil
	}
	if !r.q.DryRun {
		if err := r.await(ctx); err != nil {
			return err
		}
		chunks := make([]*Chunk, len(round))
		bodies := make([][]byte, len(round))
		for n := range round {
			chunks[n] = &round[n].chunk
			m := *round[n].message
			m.Burial = round[n].Burial
			bodies[n] = encodeMessage(m)
		}
		no, err := r.i.ports.reopening(ctx, round[0].ID.Job, round[0].ID.Split, chunks...)
		if err != nil {
			return fmt.Errorf("job %s: %w", round[0].ID.Job, err)
		}
		if no != nil {
			r.done.Refused[no.code] += int64(len(round))
			return nil
		}
		if err := send(context.WithoutCancel(ctx), r.i.ports.Queue, QueueWork, bodies...); err != nil {
			r.note(round) // all the same: they are named, and the sweep sends them
			return fmt.Errorf("job %s: %w", round[0].ID.Job, err)
		}
	}
	r.note(round)
	return nil
}

// note counts chunks that are on their way, or would be.
func (r *redrive) note(round []DeadChunk) {
	for _, d := range round {
		r.done.Chunks++
		r.done.Items += int64(d.Items)
		r.jobs[d.ID.Job] = true
		r.sent[d.ID] = d.Burial
		if len(r.done.Followed) < mostFollowed {
			r.done.Followed = append(r.done.Followed, Followed{d.ID, d.Burial, d.chunk.Failed.Count(), d.Code})
		}
	}
}

// await waits until it is time for the next chunks.
func (r *redrive) await(ctx context.Context) error {
	timer := time.NewTimer(r.due(0).Sub(r.i.ports.Now()))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// clear takes the letters of chunks, up to their burial numbers, out of the queue, and tells how many they were. What it does
// not get at in its time stays there as a letter that says nothing to anybody.
func (i *Inspector) clear(ctx context.Context, of map[ChunkID]int) int64 {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), clearFor)
	defer cancel()
	n, err := i.discard(ctx, QueueWork, func(l *Letter) verdictOnLetter {
		b, err := DecodeMessage(l.Body)
		if err != nil || b.Chunk == nil {
			return letterStays
		}
		if burial, meant := of[b.Chunk.ID()]; !meant || b.Chunk.Burial > burial {
			return letterStays
		}
		return letterGoes
	})
	if err != nil {
		i.ports.Log.WarnContext(ctx, "clear chunks out of the dead letters", "error", err)
	}
	return n
}

// verdictOnLetter is what becomes of a letter.
type verdictOnLetter int

const (
	letterStays verdictOnLetter = iota
	letterGoes
	letterEnds // it stays, and no more are looked at
)

// discard goes through the letters of a queue, and removes those that go.
func (i *Inspector) discard(ctx context.Context, q QueueName, judge func(*Letter) verdictOnLetter) (n int64, err error) {
	var going []Letter
	flush := func() error {
		err := i.dead.Discard(ctx, q, going...)
		if err == nil {
			n += int64(len(going))
		}
		going = nil
		return err
	}
	for l, err := range i.dead.Peek(ctx, q) {
		if err != nil {
			return n, errors.Join(err, flush())
		}
		v := judge(&l)
		if v == letterEnds {
			break
		}
		if v == letterGoes {
			going = append(going, l)
		}
		if len(going) == redriveRound {
			if err := flush(); err != nil {
				return n, err
			}
		}
	}
	return n, flush()
}

// FollowState is what became of a chunk that was redriven.
type FollowState string

// What became of it.
const (
	FollowPending  FollowState = "pending"  // it is not settled yet
	FollowAnswered FollowState = "answered" // every item that was open has its answer
	FollowFailed   FollowState = "failed"   // it is dead again, or an item of it has failed, or fails with the same error
)

// Follow tells what became of chunks that were redriven, in their order.
func (i *Inspector) Follow(ctx context.Context, all []Followed) ([]FollowState, error) {
	states := make([]FollowState, len(all))
	for n, f := range all {
		states[n] = FollowPending
		for c, err := range i.ports.Ledger.Chunks(ctx, f.ID.Job, f.ID.Split, At(f.ID.Offset)) {
			if err != nil {
				return nil, fmt.Errorf("follow chunk %s: %w", f.ID, err)
			}
			switch {
			case c.Purged, c.Dead && c.Burial > f.Burial, c.Failed.Count() > f.Failed, !c.Dead && c.fails(f.Code):
				states[n] = FollowFailed
			case c.Done():
				states[n] = FollowAnswered
			}
		}
	}
	return states, nil
}

// fails tells whether an open item has failed with such an error, since the chunk was opened.
func (c *Chunk) fails(code string) bool {
	return slices.ContainsFunc(c.Errors, func(g ErrorGroup) bool { return g.Code == code && !g.Items.And(c.Open()).Empty() })
}

// reopens tells whether a redrive of the chunk is on its way.
func (s *Split) reopens(c *Chunk) bool {
	g, named := s.Reopening[c.ID.Offset]
	return named && c.Dead && !c.Purged && !c.Done() && g == c.Burial
}
