package batchapi

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
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

// TestAListOfOpenJobsGoesOnAfterOneThatHasLeftIt: who turned the page after an hour was told that there is no such job.
func TestAListOfOpenJobsGoesOnAfterOneThatHasLeftIt(t *testing.T) {
	a := newAPI(t, Options{})
	operator := a.with(a.newKey("ops", time.Time{}, ScopeOperate))
	var newest []string
	same := time.Now()
	for n := range 6 {
		owner := a.with(a.newKey([]string{"blue", "green"}[n%2], time.Time{}, ScopeSubmit, ScopeRead))
		id := owner.create(owner.upload(lines(1)).ID, "").ID
		j, err := a.ports.Ledger.Job(t.Context(), jobs.JobID(id))
		if err != nil {
			t.Fatal(err)
		}
		if j.Created = same; n < 2 { // the first two are older, and the others came at once
			j.Created = same.Add(time.Duration(n-2) * time.Second)
		}
		if err := a.ports.Ledger.SaveJob(t.Context(), &j); err != nil {
			t.Fatal(err)
		}
		newest = append([]string{id}, newest...)
	}
	slices.SortFunc(newest[:4], func(a, b string) int { return strings.Compare(b, a) })
	walk := func(limit int, seen func(last string)) (ids []string) {
		for after := ""; ; {
			l := as[List[Batch]](t, operator.get(fmt.Sprintf("/fanout/v1/jobs?limit=%d&after=%s", limit, after)), "")
			for _, b := range l.Data {
				ids = append(ids, b.ID)
			}
			if !l.HasMore {
				return ids
			}
			after = *l.LastID
			seen(after)
		}
	}
	for limit := 1; limit <= 7; limit++ {
		if got := walk(limit, func(string) {}); !slices.Equal(got, newest) {
			t.Errorf("in pages of %d: %v, want %v", limit, got, newest)
		}
	}
	leave := func(last string) {
		j, err := a.ports.Ledger.Job(t.Context(), jobs.JobID(last))
		if err == nil {
			j.Closed = true
			err = a.ports.Ledger.SaveJob(t.Context(), &j)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := walk(2, leave); !slices.Equal(got, newest) {
		t.Errorf("while the last of each page leaves: %v, want %v", got, newest)
	}
	for _, after := range []string{"batch_none", "file-x", "../x"} {
		if r := operator.get("/fanout/v1/jobs?after=" + after); r.status != 400 || !strings.Contains(string(r.body), `"param":"after"`) {
			t.Errorf("after %s: %d %s", after, r.status, r.body)
		}
	}
}

// TestAnOperatorReadsAndWaitsForAJobOfAnyTenant, with a key that may not even read its own tenant's.
func TestAnOperatorReadsAndWaitsForAJobOfAnyTenant(t *testing.T) {
	a := newAPI(t, Options{PollEvery: time.Millisecond})
	owner := a.with(a.newKey("blue", time.Time{}, ScopeSubmit, ScopeRead))
	id := owner.create(owner.upload(lines(3)).ID, "").ID
	own, err := NewClient(a.server.URL, *a.newKey("ops", time.Time{}, ScopeOperate).Secret)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := own.Batch(t.Context(), id); jobs.CodeOf(err) != jobs.CodeDenied {
		t.Errorf("of its own tenant: %v", err)
	}
	c := own.AnyTenant()
	b, tag, err := c.WaitBatch(t.Context(), id, "", 0)
	if err != nil || b.Status != "validating" || tag == "" || b.Fanout.Tenant != "blue" {
		t.Fatalf("it is %+v, %q, %v", b, tag, err)
	}
	a.work()
	for !b.Ended() {
		if b, tag, err = c.WaitBatch(t.Context(), id, tag, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	_, state, err := c.Results(t.Context(), id, ResultsQuery{}, func([]byte) error { n++; return nil })
	if b.Status != "completed" || n != 3 || state != "complete" || err != nil {
		t.Errorf("it ends as %s, with %d results, %s, %v", b.Status, n, state, err)
	}
}
