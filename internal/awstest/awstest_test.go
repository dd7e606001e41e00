package awstest

import (
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dynamodbtypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// all are the servers by name.
var all = map[string]func() (*server, error){
	"dynalite": dynalite, "fauxqs": sqsServers[Fauxqs], "local-aws-sqs": sqsServers[LocalSQS], "versitygw": versitygw,
}

func TestATableKeepsItems(t *testing.T) {
	c := DynamoDB(t)
	table := Table(t, c, func(name string) *dynamodb.CreateTableInput {
		return &dynamodb.CreateTableInput{
			TableName: &name, BillingMode: dynamodbtypes.BillingModePayPerRequest,
			AttributeDefinitions: []dynamodbtypes.AttributeDefinition{
				{AttributeName: aws.String("pk"), AttributeType: dynamodbtypes.ScalarAttributeTypeS},
			},
			KeySchema: []dynamodbtypes.KeySchemaElement{{AttributeName: aws.String("pk"), KeyType: dynamodbtypes.KeyTypeHash}},
		}
	})
	item := map[string]dynamodbtypes.AttributeValue{"pk": &dynamodbtypes.AttributeValueMemberS{Value: "one"}}
	if _, err := c.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &table, Item: item}); err != nil {
		t.Fatal(err)
	}
	got, err := c.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: &table, Key: item})
	if err != nil || len(got.Item) != 1 {
		t.Errorf("read %v, %v", got, err)
	}
}

func TestQueuesCarryMessagesAndNameTheirDeadLetters(t *testing.T) {
	for _, kind := range []SQSKind{Fauxqs, LocalSQS} {
		t.Run(string(kind), func(t *testing.T) {
			c := SQS(t, kind)
			urls := Queues(t, c)
			if len(urls) != 8 {
				t.Errorf("made %v, want four queues with their dead letters", urls)
			}
			for name, url := range urls {
				if _, err := c.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: &name}); err != nil {
					t.Fatal(err)
				}
			}
			for name, url := range urls {
				got, err := c.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &url, MaxNumberOfMessages: 10})
				if err != nil || len(got.Messages) != 1 || *got.Messages[0].Body != name {
					t.Errorf("received %v from %s, %v", got, name, err)
				}
				asked, err := c.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{
					QueueUrl: &url, AttributeNames: []sqstypes.QueueAttributeName{sqstypes.QueueAttributeNameRedrivePolicy},
				})
				if err != nil {
					t.Fatal(err)
				}
				redrive := asked.Attributes["RedrivePolicy"]
				_, hasDead := urls[name+"-dead"]
				if hasDead != strings.Contains(redrive, name+"-dead") || hasDead != strings.Contains(redrive, "1000") {
					t.Errorf("the redrive policy of %s is %q", name, redrive)
				}
			}
		})
	}
}

func TestABucketKeepsObjectsAndIsDroppedWithThem(t *testing.T) {
	c := S3(t)
	var bucket string
	t.Run("while it is there", func(t *testing.T) {
		bucket = Bucket(t, c)
		put := &s3.PutObjectInput{Bucket: &bucket, Key: aws.String("a/b"), Body: strings.NewReader("body")}
		if _, err := c.PutObject(t.Context(), put); err != nil {
			t.Fatal(err)
		}
		got, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &bucket, Key: put.Key})
		if err != nil {
			t.Fatal(err)
		}
		defer got.Body.Close()
		if body, err := io.ReadAll(got.Body); err != nil || string(body) != "body" {
			t.Errorf("read %q, %v", body, err)
		}
		if _, err := c.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &bucket, Key: put.Key}); err != nil {
			t.Fatal(err)
		}
	})
	if _, err := c.HeadBucket(t.Context(), &s3.HeadBucketInput{Bucket: &bucket}); err == nil {
		t.Error("the bucket is still there after the end of its test")
	}
}

func TestATestThatAsksAgainGetsTheSameServer(t *testing.T) {
	if a, b := DynamoDB(t).Options().BaseEndpoint, DynamoDB(t).Options().BaseEndpoint; *a != *b {
		t.Errorf("asked twice: %s and %s", *a, *b)
	}
}

// TestServersListenOnLoopbackOnly: no address of this machine but 127.0.0.1 takes a connection; on Linux, the process has no
// other listening socket either.
func TestServersListenOnLoopbackOnly(t *testing.T) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for name, start := range all {
		s, err := start()
		if err != nil {
			t.Fatal(err)
		}
		port := portOf(t, s)
		for _, a := range addresses {
			ip := a.(*net.IPNet).IP
			c, err := net.Dial("tcp", net.JoinHostPort(ip.String(), port))
			if err == nil {
				_ = c.Close()
			}
			if (err == nil) != ip.Equal(net.IPv4(127, 0, 0, 1)) {
				t.Errorf("%s on %s: %v", name, ip, err)
			}
		}
		if others := listening(t, s.cmd.Process.Pid, port); len(others) > 0 {
			t.Errorf("%s also listens on %v", name, others)
		}
	}
}

func portOf(t *testing.T, s *server) string {
	t.Helper()
	_, port, err := net.SplitHostPort(strings.TrimPrefix(*s.config.BaseEndpoint, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func TestAnEndpointOfTheEnvironmentIsUsedInstead(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "theirs")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
	t.Setenv("AWS_REGION", "eu-central-1")
	for _, service := range []string{"DYNAMODB", "SQS", "S3"} {
		t.Setenv("FANOUT_TEST_ENDPOINT_"+service, "http://"+strings.ToLower(service)+".invalid")
	}
	for _, row := range []struct {
		name, region string
		endpoint     *string
		credentials  aws.CredentialsProvider
	}{
		{"dynamodb", DynamoDB(t).Options().Region, DynamoDB(t).Options().BaseEndpoint, DynamoDB(t).Options().Credentials},
		{"sqs", SQS(t, LocalSQS).Options().Region, SQS(t, LocalSQS).Options().BaseEndpoint, SQS(t, LocalSQS).Options().Credentials},
		{"s3", S3(t).Options().Region, S3(t).Options().BaseEndpoint, S3(t).Options().Credentials},
	} {
		if want := "http://" + row.name + ".invalid"; *row.endpoint != want || row.region != "eu-central-1" {
			t.Errorf("%s is asked at %s in %s, want %s in eu-central-1", row.name, *row.endpoint, row.region, want)
		}
		if got, err := row.credentials.Retrieve(t.Context()); err != nil || got.AccessKeyID != "theirs" {
			t.Errorf("%s is asked as %q (error: %v), want the credentials of the environment", row.name, got.AccessKeyID, err)
		}
	}
}

// TestServersOutliveAClientThatIsKilled: one that dies in the middle of a request, as a worker does in the tests of kills, ended
// dynalite, and with it every test that came after.
func TestServersOutliveAClientThatIsKilled(t *testing.T) {
	for name, start := range all {
		s, err := start()
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			c, err := net.Dial("tcp", "127.0.0.1:"+portOf(t, s))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf of it"); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if err := c.(*net.TCPConn).SetLinger(0); err != nil { // the connection is reset
				t.Fatal(err)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		}
		r, err := http.Get("http://127.0.0.1:" + portOf(t, s)) //nolint:noctx // whatever it answers, it lives
		if err != nil {
			t.Errorf("%s does not answer any more: %v", name, err)
			continue
		}
		_ = r.Body.Close()
	}
}
