package jobs

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func hookPorts() (Ports, *memRegistry) {
	r := newMemRegistry()
	n := 0
	p := Ports{Registry: r, Now: func() time.Time { return time.Unix(1000, 0).UTC() }, NewID: func() string { n++; return fmt.Sprint(n) }}
	return p.WithDefaults(), r
}

func hooksOf(t *testing.T, r Registry, tenant string) (all []Hook) {
	t.Helper()
	for h, err := range Hooks(t.Context(), r, tenant) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, h)
	}
	return all
}

func TestOnlyURLsThatCanBeCalledSafelyAreTaken(t *testing.T) {
	for url, want := range map[string]string{
		"https://hooks.example/a?b=c":            "",
		"https://hooks.example:8443":             "",
		"https://[2001:db8::1]:8443/":            "",
		"http://127.0.0.1:8080/a":                "",
		"http://LOCALHOST/a":                     "",
		"http://hooks.example/a":                 "must begin with https://",
		"ftp://hooks.example/a":                  "must begin with https:// and a host",
		"hooks.example":                          "must begin with https:// and a host",
		"//hooks.example":                        "must begin with https:// and a host",
		"":                                       "must begin with https:// and a host",
		"https://":                               "must begin with https:// and a host",
		"https://:443/":                          "must begin with https:// and a host",
		"https:hooks.example":                    "must begin with https:// and a host",
		"https://me:pw@hooks.example":            "must have no user name or password",
		"https://@hooks.example":                 "must have no user name or password",
		"https://hooks.example/#a":               "must have no fragment",
		"https://hooks.example/#":                "must have no fragment",
		"https://hooks.example:0/":               "has no port that there is",
		"https://hooks.example:65536/":           "has no port that there is",
		"https://hooks.example:x/":               "cannot be read",
		"https://hooks.example/\n":               "cannot be read",
		" https://hooks.example/":                "cannot be read",
		"https://hooks.example/%":                "cannot be read",
		"https://x/" + strings.Repeat("a", 1990): "",
		"https://x/" + strings.Repeat("a", 1991): "has more than 2000 bytes",
	} {
		if got := wrongHookURL(url, HookOptions{PlainHosts: []string{"127.0.0.1", "localhost"}}); got != want {
			t.Errorf("%q: %q, want %q", url, got, want)
		}
	}
}

func TestHookIsKeptWithASecretThatNothingTells(t *testing.T) {
	p, r := hookPorts()
	h, err := CreateHook(t.Context(), p, Hook{Tenant: "a", URL: "https://x/y", Events: []string{"batch.failed", "batch.completed", "batch.failed"}}, HookOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := Hook{ID: h.ID, Tenant: "a", URL: "https://x/y", Events: []string{"batch.completed", "batch.failed"}, Secret: h.Secret, Created: time.Unix(1000, 0).UTC()}
	if diff := cmp.Diff([]Hook{want}, hooksOf(t, r, "a")); diff != "" || len(h.Secret) != len("whsec_")+44 {
		t.Errorf("a secret of %d bytes; (-want +got)\n%s", len(h.Secret), diff)
	}
	encoded, err := json.Marshal(h)
	if told := fmt.Sprintf("%v %+v %#v %s", h, h, h, encoded); err != nil || strings.Contains(told, string(h.Secret)) {
		t.Errorf("the secret is told: %s, %v", told, err)
	}
	if other, err := CreateHook(t.Context(), p, Hook{Tenant: "a", URL: "https://x/y"}, HookOptions{}); err != nil || other.Secret == h.Secret {
		t.Errorf("%v, or another hook has the same secret", err)
	}
}

func TestHooksBelongToTheirTenant(t *testing.T) {
	p, r := hookPorts()
	mine, err := CreateHook(t.Context(), p, Hook{Tenant: "a", URL: "https://x/y"}, HookOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := len(hooksOf(t, r, "b")) + len(hooksOf(t, r, "")); got != 0 {
		t.Errorf("others see %d hooks", got)
	}
	for _, tenant := range []string{"b", ""} {
		if err := DropHook(t.Context(), p, tenant, mine.ID); !errors.Is(err, ErrNotFound) {
			t.Errorf("tenant %q drops it: %v, want not found", tenant, err)
		}
	}
	if err := DropHook(t.Context(), p, "a", mine.ID); err != nil || len(hooksOf(t, r, "a")) != 0 {
		t.Errorf("its tenant drops it: %v", err)
	}
}

func TestWhatIsNoHookIsRefused(t *testing.T) {
	p, _ := hookPorts()
	for name, row := range map[string]struct {
		h    Hook
		code Code
	}{
		"no tenant":       {Hook{URL: "https://x"}, CodeInternal},
		"no such event":   {Hook{Tenant: "a", URL: "https://x", Events: []string{"batch.finalizing"}}, CodeInvalid},
		"no URL":          {Hook{Tenant: "a"}, CodeInvalid},
		"without TLS":     {Hook{Tenant: "a", URL: "http://x"}, CodeInvalid},
		"a secret in URL": {Hook{Tenant: "a", URL: "https://me:sesame@x"}, CodeInvalid},
	} {
		_, err := CreateHook(t.Context(), p, row.h, HookOptions{})
		if err == nil || CodeOf(err) != row.code || strings.Contains(err.Error(), "sesame") {
			t.Errorf("%s: %v, want an error of code %s", name, err, row.code)
		}
	}
	for i := range MaxHooks + 1 {
		_, err := CreateHook(t.Context(), p, Hook{Tenant: "a", URL: "https://x"}, HookOptions{})
		if full := i == MaxHooks; (err != nil) != full || full && CodeOf(err) != CodeLimit {
			t.Fatalf("hook %d: %v", i+1, err)
		}
	}
	if _, err := CreateHook(t.Context(), p, Hook{Tenant: "b", URL: "https://x"}, HookOptions{}); err != nil {
		t.Errorf("another tenant's: %v", err)
	}
}
