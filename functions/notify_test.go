package functions

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/webhooks"

	"github.com/fanout-inference/fanout/internal/awstest"
	"github.com/fanout-inference/fanout/internal/lambdatest"
	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/upstream/upstreamtest"
)

// TestTheEndOfAnUploadIsTold: the notify function posts what aggregate has signed, the official client takes it, and aggregate
// hears of it. Of AWS the function knows two queues; a webhook at an address that it may not call is never called.
func TestTheEndOfAnUploadIsTold(t *testing.T) {
	t.Parallel()
	s := newStage(t, plan{upstream: (&upstreamtest.Server{}).Start(t), webhooks: true})
	var mu sync.Mutex
	var events []*webhooks.UnwrapWebhookEventUnion
	var secret jobs.Secret
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		client := webhooks.NewWebhookService(option.WithWebhookSecret(string(secret)))
		event, err := client.Unwrap(body, r.Header)
		if err != nil {
			t.Errorf("the official client refuses %s: %v", body, err)
			return
		}
		events = append(events, event)
	}))
	t.Cleanup(receiver.Close)
	ports := jobs.Ports{Registry: s.store}.WithDefaults()
	mu.Lock()
	for _, url := range []string{receiver.URL, "https://169.254.169.254/latest"} {
		h, err := jobs.CreateHook(t.Context(), ports, jobs.Hook{Tenant: "acme", URL: url}, jobs.HookOptions{PlainHosts: []string{"127.0.0.1"}})
		if err != nil {
			t.Fatal(err)
		}
		if url == receiver.URL {
			secret = h.Secret
		}
	}
	mu.Unlock()
	s.start(t)
	s.send(t, "ingest", s.upload(t, "inbox/acme/a.jsonl", ask(3, nil)))

	var all []jobs.Delivery
	err := s.sources["notify"].WaitFor(t.Context(), func(ctx context.Context) (bool, error) {
		var err error
		all, err = jobs.Deliveries(ctx, s.store, jobs.DeliveryQuery{Tenant: "acme"})
		reported := 0
		for _, d := range all {
			reported += len(d.Attempts)
		}
		return reported == 2, err
	})
	if err != nil {
		t.Fatalf("%v; the deliveries are %+v\n%s", err, all, strings.Join(s.notify.Log(t), "\n"))
	}
	j := s.job(t, "acme")
	mu.Lock()
	defer mu.Unlock()
	if len(events) != 1 || events[0].Type != "batch.completed" || events[0].Data.ID != string(j.ID) {
		t.Fatalf("%d events were received: %+v", len(events), events)
	}
	for _, d := range all {
		switch a := d.Attempts[0]; {
		case d.URL == receiver.URL:
			if d.State != jobs.DeliveryDelivered || a.Status != 200 || d.Event != events[0].ID {
				t.Errorf("the log has %+v", d)
			}
		case d.State != jobs.DeliveryPending || !strings.Contains(a.Error, "is not allowed"):
			t.Errorf("the log has %+v", d)
		}
	}
	s.nothingDead(t)
	if log := strings.Join(append(s.notify.Log(t), s.aggregate.Log(t)...), "\n"); strings.Contains(log, string(secret)) || strings.Contains(log, "whsec_") {
		t.Error("the secret is in a log")
	}
}

// TestNotifyStartsWithQueuesAlone: no variable of a table or a bucket is there, and none is asked for.
func TestNotifyStartsWithQueuesAlone(t *testing.T) {
	t.Parallel()
	sqs := awstest.SQS(t, awstest.Fauxqs)
	queues := awstest.Queues(t, sqs)
	f := lambdatest.Deploy(t, lambdatest.Config{Name: "notify", Bootstrap: lambdatest.Build(t, "notify"), Timeout: notifyTimeout,
		Env: notifyEnv(t, sqs, watched(t, "notify", "sqs", aws.ToString(sqs.Options().BaseEndpoint)), queues)})
	source := lambdatest.Map(t, lambdatest.Mapping{Function: f, Client: sqs, Queue: queues["notify"]})
	s := &stage{sqs: sqs, queues: queues}
	s.send(t, "notify", `{"v":1,"notice":`)
	err := source.WaitFor(t.Context(), func(context.Context) (bool, error) { return len(s.dead(t, "notify")) == 1, nil })
	if err != nil {
		t.Fatalf("%v\n%s", err, strings.Join(f.Log(t), "\n"))
	}
}
