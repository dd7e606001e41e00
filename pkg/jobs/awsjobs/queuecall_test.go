package awsjobs_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/awsjobs"
)

// sqsRequest is what the fake SQS is asked, as it came over the wire.
type sqsRequest struct {
	Operation                                               string `json:"-"`
	QueueUrl                                                string //nolint:staticcheck // it is called so
	Entries                                                 []sqsEntry
	VisibilityTimeout, WaitTimeSeconds, MaxNumberOfMessages int
	members                                                 map[string]json.RawMessage
}

type sqsEntry struct {
	Id, MessageBody, MessageGroupId, ReceiptHandle string //nolint:staticcheck // they are called so
	VisibilityTimeout                              *int
	MessageSystemAttributes                        any
}

// fakeSQS takes a virtual second for each call. answer gives status and body, or an error instead of an answer; without it,
// or with status 0, everything was done.
type fakeSQS struct {
	answer func(r sqsRequest, nth int) (status int, body any, err error)

	mu             sync.Mutex
	calls          []sqsRequest
	underWay, most int
}

func (f *fakeSQS) Do(r *http.Request) (*http.Response, error) {
	_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	in := sqsRequest{Operation: operation}
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = errors.Join(json.Unmarshal(body, &in), json.Unmarshal(body, &in.members))
	}
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.calls = append(f.calls, in)
	nth := len(f.calls)
	f.underWay++
	f.most = max(f.most, f.underWay)
	f.mu.Unlock()
	time.Sleep(time.Second)
	f.mu.Lock()
	f.underWay--
	f.mu.Unlock()
	status, answer := 0, any(nil)
	if f.answer != nil {
		if status, answer, err = f.answer(in, nth); err != nil {
			return nil, err
		}
	}
	if status == 0 {
		status, answer = http.StatusOK, allDone(in)
	}
	out, err := json.Marshal(answer)
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/x-amz-json-1.0"}}, Body: io.NopCloser(bytes.NewReader(out)), Request: r}, err
}

type sqsAnswer = map[string]any

// allDone is the answer to a call that did all it was asked, except for the failures.
func allDone(r sqsRequest, failures ...sqsAnswer) sqsAnswer {
	switch r.Operation {
	case "GetQueueAttributes":
		return sqsAnswer{"Attributes": sqsAnswer{}}
	case "ReceiveMessage":
		var all []sqsAnswer
		for i := range r.MaxNumberOfMessages {
			all = append(all, sqsAnswer{"MessageId": fmt.Sprint("id-", i), "ReceiptHandle": fmt.Sprint("AQEB/+.", i), "Body": "{}"})
		}
		return sqsAnswer{"Messages": all}
	}
	all := []sqsAnswer{}
	for _, e := range r.Entries {
		if !slices.ContainsFunc(failures, func(f sqsAnswer) bool { return f["Id"] == e.Id }) {
			all = append(all, sqsAnswer{"Id": e.Id})
		}
	}
	return sqsAnswer{"Successful": all, "Failed": failures}
}

func entryFault(id, code, message string, sender bool) sqsAnswer {
	return sqsAnswer{"Id": id, "Code": code, "Message": message, "SenderFault": sender}
}

func sqsFault(code string) sqsAnswer {
	return sqsAnswer{"__type": "com.amazonaws.sqs#" + code, "message": "for a reason"}
}

// fakeQueue is a Queue on a fake SQS. Its test runs in a bubble.
func fakeQueue(f *fakeSQS) *awsjobs.Queue {
	client := sqs.New(sqs.Options{
		Region: "eu-west-1", BaseEndpoint: aws.String("http://sqs.invalid"), HTTPClient: f,
		Credentials: credentials.NewStaticCredentialsProvider("key", "secret", ""),
	})
	return awsjobs.NewQueue(client, awsjobs.QueueURLs{
		Ingest: "http://sqs.invalid/1/ingest", Work: "http://sqs.invalid/1/work", WorkDead: "http://sqs.invalid/1/work-dead",
	})
}

func (f *fakeSQS) sizes() (sizes []int) {
	for _, c := range f.calls {
		sizes = append(sizes, len(c.Entries))
	}
	slices.SortFunc(sizes, func(a, b int) int { return b - a })
	return sizes
}

func TestSendFillsItsCalls(t *testing.T) {
	of := func(sizes ...int) (bodies [][]byte) {
		for _, n := range sizes {
			bodies = append(bodies, bytes.Repeat([]byte("x"), n))
		}
		return bodies
	}
	const most = awsjobs.MaxBodyBytes
	for _, row := range []struct {
		name   string
		bodies [][]byte
		want   []int // entries of each call
		took   time.Duration
	}{
		{"nothing", nil, nil, 0},
		{"one", numberedBodies(1), []int{1}, time.Second},
		{"23 messages", numberedBodies(23), []int{10, 10, 3}, time.Second},
		{"two fill a call by their bytes", of(most/2, most/2, most/2, most/2), []int{2, 2}, time.Second},
		{"one byte too many for two", of(most/2, most/2+1), []int{1, 1}, time.Second},
		{"the largest", of(1, most, 1), []int{1, 1, 1}, time.Second},
		{"what no call takes is in none", of(1, most+1, 0, 1), []int{2}, time.Second},
		{"a thousand, eight calls at a time", numberedBodies(1000), slices.Repeat([]int{10}, 100), 13 * time.Second},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeSQS{}
				start := time.Now()
				unsent, err := fakeQueue(f).Send(t.Context(), jobs.QueueWork, row.bodies...)
				if err != nil {
					t.Fatal(err)
				}
				if took := time.Since(start); took != row.took || f.most > 8 {
					t.Errorf("took %s, %d calls at once; want %s and at most 8", took, f.most, row.took)
				}
				if diff := cmp.Diff(row.want, f.sizes()); diff != "" {
					t.Errorf("entries of each call (-want +got):\n%s", diff)
				}
				var sent []string
				for _, c := range f.calls {
					if c.Operation != "SendMessageBatch" || c.QueueUrl != "http://sqs.invalid/1/work" {
						t.Errorf("%s on %s", c.Operation, c.QueueUrl)
					}
					for _, e := range c.Entries {
						sent = append(sent, e.MessageBody)
						if e.MessageSystemAttributes != nil {
							t.Errorf("the trace header is touched: %v", e.MessageSystemAttributes)
						}
					}
				}
				var want []string
				for i, body := range row.bodies {
					if !slices.ContainsFunc(unsent, func(u jobs.Unsent) bool { return u.At == i }) {
						want = append(want, string(body))
					}
				}
				slices.Sort(sent)
				slices.Sort(want)
				if !slices.Equal(sent, want) {
					t.Errorf("sent %d messages, want %d, each once", len(sent), len(want))
				}
			})
		})
	}
}

// A body of the calls below says which one it is of: calls of ten are made of "message 0" to "message 22".
func holds(r sqsRequest, body string) bool {
	return slices.ContainsFunc(r.Entries, func(e sqsEntry) bool { return e.MessageBody == body })
}

func TestSendTellsWhatWasNotTaken(t *testing.T) {
	errReset := errors.New("connection reset")
	indexes := func(from, to int, code jobs.Code) map[int]jobs.Code {
		all := map[int]jobs.Code{}
		for i := from; i < to; i++ {
			all[i] = code
		}
		return all
	}
	for _, row := range []struct {
		name   string
		answer func(r sqsRequest, nth int) (int, any, error)
		want   map[int]jobs.Code // of what was unsent
		err    string            // instead
		calls  int
	}{
		{name: "all taken", calls: 3},
		{name: "entries fail", calls: 3, answer: func(r sqsRequest, _ int) (int, any, error) {
			if !holds(r, "message 10") {
				return 0, nil, nil
			}
			return 200, allDone(r,
				entryFault("0", "InvalidMessageContents", "Invalid characters found.", true),
				entryFault("2", "InvalidParameterValue", "One or more parameters are invalid. Reason: Message must be shorter than 262144 bytes.", true),
				entryFault("3", "AWS.SimpleQueueService.MessageTooLong", "One or more parameters cannot be longer than 262144 bytes.", true),
				entryFault("5", "InternalError", "We encountered an internal error.", false),
				entryFault("7", "RequestThrottled", "Rate exceeded.", true),
				entryFault("8", "ThrottlingException", "Rate exceeded.", true),
				entryFault("9", "OverLimit", "Too many.", true),
				entryFault("77", "InternalError", "Nobody asked.", false)), nil
		}, want: map[int]jobs.Code{10: jobs.CodeInvalid, 12: jobs.CodeLimit, 13: jobs.CodeLimit, 15: jobs.CodeInternal,
			17: jobs.CodeInternal, 18: jobs.CodeInternal, 19: jobs.CodeInternal}},
		{name: "entries are not mentioned", calls: 3, answer: func(r sqsRequest, _ int) (int, any, error) {
			if !holds(r, "message 20") {
				return 0, nil, nil
			}
			return 200, sqsAnswer{"Successful": []sqsAnswer{{"Id": "1"}}}, nil
		}, want: map[int]jobs.Code{20: jobs.CodeInternal, 22: jobs.CodeInternal}},
		{name: "an empty answer", calls: 3, answer: func(sqsRequest, int) (int, any, error) { return 200, sqsAnswer{}, nil }, want: indexes(0, 23, jobs.CodeInternal)},
		{name: "one call fails for good", calls: 3, answer: func(r sqsRequest, _ int) (int, any, error) {
			if !holds(r, "message 3") {
				return 0, nil, nil
			}
			return 400, sqsFault("QueueDoesNotExist"), nil
		}, want: indexes(0, 10, jobs.CodeInternal)},
		{name: "all calls fail for good", calls: 3, answer: func(sqsRequest, int) (int, any, error) { return 403, sqsFault("AccessDeniedException"), nil },
			err: "send 23 messages to queue work: SendMessageBatch on http://sqs.invalid/1/work: "},
		{name: "throttled, then taken", calls: 6, answer: func(_ sqsRequest, nth int) (int, any, error) {
			if nth <= 3 {
				return 400, sqsFault("RequestThrottled"), nil
			}
			return 0, nil, nil
		}},
		{name: "throttled for long", calls: 9, answer: func(sqsRequest, int) (int, any, error) { return 400, sqsFault("ThrottlingException"), nil }, err: "ThrottlingException"},
		{name: "over the limit", calls: 3, answer: func(sqsRequest, int) (int, any, error) { return 403, sqsFault("OverLimit"), nil }, err: "OverLimit"},
		{name: "500, then taken", calls: 5, answer: func(_ sqsRequest, nth int) (int, any, error) {
			if nth <= 2 {
				return 500, sqsFault("InternalFailure"), nil
			}
			return 0, nil, nil
		}},
		{name: "503 for long, one call", calls: 5, answer: func(r sqsRequest, _ int) (int, any, error) {
			if !holds(r, "message 22") {
				return 0, nil, nil
			}
			return 503, sqsFault("ServiceUnavailable"), nil
		}, want: indexes(20, 23, jobs.CodeInternal)},
		{name: "an answer is lost, and the call is made again", calls: 4, answer: func(_ sqsRequest, nth int) (int, any, error) {
			if nth == 1 {
				return 0, nil, errReset
			}
			return 0, nil, nil
		}},
		{name: "every answer is lost", calls: 9, answer: func(sqsRequest, int) (int, any, error) { return 0, nil, errReset }, err: "connection reset"},
		{name: "an answer is no JSON", calls: 3, answer: func(sqsRequest, int) (int, any, error) { return 200, "oops", nil }, err: "SendMessageBatch"},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeSQS{answer: row.answer}
				unsent, err := fakeQueue(f).Send(t.Context(), jobs.QueueWork, numberedBodies(23)...)
				if row.err != "" && (err == nil || !strings.Contains(err.Error(), row.err)) || row.err == "" && err != nil {
					t.Fatalf("error %v, want %q", err, row.err)
				}
				var got map[int]jobs.Code
				last := -1
				for _, u := range unsent {
					if got == nil {
						got = map[int]jobs.Code{}
					}
					got[u.At] = jobs.CodeOf(u.Err)
					if u.At <= last || u.Err == nil {
						t.Errorf("unsent %d after %d: %v", u.At, last, u.Err)
					}
					last = u.At
				}
				if diff := cmp.Diff(row.want, got); diff != "" {
					t.Errorf("unsent (-want +got):\n%s", diff)
				}
				if len(f.calls) != row.calls {
					t.Errorf("%d calls, want %d", len(f.calls), row.calls)
				}
			})
		})
	}
}

func TestSendBeginsNoCallOnceOneHasFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSQS{answer: func(_ sqsRequest, nth int) (int, any, error) {
			if nth > 8 {
				return 403, sqsFault("AccessDeniedException"), nil
			}
			return 0, nil, nil
		}}
		unsent, err := fakeQueue(f).Send(t.Context(), jobs.QueueWork, numberedBodies(1000)...)
		if err != nil || len(f.calls) != 16 || len(unsent) != 920 {
			t.Errorf("%d calls, %d unsent, %v; want 16, 920 and no error", len(f.calls), len(unsent), err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := fakeQueue(f).Send(ctx, jobs.QueueWork, numberedBodies(1000)...); !errors.Is(err, context.Canceled) {
			t.Errorf("with an ended context: %v", err)
		}
	})
}

func TestErrorsNameTheActionAndTheQueue(t *testing.T) {
	for name, call := range map[string]func(ctx context.Context, q *awsjobs.Queue) error{
		"SendMessage on http://sqs.invalid/1/work": func(ctx context.Context, q *awsjobs.Queue) error {
			_, err := q.Send(ctx, jobs.QueueWork, []byte("x"))
			return err
		},
		"SendMessage on http://sqs.invalid/1/work-dead": func(ctx context.Context, q *awsjobs.Queue) error {
			return q.Bury(ctx, jobs.Message{Queue: jobs.QueueWork, Body: []byte("x")}, jobs.Burial{})
		},
		"DeleteMessage on http://sqs.invalid/1/work": func(ctx context.Context, q *awsjobs.Queue) error {
			return q.Ack(ctx, jobs.Message{Queue: jobs.QueueWork, Receipt: "x"})
		},
		"ChangeMessageVisibility on http://sqs.invalid/1/work": func(ctx context.Context, q *awsjobs.Queue) error {
			return q.Defer(ctx, time.Time{}, jobs.Message{Queue: jobs.QueueWork, Receipt: "x"})
		},
		"ReceiveMessage on http://sqs.invalid/1/work": func(ctx context.Context, q *awsjobs.Queue) error {
			_, err := q.Receive(ctx, jobs.QueueWork, 1, time.Minute)
			return err
		},
		"GetQueueAttributes on http://sqs.invalid/1/work": func(ctx context.Context, q *awsjobs.Queue) error {
			_, err := q.Depth(ctx, jobs.QueueWork)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeSQS{answer: func(sqsRequest, int) (int, any, error) { return 403, sqsFault("AccessDeniedException"), nil }}
				action, url, _ := strings.Cut(name, " on ")
				err := call(t.Context(), fakeQueue(f))
				var e *jobs.Error
				if !errors.As(err, &e) || !strings.Contains(e.Hint, "sqs:"+action+" on the queue "+url+" ") {
					t.Errorf("error %v of hint %+v, want one that names %s", err, e, name)
				}
				if _, err := fakeQueue(f).Depth(t.Context(), jobs.QueueAggregate); err == nil || !strings.Contains(err.Error(), "was not told where the queue is") {
					t.Errorf("of a queue without a URL: %v", err)
				}
			})
		})
	}
}

// receiveAll takes n messages of a queue of the fake.
func receiveAll(t *testing.T, q *awsjobs.Queue, name jobs.QueueName, n int) (all []jobs.Message) {
	t.Helper()
	for len(all) < n {
		m, err := q.Receive(t.Context(), name, n-len(all), time.Minute)
		if err != nil || len(m) == 0 {
			t.Fatalf("received %d messages, %v", len(m), err)
		}
		all = append(all, m...)
	}
	return all
}

func TestReceiveAsksForWholeSeconds(t *testing.T) {
	for _, row := range []struct {
		n                   int
		visibility, wait    time.Duration
		wantN, wantV, wantW int
		calls               int
		code                jobs.Code
	}{
		{1, time.Minute, awsjobs.MaxWait, 1, 60, 20, 1, ""},
		{10, 1, time.Hour, 10, 1, 20, 1, ""},
		{11, 0, 0, 10, 1, 0, 1, ""},
		{99, 1500 * time.Millisecond, time.Millisecond, 10, 2, 1, 1, ""},
		{1, awsjobs.MaxHidden, 0, 1, 43200, 0, 1, ""},
		{1, awsjobs.MaxHidden + 1, 0, 0, 0, 0, 0, jobs.CodeLimit},
		{0, time.Minute, 0, 0, 0, 0, 0, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &fakeSQS{}
			q := fakeQueue(f)
			q.Wait = row.wait
			m, err := q.Receive(t.Context(), jobs.QueueWork, row.n, row.visibility)
			if (err != nil) != (row.code != "") || err != nil && jobs.CodeOf(err) != row.code || len(m) != row.wantN || len(f.calls) != row.calls {
				t.Fatalf("%+v: %d messages by %d calls, %v", row, len(m), len(f.calls), err)
			}
			if row.calls == 1 {
				c := f.calls[0]
				if c.MaxNumberOfMessages != row.wantN || c.VisibilityTimeout != row.wantV || c.WaitTimeSeconds != row.wantW {
					t.Errorf("%+v: asked for %+v", row, c)
				}
			}
		})
	}
}

func TestDeferKeepsToWhatIsLeftSinceTheReceive(t *testing.T) {
	for _, row := range []struct {
		name       string
		age, until time.Duration
		want       int // -1 = an error and no call
	}{
		{"a minute", 0, time.Minute, 60},
		{"part of a second", 0, 1, 1},
		{"seconds and a part", 0, 1500 * time.Millisecond, 2},
		{"now", 0, 0, 0},
		{"the past", 0, -time.Hour, 0},
		{"the past, of an old receipt", 13 * time.Hour, -time.Hour, 0},
		{"a long time ago", 0, -1 << 63, 0},
		{"all that is left", 11 * time.Hour, time.Hour - time.Second, 3599}, // the receive took the second
		{"a second more", 11 * time.Hour, time.Hour, -1},
		{"12 hours", 0, 12*time.Hour - time.Second, 12*3600 - 1},
		{"13 hours", 0, 13 * time.Hour, -1},
		{"a minute, of an old receipt", 12 * time.Hour, time.Minute, -1},
		{"for ever", 0, 1<<63 - 1, -1},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeSQS{}
				q := fakeQueue(f)
				old := receiveAll(t, q, jobs.QueueWork, 1)
				time.Sleep(row.age)
				f.calls = nil
				young := jobs.Message{Queue: jobs.QueueIngest, Receipt: "a handle without a time"}
				err := q.Defer(t.Context(), time.Now().Add(row.until), young, old[0])
				if row.want < 0 {
					if jobs.CodeOf(err) != jobs.CodeLimit || err == nil || len(f.calls) != 0 {
						t.Errorf("%v after %d calls, want an error of code limit and no call", err, len(f.calls))
					}
					return
				}
				if err != nil || len(f.calls) != 2 {
					t.Fatalf("%v after %d calls", err, len(f.calls))
				}
				for _, c := range f.calls {
					handle := map[string]string{"http://sqs.invalid/1/work": "AQEB/+.0", "http://sqs.invalid/1/ingest": "a handle without a time"}[c.QueueUrl]
					if e := c.Entries[0]; c.Operation != "ChangeMessageVisibilityBatch" || e.VisibilityTimeout == nil || *e.VisibilityTimeout != row.want || e.ReceiptHandle != handle {
						t.Errorf("%s on %s of %+v, want %d s", c.Operation, c.QueueUrl, e, row.want)
					}
				}
			})
		})
	}
}

func TestAckAndDeferCheckEachEntry(t *testing.T) {
	const (
		never   = "Value AQEB for parameter ReceiptHandle is invalid. Reason: Message does not exist or is not available for visibility timeout change."
		expired = "Value AQEB for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired."
		limit   = "Value 43200 for parameter VisibilityTimeout is invalid. Reason: Total VisibilityTimeout for the message is beyond the limit [43200 seconds]."
	)
	for _, row := range []struct {
		name     string
		failures []sqsAnswer
		status   int
		want     []string // in the error; none = no error
		code     jobs.Code
		calls    int
	}{
		{name: "all done", calls: 3},
		{name: "unknown receipts", calls: 3, failures: []sqsAnswer{
			entryFault("0", "ReceiptHandleIsInvalid", "The input receipt handle is invalid.", true),
			entryFault("1", "InvalidParameterValue", never, true),
			entryFault("2", "InvalidParameterValue", expired, true),
			entryFault("3", "AWS.SimpleQueueService.MessageNotInflight", "It is not in flight.", true),
		}},
		{name: "entries fail", calls: 3, code: jobs.CodeInternal, want: []string{"InternalError: It broke."}, failures: []sqsAnswer{
			entryFault("0", "InternalError", "It broke.", false), entryFault("4", "InternalError", "It broke.", false)}},
		{name: "entries are throttled", calls: 3, code: jobs.CodeInternal, want: []string{"RequestThrottled: Rate exceeded."}, failures: []sqsAnswer{
			entryFault("2", "RequestThrottled", "Rate exceeded.", true)}},
		{name: "past what SQS allows", calls: 3, code: jobs.CodeLimit, want: []string{"beyond the limit"}, failures: []sqsAnswer{
			entryFault("0", "InvalidParameterValue", limit, true)}},
		{name: "the calls fail", calls: 9, status: 503, code: jobs.CodeInternal, want: []string{"Batch on http://sqs.invalid/1/work"}},
	} {
		for operation, do := range map[string]func(ctx context.Context, q *awsjobs.Queue, m []jobs.Message) error{
			"ack": func(ctx context.Context, q *awsjobs.Queue, m []jobs.Message) error { return q.Ack(ctx, m...) },
			"defer": func(ctx context.Context, q *awsjobs.Queue, m []jobs.Message) error {
				return q.Defer(ctx, time.Now().Add(time.Minute), m...)
			},
		} {
			t.Run(operation+"/"+row.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := &fakeSQS{}
					q := fakeQueue(f)
					m := receiveAll(t, q, jobs.QueueWork, 23)
					f.calls = nil
					f.answer = func(r sqsRequest, _ int) (int, any, error) {
						if row.status != 0 {
							return row.status, sqsFault("ServiceUnavailable"), nil
						}
						if len(r.Entries) == 3 { // the last call
							return 0, nil, nil
						}
						return 200, allDone(r, row.failures...), nil
					}
					err := do(t.Context(), q, m)
					if len(row.want) == 0 && err != nil || len(row.want) > 0 && err == nil {
						t.Fatalf("error %v, want %q", err, row.want)
					}
					for _, want := range append(row.want, operation+" 23 messages: ") {
						if err != nil && (!strings.Contains(err.Error(), want) || jobs.CodeOf(err) != row.code) {
							t.Errorf("error %v of code %s, want %q of %s", err, jobs.CodeOf(err), want, row.code)
						}
					}
					if len(f.calls) != row.calls {
						t.Errorf("%d calls, want %d", len(f.calls), row.calls)
					}
					if row.status == 0 && !slices.Equal(f.sizes(), []int{10, 10, 3}) {
						t.Errorf("entries of each call: %v", f.sizes())
					}
				})
			})
		}
	}
}

func TestCallsGoToTheQueueOfTheMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSQS{}
		q := fakeQueue(f)
		var mixed []jobs.Message
		work, ingest := receiveAll(t, q, jobs.QueueWork, 10), receiveAll(t, q, jobs.QueueIngest, 10)
		for i := range work {
			mixed = append(mixed, work[i], ingest[i])
		}
		f.calls = nil
		if err := q.Ack(t.Context(), mixed...); err != nil || !slices.Equal(f.sizes(), []int{10, 10}) || f.calls[0].QueueUrl == f.calls[1].QueueUrl {
			t.Errorf("ack of two queues by calls of %v entries, %v", f.sizes(), err)
		}
		f.calls = nil
		if err := errors.Join(q.Ack(t.Context()), q.Defer(t.Context(), time.Now())); err != nil || len(f.calls) > 0 {
			t.Errorf("of no messages: %d calls, %v", len(f.calls), err)
		}
	})
}

func TestGroups(t *testing.T) {
	body := bodyOf(t, chunkOf("job-1"))
	named := chunkOf("job-1")
	named.Tenant = "tenant-1"
	tenant := func(s string) func([]byte) string { return func([]byte) string { return s } }
	for _, row := range []struct {
		name  string
		group func([]byte) string
		body  []byte
		want  string
	}{
		{"a chunk's tenant", awsjobs.TenantOf, bodyOf(t, named), "tenant-1"},
		{"the job of a chunk that names no tenant", awsjobs.TenantOf, body, "job-1"},
		{"an advance's job", awsjobs.TenantOf, bodyOf(t, jobs.AdvanceMessage{V: 1, Job: "job-2", Split: jobs.WholeJob}), "job-2"},
		{"a notice's tenant", awsjobs.TenantOf, bodyOf(t, jobs.NoticeMessage{V: 1, Notice: "dlv_1", Tenant: "tenant-3", Attempt: 1, URL: "https://x",
			EventID: "evt_1", Timestamp: 1, Signature: "v1,x", Body: "{}"}), "tenant-3"},
		{"a report's tenant", awsjobs.TenantOf, bodyOf(t, jobs.DeliveredMessage{V: 1, Delivered: "dlv_1", Tenant: "tenant-4", Attempt: 1, At: time.Unix(1, 0)}), "tenant-4"},
		{"a tick's none", awsjobs.TenantOf, jobs.TickBody(), ""},
		{"none of what cannot be read", awsjobs.TenantOf, []byte("{"), ""},
		{"none at all", nil, body, ""},
		{"what it is told", tenant("tenant/7~!"), body, "tenant/7~!"},
		{"a space", tenant("a b"), body, digest("a b")},
		{"beyond ASCII", tenant("ä"), body, digest("ä")},
		{"as long as it may be", tenant(strings.Repeat("x", 128)), body, strings.Repeat("x", 128)},
		{"too long", tenant(strings.Repeat("x", 129)), body, digest(strings.Repeat("x", 129))},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeSQS{}
				q := fakeQueue(f)
				if row.name != "a chunk's tenant" { // that is what NewQueue sets
					q.Group = row.group
				}
				if _, err := q.Send(t.Context(), jobs.QueueWork, row.body); err != nil {
					t.Fatal(err)
				}
				if got := f.calls[0].Entries[0].MessageGroupId; got != row.want {
					t.Errorf("group %q, want %q", got, row.want)
				}
				if err := q.Bury(t.Context(), jobs.Message{Queue: jobs.QueueWork, Body: row.body}, jobs.Burial{}); err != nil {
					t.Fatal(err)
				}
				want, _ := json.Marshal(row.want)
				if got := f.calls[1].members["MessageGroupId"]; row.want != "" && !bytes.Equal(got, want) || row.want == "" && got != nil {
					t.Errorf("buried with group %s, want %s", got, want)
				}
			})
		})
	}
}

// Messages are JSON, which escapes control characters and replaces what is not UTF-8. Two characters are left that SQS
// refuses; no id that fanout makes has them, and a message that did is refused before it spoils a call.
func TestMessagesHaveOnlyCharactersThatSQSTakes(t *testing.T) {
	hostile := []rune("\x00\x01\b\t\n\v\f\r\x1b\x1f\x7f\u0080\u0085\u2028\u2029\ufdd0\ufffd\U0001F600\U0001FFFE\U0010FFFF\"\\<>&")
	rapid.Check(t, func(t *rapid.T) {
		id := jobs.JobID(rapid.OneOf(rapid.StringOf(rapid.RuneFrom(hostile)), rapid.String(),
			rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) })).
			Filter(func(s string) bool { return !strings.ContainsAny(s, "\ufffe\uffff") }).Draw(t, "id"))
		for _, m := range []any{chunkOf(id), jobs.AdvanceMessage{V: 1, Job: id}, jobs.TickMessage{V: 1, Sweep: true}} {
			for _, r := range string(bodyOf(t, m)) {
				if ok := r == 9 || r == 10 || r == 13 || r >= 0x20 && r <= 0xD7FF || r >= 0xE000 && r <= 0xFFFD || r >= 0x10000; !ok {
					t.Fatalf("%T of id %q has %U", m, id, r)
				}
			}
		}
	})
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSQS{}
		q := fakeQueue(f)
		taken := bodyOf(t, chunkOf(jobs.JobID(hostile)))
		for _, refused := range []string{
			string(bodyOf(t, chunkOf("\ufffe"))), string(bodyOf(t, chunkOf("\uffff"))), "\x00", "\x0b", "\x1f", "\xff", "\xed\xa0\x80",
		} {
			f.calls = nil
			unsent, err := q.Send(t.Context(), jobs.QueueWork, taken, []byte(refused), taken)
			if err != nil || len(unsent) != 1 || unsent[0].At != 1 || jobs.CodeOf(unsent[0].Err) != jobs.CodeInvalid || !slices.Equal(f.sizes(), []int{2}) {
				t.Errorf("with %q: unsent %v, %v, by calls of %v", refused, unsent, err, f.sizes())
			}
		}
	})
}

func digest(s string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(s))) }

func chunkOf(job jobs.JobID) *jobs.ChunkMessage {
	return &jobs.ChunkMessage{V: 1, Job: job, Length: 1, Line: 1, Lines: 1}
}

// bodyOf writes a message as pkg/jobs does.
func bodyOf(t interface{ Fatal(...any) }, m any) []byte {
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
