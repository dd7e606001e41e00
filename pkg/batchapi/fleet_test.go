package batchapi

import (
	"strings"
	"testing"
	"time"
)

// TestALimitThatIsLeftOutIsNotLifted: a limit of 0 is none, so neither what is missing nor what is cut short may become it.
func TestALimitThatIsLeftOutIsNotLifted(t *testing.T) {
	a := newAPI(t, Options{Priced: true})
	operator := a.with(a.newKey("ops", time.Time{}, ScopeOperate))
	const path = "/fanout/v1/tenants/acme/limits"
	put := func(body string) reply {
		return operator.call("PUT", path, strings.NewReader(body), "Content-Type", "application/json")
	}
	set := as[Limits](t, put(`{"max_cost_usd":1.5,"open_requests":7}`), "")
	if set.MaxCostUSD != 1.5 || set.OpenRequests != 7 {
		t.Fatalf("it is set to %+v", set)
	}
	for body, says := range map[string]string{
		`{}`:                  "Missing required parameter: 'max_cost_usd'",
		`{"max_cost_usd":2}`:  "Missing required parameter: 'open_requests'",
		`{"open_requests":9}`: "Missing required parameter: 'max_cost_usd'",
		`{"max_cost_usd":null,"open_requests":9}`:  "Missing required parameter: 'max_cost_usd'",
		`{"max_cost_usd":2,"open_requests":1.5}`:   "1.5 is no whole number",
		`{"max_cost_usd":2,"open_requests":"9"}`:   "expected a whole number, but got a string",
		`{"max_cost_usd":2,"open_requests":-1}`:    "it must be from 0 to",
		`{"max_cost_usd":2,"open_requests":1e30}`:  "is no whole number",
		`{"max_cost_usd":-2,"open_requests":9}`:    "it must be from 0 to",
		`{"max_cost_usd":1e-12,"open_requests":9}`: "a billionth of a US dollar or more",
	} {
		if r := put(body); r.status != 400 || !strings.Contains(unescape(t, r.body), says) {
			t.Errorf("%s: %d %s, want %s", body, r.status, r.body, says)
		}
	}
	if l := as[Limits](t, operator.get(path), ""); l != set {
		t.Errorf("then it is %+v", l)
	}
	if l := as[Limits](t, put(`{"max_cost_usd":0,"open_requests":0}`), ""); l.MaxCostUSD != 0 || l.OpenRequests != 0 {
		t.Errorf("it is lifted to %+v", l)
	}
}
