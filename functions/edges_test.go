package functions

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/fanout-inference/fanout/internal/lambdatest"
	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/upstream/upstreamtest"
)

// TestWhatNobodyCanHandleIsLeftBuriedOrDropped: what is newer than the functions comes again, for a newer one; what cannot be
// read goes to the dead letters of its queue, with the reason; what is of no job is dropped, and told.
func TestWhatNobodyCanHandleIsLeftBuriedOrDropped(t *testing.T) {
	t.Parallel()
	const newer, broken = `{"v":2,"of":"tomorrow"}`, `{"v":1,"advance":`
	ofNobody := map[string]string{
		"ingest":    `{"v":1,"advance":"nobody","split":-1}`,
		"work":      `{"v":1,"job":"nobody","split":0,"offset":0,"length":10,"line":1,"lines":1,"crc":1}`,
		"aggregate": `{"v":1,"advance":"nobody","split":0}`,
	}
	s := newStage(t, plan{upstream: (&upstreamtest.Server{}).Start(t)})
	type body struct{ queue, text string }
	var mu sync.Mutex
	deleted, kept := map[body]int{}, map[body]int{}
	for queue, m := range s.mappings {
		m.OnResult = func(d lambdatest.Delivery) {
			var again []types.Message
			mu.Lock()
			for _, m := range d.Messages {
				b := body{queue, aws.ToString(m.Body)}
				for _, id := range d.Deleted {
					if id == aws.ToString(m.MessageId) {
						deleted[b]++
					}
				}
				for _, id := range d.Kept {
					if id == aws.ToString(m.MessageId) {
						kept[b]++
						again = append(again, m)
					}
				}
			}
			mu.Unlock()
			s.show(t, queue, again)
		}
		s.mappings[queue] = m
	}
	s.start(t)
	for queue := range s.mappings {
		for _, text := range []string{newer, broken, ofNobody[queue]} {
			s.send(t, queue, text)
		}
	}
	functions := map[string]*lambdatest.Function{"ingest": s.ingest, "work": s.worker, "aggregate": s.aggregate}
	for queue, f := range functions {
		err := s.sources[queue].WaitFor(t.Context(), func(context.Context) (bool, error) {
			mu.Lock()
			defer mu.Unlock()
			left := kept[body{queue, newer}] > 1 || deleted[body{queue, newer}] > 0
			return left && deleted[body{queue, broken}] == 1 && deleted[body{queue, ofNobody[queue]}] == 1, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		if n := deleted[body{queue, newer}]; n > 0 {
			t.Errorf("%s: a message of a newer version was deleted", queue)
		}
		mu.Unlock()
		dead := s.dead(t, queue)
		if len(dead) != 1 || aws.ToString(dead[0].Body) != broken {
			t.Fatalf("%s: the dead letters are %+v, want the one that cannot be read", queue, dead)
		}
		code, why := attribute(dead[0], "code"), attribute(dead[0], "message")
		if code != string(jobs.CodeInvalid) || !strings.Contains(why, "decode message") {
			t.Errorf("%s: it was buried for %q: %q", queue, code, why)
		}
		if log := strings.Join(f.Log(t), "\n"); !strings.Contains(log, "dropped a message of an unknown job") || !strings.Contains(log, `"job":"nobody"`) {
			t.Errorf("%s: nobody tells of the message of no job", queue)
		}
	}
}

// TestAnUploadThatIsGoneIsAJobThatFailed: what came in its place is never taken for it.
func TestAnUploadThatIsGoneIsAJobThatFailed(t *testing.T) {
	t.Parallel()
	s := newStage(t, plan{upstream: (&upstreamtest.Server{}).Start(t)})
	s.start(t)
	for _, row := range []struct {
		tenant, code string
		before       func(key string) // the function hears of it
	}{
		{"deleted", "input_gone", func(key string) {
			if _, err := s.s3.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &s.bucket, Key: &key}); err != nil {
				t.Fatal(err)
			}
		}},
		{"overwritten", "input_modified", func(key string) { s.upload(t, key, ask(3, nil)) }},
	} {
		key := "inbox/" + row.tenant + "/a.jsonl"
		notification := s.upload(t, key, ask(2, nil))
		etag := s.etag(t, key)
		row.before(key)
		s.send(t, "ingest", notification)
		j := s.job(t, row.tenant)
		if j.Phase != jobs.PhaseFailed || j.Stop == nil || j.Stop.Code != row.code {
			t.Fatalf("%s: the job is %s: %+v", row.tenant, j.Phase, j.Stop)
		}
		for _, part := range []string{key, etag} {
			if !strings.Contains(j.Stop.Reason, part) {
				t.Errorf("%s: the reason does not name %s: %s", row.tenant, part, j.Stop.Reason)
			}
		}
		if j.Outputs != nil {
			t.Errorf("%s: it has outputs: %+v", row.tenant, j.Outputs)
		}
	}
	s.nothingDead(t)
}

// show shows messages that were kept at once. Of a receipt that is no longer good SQS says so.
func (s *stage) show(t *testing.T, queue string, messages []types.Message) {
	url := s.queues[queue]
	for _, m := range messages {
		_, err := s.sqs.ChangeMessageVisibility(t.Context(), &sqs.ChangeMessageVisibilityInput{QueueUrl: &url, ReceiptHandle: m.ReceiptHandle})
		if err != nil && t.Context().Err() == nil {
			t.Log(err)
		}
	}
}

// dead are dead letters of a queue, as many as one call gives.
func (s *stage) dead(t *testing.T, queue string) []types.Message {
	t.Helper()
	url := s.queues[queue+"-dead"]
	got, err := s.sqs.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{
		QueueUrl: &url, MaxNumberOfMessages: 10, MessageAttributeNames: []string{"All"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return got.Messages
}

func attribute(m types.Message, name string) string {
	return aws.ToString(m.MessageAttributes[name].StringValue)
}

// etag is that of an object, without quotes.
func (s *stage) etag(t *testing.T, key string) string {
	t.Helper()
	head, err := s.s3.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &s.bucket, Key: &key})
	if err != nil {
		t.Fatal(fmt.Errorf("look at %s: %w", key, err))
	}
	return strings.Trim(aws.ToString(head.ETag), `"`)
}
