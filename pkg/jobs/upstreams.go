package jobs

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// UpstreamState is what processes have told of an upstream+model.
type UpstreamState struct {
	ID           GateID
	Pause        *Pause    // nothing of it is begun
	Width        int       // where the limit of calls in flight of a process last stood; 0 = at its ceiling
	FailingSince time.Time // the first failure that nobody's answer has followed; zero = it answers
	Why          string    // its last failure since then
	InFlight     int       // calls of the process that told last; none, if nobody told lately
	ToldAt       time.Time // when that was; zero = never
}

// toldLately is how long a process that calls tells of its calls in flight at least once.
const toldLately = 2 * gateSaveAge

func (i *Inspector) stateOf(id GateID, r gateRecord) UpstreamState {
	s := UpstreamState{id, r.Pause, r.Width, r.FailingSince, r.Why, r.InFlight, r.ToldAt}
	if i.ports.Now().Sub(r.ToldAt) > toldLately {
		s.InFlight = 0
	}
	return s
}

// mostUpstreams are listed: models are named by strangers.
const mostUpstreams = 1000

// Upstreams lists each upstream+model that has answered or failed lately, or is held. Of very many those are listed that are
// held, and then those that fail.
func (i *Inspector) Upstreams(ctx context.Context) ([]UpstreamState, error) {
	var all []UpstreamState
	for e, err := range i.ports.Registry.Entries(ctx, KindGate, "") {
		var r gateRecord
		if err == nil {
			r, err = decodeGate(e)
		}
		if err != nil {
			return nil, fmt.Errorf("list the upstreams: %w", err)
		}
		all = append(all, i.stateOf(GateID{e.Owner, e.ID}, r))
	}
	if len(all) > mostUpstreams {
		slices.SortStableFunc(all, func(a, b UpstreamState) int { return cmp.Compare(b.weight(), a.weight()) })
		all = all[:mostUpstreams]
	}
	return all, nil
}

// weight is more for what should be seen first.
func (s *UpstreamState) weight() int {
	switch {
	case s.Pause != nil:
		return 2
	case !s.FailingSince.IsZero():
		return 1
	default:
		return 0
	}
}

// PauseUpstream holds an upstream+model: within five seconds no chunk starts an item there any more, of whatever job. The
// windows of jobs run on. One that had been held by itself does not go on by itself any more. An upstream that nobody has
// called is refused: most likely its name is another, and a hold of that would hold nothing.
func (i *Inspector) PauseUpstream(ctx context.Context, id GateID, by, why string) (UpstreamState, error) {
	if err := i.knowsUpstream(ctx, id.Upstream); err != nil {
		return UpstreamState{}, fmt.Errorf("upstream.pause %s: %w", id, err)
	}
	return i.changeGate(ctx, id, AuditRecord{By: by, What: "upstream.pause", Of: id.String(), Why: why}, func(r *gateRecord) bool {
		pause, held := r.Pause.byOperator("paused by an operator; windows run on", why, i.ports.Now())
		r.Pause = pause
		return held
	})
}

// ResumeUpstream ends the hold on an upstream+model, whoever set it. The sweep then sends what was parked.
func (i *Inspector) ResumeUpstream(ctx context.Context, id GateID, by string) (UpstreamState, error) {
	return i.changeGate(ctx, id, AuditRecord{By: by, What: "upstream.resume", Of: id.String()}, func(r *gateRecord) bool {
		if r.Pause == nil {
			return false
		}
		r.Pause, r.FailingSince, r.Why = nil, time.Time{}, "" // who resumes has mended it: an outage counts anew
		return true
	})
}

// knowsUpstream refuses an upstream of which there is no record.
func (i *Inspector) knowsUpstream(ctx context.Context, name string) error {
	known := []string{}
	for e, err := range i.ports.Registry.Entries(ctx, KindGate, "") {
		switch {
		case err != nil:
			return err
		case e.Owner == name:
			return nil
		case len(known) < 10 && !slices.Contains(known, e.Owner):
			known = append(known, e.Owner)
		}
	}
	if len(known) == 0 {
		return Errorf(CodeInvalid, "no upstream has been called yet, and so none is known by its name")
	}
	return Errorf(CodeInvalid, "nobody has called an upstream of that name; known are %s", strings.Join(known, ", ")).WithHint("the name as it is listed: the host of its address")
}

func (i *Inspector) changeGate(ctx context.Context, id GateID, did AuditRecord, change func(r *gateRecord) bool) (UpstreamState, error) {
	var r gateRecord
	changed := false
	err := untilSaved(func() error {
		read, revision, err := readGate(ctx, i.ports.Registry, id)
		if err != nil {
			return err
		}
		r = read
		if changed = change(&r); !changed {
			return nil
		}
		r.V = SchemaVersion
		_, err = saveGate(ctx, i.ports.Registry, id, r, revision, i.ports.Now())
		return err
	})
	if err == nil && changed {
		err = Audit(ctx, i.ports, did)
		if err == nil {
			err = send(ctx, i.ports.Queue, QueueAggregate, TickBody())
		}
	}
	if err != nil {
		return UpstreamState{}, fmt.Errorf("%s %s: %w", did.What, id, err)
	}
	return i.stateOf(id, r), nil
}
