package lambdatest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/fanout-inference/fanout/internal/awstest"
)

// send puts messages into a queue.
func send(t *testing.T, c *sqs.Client, queue string, bodies ...string) {
	t.Helper()
	for ten := range slices.Chunk(bodies, maxReceive) {
		in := &sqs.SendMessageBatchInput{QueueUrl: &queue}
		for n, body := range ten {
			in.Entries = append(in.Entries, types.SendMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(n)), MessageBody: &body})
		}
		if out, err := c.SendMessageBatch(t.Context(), in); err != nil || len(out.Failed) > 0 {
			t.Fatal(out, err)
		}
	}
}

// held counts the messages that a queue shows, and hides.
func held(t *testing.T, c *sqs.Client, queue string) (shown, hidden string) {
	t.Helper()
	names := []types.QueueAttributeName{
		types.QueueAttributeNameApproximateNumberOfMessages, types.QueueAttributeNameApproximateNumberOfMessagesNotVisible,
	}
	out, err := c.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &queue, AttributeNames: names})
	if err != nil {
		t.Fatal(err)
	}
	return out.Attributes[string(names[0])], out.Attributes[string(names[1])]
}

// results collects deliveries.
func results(m *Mapping) <-chan Delivery {
	c := make(chan Delivery, 100)
	m.OnResult = func(d Delivery) { c <- d }
	return c
}

// TestWhatAResponseSaysIsDoneIsDeleted, and nothing else; what is kept stays hidden as it was.
func TestWhatAResponseSaysIsDoneIsDeleted(t *testing.T) {
	c := awstest.SQS(t, awstest.Fauxqs)
	queue := awstest.Queues(t, c)["work"]
	f := deploy(t, Config{Timeout: 30 * time.Second})
	m := Mapping{Client: c, Queue: queue, Function: f, BatchSize: 2, Window: time.Minute}
	got := results(&m)
	Map(t, m)

	type row struct {
		body    string
		deleted int
		err     string
	}
	rows := []row{
		{body: "fail", err: "errorString: as told"},
		{body: "panic", err: "string: as told"},
		{body: "exit", err: "exit status 3"},
	}
	for _, r := range responses {
		deleted := 2
		if r.failed {
			deleted = 1
		}
		if r.broken != "" {
			deleted = 0
		}
		rows = append(rows, row{"respond " + r.response, deleted, r.broken})
	}
	kept := 0
	for _, r := range rows {
		send(t, c, queue, r.body, r.body)
		d := <-got
		kept += 2 - r.deleted
		switch {
		case len(d.Messages) != 2 || *d.Messages[0].Body != r.body:
			t.Fatalf("%s: a batch of %d", r.body, len(d.Messages))
		case len(d.Deleted) != r.deleted || len(d.Kept) != 2-r.deleted || r.deleted == 1 && d.Deleted[0] != *d.Messages[0].MessageId:
			t.Errorf("%s: deleted %q, kept %q", r.body, d.Deleted, d.Kept)
		case (d.Err != nil) != (r.err != "") || d.Err != nil && !strings.Contains(d.Err.Error(), r.err):
			t.Errorf("%s: %v, want %q", r.body, d.Err, r.err)
		}
	}
	if shown, hidden := held(t, c, queue); shown != "0" || hidden != strconv.Itoa(kept) {
		t.Errorf("the queue shows %s and hides %s messages, want 0 and %d", shown, hidden, kept)
	}
}

func TestATimeoutKeepsTheBatchAndItsReceivesAreCountedUntilItIsDead(t *testing.T) {
	c := awstest.SQS(t, awstest.Fauxqs)
	queues := awstest.Queues(t, c)
	queue, dead := queues["work"], queues["work-dead"]
	policy, err := c.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{
		QueueUrl: &queue, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameRedrivePolicy},
	})
	if err != nil {
		t.Fatal(err)
	}
	const name = string(types.QueueAttributeNameRedrivePolicy)
	twice := map[string]string{name: strings.Replace(policy.Attributes[name], "1000", "2", 1)}
	if _, err := c.SetQueueAttributes(t.Context(), &sqs.SetQueueAttributesInput{QueueUrl: &queue, Attributes: twice}); err != nil {
		t.Fatal(err)
	}

	m := Mapping{Client: c, Queue: queue, Function: deploy(t, Config{Timeout: time.Second})}
	var counts []string
	got := make(chan Delivery, 1)
	m.OnResult = func(d Delivery) { // one after the other, since there is one message
		counts = append(counts, d.Messages[0].Attributes["ApproximateReceiveCount"])
		if _, err := c.ChangeMessageVisibility(t.Context(), &sqs.ChangeMessageVisibilityInput{
			QueueUrl: &queue, ReceiptHandle: d.Messages[0].ReceiptHandle, VisibilityTimeout: 0,
		}); err != nil {
			t.Error(err)
		}
		got <- d
	}
	s := Map(t, m)
	send(t, c, queue, "hang")
	for range 2 {
		var failed *FunctionError
		if d := <-got; !errors.As(d.Err, &failed) || failed.Type != ErrorTimedOut || len(d.Kept) != 1 {
			t.Errorf("%v, kept %q", d.Err, d.Kept)
		}
	}
	if err := WaitIdle(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if shown, _ := held(t, c, dead); shown != "1" || !slices.Equal(counts, []string{"1", "2"}) {
		t.Errorf("received with counts %q, and %s dead", counts, shown)
	}
}

func TestABatchIsFilledWithinItsWindow(t *testing.T) {
	c := awstest.SQS(t, awstest.Fauxqs)
	queue := awstest.Queues(t, c)["work"]
	m := Mapping{Client: c, Queue: queue, Function: deploy(t, Config{Timeout: 30 * time.Second}), BatchSize: 25, Window: time.Minute}
	got := results(&m)
	s := Map(t, m)
	var bodies []string
	for n := range 27 {
		bodies = append(bodies, fmt.Sprint("respond null ", n))
	}
	send(t, c, queue, bodies...)
	if d := <-got; len(d.Messages) != 25 {
		t.Errorf("a batch of %d", len(d.Messages))
	}
	s.Stop() // the window does not matter any more
	if d := <-got; len(d.Messages) != 2 {
		t.Errorf("a last batch of %d", len(d.Messages))
	}
}

func TestAMessageIsDeliveredTwiceAtOnceOnDemand(t *testing.T) {
	c := awstest.SQS(t, awstest.Fauxqs)
	queue := awstest.Queues(t, c)["work"]
	m := Mapping{Client: c, Queue: queue, Function: deploy(t, Config{Timeout: 30 * time.Second})}
	m.Arrange = func(batch []types.Message) [][]types.Message { return [][]types.Message{batch, slices.Clone(batch)} }
	got := results(&m)
	s := Map(t, m)
	send(t, c, queue, "get "+gate(t, 2)) // answers to both together
	a, b := <-got, <-got
	if a.Err != nil || b.Err != nil || *a.Messages[0].MessageId != *b.Messages[0].MessageId {
		t.Errorf("%v, %v", a, b)
	}
	if err := WaitIdle(t.Context(), s); err != nil {
		t.Error(err)
	}
}

func TestStopWaitsForWhatRuns(t *testing.T) {
	c := awstest.SQS(t, awstest.Fauxqs)
	queue := awstest.Queues(t, c)["work"]
	m := Mapping{Client: c, Queue: queue, Function: deploy(t, Config{Timeout: 30 * time.Second})}
	begun := make(chan struct{})
	m.OnInvoke = func([]types.Message) { close(begun) }
	var ended sync.WaitGroup
	ended.Add(1)
	deleted := 0
	m.OnResult = func(d Delivery) { deleted = len(d.Deleted); ended.Done() }
	s := Map(t, m)
	send(t, c, queue, "respond null")
	<-begun
	s.Stop()
	if deleted != 1 {
		t.Error("stopped before the batch was deleted")
	}
	ended.Wait()
	send(t, c, queue, "respond null")
	if shown, _ := held(t, c, queue); shown != "1" {
		t.Error("a stopped source receives")
	}
	if err := s.WaitFor(t.Context(), func(context.Context) (bool, error) { return false, nil }); err == nil {
		t.Error("waits for a stopped source")
	}
}

func TestAMappingIsHeldAgainstWhatAWSDemands(t *testing.T) {
	c := awstest.SQS(t, awstest.Fauxqs)
	queue := awstest.Queues(t, c)["work"]
	for _, row := range []struct {
		m    Mapping
		want string
	}{
		{Mapping{BatchSize: 11}, "needs a window"},
		{Mapping{BatchSize: 1, Function: &Function{Config: Config{Timeout: time.Minute}}}, "visibility timeout"},
		{Mapping{BatchSize: 1, Function: &Function{Config: Config{Timeout: time.Second}}}, ""},
	} {
		s := &Source{Mapping: row.m}
		s.Client, s.Queue = c, queue
		if err := s.check(t.Context()); (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%v, want %q", err, row.want)
		}
	}
}

// TestAnEventIsWhatTheLibraryReads: aws-lambda-go finds a field for all that is there, and all that it has a field for.
func TestAnEventIsWhatTheLibraryReads(t *testing.T) {
	m := types.Message{
		MessageId: aws.String("id"), ReceiptHandle: aws.String("receipt"), Body: aws.String("body \"<&>\" ü"), MD5OfBody: aws.String("md5"),
		MD5OfMessageAttributes: aws.String("md5a"),
		Attributes:             map[string]string{"ApproximateReceiveCount": "3", "SentTimestamp": "1700000000000"},
		MessageAttributes: map[string]types.MessageAttributeValue{
			"text":  {DataType: aws.String("String"), StringValue: aws.String("v")},
			"bytes": {DataType: aws.String("Binary"), BinaryValue: []byte{1}},
		},
	}
	payload, err := newEvent("arn", []types.Message{m, m})
	if err != nil {
		t.Fatal(err)
	}
	var e events.SQSEvent
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	var want, got any
	if err := errors.Join(json.Unmarshal(payload, &want), json.Unmarshal(again, &got)); err != nil {
		t.Fatal(err)
	}
	if r := e.Records[1]; len(e.Records) != 2 || r.MessageId != "id" || r.Body != *m.Body || r.EventSource != "aws:sqs" || r.Attributes["SentTimestamp"] != "1700000000000" {
		t.Errorf("read %+v", r)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("read and written again:\n%s\nnot\n%s", again, payload)
	}
}
