package awsjobs_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/google/go-cmp/cmp"

	"github.com/fanout-inference/fanout/internal/awstest"
	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/awsjobs"
	"github.com/fanout-inference/fanout/pkg/jobs/poll"
	"github.com/fanout-inference/fanout/pkg/jobs/poll/polltest"
)

func TestSource(t *testing.T) {
	polltest.TestSource(t, func(t *testing.T, claim func(t *testing.T, s polltest.SourceUnderTest)) {
		t.Parallel() // each has queues of its own, and most of the time is waited
		q := openQueue(t, awstest.Fauxqs)
		q.Wait = awsjobs.MaxWait
		s := awsjobs.NewSource(q)
		claim(t, polltest.SourceUnderTest{Source: s, Queue: s})
	})
}

// hides lists the visibilities that a fake SQS was asked for, message by message.
func (f *fakeSQS) hides() map[string][]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := map[string][]int{}
	for _, c := range f.calls {
		for _, e := range c.Entries {
			if e.VisibilityTimeout != nil {
				all[e.ReceiptHandle] = append(all[e.ReceiptHandle], *e.VisibilityTimeout)
			}
		}
	}
	return all
}

func TestSourceLeavesToTheHandlerWhatItDeferred(t *testing.T) {
	const minute = time.Minute
	for _, row := range []struct {
		name string
		do   func(ctx context.Context, s *awsjobs.Source, m []jobs.Message) error
		want map[string][]int
	}{
		{"renew one of two", func(ctx context.Context, s *awsjobs.Source, m []jobs.Message) error {
			if err := s.Defer(ctx, time.Now().Add(3*minute), m[0]); err != nil {
				return err
			}
			return s.Renew(ctx, time.Now().Add(minute), m...)
		}, map[string][]int{"AQEB/+.0": {180}, "AQEB/+.1": {60}}},
		{"put off one of two, and again since one cannot know", func(ctx context.Context, s *awsjobs.Source, m []jobs.Message) error {
			if err := s.Defer(ctx, time.Now(), m[1]); err != nil {
				return err
			}
			return s.PutOff(ctx, time.Now().Add(minute), m...)
		}, map[string][]int{"AQEB/+.0": {60}, "AQEB/+.1": {0}}},
		{"none of them is left", func(ctx context.Context, s *awsjobs.Source, m []jobs.Message) error {
			if err := s.Defer(ctx, time.Now().Add(minute), m...); err != nil {
				return err
			}
			return s.PutOff(ctx, time.Now(), m...)
		}, map[string][]int{"AQEB/+.0": {60}, "AQEB/+.1": {60}}},
		{"a deferral that was refused is none", func(ctx context.Context, s *awsjobs.Source, m []jobs.Message) error {
			if err := s.Defer(ctx, time.Now().Add(13*time.Hour), m...); jobs.CodeOf(err) != jobs.CodeLimit {
				return err
			}
			return s.PutOff(ctx, time.Now().Add(minute), m...)
		}, map[string][]int{"AQEB/+.0": {60}, "AQEB/+.1": {60}}},
		{"as late as can be", func(ctx context.Context, s *awsjobs.Source, m []jobs.Message) error {
			return s.PutOff(ctx, time.Now().AddDate(1, 0, 0), m...)
		}, map[string][]int{"AQEB/+.0": {12*3600 - 2}, "AQEB/+.1": {12*3600 - 2}}}, // the receive took a second
		{"at once when nothing is left", func(ctx context.Context, s *awsjobs.Source, m []jobs.Message) error {
			time.Sleep(13 * time.Hour)
			return s.PutOff(ctx, time.Now().Add(minute), m...)
		}, map[string][]int{"AQEB/+.0": {0}, "AQEB/+.1": {0}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeSQS{}
				s := awsjobs.NewSource(fakeQueue(f))
				if err := row.do(t.Context(), s, receiveAll(t, s.Queue, jobs.QueueWork, 2)); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(row.want, f.hides()); diff != "" {
					t.Errorf("visibilities asked for (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestSourcePutsOffAgainWhatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSQS{}
		s := awsjobs.NewSource(fakeQueue(f))
		m := receiveAll(t, s.Queue, jobs.QueueWork, 2)
		if err := s.Defer(t.Context(), time.Now().Add(time.Hour), m[0]); err != nil {
			t.Fatal(err)
		}
		fails := true
		f.answer = func(r sqsRequest, _ int) (int, any, error) {
			if fails {
				return 200, allDone(r, entryFault("0", "InternalError", "It broke.", false)), nil
			}
			return 0, nil, nil
		}
		if err := s.PutOff(t.Context(), time.Now().Add(time.Minute), m...); err == nil {
			t.Error("no error of what was not put off")
		}
		fails = false
		if err := s.PutOff(t.Context(), time.Now().Add(time.Minute), m...); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(map[string][]int{"AQEB/+.0": {3600}, "AQEB/+.1": {60, 60}}, f.hides()); diff != "" {
			t.Errorf("visibilities asked for (-want +got):\n%s", diff)
		}
	})
}

func TestAPumpGivesBackBeforeSQSShowsTheMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		received := time.Time{}
		f := &fakeSQS{answer: func(r sqsRequest, _ int) (int, any, error) {
			mu.Lock()
			defer mu.Unlock()
			if r.Operation == "ReceiveMessage" && !received.IsZero() {
				time.Sleep(time.Duration(r.WaitTimeSeconds) * time.Second)
				return 200, sqsAnswer{}, nil
			}
			if r.Operation == "ReceiveMessage" {
				received = time.Now()
			}
			return 0, nil, nil
		}}
		s := awsjobs.NewSource(fakeQueue(f))
		stop, ended := make(chan struct{}), make(chan error)
		h := pollHandler(func(ctx context.Context, m []jobs.Message) []jobs.Failure {
			<-ctx.Done()
			if left := time.Until(received.Add(awsjobs.MaxHidden)); left < time.Minute || left > 3*time.Minute {
				t.Errorf("the handler's context ended %s before the limit", left)
			}
			now := time.Now() // as a worker gives a chunk back
			if err := s.Defer(context.WithoutCancel(ctx), now, m...); err != nil {
				t.Error(err)
			}
			close(stop)
			return []jobs.Failure{{ID: m[0].ID, Err: &jobs.Deferred{Until: now, Why: "draining"}}}
		})
		p := poll.Pump{Source: s}
		go func() { ended <- p.Run(t.Context(), stop, poll.Lane{Queue: jobs.QueueWork, Handler: h}) }()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		hides := f.hides()["AQEB/+.0"]
		if last := hides[len(hides)-1]; last != 0 || len(hides) < 1000 {
			t.Errorf("%d changes of visibility, the last to %d; want one every 41 s and 0 at the end", len(hides), last)
		}
		for i, hide := range hides[:len(hides)-1] {
			if hide != 120 {
				t.Fatalf("change %d of visibility is to %d s, want 120", i, hide)
			}
		}
	})
}

// pollHandler makes a function a handler.
type pollHandler func(ctx context.Context, m []jobs.Message) []jobs.Failure

func (f pollHandler) Handle(ctx context.Context, m []jobs.Message) []jobs.Failure { return f(ctx, m) }

// roundTrip makes a function an HTTP client.
type roundTrip func(r *http.Request) (*http.Response, error)

func (f roundTrip) Do(r *http.Request) (*http.Response, error) { return f(r) }

func sourceOn(f roundTrip) *awsjobs.Source {
	return awsjobs.NewSource(awsjobs.NewQueue(sqs.New(sqs.Options{
		Region: "eu-west-1", BaseEndpoint: aws.String("http://sqs.invalid"), HTTPClient: f, RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider("key", "secret", ""),
	}), awsjobs.QueueURLs{Work: "http://sqs.invalid/1/work"}))
}

func TestAwaitAsksOnceASecondAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		s := sourceOn(func(r *http.Request) (*http.Response, error) { // it does not wait, as with too many messages in flight
			calls++
			return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/x-amz-json-1.0"}}, Body: io.NopCloser(strings.NewReader("{}")), Request: r}, nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute-time.Second/2)
		defer cancel()
		if m, err := s.Await(ctx, jobs.QueueWork, 10, time.Minute); len(m) > 0 || err != nil {
			t.Errorf("received %v, %v", m, err)
		}
		if calls != 60 {
			t.Errorf("asked %d times in a minute, want 60", calls)
		}
	})
}

func TestNothingHangsWithSQS(t *testing.T) {
	m := jobs.Message{Queue: jobs.QueueWork, Receipt: "1.handle"}
	for _, row := range []struct {
		name string
		do   func(ctx context.Context, s *awsjobs.Source) error
		want time.Duration
	}{
		{"await", func(ctx context.Context, s *awsjobs.Source) error {
			_, err := s.Await(ctx, jobs.QueueWork, 1, time.Minute)
			return err
		}, 50 * time.Second},
		{"ack", func(ctx context.Context, s *awsjobs.Source) error { return s.Ack(ctx, m) }, 30 * time.Second},
		{"renew", func(ctx context.Context, s *awsjobs.Source) error { return s.Renew(ctx, time.Time{}, m) }, 30 * time.Second},
		{"put off", func(ctx context.Context, s *awsjobs.Source) error { return s.PutOff(ctx, time.Time{}, m) }, 30 * time.Second},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := sourceOn(func(r *http.Request) (*http.Response, error) {
					<-r.Context().Done()
					return nil, r.Context().Err()
				})
				start := time.Now()
				if err := row.do(t.Context(), s); err == nil || time.Since(start) != row.want {
					t.Errorf("%v after %s, want an error after %s", err, time.Since(start), row.want)
				}
			})
		})
	}
}
