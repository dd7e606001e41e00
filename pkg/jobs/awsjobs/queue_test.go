package awsjobs_test

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go/middleware"

	"github.com/fanout-inference/fanout/internal/awstest"
	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/awsjobs"
	"github.com/fanout-inference/fanout/pkg/jobs/jobstest"
)

// These claims one of the servers cannot show. The other shows them.
var leftOut = map[awstest.SQSKind]map[string]string{
	awstest.Fauxqs: {},
	awstest.LocalSQS: {
		"DeferHidesUntilThen":       "local-aws-sqs counts each change of visibility as one more receive",
		"StaleReceiptsAreLeftAlone": "local-aws-sqs knows a message by any of its receipts, so an old one shows it",
	},
}

func TestQueue(t *testing.T) {
	for _, kind := range []awstest.SQSKind{awstest.Fauxqs, awstest.LocalSQS} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			jobstest.TestQueue(t, func(t *testing.T) jobstest.QueueUnderTest {
				if why, ok := leftOut[kind][path.Base(t.Name())]; ok {
					t.Skip("left out: " + why)
				}
				t.Parallel() // each has queues of its own, and most of the time is waited
				q := openQueue(t, kind)
				u := jobstest.QueueUnderTest{
					Transport: q, Pass: time.Sleep, Second: time.Second, CoarseDepth: true,
					StaleAckRemoves: kind == awstest.LocalSQS, NoMoves: kind == awstest.Fauxqs,
				}
				if elsewhere() {
					u.Looks, u.StaleAckRemoves = 3, true
				}
				return u
			})
		})
	}
}

func TestEachClaimIsShownByOneServer(t *testing.T) {
	for claim := range leftOut[awstest.Fauxqs] {
		if _, ok := leftOut[awstest.LocalSQS][claim]; ok {
			t.Errorf("%s is shown by neither", claim)
		}
	}
}

// elsewhere tells that the queues are not on a server of ours. These see all they have at once; SQS has to be waited for, and
// may take an old receipt.
func elsewhere() bool { return os.Getenv("FANOUT_TEST_ENDPOINT_SQS") != "" }

// openQueue makes a queue that does not wait for messages where it need not.
func openQueue(t *testing.T, kind awstest.SQSKind) *awsjobs.Queue {
	c := awstest.SQS(t, kind)
	if kind == awstest.LocalSQS {
		c = sqs.New(c.Options(), askAsBefore)
	}
	urls := awstest.Queues(t, c)
	q := awsjobs.NewQueue(c, awsjobs.QueueURLs{
		Ingest: urls["ingest"], Work: urls["work"], Aggregate: urls["aggregate"],
		IngestDead: urls["ingest-dead"], WorkDead: urls["work-dead"], AggregateDead: urls["aggregate-dead"],
	})
	q.Wait = 0
	if elsewhere() {
		q.Wait = 2 * time.Second
	}
	return q
}

// askAsBefore asks for system attributes by the old name of that wish, since local-aws-sqs does not know the new one.
func askAsBefore(o *sqs.Options) {
	ask := middleware.InitializeMiddlewareFunc("AskAsBefore", func(
		ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler,
	) (middleware.InitializeOutput, middleware.Metadata, error) {
		if receive, ok := in.Parameters.(*sqs.ReceiveMessageInput); ok {
			for _, name := range receive.MessageSystemAttributeNames {
				//nolint:staticcheck // that it is deprecated is why it is here
				receive.AttributeNames = append(receive.AttributeNames, types.QueueAttributeName(name))
			}
		}
		return next.HandleInitialize(ctx, in)
	})
	o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error { return stack.Initialize.Add(ask, middleware.Before) })
}

func TestDepthCountsDeferredMessagesAsInFlight(t *testing.T) {
	q := openQueue(t, awstest.Fauxqs)
	ctx := t.Context()
	if unsent, err := q.Send(ctx, jobs.QueueWork, numberedBodies(6)...); err != nil || unsent != nil {
		t.Fatalf("send: unsent %v, %v", unsent, err)
	}
	m, err := q.Receive(ctx, jobs.QueueWork, 3, time.Minute)
	if err != nil || len(m) != 3 {
		t.Fatalf("received %d messages, %v", len(m), err)
	}
	if err := q.Defer(ctx, time.Now().Add(time.Hour), m[0]); err != nil {
		t.Error(err)
	}
	if err := q.Bury(ctx, m[1], jobs.Burial{Code: "x"}); err != nil {
		t.Error(err)
	}
	if err := q.Ack(ctx, m[1]); err != nil {
		t.Error(err)
	}
	if got, err := q.Depth(ctx, jobs.QueueWork); err != nil || got != (jobs.Depth{Waiting: 3, InFlight: 2, Dead: 1}) {
		t.Errorf("depth %+v, %v", got, err)
	}
}

func TestAWaitingReceiveIsWokenByASend(t *testing.T) {
	for _, kind := range []awstest.SQSKind{awstest.Fauxqs, awstest.LocalSQS} {
		t.Run(string(kind), func(t *testing.T) {
			q := openQueue(t, kind)
			q.Wait = awsjobs.MaxWait
			ctx, cancel := context.WithTimeout(t.Context(), awsjobs.MaxWait/2)
			defer cancel()
			sent := make(chan error)
			go func() {
				_, err := q.Send(ctx, jobs.QueueWork, []byte("message"))
				sent <- err
			}()
			m, err := q.Receive(ctx, jobs.QueueWork, 1, time.Minute) // local-aws-sqs waits for all it is asked for
			if err := cmp.Or(<-sent, err); err != nil || len(m) != 1 {
				t.Errorf("received %d messages, %v", len(m), err)
			}
		})
	}
}

func TestABurialOfTheLargestBodyIsTaken(t *testing.T) {
	hostile := jobs.Burial{Number: 7, Job: "job\x00\uffff\xff", Code: strings.Repeat("c", 5000), Message: strings.Repeat("\x1b[31m€", 5000), Attempts: 8}
	for _, room := range []int{0, 1, 12, 13, 40, 100, 2000, 5000} {
		t.Run(fmt.Sprintf("with room for %d bytes", room), func(t *testing.T) {
			q := openQueue(t, awstest.Fauxqs)
			body := strings.Repeat("x", awsjobs.MaxBodyBytes-room)
			if err := q.Bury(t.Context(), jobs.Message{Queue: jobs.QueueWork, Body: []byte(body)}, hostile); err != nil {
				t.Fatal(err)
			}
			n := 0
			for b, err := range q.Peek(t.Context(), jobs.QueueWork) {
				n++
				if err != nil || string(b.Body) != body {
					t.Errorf("a dead letter of %d bytes, %v", len(b.Body), err)
				}
				if why := b.Burial; room >= 13 && why.Number != 7 || room == 5000 && (why.Attempts != 8 || why.Job != "job\ufffd\ufffd\ufffd" ||
					len(why.Code) != 1024 || len(why.Message) < 1022 || !strings.HasPrefix(why.Message, "\ufffd[31m€\ufffd")) {
					t.Errorf("the reason is %+v", why)
				}
			}
			if n != 1 {
				t.Errorf("%d dead letters, want 1", n)
			}
		})
	}
}

// TestMessagesCarryTheirGroup asks the server that gives groups back.
func TestMessagesCarryTheirGroup(t *testing.T) {
	c := sqs.New(awstest.SQS(t, awstest.LocalSQS).Options(), askAsBefore)
	url := awstest.Queues(t, c)["work"]
	q := awsjobs.NewQueue(c, awsjobs.QueueURLs{Work: url})
	of := chunkOf("job-1")
	of.Tenant = "tenant-1"
	want := map[string]string{string(bodyOf(t, of)): "tenant-1", string(bodyOf(t, chunkOf("job-2"))): "job-2", string(jobs.TickBody()): ""}
	for body := range want {
		if unsent, err := q.Send(t.Context(), jobs.QueueWork, []byte(body)); err != nil || unsent != nil {
			t.Fatalf("send: unsent %v, %v", unsent, err)
		}
	}
	out, err := c.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &url, MaxNumberOfMessages: 10,
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameMessageGroupId}})
	if err != nil || len(out.Messages) != len(want) {
		t.Fatalf("received %v, %v", out, err)
	}
	for _, m := range out.Messages {
		if got := m.Attributes["MessageGroupId"]; got != want[*m.Body] {
			t.Errorf("message %s is of group %q, want %q", *m.Body, got, want[*m.Body])
		}
	}
}

func numberedBodies(n int) (bodies [][]byte) {
	for i := range n {
		bodies = append(bodies, []byte("message "+strconv.Itoa(i)))
	}
	return bodies
}
