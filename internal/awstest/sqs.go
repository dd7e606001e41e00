package awstest

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// SQSKind is one of the two SQS servers: what one lacks the other has.
type SQSKind string

// The SQS servers.
const (
	Fauxqs   SQSKind = "fauxqs"        // for receive counts, visibility, dead letters, load
	LocalSQS SQSKind = "local-aws-sqs" // for move tasks, MessageGroupId, wrong receipts
)

var sqsServers = map[SQSKind]func() (*server, error){
	Fauxqs:   startSQS(Fauxqs),
	LocalSQS: startSQS(LocalSQS),
}

func startSQS(kind SQSKind) func() (*server, error) {
	return sync.OnceValues(func() (*server, error) {
		return startNode(string(kind), func(ctx context.Context, cfg aws.Config) error {
			_, err := sqs.NewFromConfig(cfg).ListQueues(ctx, nil)
			return err
		})
	})
}

// SQS returns a client of that server, or of FANOUT_TEST_ENDPOINT_SQS.
func SQS(t testing.TB, kind SQSKind) *sqs.Client {
	t.Helper()
	return sqs.NewFromConfig(connect(t, "SQS", sqsServers[kind]))
}

// Queues makes the queues "ingest", "work", "aggregate" and "notify", each with its dead letters ("work-dead"), and drops them when the
// test ends. It returns their URLs.
func Queues(t testing.TB, c *sqs.Client) map[string]string {
	t.Helper()
	prefix, urls := newName(), map[string]string{}
	for _, name := range []string{"ingest", "work", "aggregate", "notify"} {
		dead := makeQueue(t, c, prefix+"-"+name+"-dead", nil)
		got, err := c.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{
			QueueUrl: &dead, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameQueueArn},
		})
		if err != nil {
			t.Fatal(err)
		}
		redrive := fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":1000}`, got.Attributes["QueueArn"])
		urls[name+"-dead"] = dead
		urls[name] = makeQueue(t, c, prefix+"-"+name, map[string]string{"RedrivePolicy": redrive})
	}
	return urls
}

func makeQueue(t testing.TB, c *sqs.Client, name string, attributes map[string]string) (url string) {
	t.Helper()
	made, err := c.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name, Attributes: attributes})
	if err != nil {
		t.Fatal(err)
	}
	atEnd(t, "queue "+name, func(ctx context.Context) error {
		_, err := c.DeleteQueue(ctx, &sqs.DeleteQueueInput{QueueUrl: made.QueueUrl})
		return err
	})
	return *made.QueueUrl
}
