package jobs

import (
	"context"
	"fmt"
	"time"
)

// UpstreamState is what processes have told of an upstream+model.
type UpstreamState struct {
	ID           GateID
	Pause        *Pause    // nothing of it is begun
	Width        int       // where the limit of calls in flight of a process last stood; 0 = at its ceiling
	FailingSince time.Time // the first failure that nobody's answer has followed; zero = it answers
	Why          string    // its last failure since then
}

// Upstreams lists what is known of each upstream+model that has failed, was throttled or held.
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
		all = append(all, UpstreamState{GateID{e.Owner, e.ID}, r.Pause, r.Width, r.FailingSince, r.Why})
	}
	return all, nil
}

// PauseUpstream holds an upstream+model: within five seconds no chunk starts an item there any more, of whatever job. The
// windows of jobs run on. One that is held already stays so, for the reason that it had.
func (i *Inspector) PauseUpstream(ctx context.Context, id GateID, by, why string) (UpstreamState, error) {
	return i.changeGate(ctx, id, AuditRecord{By: by, What: "upstream.pause", Of: id.String(), Why: why}, func(r *gateRecord) bool {
		if r.Pause != nil {
			return false
		}
		message := "paused by an operator; windows run on"
		if why != "" {
			message += ": " + cutShort(why)
		}
		r.Pause = &Pause{Reason: PauseOperator, Message: message, At: i.ports.Now()}
		return true
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

func (i *Inspector) changeGate(ctx context.Context, id GateID, did AuditRecord, change func(r *gateRecord) bool) (UpstreamState, error) {
	var r gateRecord
	changed := false
	err := untilSaved(func() error {
		read, revision, err := readGate(ctx, i.ports.Registry, id)
		if err != nil {
			return err
		}
		if r = read; !change(&r) {
			return nil
		}
		changed = true
		r.V = SchemaVersion
		_, err = saveGate(ctx, i.ports.Registry, id, r, revision)
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
	return UpstreamState{id, r.Pause, r.Width, r.FailingSince, r.Why}, nil
}
