package function

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/fanout-inference/fanout/internal/cloud"
	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/awsjobs"
)

// handlerFunc handles messages one by one.
type handlerFunc func(ctx context.Context, m jobs.Message) error

func (h handlerFunc) Handle(ctx context.Context, messages []jobs.Message) (failures []jobs.Failure) {
	for _, m := range messages {
		if err := h(ctx, m); err != nil {
			failures = append(failures, jobs.Failure{ID: m.ID, Err: err})
		}
	}
	return failures
}

// unreachable is an HTTP client without a network.
type unreachable struct{}

func (unreachable) Do(*http.Request) (*http.Response, error) { return nil, errors.New("no network") }

func newFunction(out *bytes.Buffer, h jobs.Handler) *Function {
	client := sqs.New(sqs.Options{Region: "eu-central-1", HTTPClient: unreachable{}, Retryer: aws.NopRetryer{}})
	f := New(jobs.QueueAggregate, slog.LevelInfo, &cloud.Ports{Queue: awsjobs.NewSource(awsjobs.NewQueue(client, awsjobs.QueueURLs{Aggregate: "http://x/q"}))}, out)
	f.Handler = h
	return f
}

var threeMessages = events.SQSEvent{Records: []events.SQSMessage{{MessageId: "done"}, {MessageId: "later"}, {MessageId: "broken"}}}

func TestAnInvocationNamesWhatComesAgainAndTellsOfIt(t *testing.T) {
	var out bytes.Buffer
	f := newFunction(&out, handlerFunc(func(_ context.Context, m jobs.Message) error {
		switch m.ID {
		case "later":
			return &jobs.Deferred{Until: time.Now().Add(time.Hour), Why: "it rains"}
		case "broken":
			return errors.New("it broke")
		}
		return nil
	}))
	ctx := lambdacontext.NewContext(t.Context(), &lambdacontext.LambdaContext{AwsRequestID: "request-1"})
	answer, err := f.Invocations()(ctx, threeMessages)
	if err != nil {
		t.Fatal(err)
	}
	var again []string
	for _, failure := range answer.BatchItemFailures {
		again = append(again, failure.ItemIdentifier)
	}
	if !slices.Equal(again, []string{"later", "broken"}) {
		t.Errorf("%v come again, want those that were not done", again)
	}
	told, counted := false, false
	for raw := range strings.Lines(out.String()) {
		var line map[string]any
		if err := json.Unmarshal([]byte(raw), &line); err != nil {
			t.Errorf("%q: %v", raw, err)
		}
		if line["message"] == "broken" {
			told = line["error"] == "it broke" && line["request"] == "request-1"
		}
		if line["messages_done"] != nil {
			counted = line["messages_done"] == 1.0 && line["messages_deferred"] == 1.0 && line["function"] == "aggregate"
		}
		if strings.Contains(raw, "it rains") {
			t.Errorf("what is put off on purpose is told: %s", raw)
		}
	}
	if !told || !counted {
		t.Errorf("it was told %v and counted %v:\n%s", told, counted, out.Bytes())
	}
}

func TestAnInvocationWithTooLittleTimeSaysSo(t *testing.T) {
	var out bytes.Buffer
	f := newFunction(&out, handlerFunc(func(context.Context, jobs.Message) error {
		t.Error("a message is handled")
		return nil
	}))
	f.Needs = jobs.LeastTime(2 * time.Minute)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := f.Invocations()(ctx, threeMessages); err == nil || !strings.Contains(err.Error(), "a longer timeout") {
		t.Errorf("error: %v, want one that says what to change", err)
	}
}
