package jobs

import (
	"context"
	"fmt"
	"time"
)

// Courier posts notices.
type Courier interface {
	// Post makes one POST and returns the status of the answer, whatever it is. Where there was none the error says why, in
	// a sentence for the tenant: it tells nothing that only we may know. Safe for concurrent use.
	Post(ctx context.Context, n *NoticeMessage) (status int, err error)
}

// Notify posts notices and reports what came of each to aggregate. Of the ports it needs the queue alone: it can be where
// nothing else of ours is in reach. It tries nothing again; when that is to be done aggregate knows.
type Notify struct {
	Ports
	courier Courier
}

// NewNotify makes a notify.
func NewNotify(p Ports, c Courier) *Notify { return &Notify{p, c} }

// staleAfter is how old a notice may be when it is posted: receivers refuse a signature of five minutes ago, and it takes a
// moment to arrive.
const staleAfter = 4 * time.Minute

// Handle posts one notice after the other: a pump that wants several at once hands over one a call.
func (n *Notify) Handle(ctx context.Context, messages []Message) []Failure {
	var failures []Failure
	for _, d := range messages {
		b, err := DecodeMessage(d.Body)
		switch {
		case err == nil && b.Notice != nil:
			err = n.post(ctx, b.Notice)
		case err == nil && b.Ping != nil:
			err = n.passPing(ctx, d, b.Ping, QueueNotify, noQueue)
		case err == nil:
			err = buryUnreadable(ctx, n.Ports, d, Errorf(CodeInvalid, "decode message: notify takes notices and pings only"))
		default:
			err = buryUnreadable(ctx, n.Ports, d, err)
		}
		if err != nil {
			failures = append(failures, Failure{d.ID, err})
		}
	}
	return failures
}

// post posts a notice. A message that is delivered again is posted again: receivers tell events apart by their id.
func (n *Notify) post(ctx context.Context, m *NoticeMessage) error {
	now := n.Now()
	report := DeliveredMessage{V: SchemaVersion, Delivered: m.Notice, Tenant: m.Tenant, Attempt: m.Attempt, At: now.UTC()}
	if report.Stale = now.Sub(time.Unix(m.Timestamp, 0)) > staleAfter; !report.Stale {
		status, err := n.courier.Post(ctx, m)
		if err != nil && ctx.Err() != nil {
			return fmt.Errorf("post delivery %s: %w", m.Notice, err) // we were cut short: that says nothing of the receiver
		}
		if report.Status = status; err != nil {
			report.Status, report.Error = 0, cutShort(err.Error())
		}
	}
	n.Log.DebugContext(ctx, "posted a notice", "delivery", m.Notice, "attempt", m.Attempt, "status", report.Status, "error", report.Error, "stale", report.Stale)
	return send(ctx, n.Queue, QueueAggregate, encodeMessage(report))
}
