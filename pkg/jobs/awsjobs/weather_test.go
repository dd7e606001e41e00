package awsjobs_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/awsjobs"
)

// TestEachCallOfTheTableOutlastsWeather does the same in fair weather and in bad: whatever goes wrong with the first two
// attempts of each request, the third brings what one would have brought.
func TestEachCallOfTheTableOutlastsWeather(t *testing.T) {
	t.Parallel()
	want := ledgerDay(t, newTable(t).open())
	if len(want) < 20 {
		t.Fatalf("in fair weather there were %d steps: %q", len(want), want)
	}
	for _, row := range []struct {
		what   string
		answer func() (*http.Response, error)
		done   bool // though the answer does not say so
	}{
		{"throttled", func() (*http.Response, error) {
			return refusal(400, "ProvisionedThroughputExceededException", "slower, please"), nil
		}, false},
		{"throttled on demand", func() (*http.Response, error) { return refusal(400, "ThrottlingException", "slower, please"), nil }, false},
		{"over the limit of the account", func() (*http.Response, error) { return refusal(400, "RequestLimitExceeded", "slower, please"), nil }, false},
		{"500", func() (*http.Response, error) { return refusal(500, "InternalServerError", "sorry"), nil }, false},
		{"500, but done", func() (*http.Response, error) { return refusal(500, "InternalServerError", "sorry"), nil }, true},
		{"503, but done", func() (*http.Response, error) { return answer(503, "<html>"), nil }, true},
		{"a timeout before", func() (*http.Response, error) { return nil, timeout }, false},
		{"a timeout after", func() (*http.Response, error) { return nil, timeout }, true},
		{"a reset before", func() (*http.Response, error) { return nil, syscall.ECONNRESET }, false},
		{"a reset after", func() (*http.Response, error) { return nil, syscall.ECONNRESET }, true},
		{"a reset within the answer", func() (*http.Response, error) { return broken(syscall.ECONNRESET), nil }, true},
	} {
		t.Run(row.what, func(t *testing.T) {
			t.Parallel()
			tt := newTable(t)
			tt.forget(func(_ int, r *http.Request) (*http.Response, error) {
				if strings.HasPrefix(r.Header.Get("Amz-Sdk-Request"), "attempt=3") {
					return nil, nil
				}
				if row.done {
					if sent, err := tt.through.Do(r); err == nil {
						_ = sent.Body.Close()
					}
				}
				return row.answer()
			})
			if diff := cmp.Diff(want, ledgerDay(t, tt.open())); diff != "" {
				t.Errorf("what came of each step (-in fair weather +in this):\n%s", diff)
			}
		})
	}
}

var timeout = &url.Error{Op: "Post", URL: "http://nowhere.invalid", Err: os.ErrDeadlineExceeded}

// broken is an answer that breaks off.
func broken(err error) *http.Response {
	a := answer(200, "")
	a.Body = io.NopCloser(io.MultiReader(strings.NewReader(`{"Item`), iotest.ErrReader(err)))
	return a
}

// ledgerDay uses every method of a store, and writes down what came of it.
func ledgerDay(t *testing.T, s *awsjobs.Store) (said []string) {
	ctx := t.Context()
	say := func(what string, value any, err error) {
		switch {
		case errors.Is(err, jobs.ErrConflict):
			value = "conflict"
		case errors.Is(err, jobs.ErrNotFound):
			value = "not found"
		case err != nil:
			value = err
		}
		said = append(said, fmt.Sprintf("%s: %v", what, value))
	}

	j := aJob("job")
	say("make a job", "", s.SaveJob(ctx, j))
	stale := *j
	j.Tenant = "another"
	say("save it", j.Revision, s.SaveJob(ctx, j))
	say("save it as it was", "", s.SaveJob(ctx, &stale))
	got, err := s.Job(ctx, "job")
	say("read it", got, err)
	_, err = s.Job(ctx, "absent")
	say("read none", "", err)
	say("list the open ones", tell(s.Jobs(ctx, jobs.JobQuery{Open: true})), nil)
	say("list those of the tenant", tell(s.Jobs(ctx, jobs.JobQuery{Tenant: "another"})), nil)

	split := aSplit("job", 0)
	say("make a split", "", s.SaveSplit(ctx, split))
	split.Dispatched = true
	say("save it", "", s.SaveSplit(ctx, split))
	read, err := s.Split(ctx, "job", 0)
	say("read it", read, err)
	say("list the splits", tell(s.Splits(ctx, "job")), nil)

	for _, offset := range []int64{0, 1000} {
		say("make a chunk", "", s.SaveChunk(ctx, aChunk("job", offset)))
	}
	say("make it again", "", s.SaveChunk(ctx, aChunk("job", 0)))
	say("make one of a job that is not read yet", "", s.SaveChunk(ctx, aChunk("absent", 0)))
	say("list the chunks", tell(s.Chunks(ctx, "job", 0, jobs.OffsetRange{})), nil)

	gate := aGate("owner", "id")
	say("make an entry", "", s.SaveEntry(ctx, gate))
	say("make it again", "", s.SaveEntry(ctx, aGate("owner", "id")))
	first := gate.Revision
	gate.Body = []byte(`{"width":9}`)
	err = s.SaveEntry(ctx, gate)
	say("save it", gate.Revision-first, err)
	entry, err := s.Entry(ctx, jobs.KindGate, "owner", "id")
	say("read it", string(entry.Body), err)
	for _, owner := range []string{"owner", ""} {
		n := 0
		for _, err = range s.Entries(ctx, jobs.KindGate, owner) {
			n++
		}
		say("list the entries of "+owner, n, err)
	}
	before := *gate
	before.Revision--
	say("drop it as it was", "", s.DropEntry(ctx, before))
	say("drop it", "", s.DropEntry(ctx, *gate))
	_, err = s.Entry(ctx, jobs.KindGate, "owner", "id")
	say("read it", "", err)
	again := aGate("owner", "id")
	err = s.SaveEntry(ctx, again)
	say("make one in its place", again.Revision > gate.Revision, err)
	return said
}

func tell[R any](records iter.Seq2[R, error]) string {
	var s strings.Builder
	for r, err := range records {
		fmt.Fprintf(&s, "%+v %v\n", r, err)
	}
	return s.String()
}

// TestWeatherAtEachCallOfTheQueue: what passes is waited out, what stays is an error that says where, and that a caller does
// not take for something that SQS will never do.
func TestWeatherAtEachCallOfTheQueue(t *testing.T) {
	m := jobs.Message{Queue: jobs.QueueWork, Receipt: "x", Body: []byte("x")}
	operations := map[string]func(ctx context.Context, q *awsjobs.Queue) error{
		"SendMessageBatch": func(ctx context.Context, q *awsjobs.Queue) error {
			unsent, err := q.Send(ctx, jobs.QueueWork, []byte("x"))
			for _, u := range unsent {
				err = errors.Join(err, u.Err)
			}
			return err
		},
		"SendMessage": func(ctx context.Context, q *awsjobs.Queue) error { return q.Bury(ctx, m, jobs.Burial{Code: "x"}) },
		"ReceiveMessage": func(ctx context.Context, q *awsjobs.Queue) error {
			_, err := q.Receive(ctx, jobs.QueueWork, 1, time.Minute)
			return err
		},
		"DeleteMessageBatch":           func(ctx context.Context, q *awsjobs.Queue) error { return q.Ack(ctx, m) },
		"ChangeMessageVisibilityBatch": func(ctx context.Context, q *awsjobs.Queue) error { return q.Defer(ctx, time.Time{}, m) },
		"GetQueueAttributes": func(ctx context.Context, q *awsjobs.Queue) error {
			_, err := q.Depth(ctx, jobs.QueueWork)
			return err
		},
	}
	refused := func(status int, code string) func() (int, any, error) {
		return func() (int, any, error) { return status, sqsFault(code), nil }
	}
	for _, row := range []struct {
		what   string
		answer func() (int, any, error)
		says   string
		once   bool // the SDK does not try again: whoever called waits longer than it would
	}{
		{"throttled", refused(400, "RequestThrottled"), "RequestThrottled", false},
		{"throttled, in other words", refused(400, "ThrottlingException"), "ThrottlingException", false},
		{"over the limit", refused(403, "OverLimit"), "OverLimit", true},
		{"500", refused(500, "InternalFailure"), "InternalFailure", false},
		{"503", refused(503, "ServiceUnavailable"), "ServiceUnavailable", false},
		{"a timeout", func() (int, any, error) { return 0, nil, timeout }, "timeout", false},
		{"a reset", func() (int, any, error) { return 0, nil, syscall.ECONNRESET }, "connection reset", false},
	} {
		for operation, do := range operations {
			t.Run(row.what+" at "+operation, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					for _, bad := range []int{1, 2, 1000} { // calls
						f := &fakeSQS{answer: func(r sqsRequest, nth int) (int, any, error) {
							if nth <= bad {
								return row.answer()
							}
							if r.Operation == "GetQueueAttributes" {
								return 200, sqsAnswer{"Attributes": sqsAnswer{"ApproximateNumberOfMessages": "1",
									"ApproximateNumberOfMessagesNotVisible": "2", "ApproximateNumberOfMessagesDelayed": "3"}}, nil
							}
							return 0, nil, nil
						}}
						err := do(t.Context(), fakeQueue(f))
						if f.calls[0].Operation != operation {
							t.Fatalf("called %s", f.calls[0].Operation)
						}
						if bad < 3 && !row.once {
							if err != nil {
								t.Errorf("after %d bad answers: %v", bad, err)
							}
							continue
						}
						if want := map[bool]int{false: 3, true: 1}[row.once]; len(f.calls) != want {
							t.Errorf("%d calls, want %d", len(f.calls), want)
						}
						if err == nil || jobs.CodeOf(err) != jobs.CodeInternal || !strings.Contains(err.Error(), row.says) ||
							!strings.Contains(err.Error(), operation+" on http://sqs.invalid/1/work") {
							t.Errorf("error %v of code %s, want one of code internal that says %q, the operation and the queue", err, jobs.CodeOf(err), row.says)
						}
					}
				})
			})
		}
	}
}
