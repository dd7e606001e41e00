package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// GateID names an upstream+model.
type GateID struct{ Upstream, Model string }

func (id GateID) String() string { return id.Upstream + "/" + id.Model }

// Gate limits and judges the calls of this process to one upstream+model: how many may be in flight, when the next may
// start, what its answers say about those that fail. It is shared by all chunks of the process.
//
// The limit rises by one for every width of answers and is halved at most once a round trip when the upstream throttles
// (additive increase, multiplicative decrease); it never falls below one.
type Gate struct {
	ID GateID

	mu       sync.Mutex
	ceiling  float64
	width    float64
	inFlight int
	waiting  []*turn   // first come, first served
	opensAt  time.Time // no call starts before: the upstream asked for a pause
	halvedAt time.Time
	answers  uint64          // so far; marks moments in evidence
	refusals int             // in a row since the last answer
	failing  map[string]bool // items that have failed since the last answer without being accused, by idempotency key
	lastAt   time.Time       // of the last answer
	recent   [256]uint8      // suspect failures that each of the last answered items had before its answer
	recents  int

	record   gateRecord // as last read or saved
	revision int64
	readAt   time.Time
	savedAt  time.Time
}

// gateRecord is what is kept of a gate between processes.
type gateRecord struct {
	V            int
	Width        int       `json:",omitempty"` // where the limit last stood
	Answered     int       `json:",omitempty"` // items that were answered last …
	Failures     int       `json:",omitempty"` // … and how often they had failed before, as suspects
	SeenAt       time.Time `json:",omitzero"`  // when that was seen
	FailingSince time.Time `json:",omitzero"`  // the first failure that nobody's answer has followed
	Why          string    `json:",omitempty"`
	Pause        *Pause    `json:",omitempty"`
	InFlight     int       `json:",omitempty"` // calls of the process that told last …
	ToldAt       time.Time `json:",omitzero"`  // … which was then
}

func newGate(id GateID, ceiling int) *Gate {
	return &Gate{ID: id, ceiling: float64(ceiling), width: float64(ceiling), failing: map[string]bool{}}
}

// turn is a place in a gate's line. One attempt waits at one gate at a time.
type turn struct {
	wake    func() // called without blocking when the turn has come
	granted bool   // a place is reserved
}

// enter takes a place if there is one. Else the turn is woken when one is reserved for it, and opens is when the gate
// lets anybody through again, if that is known.
func (g *Gate) enter(t *turn, now time.Time) (ok bool, opens time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.Before(g.opensAt) {
		g.dropTurn(t)
		return false, g.opensAt
	}
	if t.granted {
		t.granted = false
		return true, time.Time{}
	}
	if len(g.waiting) == 0 && g.inFlight < int(g.width) {
		g.inFlight++
		return true, time.Time{}
	}
	if !slices.Contains(g.waiting, t) {
		g.waiting = append(g.waiting, t)
		g.serve()
		if t.granted {
			t.granted = false
			return true, time.Time{}
		}
	}
	return false, time.Time{}
}

// quit gives a turn back.
func (g *Gate) quit(t *turn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dropTurn(t)
}

// giveBack returns a place that was not used.
func (g *Gate) giveBack() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inFlight--
	g.serve()
}

func (g *Gate) dropTurn(t *turn) {
	if i := slices.Index(g.waiting, t); i >= 0 {
		g.waiting = slices.Delete(g.waiting, i, i+1)
	}
	if t.granted {
		t.granted = false
		g.inFlight--
		g.serve()
	}
}

// serve reserves free places for those who wait.
func (g *Gate) serve() {
	for len(g.waiting) > 0 && g.inFlight < int(g.width) {
		t := g.waiting[0]
		g.waiting = slices.Delete(g.waiting, 0, 1)
		t.granted = true
		g.inFlight++
		t.wake()
	}
}

// answered ends a call that was answered; failures is how often the item had failed before, as a suspect.
func (g *Gate) answered(now time.Time, failures int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.recent[g.recents%len(g.recent)] = uint8(min(failures, 255))
	g.recents++
	g.answers++
	g.refusals, g.lastAt = 0, now
	clear(g.failing)
	g.width = min(g.ceiling, g.width+1/g.width)
	g.inFlight--
	g.serve()
}

// failed ends a call that failed; started is when it began, item its idempotency key, accused whether it was already.
func (g *Gate) failed(now, started time.Time, f *Fault, item string, accused bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	defer func() {
		g.inFlight--
		g.serve()
	}()
	switch {
	case f.Cause == CauseAborted:
		return // it says nothing of anybody
	case accused:
		delete(g.failing, item)
	case len(g.failing) < mostFailing:
		g.failing[item] = true
	}
	if f.Throttles() && !started.Before(g.halvedAt) {
		g.width = max(1, g.width/2)
		g.halvedAt = now
	}
	switch class := f.Class(); {
	case class == ClassHeld:
		g.refusals++
	case f.RetryAfter > 0 && class == ClassWeather && g.lastAt.Before(started): // else it speaks of that one call
		g.opensAt = laterOf(g.opensAt, now.Add(min(f.RetryAfter, mostClosed)))
	}
}

// mark is the moment, for evidence: answeredSince tells whether there was an answer after it.
func (g *Gate) mark() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.answers
}

// evidence is what the gate says about the failure of an item that began to wait for its answer at mark.
func (g *Gate) evidence(item string, mark uint64) Evidence {
	odds := g.odds()
	g.mu.Lock()
	defer g.mu.Unlock()
	return Evidence{
		AnsweredSince: g.answers > mark,
		OnlyAccused:   g.answers > 0 && (len(g.failing) == 0 || len(g.failing) == 1 && g.failing[item]),
		LoneRefusal:   g.answers > 0 && g.refusals <= 2,
		FailureOdds:   odds,
	}
}

func (g *Gate) answeredSince(mark uint64) bool { return g.mark() > mark }

// odds is how likely a call of a healthy item fails as a suspect, judged by how often the last items that were answered
// had failed before. Three failures are added to what was seen: with none in n answers, 3/n is what the true rate stays
// below with 95 % confidence (the rule of three). A process that has seen none answered believes what another has seen
// fail.
func (g *Gate) odds() float64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	answered, failures := g.seen()
	if answered == 0 {
		if answered, failures = g.record.Answered, g.record.Failures; failures == 0 {
			return 0
		}
	}
	return float64(3+failures) / float64(3+failures+answered)
}

// seen is how many items were answered last, and how often they had failed before.
func (g *Gate) seen() (answered, failures int) {
	answered = min(g.recents, len(g.recent))
	for _, f := range g.recent[:answered] {
		failures += int(f)
	}
	return answered, failures
}

// Gates are the gates of a process.
type Gates struct {
	registry Registry
	now      func() time.Time
	ceiling  int

	tellAge time.Duration // calls in flight are told anew when they were told so long ago, by whomever

	mu    sync.Mutex
	gates map[GateID]*Gate
	order []GateID // by first use
	begun int      // records
}

// How gates are kept.
const (
	maxGates     = 1024                   // idle ones above this are forgotten, oldest first: models are named by strangers
	gateReadAge  = 5 * time.Second        // a pause of elsewhere is seen within this
	gateSaveAge  = time.Minute            // the width and the last answer are saved so often, and the calls in flight told
	gateKept     = RecordsKept            // a record that nobody saves any more, unless it is a hold
	mostNew      = 100                    // records that a process begins: models are named by strangers
	outageAfter  = 15 * time.Minute       // without an answer while calls fail, and the upstream+model is paused
	probeEvery   = time.Minute            // a paused one lets one chunk through so often
	openSpread   = 200 * time.Millisecond // over which those who wait for it to open come back
	mostFailing  = 256                    // items that are told apart while nobody is answered
	mostClosed   = 30 * time.Second       // for one Retry-After; a longer one is asked for again
	gateConflict = 3                      // tries to save against others
)

// newGates makes an empty set; ceiling is the most calls in flight for each; sole: there is no other process.
func newGates(r Registry, now func() time.Time, ceiling int, sole bool) *Gates {
	age := gateSaveAge
	if sole { // it speaks for itself, and a save costs no request
		age = gateReadAge
	}
	return &Gates{registry: r, now: now, ceiling: max(1, ceiling), tellAge: age, gates: map[GateID]*Gate{}}
}

// at returns the gate of an upstream+model, read from the registry at its first use and at most every five seconds.
func (gs *Gates) at(ctx context.Context, id GateID) (*Gate, error) {
	gs.mu.Lock()
	g, ok := gs.gates[id]
	if !ok {
		gs.forgetIdle()
		g = newGate(id, gs.ceiling)
		gs.gates[id] = g
		gs.order = append(gs.order, id)
	}
	gs.mu.Unlock()
	return g, gs.refresh(ctx, g, gateReadAge)
}

func (gs *Gates) forgetIdle() {
	for i := 0; i < len(gs.order) && len(gs.gates) >= maxGates; {
		g := gs.gates[gs.order[i]]
		g.mu.Lock()
		idle := g.inFlight == 0 && len(g.waiting) == 0
		g.mu.Unlock()
		if !idle {
			i++
			continue
		}
		delete(gs.gates, gs.order[i])
		gs.order = slices.Delete(gs.order, i, i+1)
	}
}

// refresh reads the gate's record if what is known is older than age.
func (gs *Gates) refresh(ctx context.Context, g *Gate, age time.Duration) error {
	now := gs.now()
	g.mu.Lock()
	first, fresh := g.readAt.IsZero(), !g.readAt.IsZero() && now.Sub(g.readAt) < age
	if !fresh {
		g.readAt = now // one reader at a time is enough
	}
	g.mu.Unlock()
	if fresh {
		return nil
	}
	rec, rev, err := readGate(ctx, gs.registry, g.ID)
	g.mu.Lock()
	if err != nil {
		if first {
			g.readAt = time.Time{} // nothing is known of it yet
		}
		g.mu.Unlock()
		return err
	}
	g.record, g.revision = rec, rev
	if first && rec.Width > 0 {
		g.width = min(g.ceiling, float64(rec.Width))
	}
	g.mu.Unlock()
	return gs.tell(ctx, g)
}

// tell saves how many calls are in flight, for who looks, if nobody has for a while. One process speaks for all. What has
// was called is told of for the first time here, unless it failed, which is news.
func (gs *Gates) tell(ctx context.Context, g *Gate) error {
	now := gs.now()
	g.mu.Lock()
	rec, rev := g.record, g.revision
	due := now.Sub(rec.ToldAt) >= gs.tellAge && (g.inFlight > 0 || rec.InFlight > 0)
	called := g.answers > 0 || len(g.failing) > 0
	rec.V, rec.InFlight, rec.ToldAt = SchemaVersion, g.inFlight, now
	g.mu.Unlock()
	if rev == 0 {
		due = called && gs.mayBegin()
	}
	if !due || g.ID.Model == "" { // a request may name none, and a record has a name
		return nil
	}
	rev, err := saveGate(ctx, gs.registry, g.ID, rec, rev, now)
	if errors.Is(err, ErrConflict) {
		return nil // another has told
	}
	if err != nil {
		return err
	}
	g.mu.Lock()
	first := g.revision == 0
	g.record, g.revision = rec, rev
	g.mu.Unlock()
	if first {
		gs.mu.Lock()
		gs.begun++
		gs.mu.Unlock()
	}
	return nil
}

// mayBegin tells whether the process may begin another record.
func (gs *Gates) mayBegin() bool {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	return gs.begun < mostNew
}

// limit is how many calls may be in flight now.
func (g *Gate) limit() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return int(g.width)
}

// pause is the hold on the gate as last read, or nil.
func (g *Gate) pause() *Pause {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.record.Pause
}

// report tells the registry how an attempt went, if that is news. answered: the attempt had an answer; why: what its last
// failure was, "" if none.
func (gs *Gates) report(ctx context.Context, g *Gate, answered bool, why string) error {
	for range gateConflict {
		g.mu.Lock()
		rec, news := g.record.after(g.ID, gs.now(), answered, why)
		width, rev := int(g.width), g.revision
		answered, failures := g.seen()
		seen := rec.outdatedBy(answered, failures, gs.now())
		stale := width != rec.Width && (rec.Width != 0 || width < int(g.ceiling)) || seen
		stale = stale && gs.now().Sub(g.savedAt) >= gateSaveAge
		g.mu.Unlock()
		if !news && !stale {
			return gs.tell(ctx, g)
		}
		rec.V, rec.Width = SchemaVersion, width
		if seen {
			rec.Answered, rec.Failures, rec.SeenAt = answered, failures, gs.now()
		}
		rev, err := saveGate(ctx, gs.registry, g.ID, rec, rev, gs.now())
		if err == nil {
			g.mu.Lock()
			g.record, g.revision, g.savedAt = rec, rev, gs.now()
			g.mu.Unlock()
			return nil
		}
		if !errors.Is(err, ErrConflict) {
			return err
		}
		if err := gs.refresh(ctx, g, 0); err != nil {
			return err
		}
	}
	return nil // others report often enough
}

// outdatedBy tells whether what a process has seen of answered items is worth more than what is recorded: it has seen as
// many, or the record is old. Where nothing fails there is nothing to record.
func (r gateRecord) outdatedBy(answered, failures int, now time.Time) bool {
	return answered > 0 && failures+r.Failures > 0 && (answered != r.Answered || failures != r.Failures) &&
		(answered >= r.Answered || now.Sub(r.SeenAt) >= 10*gateSaveAge)
}

// after is the record after an attempt: an answer ends an outage; failures without an answer begin to count as one, and
// after 15 minutes the upstream+model is paused.
func (r gateRecord) after(id GateID, now time.Time, answered bool, why string) (_ gateRecord, news bool) {
	switch {
	case answered && !r.FailingSince.IsZero():
		r.FailingSince, r.Why = time.Time{}, ""
		if r.Pause != nil && r.Pause.Reason == PauseOutage {
			r.Pause = nil
		}
	case !answered && why != "" && r.FailingSince.IsZero():
		r.FailingSince, r.Why = now, why
	case !answered && why != "" && r.Pause == nil && now.Sub(r.FailingSince) >= outageAfter:
		r.Why = why
		r.Pause = &Pause{Reason: PauseOutage, At: now, ProbeAt: now.Add(probeEvery), Message: fmt.Sprintf(
			"no answer from %s since %s: %s", id, r.FailingSince.UTC().Format(time.RFC3339), why)}
	default:
		return r, false
	}
	return r, true
}

func readGate(ctx context.Context, r Registry, id GateID) (gateRecord, int64, error) {
	e, err := r.Entry(ctx, KindGate, id.Upstream, id.Model)
	if errors.Is(err, ErrNotFound) {
		return gateRecord{}, 0, nil
	}
	if err != nil {
		return gateRecord{}, 0, fmt.Errorf("read gate %s: %w", id, err)
	}
	rec, err := decodeGate(e)
	return rec, e.Revision, err
}

func decodeGate(e Entry) (gateRecord, error) {
	var rec gateRecord
	if err := json.Unmarshal(e.Body, &rec); err != nil {
		return rec, fmt.Errorf("decode gate %s/%s: %w", e.Owner, e.ID, err)
	}
	if rec.V > SchemaVersion {
		return rec, fmt.Errorf("decode gate %s/%s of version %d: %w", e.Owner, e.ID, rec.V, ErrNewer)
	}
	return rec, nil
}

func saveGate(ctx context.Context, r Registry, id GateID, rec gateRecord, revision int64, now time.Time) (int64, error) {
	body, err := json.Marshal(rec)
	if err != nil {
		return 0, fmt.Errorf("encode gate %s: %w", id, err)
	}
	e := Entry{Kind: KindGate, Owner: id.Upstream, ID: id.Model, Revision: revision, Body: body}
	if rec.Pause == nil {
		e.Expires = now.Add(gateKept)
	}
	if err := r.SaveEntry(ctx, &e); err != nil {
		return 0, fmt.Errorf("save gate %s: %w", id, err)
	}
	return e.Revision, nil
}

func laterOf(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
