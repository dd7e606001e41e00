package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// DeliveryState is what has become of a delivery.
type DeliveryState string

// The states. A replay makes any of them pending again.
const (
	DeliveryPending   DeliveryState = "pending"
	DeliveryDelivered DeliveryState = "delivered" // answered 2xx
	DeliveryFailed    DeliveryState = "failed"    // given up
)

// Delivery is one event for one hook. Its id follows from both, and the event's from the job and the end that it came to, so
// that whoever derives them comes to the same.
type Delivery struct {
	V       int
	ID      string
	Event   string    // id of the event
	Type    string    // such as batch.completed
	At      time.Time // when the job ended
	Job     JobID
	Tenant  string
	Hook    string
	URL     string // of the hook
	Created time.Time

	State    DeliveryState
	Why      string        `json:",omitempty"` // it was given up, where no attempt says so
	Attempts []HookAttempt `json:",omitempty"` // the last 20 that were reported, in that order

	Sent   int       // number of the last notice: what reports go by
	Failed int       // attempts in a row: what the back-off goes by
	Next   time.Time // of a pending one: when another notice is sent
	Until  time.Time // … but not after this
}

// HookAttempt is one POST, and what came of it.
type HookAttempt struct {
	N      int // of the notice
	At     time.Time
	Status int    `json:",omitempty"` // of the answer; 0 = there was none
	Error  string `json:",omitempty"` // a sentence
}

// hookBackOff is how long after a failed attempt the next one is made, by how many have failed; the last one repeats.
var hookBackOff = []time.Duration{
	time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour,
}

const (
	keptAttempts   = 20
	hookPatience   = 24 * time.Hour      // from an event, or a replay, until its delivery is given up
	reportWithin   = 10 * time.Minute    // of a notice: else it, or its report, was lost
	deliveriesKept = 30 * 24 * time.Hour // after that
)

// newDelivery is the delivery of a job's end to a hook, its first notice about to be sent.
func newDelivery(j *Job, h *Hook, now time.Time) *Delivery {
	at := j.Entered[j.Phase]
	event := "evt_" + digestHex(string(j.ID)+"/"+string(j.Phase), at.UnixNano(), 0)
	return &Delivery{
		V: SchemaVersion, ID: "dlv_" + digestHex(event+"/"+h.ID, 0, 0), Event: event, Type: eventType(j.Phase), At: at,
		Job: j.ID, Tenant: j.Tenant, Hook: h.ID, URL: h.URL, Created: now,
		State: DeliveryPending, Sent: 1, Next: now.Add(reportWithin), Until: at.Add(hookPatience),
	}
}

// sendAgain notes that another notice is about to be sent.
func (d *Delivery) sendAgain(h *Hook, now time.Time) {
	d.URL, d.Sent, d.Next = h.URL, d.Sent+1, now.Add(reportWithin)
}

// replay makes the delivery pending again, whatever became of it.
func (d *Delivery) replay(h *Hook, now time.Time) {
	d.State, d.Why, d.Failed, d.Until = DeliveryPending, "", 0, now.Add(hookPatience)
	d.sendAgain(h, now)
}

// giveUp ends the delivery without another attempt.
func (d *Delivery) giveUp(why string) { d.State, d.Why = DeliveryFailed, why }

// record notes what is reported of a notice, and tells whether that was news. Reports come late, in any order and more than
// once: a success counts whenever it comes, a failure only of the last notice.
func (d *Delivery) record(m *DeliveredMessage, now time.Time, jitter func(time.Duration) time.Duration) (news bool) {
	success, last := m.Status/100 == 2, m.Attempt == d.Sent
	known := slices.ContainsFunc(d.Attempts, func(a HookAttempt) bool { return a.N == m.Attempt })
	switch {
	case known, m.Attempt > d.Sent, !last && !success:
		return false
	case m.Stale:
		if d.State == DeliveryPending {
			d.Next = now // it was not tried: another is signed at once, and nothing is counted
		}
		return d.State == DeliveryPending
	}
	d.Attempts = append(d.Attempts, HookAttempt{m.Attempt, m.At, m.Status, cutShort(m.Error)})
	d.Attempts = d.Attempts[max(0, len(d.Attempts)-keptAttempts):]
	switch {
	case success:
		d.State, d.Why, d.Failed = DeliveryDelivered, "", 0
	case d.State != DeliveryPending:
	case m.Status == statusGone:
		d.giveUp("the receiver says that it is gone")
	default:
		d.Next = now.Add(jitter(hookBackOff[min(d.Failed, len(hookBackOff)-1)]))
		if d.Failed++; d.Next.After(d.Until) {
			d.giveUp(tooLate)
		}
	}
	return true
}

const (
	statusGone = 410 // Gone; this package knows no HTTP
	tooLate    = "no attempt has succeeded within a day"
)

func (d *Delivery) entry(revision int64) Entry {
	body, err := json.Marshal(d)
	if err != nil {
		panic(err) // it always encodes
	}
	return Entry{Kind: KindDelivery, Owner: d.Tenant, ID: d.ID, Revision: revision, Body: body, Created: d.Created, Expires: d.Until.Add(deliveriesKept)}
}

// readDelivery reads a delivery, and the revision to save it by.
func readDelivery(ctx context.Context, r Registry, tenant, id string) (d Delivery, revision int64, err error) {
	e, err := r.Entry(ctx, KindDelivery, tenant, id)
	if err == nil {
		err = decodeEntry(e, &d)
	}
	if err != nil {
		return Delivery{}, 0, fmt.Errorf("read delivery %s: %w", id, err)
	}
	return d, e.Revision, nil
}

func saveDelivery(ctx context.Context, r Registry, d *Delivery, revision int64) error {
	e := d.entry(revision)
	if err := r.SaveEntry(ctx, &e); err != nil {
		return fmt.Errorf("save delivery %s: %w", d.ID, err)
	}
	return nil
}

// due says when the sweep is to look at a pending delivery. It is written before the delivery is, and dropped by the sweep
// alone, once its time has come and the delivery is no longer pending: so none is ever pending without.
type due struct {
	V  int
	At time.Time
}

// setDue writes when the sweep is to look at a delivery.
func setDue(ctx context.Context, r Registry, d *Delivery, at time.Time) error {
	body, err := json.Marshal(due{SchemaVersion, at})
	if err != nil {
		panic(err) // it always encodes
	}
	err = untilSaved(func() error {
		e, err := r.Entry(ctx, KindDue, d.Tenant, d.ID)
		if errors.Is(err, ErrNotFound) {
			e, err = Entry{Kind: KindDue, Owner: d.Tenant, ID: d.ID}, nil
		}
		if err != nil {
			return err
		}
		e.Body, e.Expires = body, d.Until.Add(deliveriesKept)
		return r.SaveEntry(ctx, &e)
	})
	if err != nil {
		return fmt.Errorf("note when delivery %s is due: %w", d.ID, err)
	}
	return nil
}

// DeliveryQuery selects deliveries.
type DeliveryQuery struct {
	Tenant string
	After  string // only what follows this id
	Limit  int    // at most so many; 0 = all
}

// Deliveries lists the deliveries of a tenant, newest first. An unknown After is ErrNotFound.
func Deliveries(ctx context.Context, r Registry, q DeliveryQuery) ([]Delivery, error) {
	if q.Tenant == "" {
		return nil, nil // which would be everybody's
	}
	var all []Delivery
	for e, err := range r.Listed(ctx, EntryQuery{Kind: KindDelivery, Owner: q.Tenant, After: q.After, Limit: q.Limit}) {
		var d Delivery
		if err == nil {
			err = decodeEntry(e, &d)
		}
		if err != nil {
			return nil, fmt.Errorf("list the deliveries of tenant %s: %w", q.Tenant, err)
		}
		all = append(all, d)
	}
	return all, nil
}
