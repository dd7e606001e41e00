package batchapi

import (
	"strings"
	"testing"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

func TestAnOperatorHoldsAJobOfAnyTenantAndLetsItGo(t *testing.T) {
	a := newAPI(t, Options{PollEvery: time.Millisecond})
	operator, owner := a.with(a.newKey("ops", time.Time{}, ScopeOperate)), a.with(a.newKey(someTenant, time.Time{}, ScopeSubmit, ScopeRead))
	b := owner.create(owner.upload(lines(3)).ID, "")
	held := as[Batch](t, operator.post("/fanout/v1/jobs/"+b.ID+"/pause", `{"reason":"maintenance"}`), "Batch")
	if held.Fanout.Pause == nil || held.Fanout.Pause.Reason != "operator" || !strings.Contains(held.Fanout.Pause.Message, "maintenance") {
		t.Errorf("it is %+v", held.Fanout)
	}
	if free := as[Batch](t, operator.post("/fanout/v1/jobs/"+b.ID+"/resume", ""), "Batch"); free.Fanout.Pause != nil {
		t.Errorf("then it is %+v", free.Fanout.Pause)
	}
	a.work()
	if end := owner.ended(b.ID); end.Status != "completed" {
		t.Errorf("it ends as %s", end.Status)
	}
	if r := operator.post("/fanout/v1/jobs/"+b.ID+"/pause", ""); r.status != 400 || !strings.Contains(string(r.body), "batch_has_ended") {
		t.Errorf("when it has ended: %d %s", r.status, r.body)
	}
	for path, body := range map[string]string{"/pause": `{"reason":"` + strings.Repeat("x", 501) + `"}`, "/resume": `{"x":1}`} {
		if r := operator.post("/fanout/v1/jobs/"+b.ID+path, body); r.status != 400 {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
	}
	for _, id := range []string{"batch_none", "..", "file-x"} {
		if r := operator.get("/fanout/v1/jobs/" + id + "/errors"); r.status != 404 && r.status != 307 {
			t.Errorf("%s: %d %s", id, r.status, r.body)
		}
	}
	log := as[List[AuditRecord]](t, operator.get("/fanout/v1/audit?limit=1"), "")
	if !log.HasMore || len(log.Data) != 1 || log.Data[0].Action != "job.resume" || *log.Data[0].Of != b.ID || *log.Data[0].Tenant != someTenant {
		t.Errorf("the audit log begins with %+v", log)
	}
	if next := as[List[AuditRecord]](t, operator.get("/fanout/v1/audit?after="+*log.LastID), ""); len(next.Data) != 1 || next.Data[0].Action != "job.pause" || *next.Data[0].Why != "maintenance" {
		t.Errorf("it goes on with %+v", next)
	}
	if r := operator.get("/fanout/v1/audit?after=nobody"); r.status != 400 {
		t.Errorf("after nobody: %d %s", r.status, r.body)
	}
}

func TestWhatFailsIsGroupedForOperators(t *testing.T) {
	a := newAPI(t, Options{PollEvery: time.Millisecond})
	a.work()
	bad := `{"custom_id":"bad","method":"POST","url":"/v1/chat/completions","body":{"model":"builtin/none","messages":[]}}` + "\n"
	b := a.ended(a.create(a.upload(lines(2)+bad).ID, "").ID)
	l := as[List[Trouble]](t, a.get("/fanout/v1/jobs/"+b.ID+"/errors"), "")
	if len(l.Data) != 1 || l.Data[0].Failed != 1 || l.Data[0].Open != 0 || len(l.Data[0].Samples) != 1 || l.Data[0].Samples[0] != (TroubleSample{3, "bad"}) {
		t.Errorf("it says %+v", l.Data)
	}
}

// TestARetryThatIsRefusedSaysWhatElseToDo: the hints of its errors got lost, and what never goes away was a 409, which clients
// repeat.
func TestARetryThatIsRefusedSaysWhatElseToDo(t *testing.T) {
	a := newAPI(t, Options{PollEvery: time.Millisecond})
	bad := `{"custom_id":"bad","method":"POST","url":"/v1/chat/completions","body":{"model":"builtin/none","messages":[]}}` + "\n"
	b := a.create(a.upload(lines(2)+bad).ID, "")
	invalid := a.create(a.upload("no request\n").ID, "")
	retry := func(id, body string) reply { return a.post("/fanout/v1/jobs/"+id+"/retry", body) }
	refused := func(what string, r reply, status int, code string, says ...string) {
		t.Helper()
		for _, s := range append(says, `"code":"`+code+`"`) {
			if r.status != status || !strings.Contains(string(r.body), s) || r.header.Get("X-Should-Retry") != map[bool]string{true: "true", false: "false"}[status == 409] {
				t.Errorf("%s: %d %v %s, want %s", what, r.status, r.header, r.body, s)
			}
		}
	}
	refused("before its end", retry(b.ID, ""), 409, "cannot_retry", "only failed items of a job that has ended", "try: wait for its end", "fanout dlq redrive --job "+b.ID)
	a.work()
	b, invalid = a.ended(b.ID), a.ended(invalid.ID)
	refused("one without results", retry(invalid.ID, ""), 400, "cannot_retry", "it is failed, and has no results")
	refused("a path", retry(b.ID, `{"set":{"url":1}}`), 400, "invalid_retry", "cannot be set")
	refused("nothing like that", retry(b.ID, `{"codes":["none"],"dry_run":false}`), 400, "invalid_retry", "no failed items like that")
	done := as[Retried](t, retry(b.ID, `{"dry_run":false}`), "")
	a.ended(done.Batch.ID)
	refused("what was retried", retry(b.ID, ""), 400, "cannot_retry", "were retried by job "+done.Batch.ID+" already", "try: retry what failed there: fanout job retry "+done.Batch.ID)
}

// TestARetryThatARedriveIsInTheWayOfMayBeAskedForAgain: that passes.
func TestARetryThatARedriveIsInTheWayOfMayBeAskedForAgain(t *testing.T) {
	a := newAPI(t, Options{PollEvery: time.Millisecond})
	a.work()
	b := a.ended(a.create(a.upload(lines(1)).ID, "").ID)
	before, err := a.ports.Ledger.Job(t.Context(), jobs.JobID(b.ID))
	if err != nil {
		t.Fatal(err)
	}
	other, outputs := before, *before.Outputs
	outputs.Of[0]++
	other.Outputs = &outputs
	running := before
	running.Phase = jobs.PhaseInProgress
	for _, c := range []struct {
		what   string
		before jobs.Job
		err    error
		passes bool
	}{
		{"as it is", before, jobs.Errorf(jobs.CodeConflict, "x"), false}, {"with other files", other, jobs.Errorf(jobs.CodeConflict, "x"), true},
		{"still running", running, jobs.Errorf(jobs.CodeConflict, "x"), true}, {"saved by others", before, jobs.ErrConflict, true},
	} {
		if passes, err := a.handler.passes(t.Context(), c.err, &c.before); passes != c.passes || err != nil {
			t.Errorf("%s: %v, %v", c.what, passes, err)
		}
	}
}
