package awsjobs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/google/go-cmp/cmp"

	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/awsjobs"
)

// tableWire stands between a client and the table: it writes down what is asked, and may meddle.
type tableWire struct {
	through interface {
		Do(*http.Request) (*http.Response, error)
	}
	mu     sync.Mutex
	sent   []tableRequest
	meddle func(n int, r *http.Request) (*http.Response, error) // the n-th request since forget, from 1; nil, nil = let through
}

type tableRequest struct{ operation, body string }

// install makes a client use the wire, and try again without waiting, however often.
func (w *tableWire) install(o *dynamodb.Options) {
	o.HTTPClient = w
	o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) {
		o.RateLimiter = ratelimit.None
		o.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 0, nil })
	})
}

func (w *tableWire) Do(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	w.mu.Lock()
	w.sent = append(w.sent, tableRequest{operation, string(body)})
	n, meddle := len(w.sent), w.meddle
	w.mu.Unlock()
	if meddle != nil {
		if answer, err := meddle(n, r); answer != nil || err != nil {
			return answer, err
		}
	}
	return w.through.Do(r)
}

// forget forgets what was asked, and sets how the wire meddles from here on.
func (w *tableWire) forget(meddle ...func(n int, r *http.Request) (*http.Response, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent, w.meddle = nil, nil
	for _, m := range meddle {
		w.meddle = m
	}
}

func (w *tableWire) operations() (all []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.sent {
		all = append(all, r.operation)
	}
	return all
}

// answer is an answer of the table.
func answer(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/x-amz-json-1.0"}}, Body: io.NopCloser(strings.NewReader(body))}
}

// refusal is an answer that says no, in the words of DynamoDB.
func refusal(status int, kind, message string) *http.Response {
	return answer(status, fmt.Sprintf(`{"__type":"com.amazonaws.dynamodb.v20120810#%s","message":%q}`, kind, message))
}

func TestLostAnswerOfASave(t *testing.T) {
	reset := errors.New("connection reset by peer")
	for _, row := range []struct {
		what string
		// mine saves, by the request that was made for it; theirs does as another process.
		meddle   func(tt *testTable, n int, send func(), theirs func(revision int64)) (*http.Response, error)
		conflict bool
		err      string // what the error says; "" and no conflict = it was saved
		want     []string
	}{
		{"the answer is lost", func(_ *testTable, n int, send func(), _ func(int64)) (*http.Response, error) {
			if n > 1 {
				return nil, nil
			}
			send()
			return nil, reset
		}, false, "", []string{"PutItem", "PutItem", "GetItem"}},
		{"the answer is an error of the service, but the write happened", func(_ *testTable, n int, send func(), _ func(int64)) (*http.Response, error) {
			if n > 1 {
				return nil, nil
			}
			send()
			return refusal(500, "InternalServerError", "sorry"), nil
		}, false, "", []string{"PutItem", "PutItem", "GetItem"}},
		{"the refusal brings what is there", func(tt *testTable, n int, send func(), _ func(int64)) (*http.Response, error) {
			if n == 1 {
				send()
				return nil, reset
			}
			_, by, _ := strings.Cut(tt.sent[0].body, `"by":`)
			by, _, _ = strings.Cut(by, "}")
			return answer(400, `{"__type":"com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException","message":"no","Item":{"rev":{"N":"2"},"by":`+by+`}}}`), nil
		}, false, "", []string{"PutItem", "PutItem"}},
		{"the request is lost, and another is faster", func(_ *testTable, n int, _ func(), theirs func(int64)) (*http.Response, error) {
			if n > 1 {
				return nil, nil
			}
			theirs(1)
			return nil, reset
		}, true, "", []string{"PutItem", "PutItem", "GetItem"}},
		{"the answer is lost, and another saves over it", func(_ *testTable, n int, send func(), theirs func(int64)) (*http.Response, error) {
			if n > 1 {
				return nil, nil
			}
			send()
			theirs(2)
			return nil, reset
		}, false, "nothing is known of it", []string{"PutItem", "PutItem", "GetItem"}},
		{"throttled, and another is faster", func(_ *testTable, n int, _ func(), theirs func(int64)) (*http.Response, error) {
			if n > 1 {
				return nil, nil
			}
			theirs(1)
			return refusal(400, "ProvisionedThroughputExceededException", "slower"), nil
		}, true, "", []string{"PutItem", "PutItem"}},
		{"all answers are lost", func(_ *testTable, _ int, send func(), _ func(int64)) (*http.Response, error) {
			send()
			return nil, reset
		}, false, "connection reset by peer", []string{"PutItem", "PutItem", "PutItem"}},
	} {
		t.Run(row.what, func(t *testing.T) {
			tt, another := newTable(t), (*testTable)(nil)
			s := tt.open()
			j := aJob("job")
			must(t, s.SaveJob(t.Context(), j))
			another = &testTable{&tableWire{through: tt.through}, nil, tt.name}
			another.client = dynamodb.New(tt.client.Options(), another.install)
			theirs := func(revision int64) {
				k := *j
				k.Revision, k.Tenant = revision, "theirs"
				must(t, another.open().SaveJob(t.Context(), &k))
			}
			tt.forget(func(n int, r *http.Request) (*http.Response, error) {
				return row.meddle(tt, n, func() {
					if sent, err := tt.through.Do(r); err == nil {
						_ = sent.Body.Close()
					}
				}, theirs)
			})
			mine := *j
			mine.Tenant = "mine"
			err := s.SaveJob(t.Context(), &mine)
			switch {
			case errors.Is(err, jobs.ErrConflict) != row.conflict, row.err == "" && !row.conflict && err != nil, !strings.Contains(fmt.Sprint(err), row.err):
				t.Errorf("save: %v; want conflict %v, error %q", err, row.conflict, row.err)
			case err != nil && mine.Revision != 1, err == nil && mine.Revision != 2:
				t.Errorf("revision %d after %v", mine.Revision, err)
			}
			if diff := cmp.Diff(row.want, tt.operations()); diff != "" {
				t.Errorf("requests (-want +sent):\n%s", diff)
			}
			if err == nil {
				tt.forget()
				if got, err := s.Job(t.Context(), "job"); err != nil || got.Tenant != "mine" || got.Revision != mine.Revision {
					t.Errorf("then read: %+v, %v", got, err)
				}
			}
		})
	}
}

// scripted is a store whose table answers as it is told.
func scripted(meddle func(n int, r *http.Request) (*http.Response, error)) (*awsjobs.Store, *tableWire) {
	w := &tableWire{meddle: meddle}
	c := dynamodb.New(dynamodb.Options{Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("id", "secret", ""), BaseEndpoint: aws.String("http://nowhere.invalid")}, w.install)
	return awsjobs.NewStore(c, "ledger"), w
}

// lastOf is the error that an iterator ends with.
func lastOf[R any](records iter.Seq2[R, error]) (last error) {
	for _, err := range records {
		last = err
	}
	return last
}

func TestTroubleIsToldWithOperationAndTable(t *testing.T) {
	operations := map[string]func(s *awsjobs.Store) error{
		"GetItem":      func(s *awsjobs.Store) error { _, err := s.Job(t.Context(), "job"); return err },
		"PutItem":      func(s *awsjobs.Store) error { return s.SaveJob(t.Context(), aJob("job")) },
		"Query":        func(s *awsjobs.Store) error { return lastOf(s.Splits(t.Context(), "job")) },
		"BatchGetItem": func(s *awsjobs.Store) error { return lastOf(s.Jobs(t.Context(), jobs.JobQuery{Open: true})) },
	}
	const denied = "User: arn:aws:sts::1:assumed-role/worker is not authorized to perform: dynamodb:it on resource: arn:aws:dynamodb:us-east-1:1:table/ledger"
	for _, row := range []struct {
		what   string
		answer func() (*http.Response, error)
		tries  int
		says   string
		hint   bool
	}{
		{"throttled", func() (*http.Response, error) {
			return refusal(400, "ProvisionedThroughputExceededException", "slower, please"), nil
		}, 3, "slower, please", false},
		{"throttled on demand", func() (*http.Response, error) { return refusal(400, "ThrottlingException", "slower, please"), nil }, 3, "slower, please", false},
		{"an error of the service", func() (*http.Response, error) { return refusal(500, "InternalServerError", "sorry"), nil }, 3, "sorry", false},
		{"unavailable", func() (*http.Response, error) { return answer(503, "<html>"), nil }, 3, "503", false},
		{"a broken connection", func() (*http.Response, error) { return nil, io.ErrUnexpectedEOF }, 3, "EOF", false},
		{"no table", func() (*http.Response, error) { return refusal(400, "ResourceNotFoundException", "no such table"), nil }, 1, "no such table", false},
		{"no permission", func() (*http.Response, error) { return refusal(400, "AccessDeniedException", denied), nil }, 1, denied, true},
	} {
		for operation, do := range operations {
			t.Run(row.what+" at "+operation, func(t *testing.T) {
				s, wire := scripted(func(n int, r *http.Request) (*http.Response, error) {
					if strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".Query") && operation == "BatchGetItem" {
						return answer(200, `{"Items":[{"pk":{"S":"J#a"},"sk":{"S":"job"},"open":{"S":"J"}}]}`), nil
					}
					return row.answer()
				})
				err := do(s)
				if err == nil || !strings.Contains(err.Error(), operation+" on table ledger: ") || !strings.Contains(err.Error(), row.says) {
					t.Errorf("%v; want operation, table and %q", err, row.says)
				}
				if strings.Count(fmt.Sprint(err), operation) > 1 {
					t.Errorf("%v: names the operation more than once", err)
				}
				tries := 0
				for _, o := range wire.operations() {
					if o == operation {
						tries++
					}
				}
				if tries != row.tries {
					t.Errorf("%d tries, want %d", tries, row.tries)
				}
				var e *jobs.Error
				if errors.As(err, &e) != row.hint || row.hint && (!strings.Contains(e.Hint, "dynamodb:"+operation) || !strings.Contains(e.Hint, "ledger")) {
					t.Errorf("hint: %+v; want %v", e, row.hint)
				}
				for _, sentinel := range []error{jobs.ErrConflict, jobs.ErrNotFound} {
					if errors.Is(err, sentinel) {
						t.Errorf("%v is taken for %v", err, sentinel)
					}
				}
			})
		}
	}
}

func TestListingAsksAgainForWhatWasLeftUndone(t *testing.T) {
	key := func(id string) string { return `{"pk":{"S":"J#` + id + `"},"sk":{"S":"job"}}` }
	job := func(id, rest string) string {
		return `{"pk":{"S":"J#` + id + `"},"sk":{"S":"job"},"rev":{"N":"1"},"body":{"S":"{\"V\":1,\"ID\":\"` + id + `\"` + rest + `}"}}`
	}
	listed := `{"Items":[` + key("a") + `,` + key("b") + `,` + key("c") + `,` + key("d") + `]}`
	left := func(ids ...string) string {
		for i := range ids {
			ids[i] = key(ids[i])
		}
		return `"UnprocessedKeys":{"ledger":{"ConsistentRead":true,"Keys":[` + strings.Join(ids, ",") + `]}}`
	}
	for _, row := range []struct {
		what    string
		answers []string
		want    string
		err     string
	}{
		// The index lists c and d, but c was closed since and d is gone.
		{"in two answers", []string{
			listed, `{"Responses":{"ledger":[` + job("c", `,\"Closed\":true`) + `,` + job("b", "") + `]},` + left("a", "d") + `}`,
			`{"Responses":{"ledger":[` + job("a", "") + `]}}`,
		}, "ab", ""},
		{"never", []string{listed, `{"Responses":{"ledger":[]},` + left("a", "b", "c", "d") + `}`}, "", "none of 4 keys"},
		{"a newer record in the middle", []string{
			listed, `{"Responses":{"ledger":[` + job("a", "") + `,` + job("b", `,\"V\":9`) + `,` + job("c", "") + `]}}`,
		}, "a", "newer version"},
	} {
		t.Run(row.what, func(t *testing.T) {
			s, wire := scripted(func(n int, r *http.Request) (*http.Response, error) {
				if n > len(row.answers) {
					return nil, errors.New("one request too many")
				}
				return answer(200, row.answers[n-1]), nil
			})
			got, failed := "", error(nil)
			for j, err := range s.Jobs(t.Context(), jobs.JobQuery{Open: true}) {
				if failed = err; err == nil {
					got += string(j.ID)
				}
			}
			if got != row.want || (failed == nil) != (row.err == "") || !strings.Contains(fmt.Sprint(failed), row.err) {
				t.Errorf("jobs %q, error %v; want %q, %q", got, failed, row.want, row.err)
			}
			if n := len(wire.operations()); n != len(row.answers) {
				t.Errorf("%d requests, want %d", n, len(row.answers))
			}
		})
	}
}
