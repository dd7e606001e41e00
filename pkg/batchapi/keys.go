package batchapi

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// KindKey entries are API keys: owner = key id, id = "key". Of the secret only its SHA-256 is kept.
const KindKey jobs.Kind = "key"

const keyID = "key"

// Scope is a kind of thing that a key allows.
type Scope string

// The scopes. Operate is for whoever runs the deployment: it makes keys, for any tenant.
const (
	ScopeSubmit  Scope = "submit"  // put files, make and cancel batches
	ScopeRead    Scope = "read"    // list and read
	ScopeOperate Scope = "operate" // keys, webhooks, and what operators do
)

// Scopes are all there are.
var Scopes = []Scope{ScopeSubmit, ScopeRead, ScopeOperate}

// Caller is who asks.
type Caller struct {
	Tenant string
	Key    string // its id; "" = nobody has one yet
	Scopes []Scope
}

func (c Caller) may(s Scope) bool { return s == "" || slices.Contains(c.Scopes, s) }

// keyRecord is what is kept of a key.
type keyRecord struct {
	V       int
	ID      string
	Tenant  string
	Scopes  []Scope
	Hash    string // SHA-256 of the whole key, in hex
	Note    string
	Created time.Time
	Expires time.Time `json:",omitzero"` // zero = it does not
	Revoked time.Time `json:",omitzero"`

	revision int64
}

// A key is fanout_<id>_<secret>: the id finds the record, 260 random bits are the secret.
const keyPrefix = "fanout_"

func splitKey(key string) (id string, ok bool) {
	rest, ok := strings.CutPrefix(key, keyPrefix)
	id, secret, whole := strings.Cut(rest, "_")
	return id, ok && whole && plainWord(id, 12, 12) && plainWord(secret, 52, 52)
}

// plainWord tells whether s is of so many lower-case letters and digits.
func plainWord(s string, least, most int) bool {
	other := func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') }
	return len(s) >= least && len(s) <= most && !strings.ContainsFunc(s, other)
}

func hashKey(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// MakeKey makes a key and keeps what is needed to know it again. The key itself is returned, this once.
func MakeKey(ctx context.Context, p jobs.Ports, tenant string, scopes []Scope, note string, expires time.Time) (Key, error) {
	p = p.WithDefaults()
	id := strings.ToLower(rand.Text()[:12])
	key := keyPrefix + id + "_" + strings.ToLower(rand.Text()+rand.Text())
	rec := keyRecord{ID: id, Tenant: tenant, Scopes: scopes, Hash: hashKey(key), Note: note, Created: p.Now(), Expires: expires}
	if err := saveKey(ctx, p.Registry, &rec); err != nil {
		return Key{}, err
	}
	k := rec.wire()
	k.Secret = &key
	return k, nil
}

// HaveKeys tells whether any key was ever made: from then on nobody comes in without one, even if all are revoked.
func HaveKeys(ctx context.Context, r jobs.Registry) (bool, error) {
	for _, err := range r.Entries(ctx, KindKey, "") {
		return err == nil, err
	}
	return false, nil
}

func saveKey(ctx context.Context, r jobs.Registry, k *keyRecord) error {
	k.V = jobs.SchemaVersion
	body, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("encode key %s: %w", k.ID, err)
	}
	e := jobs.Entry{Kind: KindKey, Owner: k.ID, ID: keyID, Revision: k.revision, Body: body}
	if err := r.SaveEntry(ctx, &e); err != nil {
		return fmt.Errorf("save key %s: %w", k.ID, err)
	}
	k.revision = e.Revision
	return nil
}

func decodeKey(e jobs.Entry) (keyRecord, error) {
	k := keyRecord{revision: e.Revision}
	if err := json.Unmarshal(e.Body, &k); err != nil {
		return k, fmt.Errorf("decode key %s: %w", e.Owner, err)
	}
	if k.V > jobs.SchemaVersion {
		return k, fmt.Errorf("decode key %s of version %d: %w", e.Owner, k.V, jobs.ErrNewer)
	}
	return k, nil
}

func (k *keyRecord) wire() Key {
	w := Key{ID: k.ID, Object: "fanout.key", Tenant: k.Tenant, Note: k.Note, CreatedAt: k.Created.Unix(), ExpiresAt: unix(k.Expires), RevokedAt: unix(k.Revoked), Scopes: []string{}}
	for _, s := range k.Scopes {
		w.Scopes = append(w.Scopes, string(s))
	}
	return w
}

// keyring knows who a key is, and how often each may come. What it has read is used for a while, so a revoked key works
// for no longer than that.
type keyring struct {
	ports jobs.Ports
	opt   Options

	mu       sync.Mutex
	known    map[string]knownKey // by id
	haveKeys bool                // some key was made: nobody comes in without one any more
	noneTill time.Time           // none was made when that was looked up, which is not done again until then
	limits   map[string]*rate.Limiter
	lookups  *rate.Limiter // of ids that are not known: strangers can make up any number of them
}

type knownKey struct {
	keyRecord
	until time.Time
}

const (
	keyFresh   = 30 * time.Second
	noneFresh  = time.Second // keys that this process makes are known at once
	maxKnown   = 10_000
	maxLookups = 100 // a second
)

func newKeyring(p jobs.Ports, opt Options) *keyring {
	return &keyring{ports: p, opt: opt, known: map[string]knownKey{}, limits: map[string]*rate.Limiter{}, lookups: rate.NewLimiter(maxLookups, maxLookups)}
}

var errNoKey = refuse(http.StatusUnauthorized, "", "You didn't provide an API key. Send it in an Authorization header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).")

// admit lets in who may do what the scope says, and not too often.
func (k *keyring) admit(r *http.Request, scope Scope) (Caller, error) {
	if scope == "" {
		return Caller{}, nil
	}
	c, err := k.caller(r)
	if err != nil {
		return c, err
	}
	if !c.may(scope) {
		return c, refuse(http.StatusForbidden, "insufficient_scope", "This key does not have the scope %s.", scope)
	}
	if !k.limit(c.Key).AllowN(k.ports.Now(), 1) {
		return c, &failure{status: http.StatusTooManyRequests, code: "rate_limit_exceeded", after: time.Second,
			message: fmt.Sprintf("Rate limit reached: %g requests a second. Please try again in a second.", k.opt.Rate)}
	}
	return c, nil
}

func (k *keyring) caller(r *http.Request) (Caller, error) {
	scheme, key, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		key = ""
	}
	key = strings.TrimSpace(key)
	if k.opt.OperatorKey != "" && key != "" && subtle.ConstantTimeCompare([]byte(hashKey(key)), []byte(k.opt.OperatorKey)) == 1 {
		return Caller{Tenant: k.opt.OperatorTenant, Key: "operator", Scopes: Scopes}, nil
	}
	id, ours := splitKey(key)
	if !ours {
		open, err := k.open(r.Context())
		switch {
		case err != nil:
			return Caller{}, err
		case open: // official clients always send some key
			return Caller{Tenant: k.opt.OpenTenant, Scopes: Scopes}, fromHere(r)
		case key == "":
			return Caller{}, errNoKey
		}
		return Caller{}, wrongKey()
	}
	rec, err := k.lookup(r.Context(), id)
	if err != nil {
		return Caller{}, err
	}
	same := subtle.ConstantTimeCompare([]byte(hashKey(key)), []byte(rec.Hash)) == 1
	switch now := k.ports.Now(); {
	case !same, !rec.Revoked.IsZero():
		return Caller{}, wrongKey()
	case !rec.Expires.IsZero() && !now.Before(rec.Expires):
		return Caller{}, refuse(http.StatusUnauthorized, "expired_api_key", "This API key expired on %s.", rec.Expires.UTC().Format(time.DateOnly))
	}
	return Caller{Tenant: rec.Tenant, Key: rec.ID, Scopes: rec.Scopes}, nil
}

// fromHere refuses what a web page makes a browser send to a server that asks for no key: a request from another site, or
// to a name that its owner has pointed at this machine.
func fromHere(r *http.Request) error {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	local := strings.EqualFold(host, "localhost") || err == nil && ip.IsLoopback()
	if !local || http.NewCrossOriginProtection().Check(r) != nil {
		return refuse(http.StatusForbidden, "not_from_here", "A server without keys answers this machine only, under the name localhost or its address.")
	}
	return nil
}

func wrongKey() error {
	return refuse(http.StatusUnauthorized, "invalid_api_key", "Incorrect API key provided.")
}

// open tells whether nobody needs a key yet.
func (k *keyring) open(ctx context.Context) (bool, error) {
	if k.opt.OpenTenant == "" {
		return false, nil
	}
	now := k.ports.Now()
	k.mu.Lock()
	have, none := k.haveKeys, now.Before(k.noneTill)
	k.mu.Unlock()
	if have || none {
		return !have, nil
	}
	have, err := HaveKeys(ctx, k.ports.Registry)
	if err != nil {
		return false, fmt.Errorf("look for keys: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.haveKeys, k.noneTill = k.haveKeys || have, now.Add(noneFresh)
	return !k.haveKeys, nil
}

// lookup reads the record of a key. One that is absent is an empty record, which no key matches.
func (k *keyring) lookup(ctx context.Context, id string) (keyRecord, error) {
	now := k.ports.Now()
	k.mu.Lock()
	known, ok := k.known[id]
	k.mu.Unlock()
	if ok && now.Before(known.until) {
		return known.keyRecord, nil
	}
	if !ok && !k.lookups.AllowN(now, 1) {
		return keyRecord{}, &failure{status: http.StatusTooManyRequests, code: "rate_limit_exceeded", after: time.Second,
			message: "Too many unknown keys were tried. Please try again in a second."}
	}
	e, err := k.ports.Registry.Entry(ctx, KindKey, id, keyID)
	if errors.Is(err, jobs.ErrNotFound) {
		return keyRecord{}, nil
	}
	var rec keyRecord
	if err == nil {
		rec, err = decodeKey(e)
	}
	if err != nil {
		return rec, fmt.Errorf("look up key %s: %w", id, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.known) >= maxKnown {
		clear(k.known)
		clear(k.limits)
	}
	k.known[id] = knownKey{rec, now.Add(keyFresh)}
	return rec, nil
}

// limit is how often a key may come.
func (k *keyring) limit(id string) *rate.Limiter {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.limits[id]
	if l == nil {
		l = rate.NewLimiter(rate.Limit(k.opt.Rate), k.opt.Burst)
		k.limits[id] = l
	}
	return l
}

// forget makes the keyring read a key again.
func (k *keyring) forget(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.known, id)
	k.haveKeys = true
}

// createKey makes a key, for any tenant.
func (h *Handler) createKey(w http.ResponseWriter, r *http.Request, c Caller) error {
	f, err := readFields(r, "tenant", "scopes", "note", "expires_in")
	if err != nil {
		return err
	}
	tenant := f.textOr("tenant", c.Tenant)
	words := f.words("scopes", []string{string(ScopeSubmit), string(ScopeRead)})
	note := f.textOr("note", "")
	life := f.durationOr("expires_in", 0)
	if f.err != nil {
		return f.err
	}
	var scopes []Scope
	for _, word := range words {
		if !slices.Contains(Scopes, Scope(word)) {
			return invalid("scopes", "Invalid scope: %.40q; the scopes are submit, read and operate.", word)
		}
		if !slices.Contains(scopes, Scope(word)) {
			scopes = append(scopes, Scope(word))
		}
	}
	switch {
	case !jobs.PlainTenant(tenant):
		return wrongTenant()
	case len(scopes) == 0:
		return invalid("scopes", "Invalid scopes: a key needs at least one.")
	case len(note) > 200:
		return invalid("note", "Invalid note: it takes at most 200 bytes.")
	case life < 0:
		return invalid("expires_in", "Invalid expires_in: it must be above 0.")
	}
	var expires time.Time
	if life > 0 {
		expires = h.ports.Now().Add(life)
	}
	k, err := MakeKey(r.Context(), h.ports, tenant, scopes, note, expires)
	if err != nil {
		return err
	}
	h.keys.forget(k.ID)
	if err := h.audit(r.Context(), c, "key.create", k.Tenant, k.ID); err != nil {
		return err
	}
	h.opt.Log.InfoContext(r.Context(), "made a key", "key", k.ID, "tenant", k.Tenant, "scopes", k.Scopes, "by", c.Key)
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusOK, k)
	return nil
}

// listKeys lists the keys of all tenants, or of ?tenant=.
func (h *Handler) listKeys(w http.ResponseWriter, r *http.Request, _ Caller) error {
	tenant := r.URL.Query().Get("tenant")
	found := []Key{}
	for e, err := range h.ports.Registry.Entries(r.Context(), KindKey, "") {
		if err != nil {
			return fmt.Errorf("list the keys: %w", err)
		}
		k, err := decodeKey(e)
		if err != nil {
			return err
		}
		if tenant == "" || k.Tenant == tenant {
			found = append(found, k.wire())
		}
	}
	slices.SortFunc(found, func(a, b Key) int { return int(b.CreatedAt - a.CreatedAt) })
	writeJSON(w, http.StatusOK, newList(found, len(found), func(k Key) string { return k.ID }))
	return nil
}

// revokeKey makes a key useless, within keyFresh everywhere. Its record stays, so that its id is never another's.
func (h *Handler) revokeKey(w http.ResponseWriter, r *http.Request, c Caller) error {
	id := r.PathValue("id")
	if !plainWord(id, 1, 64) {
		return notFound("Key", id)
	}
	for range saveTries {
		e, err := h.ports.Registry.Entry(r.Context(), KindKey, id, keyID)
		if err != nil {
			return absent(err, "Key", id)
		}
		k, err := decodeKey(e)
		if err != nil {
			return err
		}
		if k.Revoked.IsZero() {
			k.Revoked = h.ports.Now()
			if err := saveKey(r.Context(), h.ports.Registry, &k); errors.Is(err, jobs.ErrConflict) {
				continue
			} else if err != nil {
				return err
			}
			if err := h.audit(r.Context(), c, "key.revoke", k.Tenant, id); err != nil {
				return err
			}
			h.opt.Log.InfoContext(r.Context(), "revoked a key", "key", id, "by", c.Key)
		}
		h.keys.forget(id)
		writeJSON(w, http.StatusOK, k.wire())
		return nil
	}
	return fmt.Errorf("revoke key %s: %w", id, jobs.ErrConflict)
}

// saveTries is how often a save is tried again that others were faster with.
const saveTries = 8
