package jobs

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kinds of entries about webhooks. Their owner is the tenant.
const (
	KindHook     Kind = "hook"     // id = the hook's
	KindDelivery Kind = "delivery" // id = the delivery's
	KindDue      Kind = "due"      // id = that of a delivery which is pending: what the sweep looks at, so that it reads no log
)

// Limits of hooks.
const (
	MaxHooks   = 20   // a tenant
	maxHookURL = 2000 // bytes
)

// Hook is whom a tenant wants told when a job ends.
type Hook struct {
	ID      string
	Tenant  string
	URL     string
	Events  []string // such as batch.completed; empty = every end
	Secret  Secret   // whsec_… of Standard Webhooks
	Created time.Time
}

// toldPhases are the ends that are told. Their events are named as on the wire.
var toldPhases = []Phase{PhaseCompleted, PhaseFailed, PhaseExpired, PhaseCancelled}

// eventType is what the end of a job in a phase is told as.
func eventType(p Phase) string { return "batch." + string(p) }

// EventTypes are all events that a hook can ask for.
func EventTypes() []string {
	all := make([]string, len(toldPhases))
	for i, p := range toldPhases {
		all[i] = eventType(p)
	}
	return all
}

func (h *Hook) wants(event string) bool {
	return len(h.Events) == 0 || slices.Contains(h.Events, event)
}

// HookOptions say what a hook may be.
type HookOptions struct {
	// PlainHosts may be told without TLS: names or addresses, as they stand in a URL, without port.
	PlainHosts []string
}

// CreateHook keeps a new hook: its tenant, URL and events are the caller's, the rest is made. This is the only time that
// its secret is to be shown. What cannot be is CodeInvalid, one too many CodeLimit.
func CreateHook(ctx context.Context, p Ports, h Hook, o HookOptions) (Hook, error) {
	h.Events = slices.Compact(slices.Sorted(slices.Values(h.Events)))
	if err := h.check(o); err != nil {
		return Hook{}, err
	}
	n := 0
	for _, err := range Hooks(ctx, p.Registry, h.Tenant) {
		if err != nil {
			return Hook{}, err
		}
		n++
	}
	if n >= MaxHooks {
		return Hook{}, Errorf(CodeLimit, "create a webhook: there are %d already, which is the limit", n).WithHint("delete one")
	}
	h.ID, h.Secret, h.Created = "hook_"+strings.ToLower(p.NewID()), newHookSecret(), p.Now()
	e := h.entry()
	if err := p.Registry.SaveEntry(ctx, &e); err != nil {
		return Hook{}, fmt.Errorf("create a webhook: %w", err)
	}
	return h, nil
}

// Hooks yields the hooks of a tenant, by id.
func Hooks(ctx context.Context, r Registry, tenant string) iter.Seq2[Hook, error] {
	return func(yield func(Hook, error) bool) {
		if tenant == "" {
			return // which would be everybody's
		}
		for e, err := range r.Entries(ctx, KindHook, tenant) {
			var h Hook
			if err == nil {
				h, err = readHook(e)
			}
			if err != nil {
				err = fmt.Errorf("list the webhooks of tenant %s: %w", tenant, err)
			}
			if !yield(h, err) || err != nil {
				return
			}
		}
	}
}

// DropHook removes a hook. What was to be delivered to it is given up. Absent is ErrNotFound.
func DropHook(ctx context.Context, p Ports, tenant, id string) error {
	err := untilSaved(func() error {
		e, err := p.Registry.Entry(ctx, KindHook, tenant, id)
		if err != nil {
			return err
		}
		return p.Registry.DropEntry(ctx, e)
	})
	if err != nil {
		return fmt.Errorf("drop webhook %s: %w", id, err)
	}
	return nil
}

// newHookSecret makes a secret. It does not come from NewID: a secret is the one thing that no run may repeat.
func newHookSecret() Secret {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // it never fails
	return Secret(secretPrefix + base64.StdEncoding.EncodeToString(key))
}

func (h *Hook) check(o HookOptions) error {
	if h.Tenant == "" {
		return Errorf(CodeInternal, "create a webhook: it has no tenant")
	}
	for _, e := range h.Events {
		if !slices.Contains(EventTypes(), e) {
			return Errorf(CodeInvalid, "create a webhook: there is no event %q", excerpt([]byte(e))).WithHint("%s", strings.Join(EventTypes(), ", "))
		}
	}
	if why := wrongHookURL(h.URL, o); why != "" {
		return Errorf(CodeInvalid, "create a webhook: its url %s", why)
	}
	return nil
}

// wrongHookURL says what is wrong with the URL of a hook; "" = nothing. It does not repeat it: URLs may hold secrets. Where
// its host leads is seen when it is called.
func wrongHookURL(raw string, o HookOptions) string {
	if len(raw) > maxHookURL {
		return fmt.Sprintf("has more than %d bytes", maxHookURL)
	}
	u, err := url.Parse(raw)
	if err != nil || strings.TrimSpace(raw) != raw {
		return "cannot be read"
	}
	port, err := strconv.ParseUint("0"+u.Port(), 10, 16)
	switch {
	case u.Scheme != "https" && u.Scheme != "http", u.Hostname() == "":
		return "must begin with https:// and a host"
	case u.User != nil:
		return "must have no user name or password"
	case strings.Contains(raw, "#"):
		return "must have no fragment"
	case err != nil, u.Port() != "" && port == 0:
		return "has no port that there is"
	case u.Scheme == "http" && !slices.ContainsFunc(o.PlainHosts, func(h string) bool { return strings.EqualFold(h, u.Hostname()) }):
		return "must begin with https://"
	default:
		return ""
	}
}

// hookRecord is a hook as it is kept, with the text of its secret: signing needs it.
type hookRecord struct {
	V int
	Hook
	Secret string
}

func (h *Hook) entry() Entry {
	body, err := json.Marshal(hookRecord{SchemaVersion, *h, string(h.Secret)})
	if err != nil {
		panic(err) // it always encodes
	}
	return Entry{Kind: KindHook, Owner: h.Tenant, ID: h.ID, Body: body}
}

func readHook(e Entry) (Hook, error) {
	var r hookRecord
	if err := decodeEntry(e, &r); err != nil {
		return Hook{}, err
	}
	r.Hook.Secret = Secret(r.Secret)
	return r.Hook, nil
}

// decodeEntry reads the body of an entry. What a newer fanout wrote is ErrNewer.
func decodeEntry(e Entry, into any) error {
	var head struct{ V int }
	err := json.Unmarshal(e.Body, &head)
	if err == nil && head.V > SchemaVersion {
		return fmt.Errorf("decode %s %s of version %d: %w", e.Kind, e.ID, head.V, ErrNewer)
	}
	if err = errors.Join(err, json.Unmarshal(e.Body, into)); err != nil {
		return fmt.Errorf("decode %s %s: %w", e.Kind, e.ID, err)
	}
	return nil
}
