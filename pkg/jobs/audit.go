package jobs

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// KindAudit entries are what somebody has done by hand: owner = auditOwner, id random, listed by time.
const KindAudit Kind = "audit"

const (
	auditOwner = "all"
	auditKept  = 400 * 24 * time.Hour
)

// AuditRecord is something that somebody did by hand.
type AuditRecord struct {
	V      int
	ID     string
	At     time.Time
	By     string // id of the key, or who it was on this machine
	What   string // such as job.pause
	Tenant string `json:",omitempty"` // whose thing it was done to
	Of     string `json:",omitempty"` // its id
	Count  int64  `json:",omitempty"` // how many it moved; 0 = it is no matter of counts
	Why    string `json:",omitempty"` // as they said it
}

// Audit keeps an action. It is called when the action was done: one whose audit fails is told of by the error.
func Audit(ctx context.Context, p Ports, a AuditRecord) error {
	a.V, a.ID, a.At, a.Why = SchemaVersion, p.NewID(), p.Now(), cutShort(a.Why)
	body, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("note %s: %w", a.What, err)
	}
	e := Entry{Kind: KindAudit, Owner: auditOwner, ID: a.ID, Body: body, Created: a.At, Expires: a.At.Add(auditKept)}
	if err := p.Registry.SaveEntry(context.WithoutCancel(ctx), &e); err != nil {
		return fmt.Errorf("note %s: %w", a.What, err)
	}
	return nil
}

// AuditLog lists actions, newest first, that follow one (its id; "" = the newest). An unknown one is ErrNotFound.
func AuditLog(ctx context.Context, r Registry, after string, limit int) ([]AuditRecord, error) {
	var all []AuditRecord
	for e, err := range r.Listed(ctx, EntryQuery{Kind: KindAudit, Owner: auditOwner, After: after, Limit: limit}) {
		var a AuditRecord
		if err == nil {
			err = decodeEntry(e, &a)
		}
		if err != nil {
			return nil, fmt.Errorf("list what was done: %w", err)
		}
		all = append(all, a)
	}
	return all, nil
}
