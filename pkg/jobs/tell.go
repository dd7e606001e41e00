package jobs

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// The end of a job is told to the hooks of its tenant. What is to be told is recorded first, as deliveries; then notices are
// sent, and what comes back is recorded. No handler of a report sends anything: the next attempt is the sweep's, so that no
// chain of messages grows with the attempts. What is lost on the way, the sweep finds by the entries that say what is due.

// untold tells whether the job has ended and its hooks have not been told of that end. One that was reopened has another.
func (j *Job) untold() bool { return j.Phase.Ended() && !j.Notified.Equal(j.Entered[j.Phase]) }

// tell tells the end of a job. Only who puts a delivery sends its first notice: another visit that comes to the same one
// does not repeat it.
func (a *Aggregate) tell(ctx context.Context, j *Job, _ Survey) error {
	var notices [][]byte
	if a.opt.Webhooks {
		for h, err := range Hooks(ctx, a.Registry, j.Tenant) {
			if err != nil {
				return err
			}
			if !h.wants(eventType(j.Phase)) {
				continue
			}
			notice, err := a.deliver(ctx, j, &h)
			if err != nil {
				return err
			}
			if notice != nil {
				notices = append(notices, notice)
			}
		}
	}
	if len(notices) > 0 {
		if err := send(ctx, a.Queue, QueueNotify, notices...); err != nil {
			return err
		}
	}
	j.Notified = j.Entered[j.Phase]
	if err := a.saveJob(ctx, j); err != nil {
		return fmt.Errorf("save it: %w", err)
	}
	return nil
}

// deliver records the delivery of a job's end to a hook, and returns its first notice; nil if it was recorded before.
func (a *Aggregate) deliver(ctx context.Context, j *Job, h *Hook) (notice []byte, err error) {
	now := a.Now()
	d := newDelivery(j, h, now)
	if notice, err = d.notice(h, now); err != nil {
		return nil, err
	}
	if err := setDue(ctx, a.Registry, d, d.Next); err != nil {
		return nil, err
	}
	switch err := saveDelivery(ctx, a.Registry, d, 0); {
	case errors.Is(err, ErrConflict):
		return nil, nil
	case err != nil:
		return nil, err
	default:
		return notice, nil
	}
}

// delivered records what came of a notice.
func (a *Aggregate) delivered(ctx context.Context, m *DeliveredMessage) error {
	var d Delivery
	err := untilSaved(func() (err error) {
		var revision int64
		if d, revision, err = readDelivery(ctx, a.Registry, m.Tenant, m.Delivered); err != nil || !d.record(m, a.Now(), a.Jitter) {
			return err
		}
		return saveDelivery(ctx, a.Registry, &d, revision)
	})
	switch {
	case errors.Is(err, ErrNotFound):
		a.Log.WarnContext(ctx, "dropped a report of an unknown delivery", "delivery", m.Delivered)
		return nil
	case err != nil:
		return err
	case d.State != DeliveryPending || m.Attempt != d.Sent:
		return nil // there is nothing to wait for; or another notice is out
	default:
		return setDue(ctx, a.Registry, &d, d.Next) // also if it was no news: who recorded it may have died before this
	}
}

// orphanAfter is when an entry that says what is due is taken for one whose delivery will never come.
const orphanAfter = time.Hour

// sweepDue sends the notices that are due.
func (a *Aggregate) sweepDue(ctx context.Context) error {
	var failed []error
	for e, err := range a.Registry.Entries(ctx, KindDue, "") {
		if err != nil {
			return errors.Join(append(failed, fmt.Errorf("list what is due: %w", err))...)
		}
		if err := a.sweepOne(ctx, e); err != nil && !errors.Is(err, ErrConflict) { // who was faster moved it
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

func (a *Aggregate) sweepOne(ctx context.Context, e Entry) error {
	var is due
	if err := decodeEntry(e, &is); err != nil {
		return err
	}
	now := a.Now()
	if now.Before(is.At) {
		return nil
	}
	d, revision, err := readDelivery(ctx, a.Registry, e.Owner, e.ID)
	switch {
	case errors.Is(err, ErrNotFound):
		if now.Sub(is.At) < orphanAfter {
			return nil // it is about to be written
		}
		return a.Registry.DropEntry(ctx, e)
	case err != nil:
		return err
	case d.State != DeliveryPending:
		return a.Registry.DropEntry(ctx, e)
	case now.Before(d.Next): // a report was recorded, or a notice sent, and this not written
		return setDue(ctx, a.Registry, &d, d.Next)
	}
	return a.sendDue(ctx, &d, revision, now)
}

// sendDue sends another notice of a delivery, unless it is too late for that, or its hook is gone.
func (a *Aggregate) sendDue(ctx context.Context, d *Delivery, revision int64, now time.Time) error {
	h, err := hookOf(ctx, a.Registry, d)
	switch {
	case errors.Is(err, ErrNotFound):
		d.giveUp("the webhook was deleted")
	case err != nil:
		return err
	case now.After(d.Until):
		d.giveUp(tooLate)
	default:
		d.sendAgain(&h, now)
	}
	if err := saveDelivery(ctx, a.Registry, d, revision); err != nil || d.State != DeliveryPending {
		return err
	}
	if err := setDue(ctx, a.Registry, d, d.Next); err != nil {
		return err
	}
	return a.sendNotice(ctx, d, &h, now)
}

func (p *Ports) sendNotice(ctx context.Context, d *Delivery, h *Hook, now time.Time) error {
	notice, err := d.notice(h, now)
	if err != nil {
		return err
	}
	return send(ctx, p.Queue, QueueNotify, notice)
}

func hookOf(ctx context.Context, r Registry, d *Delivery) (Hook, error) {
	e, err := r.Entry(ctx, KindHook, d.Tenant, d.Hook)
	if err != nil {
		return Hook{}, fmt.Errorf("read webhook %s: %w", d.Hook, err)
	}
	return readHook(e)
}

// Replay sends a delivery again, whatever became of it, and gives it another day. Absent is ErrNotFound; one whose hook was
// dropped is CodeConflict.
func Replay(ctx context.Context, p Ports, tenant, id string) (Delivery, error) {
	var d Delivery
	var h Hook
	now := p.Now()
	err := untilSaved(func() (err error) {
		var revision int64
		if d, revision, err = readDelivery(ctx, p.Registry, tenant, id); err != nil {
			return err
		}
		if h, err = hookOf(ctx, p.Registry, &d); errors.Is(err, ErrNotFound) {
			return Errorf(CodeConflict, "the webhook that it is for was deleted")
		}
		if err != nil {
			return err
		}
		d.replay(&h, now)
		if err := setDue(ctx, p.Registry, &d, d.Next); err != nil {
			return err
		}
		return saveDelivery(ctx, p.Registry, &d, revision)
	})
	if err == nil {
		err = p.sendNotice(ctx, &d, &h, now)
	}
	if err != nil {
		return Delivery{}, fmt.Errorf("replay delivery %s: %w", id, err)
	}
	return d, nil
}
