package batchapi

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// courierFunc answers a notice with a status.
type courierFunc func(n *jobs.NoticeMessage) int

func (f courierFunc) Post(_ context.Context, n *jobs.NoticeMessage) (int, error) { return f(n), nil }

func TestWebhookIsToldOfAnEndAndReplayed(t *testing.T) {
	posted := make(chan jobs.NoticeMessage, 10)
	a := newAPI(t, Options{PollEvery: 5 * time.Millisecond, Webhooks: &jobs.HookOptions{}})
	a.courier = courierFunc(func(n *jobs.NoticeMessage) int {
		posted <- *n
		return 204
	})
	a.work()
	hook := as[Hook](t, a.post("/fanout/v1/hooks", `{"url":"https://example.com/x","events":["batch.completed"]}`), "")
	if hook.Secret == nil || !strings.HasPrefix(*hook.Secret, "whsec_") || hook.Tenant != someTenant || hook.Object != "fanout.hook" {
		t.Errorf("it is %+v", hook)
	}
	if l := as[List[Hook]](t, a.get("/fanout/v1/hooks"), ""); len(l.Data) != 1 || l.Data[0].ID != hook.ID || l.Data[0].Secret != nil {
		t.Errorf("the list is %+v", l)
	}
	b := a.create(a.upload(lines(1)).ID, "")
	notice := <-posted
	if !strings.Contains(notice.Body, `"type":"batch.completed"`) || !strings.Contains(notice.Body, b.ID) || notice.URL != hook.URL {
		t.Errorf("posted %+v", notice)
	}
	d := a.delivered()
	if d.Hook != hook.ID || d.Event != notice.EventID || d.Batch != b.ID || d.Attempts[0].Status == nil || *d.Attempts[0].Status != 204 {
		t.Errorf("the delivery is %+v", d)
	}
	if again := as[Delivery](t, a.post("/fanout/v1/deliveries/"+d.ID+"/replay", ""), ""); again.Status != "pending" || again.NextAttemptAt == nil {
		t.Errorf("the replay is %+v", again)
	}
	if second := <-posted; second.EventID != notice.EventID || second.Attempt != 2 {
		t.Errorf("posted again: %+v", second)
	}
	if r := a.call("DELETE", "/fanout/v1/hooks/"+hook.ID, nil); r.status != 200 {
		t.Errorf("deleting it: %d %s", r.status, r.body)
	}
	if r := a.post("/fanout/v1/deliveries/"+d.ID+"/replay", ""); r.status != 400 || !strings.Contains(string(r.body), "webhook_deleted") {
		t.Errorf("replaying then: %d %s", r.status, r.body)
	}
	if strings.Contains(a.log.String(), *hook.Secret) {
		t.Error("the log has the secret")
	}
}

// delivered waits until the newest delivery is no longer pending.
func (a *api) delivered() Delivery {
	a.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		l := as[List[Delivery]](a.t, a.get("/fanout/v1/deliveries?limit=1"), "")
		if len(l.Data) == 1 && l.Data[0].Status != "pending" {
			return l.Data[0]
		}
	}
	a.t.Fatal("nothing is delivered")
	return Delivery{}
}

func TestHooksAreOfTheirTenant(t *testing.T) {
	a := newAPI(t, Options{Webhooks: &jobs.HookOptions{}})
	made := as[Hook](t, a.post("/fanout/v1/hooks", `{"tenant":"blue","url":"https://example.com/"}`), "")
	if len(made.Events) != 4 {
		t.Errorf("it is told %v", made.Events)
	}
	if l := as[List[Hook]](t, a.get("/fanout/v1/hooks"), ""); len(l.Data) != 0 {
		t.Errorf("another lists %+v", l.Data)
	}
	if l := as[List[Hook]](t, a.get("/fanout/v1/hooks?tenant=blue"), ""); len(l.Data) != 1 {
		t.Errorf("blue lists %+v", l.Data)
	}
	if r := a.call("DELETE", "/fanout/v1/hooks/"+made.ID, nil); r.status != 404 {
		t.Errorf("another deletes it: %d %s", r.status, r.body)
	}
	if r := a.call("DELETE", "/fanout/v1/hooks/"+made.ID+"?tenant=blue", nil); r.status != 200 {
		t.Errorf("blue deletes it: %d %s", r.status, r.body)
	}
}

func TestWrongHooks(t *testing.T) {
	a := newAPI(t, Options{Webhooks: &jobs.HookOptions{PlainHosts: []string{"localhost"}}})
	for body, want := range map[string]string{
		`{}`:                              "Missing required parameter: 'url'",
		`{"url":7}`:                       "expected a string",
		`{"url":"ftp://x"}`:               "must begin with https://",
		`{"url":"http://x.example"}`:      "must begin with https://",
		`{"url":"https://u:p@x.example"}`: "no user name",
		`{"url":"https://x.example/` + strings.Repeat("x", 3000) + `"}`: "more than 2000 bytes",
		`{"url":"https://x.example","events":["batch.begun"]}`:          "there is no event",
		`{"url":"https://x.example","events":"batch.failed"}`:           "an array of strings",
		`{"url":"https://x.example","tenant":"../x"}`:                   "Invalid tenant",
		`{"url":"https://x.example","secret":"mine"}`:                   "Unknown parameter",
	} {
		if r := a.post("/fanout/v1/hooks", body); r.status != 400 || !strings.Contains(string(r.body), want) {
			t.Errorf("%.80s: %d %s", body, r.status, r.body)
		} else {
			conform(t, "ErrorResponse", r.body)
		}
	}
	for n := range jobs.MaxHooks {
		as[Hook](t, a.post("/fanout/v1/hooks", fmt.Sprintf(`{"url":"http://localhost/%d"}`, n)), "")
	}
	if r := a.post("/fanout/v1/hooks", `{"url":"http://localhost/"}`); r.status != 400 || !strings.Contains(string(r.body), "too_many_webhooks") {
		t.Errorf("one too many: %d %s", r.status, r.body)
	}
	for _, at := range []string{"/fanout/v1/hooks?tenant=%20", "/fanout/v1/deliveries?tenant=a/b", "/fanout/v1/deliveries?after=dlv_x", "/fanout/v1/deliveries?limit=0"} {
		if r := a.get(at); r.status != 400 {
			t.Errorf("%s: %d %s", at, r.status, r.body)
		}
	}
	for _, id := range []string{"dlv_x", "..", "DLV_x"} {
		if r := a.post("/fanout/v1/deliveries/"+id+"/replay", ""); r.status != 404 && r.status != 307 {
			t.Errorf("%s: %d %s", id, r.status, r.body)
		}
	}
	off := newAPI(t, Options{})
	if r := off.post("/fanout/v1/hooks", `{"url":"https://x.example"}`); r.status != 400 || !strings.Contains(string(r.body), "webhooks_off") {
		t.Errorf("where none are sent: %d %s", r.status, r.body)
	}
}
