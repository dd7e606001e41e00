package jobs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// releaseFor is how long a resume sends parked chunks: who asks for it waits. A sweep takes twice that for each job, since
// there are others.
const releaseFor = 8 * time.Second

// releaseRound is how many chunks are sent together.
const releaseRound = 100

// release sends the messages of parked chunks whose pause has ended, and of one for each pause that is due for a probe. It
// looks at the splits that look picks, until it is time to end; what is left stays parked. Each call begins at another split, so
// that chunks that must stay keep none that may leave from being reached.
func (p *Ports) release(ctx context.Context, j *Job, until time.Time, look func(*Split) bool) error {
	if j.Pause != nil && !j.Pause.probeDue(p.Now()) {
		return nil
	}
	var splits []Split
	for s, err := range p.Ledger.Splits(ctx, j.ID) {
		if err != nil {
			return fmt.Errorf("read its splits: %w", err)
		}
		if s.Scanned != nil && s.Dispatched && look(&s) {
			splits = append(splits, s)
		}
	}
	pauses := map[string]*gateRecord{}
	first := int(p.Now().Unix()/60) % max(1, len(splits))
	for n := range splits {
		s := &splits[(first+n)%len(splits)]
		if over, err := p.releaseSplit(ctx, j, s, until, pauses); over || err != nil {
			return err
		}
	}
	return nil
}

func (p *Ports) releaseSplit(ctx context.Context, j *Job, s *Split, until time.Time, pauses map[string]*gateRecord) (over bool, err error) {
	if !p.Now().Before(until) {
		return true, nil
	}
	messages, err := p.messagesOf(ctx, j, s)
	if err != nil {
		return false, err
	}
	var round []*Chunk
	for c, err := range p.Ledger.Chunks(ctx, j.ID, s.N, OffsetRange{}) {
		if err != nil {
			return false, fmt.Errorf("read its chunks: %w", err)
		}
		if over = !p.Now().Before(until); over {
			break
		}
		if c.Waits == "" || p.alive(&c) {
			continue
		}
		ok, err := p.mayLeave(ctx, j, &c, pauses)
		if err != nil {
			return false, err
		}
		if !ok {
			continue
		}
		if round = append(round, &c); len(round) == releaseRound {
			if err := p.sendParked(ctx, messages, round); err != nil {
				return false, err
			}
			round = nil
		}
	}
	return over, p.sendParked(ctx, messages, round)
}

// sendParked sends first and then forgets that the chunks wait: a crash between the two sends them twice.
func (p *Ports) sendParked(ctx context.Context, messages map[int64]*ChunkMessage, round []*Chunk) error {
	bodies := make([][]byte, 0, len(round))
	for _, c := range round {
		m := messages[c.ID.Offset]
		if m == nil {
			return Errorf(CodeInternal, "release chunk %s: the scan knows no such chunk", c.ID)
		}
		m.Burial = c.Burial
		bodies = append(bodies, encodeMessage(m))
	}
	if len(bodies) == 0 {
		return nil
	}
	if err := send(ctx, p.Queue, QueueWork, bodies...); err != nil {
		return err
	}
	for _, c := range round {
		c.Waits = ""
		if err := p.Ledger.SaveChunk(ctx, c); err != nil && !errors.Is(err, ErrConflict) {
			return fmt.Errorf("release chunk %s: %w", c.ID, err)
		}
	}
	return nil
}

// mayLeave tells whether what the chunk waits for is over, or due for a probe with this very chunk.
func (p *Ports) mayLeave(ctx context.Context, j *Job, c *Chunk, seen map[string]*gateRecord) (bool, error) {
	now := p.Now()
	if j.Pause != nil && !j.Pause.probeDue(now) {
		return false, nil
	}
	if c.Waits != parkedByJob {
		if ok, err := p.gateLets(ctx, c, seen, now); !ok || err != nil {
			return false, err
		}
	}
	if j.Pause == nil {
		return true, nil
	}
	probing := j.Pause.probing(c.ID, now) // also where its gate is paused: the chunk probes both
	j.Pause = &probing
	return true, p.saveJob(ctx, j)
}

// gateLets tells whether the gate that the chunk waits for is open again, or due for a probe with this very chunk.
func (p *Ports) gateLets(ctx context.Context, c *Chunk, seen map[string]*gateRecord, now time.Time) (bool, error) {
	id := gateOf(c.Waits)
	rec := seen[c.Waits]
	if rec == nil {
		read, _, err := readGate(ctx, p.Registry, id)
		if err != nil {
			return false, err
		}
		rec = &read
		seen[c.Waits] = rec
	}
	if rec.Pause == nil {
		return true, nil
	}
	if !rec.Pause.probeDue(now) {
		return false, nil
	}
	fresh, revision, err := readGate(ctx, p.Registry, id)
	if err != nil || fresh.Pause == nil {
		return err == nil, err
	}
	probing := fresh.Pause.probing(c.ID, now)
	fresh.Pause, rec.Pause = &probing, &probing
	_, err = saveGate(ctx, p.Registry, id, fresh, revision, now)
	if errors.Is(err, ErrConflict) {
		return false, nil // next minute
	}
	return err == nil, err
}

// gateOf reads what GateID.String wrote: an upstream's name has no "/", a model's may.
func gateOf(waits string) GateID {
	upstream, model, _ := strings.Cut(waits, "/")
	return GateID{upstream, model}
}

func (p *Pause) probeDue(now time.Time) bool { return !p.ProbeAt.IsZero() && !now.Before(p.ProbeAt) }

// probing is the pause with this chunk let through, and the next one in a minute.
func (p *Pause) probing(c ChunkID, now time.Time) Pause {
	q := *p
	q.Probe, q.ProbeAt = &c, now.Add(probeEvery)
	return q
}
