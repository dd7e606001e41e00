package batchapi

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

func (a *api) newKey(tenant string, expires time.Time, scopes ...Scope) Key {
	a.t.Helper()
	k, err := MakeKey(a.t.Context(), a.ports, tenant, scopes, "", expires)
	if err != nil {
		a.t.Fatal(err)
	}
	return k
}

// with is the same server for who has that key.
func (a *api) with(k Key) *api {
	b := *a
	b.key = *k.Secret
	return &b
}

func TestEachRouteWantsItsScope(t *testing.T) {
	a := newAPI(t, Options{})
	keys := map[Scope]*api{}
	for _, s := range Scopes {
		keys[s] = a.with(a.newKey(someTenant, time.Time{}, s))
	}
	for _, rt := range routes {
		if rt.scope == "" {
			continue
		}
		method, path, _ := strings.Cut(rt.pattern, " ")
		path = strings.NewReplacer("{id}", "x", "{id...}", "x").Replace(path)
		if r := a.call(method, path, nil); r.status != 401 || r.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s without a key: %d %s", rt.pattern, r.status, r.body)
		}
		for scope, with := range keys {
			r := with.call(method, path, nil)
			if refused := r.status == 403; refused != (scope != rt.scope) {
				t.Errorf("%s with scope %s: %d %s", rt.pattern, scope, r.status, r.body)
			}
		}
	}
}

func TestWrongKeysGetOneAnswer(t *testing.T) {
	a := newAPI(t, Options{})
	good := *a.newKey(someTenant, time.Time{}, ScopeRead).Secret
	expired := a.newKey(someTenant, time.Now().Add(-time.Second), ScopeRead)
	id, _ := splitKey(good)
	last := map[bool]string{true: "b", false: "a"}[strings.HasSuffix(good, "a")]
	for _, c := range []struct{ what, header, code string }{
		{"none", "", ""},
		{"of another scheme", "Basic " + good, ""},
		{"a foreign one", "Bearer sk-123", "invalid_api_key"},
		{"an unknown one", "Bearer " + strings.Replace(good, id, "aaaaaaaaaaaa", 1), "invalid_api_key"},
		{"a wrong secret", "Bearer " + good[:len(good)-1] + last, "invalid_api_key"},
		{"one that is too long", "Bearer " + good + "a", "invalid_api_key"},
		{"an expired one", "Bearer " + *expired.Secret, "expired_api_key"},
		{"the hash of one", "Bearer " + hashKey(good), "invalid_api_key"},
	} {
		r := a.get("/v1/files", "Authorization", c.header)
		if r.status != 401 || c.code != "" && !strings.Contains(string(r.body), `"code":"`+c.code+`"`) {
			t.Errorf("%s: %d %s", c.what, r.status, r.body)
		}
		conform(t, "ErrorResponse", r.body)
	}
	if r := a.get("/v1/files", "Authorization", "bearer  "+good); r.status != 200 {
		t.Errorf("the right one: %d %s", r.status, r.body)
	}
	if strings.Contains(a.log.String(), good) {
		t.Errorf("the log has a key: %s", a.log)
	}
}

func TestTenantsSeeNothingOfEachOther(t *testing.T) {
	a := newAPI(t, Options{PollEvery: 5 * time.Millisecond})
	a.work()
	mine, theirs := a.with(a.newKey("mine", time.Time{}, Scopes...)), a.with(a.newKey("theirs", time.Time{}, Scopes...))
	f := mine.upload(lines(2))
	b := mine.ended(mine.create(f.ID, "").ID)
	up := as[Upload](t, mine.post("/v1/uploads", `{"bytes":1,"filename":"x","mime_type":"x","purpose":"batch"}`), "Upload")
	for _, path := range []string{
		"GET /v1/files/%s " + f.ID, "GET /v1/files/%s/content " + f.ID, "DELETE /v1/files/%s " + f.ID, "GET /v1/files/%s " + *b.OutputFileID, "GET /v1/files/%s/content " + *b.OutputFileID,
		"GET /v1/batches/%s " + b.ID, "GET /v1/batches/%s?wait=1s " + b.ID, "GET /v1/batches/%s/results " + b.ID, "POST /v1/batches/%s/cancel " + b.ID,
		"POST /v1/uploads/%s/parts " + up.ID, "POST /v1/uploads/%s/complete " + up.ID, "POST /v1/uploads/%s/cancel " + up.ID,
	} {
		w := strings.Fields(path)
		method, pattern, id := w[0], w[1], w[2]
		unknown := id[:len(id)-4] + "aaaa"
		foreign, absent := theirs.call(method, fmt.Sprintf(pattern, id), nil), theirs.call(method, fmt.Sprintf(pattern, unknown), nil)
		if foreign.status != 404 || absent.status != 404 || strings.ReplaceAll(string(foreign.body), id, unknown) != string(absent.body) {
			t.Errorf("%s %s: foreign %d %s, unknown %d %s", method, pattern, foreign.status, foreign.body, absent.status, absent.body)
		}
	}
	for _, path := range []string{"/v1/files?after=" + f.ID, "/v1/batches?after=" + b.ID} {
		if r := theirs.get(path); r.status != 400 {
			t.Errorf("a foreign cursor %s: %d %s", path, r.status, r.body)
		}
	}
	if r := theirs.post("/v1/batches", createBody(f.ID, "")); r.status != 400 || !strings.Contains(string(r.body), `"param":"input_file_id"`) {
		t.Errorf("a batch of a foreign file: %d %s", r.status, r.body)
	}
	if l := as[List[Batch]](t, theirs.get("/v1/batches"), ""); len(l.Data) > 0 {
		t.Errorf("they list %v", l.Data)
	}
	if again := as[File](t, mine.get("/v1/files/"+f.ID), "OpenAIFile"); again.ID != f.ID {
		t.Errorf("the file was harmed: %+v", again)
	}
}

func TestKeysAreMadeListedAndRevoked(t *testing.T) {
	now := atomic.Pointer[time.Time]{}
	start := time.Now()
	now.Store(&start)
	a := newAPI(t, Options{})
	a.ports.Now = func() time.Time { return *now.Load() }
	elsewhere := httptest.NewServer(New(a.ports, Options{})) // another process, with what it remembers
	defer elsewhere.Close()
	root := a.with(a.newKey(someTenant, time.Time{}, ScopeOperate))
	k := as[Key](t, root.post("/fanout/v1/keys", `{"tenant":"blue","scopes":["read","read"],"note":"for the dashboard","expires_in":"720h"}`), "")
	if k.Secret == nil || k.Tenant != "blue" || fmt.Sprint(k.Scopes) != "[read]" || k.ExpiresAt == nil {
		t.Fatalf("made: %+v", k)
	}
	list := root.get("/fanout/v1/keys?tenant=blue")
	if strings.Contains(string(list.body), *k.Secret) || !strings.Contains(string(list.body), k.ID) {
		t.Errorf("listed: %s", list.body)
	}
	blue := a.with(k)
	there := *blue
	there.server = elsewhere
	for _, at := range []*api{blue, &there} {
		if r := at.get("/v1/files"); r.status != 200 {
			t.Errorf("the new key: %d %s", r.status, r.body)
		}
	}
	for range 2 {
		if r := as[Key](t, root.call("DELETE", "/fanout/v1/keys/"+k.ID, nil), ""); r.RevokedAt == nil {
			t.Errorf("revoked: %+v", r)
		}
	}
	if r := blue.get("/v1/files"); r.status != 401 {
		t.Errorf("the revoked key, here: %d", r.status)
	}
	later := start.Add(time.Minute)
	now.Store(&later)
	if r := there.get("/v1/files"); r.status != 401 {
		t.Errorf("the revoked key, elsewhere, after a minute: %d", r.status)
	}
	for _, id := range []string{"nobody", "..%2f..", "x'--"} {
		if r := root.call("DELETE", "/fanout/v1/keys/"+id, nil); r.status != 404 {
			t.Errorf("revoke %s: %d %s", id, r.status, r.body)
		}
	}
}

func TestServerWithoutKeysAnswersThisMachineOnly(t *testing.T) {
	a := newAPI(t, Options{})
	for _, c := range []struct {
		what, host, origin string
		status             int
	}{
		{"curl", "127.0.0.1:8080", "", 200},
		{"by name", "localhost", "", 200},
		{"by IPv6", "[::1]:8080", "", 200},
		{"a name that leads here", "evil.example:8080", "", 403},
		{"another site's page", "127.0.0.1:8080", "https://evil.example", 403},
	} {
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/v1/uploads", strings.NewReader(`{"bytes":1,"filename":"x","mime_type":"x","purpose":"batch"}`))
		r.Host = c.host
		r.Header.Set("Content-Type", "application/json")
		if c.origin != "" {
			r.Header.Set("Origin", c.origin)
			r.Header.Set("Sec-Fetch-Site", "cross-site")
		}
		w := httptest.NewRecorder()
		a.server.Config.Handler.ServeHTTP(w, r)
		if w.Code != c.status {
			t.Errorf("%s: %d %s, want %d", c.what, w.Code, w.Body, c.status)
		}
	}
	k := as[Key](t, a.post("/fanout/v1/keys", `{"scopes":["read"]}`), "")
	for what, r := range map[string]reply{"none": a.get("/v1/files"), "a word": a.get("/v1/files", "Authorization", "Bearer none")} {
		if r.status != 401 {
			t.Errorf("once there is a key, %s gets %d", what, r.status)
		}
	}
	a.call("DELETE", "/fanout/v1/keys/"+k.ID, nil)
	if r := a.get("/v1/files"); r.status != 401 {
		t.Errorf("once all keys are revoked nobody comes in, but one does: %d", r.status)
	}
}

func TestOperatorKeyOfTheConfigurationMakesTheFirstKeys(t *testing.T) {
	a := newAPI(t, Options{OperatorKey: hashKey("open sesame"), OperatorTenant: "ops"})
	a.key = "open sesame"
	k := as[Key](t, a.post("/fanout/v1/keys", `{}`), "")
	if k.Tenant != "ops" || fmt.Sprint(k.Scopes) != "[submit read]" {
		t.Errorf("made: %+v", k)
	}
	a.key = "open sesame!"
	if r := a.get("/v1/files"); r.status != 401 {
		t.Errorf("another word: %d", r.status)
	}
}

func TestKeyMayComeOnlySoOften(t *testing.T) {
	a := newAPI(t, Options{Rate: 1, Burst: 3})
	now := time.Now()
	a.ports.Now = func() time.Time { return now }
	server := httptest.NewServer(New(a.ports, Options{Rate: 1, Burst: 3}))
	defer server.Close()
	a.server = server
	one, other := a.with(a.newKey("x", time.Time{}, ScopeRead)), a.with(a.newKey("x", time.Time{}, ScopeRead))
	for i := range 3 {
		if r := one.get("/v1/files"); r.status != 200 {
			t.Fatalf("request %d: %d", i, r.status)
		}
	}
	r := one.get("/v1/files")
	if r.status != 429 || r.header.Get("Retry-After") == "" || r.header.Get("X-Should-Retry") != "true" {
		t.Errorf("the fourth: %d %v", r.status, r.header)
	}
	conform(t, "ErrorResponse", r.body)
	if r := other.get("/v1/files"); r.status != 200 {
		t.Errorf("another key: %d", r.status)
	}
}

// countingRegistry counts how many keys are looked up.
type countingRegistry struct {
	jobs.Registry
	reads atomic.Int64
}

func (c *countingRegistry) Entry(ctx context.Context, kind jobs.Kind, owner, id string) (jobs.Entry, error) {
	if kind == KindKey {
		c.reads.Add(1)
	}
	return c.Registry.Entry(ctx, kind, owner, id)
}

func TestMadeUpKeysCostFewLookups(t *testing.T) {
	a := newAPI(t, Options{})
	a.newKey("x", time.Time{}, ScopeRead)
	registry := &countingRegistry{Registry: a.ports.Registry}
	a.ports.Registry = registry
	now := time.Now()
	a.ports.Now = func() time.Time { return now }
	h := New(a.ports, Options{})
	for i := range 1000 {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/v1/files", nil)
		r.Header.Set("Authorization", fmt.Sprintf("Bearer fanout_%012d_%052d", i, i))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusUnauthorized && w.Code != http.StatusTooManyRequests {
			t.Fatalf("made-up key: %d", w.Code)
		}
	}
	if n := registry.reads.Load(); n > maxLookups {
		t.Errorf("%d lookups", n)
	}
}
