package jobs

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"iter"
	"maps"
	"time"
)

// Generation is a digest of the facts that a fold, a piece or a file was made from: of a split, (offset, resolved, dead,
// burial) of its chunks; of a job, the generations of its splits. Leases and renewals leave it alone (rule 2).
type Generation [16]byte

// IsZero tells whether there is none yet.
func (g Generation) IsZero() bool { return g == Generation{} }

func (g Generation) String() string { return hex.EncodeToString(g[:]) }

// MarshalText writes hex; none is empty.
func (g Generation) MarshalText() ([]byte, error) {
	if g.IsZero() {
		return nil, nil
	}
	return []byte(g.String()), nil
}

// UnmarshalText reads hex.
func (g *Generation) UnmarshalText(text []byte) error {
	*g = Generation{}
	if len(text) == 0 {
		return nil
	}
	if len(text) != 2*len(g) {
		return Errorf(CodeInvalid, "read generation %.40q: not %d hex digits", text, 2*len(g))
	}
	_, err := hex.Decode(g[:], text)
	return err
}

// splitFold is a split's totals recomputed from its chunks.
type splitFold struct {
	Totals     Totals
	Generation Generation
	Settled    bool
	Reopening  map[int64]int // those of the split that still wait for their chunk
	LeaseEnds  time.Time     // of a stopped job: the first lease whose end settles it; zero = none is live
}

// foldSplit recomputes a split from the facts. It is pure: any order of saves and any repetition of messages that led to
// the same chunks give the same fold. alive tells whether a chunk's lease is live.
//
// A split is settled when every chunk is, or its job is stopped and no lease is live. It is not while it names a chunk as
// reopening that is still dead with that burial number: a redrive is on its way (rule 3).
func foldSplit(j *Job, s *Split, chunks iter.Seq2[Chunk, error], alive func(*Chunk) bool) (splitFold, error) {
	f := splitFold{Reopening: maps.Clone(s.Reopening)}
	f.Totals.Items = s.Scanned.Items
	digest := sha256.New()
	settled, judged := 0, 0
	for c, err := range chunks {
		if err != nil {
			return f, err
		}
		f.Totals = f.Totals.Add(c.Totals)
		f.Totals.Errors = mergeErrors(f.Totals.Errors, c.errorCounts())
		if c.Waits != "" {
			f.Totals.Parked++
		}
		switch {
		case !c.Dead || c.Done():
		case c.Purged:
			f.Totals.PurgedItems += int64(c.Open().Count())
		default:
			f.Totals.Dead++
			f.Totals.DeadItems += int64(c.Open().Count())
		}
		if f.Reopening[c.ID.Offset] != 0 && !s.reopens(&c) {
			delete(f.Reopening, c.ID.Offset) // it was opened, or purged
		}
		if c.Settled() {
			settled++
		}
		if c.Done() || c.Dead {
			judged++
		}
		if alive(&c) && (f.LeaseEnds.IsZero() || c.Lease.Before(f.LeaseEnds)) {
			f.LeaseEnds = c.Lease
		}
		var fact [17]byte
		binary.BigEndian.PutUint64(fact[0:], uint64(c.ID.Offset))
		binary.BigEndian.PutUint64(fact[8:], uint64(c.Burial))
		if c.Dead {
			fact[16] = 1
		}
		digest.Write(fact[:])
		resolved := c.Resolved.trim()
		binary.BigEndian.PutUint64(fact[0:], uint64(len(resolved)))
		digest.Write(fact[:8])
		digest.Write(resolved)
	}
	f.Settled = settled == s.Scanned.Chunks && len(f.Reopening) == 0
	if j.Stop != nil {
		f.Settled = f.LeaseEnds.IsZero() // nothing will be claimed any more
		if judged < s.Scanned.Chunks {
			digest.Write([]byte(j.Stop.As)) // the error lines of what is open say so
		}
	}
	copy(f.Generation[:], digest.Sum(nil))
	return f, nil
}

// survey recomputes a job from its splits, which come in order; absent ones are neither scanned nor ready.
func survey(j *Job, splits iter.Seq2[Split, error]) (Survey, error) {
	all := Survey{Scanned: true, Sent: true, Ready: true}
	digest := sha256.New()
	seen := 0
	for s, err := range splits {
		if err != nil {
			return all, err
		}
		seen++
		all.Scanned = all.Scanned && s.Scanned != nil
		all.Sent = all.Sent && s.Dispatched
		all.Ready = all.Ready && s.Settled && s.compacted()
		digest.Write(s.Fold[:])
		t := s.Totals
		if t.Items == 0 && s.Scanned != nil {
			t.Items = s.Scanned.Items // not folded yet
		}
		all.Totals = all.Totals.Add(t)
	}
	if seen < j.Splits() {
		all.Scanned, all.Sent, all.Ready = false, false, false
	}
	copy(all.Fold[:], digest.Sum(nil))
	return all, nil
}

// errorCounts are the chunk's error groups as counts.
func (c *Chunk) errorCounts() []ErrorCount {
	var counts []ErrorCount
	for _, g := range c.Errors {
		counts = append(counts, ErrorCount{g.Code, g.Message, int64(g.Items.Count())})
	}
	return counts
}
