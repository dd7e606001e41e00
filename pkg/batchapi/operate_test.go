package batchapi

import (
	"strings"
	"testing"
	"time"
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
