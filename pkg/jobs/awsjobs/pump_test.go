package awsjobs_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fanout-inference/fanout/internal/awstest"
	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/awsjobs"
)

// pumped makes a function a handler.
type pumped func(ctx context.Context, m []jobs.Message) []jobs.Failure

func (f pumped) Handle(ctx context.Context, m []jobs.Message) []jobs.Failure { return f(ctx, m) }

// byBody is a handler that fails messages by what their bodies say.
func byBody(fate func(body string) error) jobs.Handler {
	return pumped(func(_ context.Context, messages []jobs.Message) (failures []jobs.Failure) {
		for _, m := range messages {
			if err := fate(string(m.Body)); err != nil {
				failures = append(failures, jobs.Failure{ID: m.ID, Err: err})
			}
		}
		return failures
	})
}

// record is a message in an event: its id is its body, its handle "h-" and that.
func record(body string, receives int) events.SQSMessage {
	return events.SQSMessage{MessageId: body, ReceiptHandle: "h-" + body, Body: body, Attributes: map[string]string{
		"ApproximateReceiveCount": strconv.Itoa(receives), "ApproximateFirstReceiveTimestamp": strconv.FormatInt(time.Now().UnixMilli(), 10),
	}}
}

func eventOf(bodies ...string) (e events.SQSEvent) {
	for _, body := range bodies {
		e.Records = append(e.Records, record(body, 1))
	}
	return e
}

func namedIn(answer events.SQSEventResponse) (ids []string) {
	for _, f := range answer.BatchItemFailures {
		ids = append(ids, f.ItemIdentifier)
	}
	return ids
}

// hidden is for how long each message was hidden in the end, in seconds, by its handle.
func (f *fakeSQS) hidden() map[string]int {
	all := map[string]int{}
	for _, c := range f.calls {
		for _, e := range c.Entries {
			all[e.ReceiptHandle] = *e.VisibilityTimeout
		}
	}
	return all
}

// told collects what a pump tells.
type told struct {
	mu  sync.Mutex
	all []string
}

func (t *told) note(_ context.Context, m jobs.Message, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = append(t.all, m.ID+": "+err.Error())
}

func (t *told) has(parts ...string) bool {
	return slices.ContainsFunc(t.all, func(s string) bool {
		return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(s, part) })
	})
}

const lambdaTimeout = 10 * time.Minute

func TestPumpNamesWhatComesAgain(t *testing.T) {
	const atFirst = 660 // ten minutes of the invocation, and one more
	weather := errors.New("weather")
	later := events.SQSEvent{Records: []events.SQSMessage{record("bad 1", 1), record("good", 1), record("bad 3", 3), record("bad 900", 900)}}
	odd := events.SQSEvent{Records: []events.SQSMessage{
		{MessageId: "bare", ReceiptHandle: "h-bare"}, {Body: "bad, without id"},
		{MessageId: "odd", ReceiptHandle: "h", Body: "bad", Attributes: map[string]string{"ApproximateReceiveCount": "many", "SentTimestamp": "then", "ApproximateFirstReceiveTimestamp": "?"}},
	}}
	twice := events.SQSEvent{Records: []events.SQSMessage{record("bad", 1), record("good", 2), record("bad", 2), record("good", 1)}}
	twice.Records[2].ReceiptHandle, twice.Records[3].ReceiptHandle = "h-newer", "h-older"
	for _, row := range []struct {
		name   string
		event  events.SQSEvent
		fate   func(body string) error
		defers bool // the handler itself puts what is bad off by an hour
		named  []string
		hidden map[string]int
		told   [][]string
	}{
		{name: "nothing", named: nil, hidden: map[string]int{}},
		{name: "all done", event: eventOf("good", "fine"), hidden: map[string]int{"h-good": atFirst, "h-fine": atFirst}},
		{name: "failures stay away by their receives", event: later, named: []string{"bad 1", "bad 3", "bad 900"},
			hidden: map[string]int{"h-bad 1": 5, "h-bad 3": 15, "h-bad 900": 900, "h-good": atFirst},
			told:   [][]string{{"bad 1: weather"}, {"bad 3: weather"}, {"bad 900: weather"}}},
		{name: "the handler has put them off", event: eventOf("bad", "good"), named: []string{"bad"}, defers: true,
			fate:   func(string) error { return fmt.Errorf("x: %w", &jobs.Deferred{Why: "a lease"}) },
			hidden: map[string]int{"h-bad": 3600, "h-good": atFirst}, told: [][]string{{"bad: x: deferred: a lease"}}},
		{name: "the handler has put off what failed", event: eventOf("bad", "good"), named: []string{"bad"}, defers: true,
			hidden: map[string]int{"h-bad": 3600, "h-good": atFirst}, told: [][]string{{"bad: weather"}}},
		{name: "panics", event: eventOf("bad", "good"), named: []string{"bad"}, fate: func(string) error { panic("a bug") },
			hidden: map[string]int{"h-bad": 30, "h-good": atFirst}, told: [][]string{{"bad: ", "panic: a bug", "pump_test.go"}}},
		{name: "odd records", event: odd, named: []string{"odd"},
			hidden: map[string]int{"h-bare": atFirst, "h": 5}, told: [][]string{{"record 1 of the event has no message id"}}},
		{name: "the same message twice", event: twice, named: []string{"bad"}, hidden: map[string]int{"h-newer": 10, "h-good": atFirst}},
	} {
		for _, each := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, each %t", row.name, each), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					for i := range row.event.Records { // times are the bubble's
						if a := row.event.Records[i].Attributes; a["ApproximateFirstReceiveTimestamp"] != "?" && a != nil {
							a["ApproximateFirstReceiveTimestamp"] = strconv.FormatInt(time.Now().UnixMilli(), 10)
						}
					}
					ctx, cancel := context.WithTimeout(t.Context(), lambdaTimeout)
					defer cancel()
					f, said := &fakeSQS{}, &told{}
					source := awsjobs.NewSource(fakeQueue(f))
					p := &awsjobs.Pump{Source: source, Name: jobs.QueueWork, Each: each, OnFailure: said.note}
					p.Handler = pumped(func(ctx context.Context, messages []jobs.Message) []jobs.Failure {
						if each && len(messages) != 1 {
							t.Errorf("handed over %d messages in one call", len(messages))
						}
						for _, m := range messages {
							if row.defers && strings.HasPrefix(string(m.Body), "bad") {
								if err := source.Defer(ctx, time.Now().Add(time.Hour), m); err != nil {
									t.Error(err)
								}
							}
						}
						return byBody(func(body string) error {
							switch {
							case !strings.HasPrefix(body, "bad"):
								return nil
							case row.fate == nil:
								return weather
							}
							return row.fate(body)
						}).Handle(ctx, messages)
					})
					answer, err := p.Handle(ctx, row.event)
					if err != nil {
						t.Fatal(err)
					}
					if diff := cmp.Diff(row.named, namedIn(answer)); diff != "" {
						t.Errorf("named (-want +got):\n%s", diff)
					}
					if diff := cmp.Diff(row.hidden, f.hidden()); diff != "" {
						t.Errorf("seconds hidden by handle (-want +got):\n%s", diff)
					}
					for _, parts := range row.told {
						if !said.has(parts...) {
							t.Errorf("told %q, want one with %q", said.all, parts)
						}
					}
					if body, err := json.Marshal(answer); err != nil || len(row.named) == 0 && string(body) != `{"batchItemFailures":[]}` {
						t.Errorf("the answer is %s, %v", body, err)
					}
				})
			})
		}
	}
}

func TestPumpFailsACallWithAForeignFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		said := &told{}
		p := &awsjobs.Pump{Source: awsjobs.NewSource(fakeQueue(&fakeSQS{})), Name: jobs.QueueIngest, OnFailure: said.note}
		for _, id := range []string{"nobody", ""} {
			p.Handler = pumped(func(context.Context, []jobs.Message) []jobs.Failure { return []jobs.Failure{{ID: "a"}, {ID: id}} })
			answer, err := p.Handle(t.Context(), eventOf("a", "b"))
			if got := namedIn(answer); err != nil || !slices.Equal(got, []string{"a", "b"}) {
				t.Errorf("named %q, %v; want both", got, err)
			}
			if !said.has("b: ", strconv.Quote(id)) {
				t.Errorf("told %q", said.all)
			}
		}
	})
}

// TestAPanicIsOfOneMessage: those that were handed over together with it are handed over again, alone.
func TestAPanicIsOfOneMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		done := map[string]int{}
		p := &awsjobs.Pump{Source: awsjobs.NewSource(fakeQueue(&fakeSQS{})), Name: jobs.QueueIngest, Handler: byBody(func(body string) error {
			if body == "poison" {
				panic("a bug")
			}
			done[body]++
			return nil
		})}
		answer, err := p.Handle(t.Context(), eventOf("a", "poison", "b"))
		if got := namedIn(answer); err != nil || !slices.Equal(got, []string{"poison"}) || done["b"] != 1 {
			t.Errorf("named %q, %v, done %v; want only the poison named", got, err, done)
		}
	})
}

func TestPumpJoinsEveryCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int32
		p := &awsjobs.Pump{Source: awsjobs.NewSource(fakeQueue(&fakeSQS{})), Name: jobs.QueueWork, Each: true}
		p.Handler = pumped(func(_ context.Context, m []jobs.Message) []jobs.Failure {
			defer running.Add(-1)
			most.Store(max(most.Load(), running.Add(1)))
			wait, err := time.ParseDuration(string(m[0].Body))
			if err != nil {
				panic("at once")
			}
			time.Sleep(wait)
			return nil
		})
		start := time.Now()
		if _, err := p.Handle(t.Context(), eventOf("1s", "7m", "panic", "3m")); err != nil {
			t.Error(err)
		}
		if n := running.Load(); n != 0 || time.Since(start) < 7*time.Minute || time.Since(start) > 8*time.Minute {
			t.Errorf("returned after %s with %d calls running, want after the longest with none", time.Since(start), n)
		}
		if most.Load() < 3 {
			t.Errorf("%d calls at once, want all", most.Load())
		}
	})
}

// TestPumpAnswersInTime: a handler that works until its context ends leaves time to put off what it failed and to say so.
func TestPumpAnswersInTime(t *testing.T) {
	for _, row := range []struct{ timeout, margin, want time.Duration }{
		{timeout: lambdaTimeout, want: 2 * time.Second},
		{timeout: lambdaTimeout, margin: 5 * time.Second, want: 5 * time.Second},
		{timeout: 5 * time.Second, margin: 5 * time.Second, want: time.Second}, // a second is gone for the call at the start
	} {
		t.Run(fmt.Sprint(row), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), row.timeout)
				defer cancel()
				ends, _ := ctx.Deadline()
				f := &fakeSQS{}
				p := &awsjobs.Pump{Source: awsjobs.NewSource(fakeQueue(f)), Name: jobs.QueueIngest, Margin: row.margin}
				p.Handler = pumped(func(ctx context.Context, m []jobs.Message) []jobs.Failure {
					<-ctx.Done()
					if left := time.Until(ends); left != row.want {
						t.Errorf("the handler's context ended %s before the invocation, want %s", left, row.want)
					}
					return []jobs.Failure{{ID: m[0].ID, Err: ctx.Err()}}
				})
				answer, err := p.Handle(ctx, eventOf("slow"))
				if got := namedIn(answer); err != nil || !slices.Equal(got, []string{"slow"}) || f.hidden()["h-slow"] != 5 {
					t.Errorf("named %q, %v, hidden %v", got, err, f.hidden())
				}
			})
		})
	}
}

// silent is an SQS that never answers.
type silent struct{}

func (silent) Do(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func TestASilentQueueDoesNotCostTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), lambdaTimeout)
		defer cancel()
		said := &told{}
		client := sqs.New(sqs.Options{
			Region: "eu-west-1", BaseEndpoint: aws.String("http://sqs.invalid"), HTTPClient: silent{},
			Credentials: credentials.NewStaticCredentialsProvider("key", "secret", ""),
		})
		p := &awsjobs.Pump{
			Source: awsjobs.NewSource(awsjobs.NewQueue(client, awsjobs.QueueURLs{Work: "http://sqs.invalid/1/work"})),
			Name:   jobs.QueueWork, OnFailure: said.note, Handler: pumped(func(ctx context.Context, m []jobs.Message) []jobs.Failure {
				<-ctx.Done()
				return []jobs.Failure{{ID: m[1].ID, Err: ctx.Err()}}
			}),
		}
		answer, err := p.Handle(ctx, eventOf("done", "not"))
		if got := namedIn(answer); err != nil || !slices.Equal(got, []string{"not"}) || ctx.Err() != nil {
			t.Errorf("named %q, %v, %v", got, err, ctx.Err())
		}
		if !said.has("ChangeMessageVisibilityBatch") {
			t.Errorf("told %q", said.all)
		}
	})
}

// TestMessagesOfAnEventAreSaidToBeReceivedBefore: what is left of the twelve hours is not overrated, however often a message
// came, and not used up by earlier receives.
func TestMessagesOfAnEventAreSaidToBeReceivedBefore(t *testing.T) {
	for _, row := range []struct {
		name   string
		first  time.Duration // ago
		off    time.Duration
		tooFar bool
	}{
		{"a first receive counts from itself", time.Minute, 11*time.Hour + 58*time.Minute, false},
		{"and no longer", time.Minute, 12 * time.Hour, true},
		{"a later one may have been held for a while", 50 * time.Hour, 10*time.Hour + time.Minute, true},
		{"which is not forever", 50 * time.Hour, 9*time.Hour + 59*time.Minute, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := eventOf("m")
				e.Records[0].Attributes["ApproximateFirstReceiveTimestamp"] = strconv.FormatInt(time.Now().Add(-row.first).UnixMilli(), 10)
				q := awsjobs.NewSource(fakeQueue(&fakeSQS{}))
				p := &awsjobs.Pump{Source: q, Name: jobs.QueueWork, Handler: pumped(func(ctx context.Context, m []jobs.Message) []jobs.Failure {
					if err := q.Defer(ctx, time.Now().Add(row.off), m...); (jobs.CodeOf(err) == jobs.CodeLimit) != row.tooFar {
						t.Errorf("put off by %s: %v", row.off, err)
					}
					return nil
				})}
				if _, err := p.Handle(t.Context(), e); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestAnswersNameOnlyWhatTheEventHas holds it to any event and any handler, with several invocations at once.
func TestAnswersNameOnlyWhatTheEventHas(t *testing.T) {
	ids := rapid.SampledFrom([]string{"", "a", "b", "c", "d"})
	fates := rapid.SampledFrom([]string{"done", "failed", "without reason", "deferred", "foreign", "nameless", "twice", "panic"})
	rapid.Check(t, func(rt *rapid.T) {
		var e events.SQSEvent
		for _, id := range rapid.SliceOfN(ids, 0, 12).Draw(rt, "ids") {
			e.Records = append(e.Records, events.SQSMessage{MessageId: id, ReceiptHandle: "h", Body: fates.Draw(rt, "fate")})
		}
		each := rapid.Bool().Draw(rt, "each")
		answers := make([]events.SQSEventResponse, 3)
		synctest.Test(t, func(t *testing.T) {
			p := &awsjobs.Pump{Source: awsjobs.NewSource(fakeQueue(&fakeSQS{})), Name: jobs.QueueWork, Each: each, Handler: pumped(hostile)}
			var invocations sync.WaitGroup
			for i := range answers {
				invocations.Go(func() { answers[i], _ = p.Handle(t.Context(), e) })
			}
			invocations.Wait()
		})
		for _, answer := range answers {
			named := namedIn(answer)
			for i, id := range named {
				if id == "" || slices.Contains(named[:i], id) || !slices.ContainsFunc(e.Records, func(m events.SQSMessage) bool { return m.MessageId == id }) {
					rt.Errorf("named %q of %v", named, e.Records)
				}
			}
			for _, m := range e.Records {
				if fails := m.Body != "done" && m.Body != "foreign" && m.Body != "nameless"; fails && m.MessageId != "" && count(e, m.MessageId) == 1 && !slices.Contains(named, m.MessageId) {
					rt.Errorf("%q failed (%s) and is not named: %q", m.MessageId, m.Body, named)
				}
			}
		}
	})
}

func count(e events.SQSEvent, id string) (n int) {
	for _, m := range e.Records {
		if m.MessageId == id {
			n++
		}
	}
	return n
}

// hostile does to each message what its body says.
func hostile(_ context.Context, messages []jobs.Message) (failures []jobs.Failure) {
	for _, m := range messages {
		switch string(m.Body) {
		case "failed":
			failures = append(failures, jobs.Failure{ID: m.ID, Err: errors.New("x")})
		case "without reason":
			failures = append(failures, jobs.Failure{ID: m.ID})
		case "deferred":
			failures = append(failures, jobs.Failure{ID: m.ID, Err: &jobs.Deferred{}})
		case "foreign":
			failures = append(failures, jobs.Failure{ID: "foreign"})
		case "nameless":
			failures = append(failures, jobs.Failure{})
		case "twice":
			failures = append(failures, jobs.Failure{ID: m.ID}, jobs.Failure{ID: m.ID})
		case "panic":
			panic("a bug")
		}
	}
	return failures
}

// TestWhatIsNotNamedIsGoneAndTheRestComesAgain plays the event source against a server: it deletes what the answer does not
// name. Of the rest only what the handler gave back is there again at once.
func TestWhatIsNotNamedIsGoneAndTheRestComesAgain(t *testing.T) {
	c := awstest.SQS(t, awstest.Fauxqs)
	url := awstest.Queues(t, c)["work"]
	q := awsjobs.NewSource(awsjobs.NewQueue(c, awsjobs.QueueURLs{Work: url}))
	ctx, cancel := context.WithTimeout(t.Context(), lambdaTimeout)
	defer cancel()
	bodies := []string{"done", "failed", "given back", "panics", "deferred"}
	for _, body := range bodies {
		if unsent, err := q.Send(ctx, jobs.QueueWork, []byte(body)); err != nil || unsent != nil {
			t.Fatalf("send: unsent %v, %v", unsent, err)
		}
	}
	e := eventFrom(t, c, url)
	if len(e.Records) != len(bodies) {
		t.Fatalf("received %d messages, want %d", len(e.Records), len(bodies))
	}
	p := &awsjobs.Pump{Source: q, Name: jobs.QueueWork, Each: true, Handler: pumped(func(ctx context.Context, m []jobs.Message) []jobs.Failure {
		if m[0].Receives != 1 || time.Since(m[0].Sent).Abs() > time.Minute {
			t.Errorf("%s was received %d times and sent at %s", m[0].Body, m[0].Receives, m[0].Sent)
		}
		until := time.Now()
		switch string(m[0].Body) {
		case "failed":
			return []jobs.Failure{{ID: m[0].ID, Err: errors.New("weather")}}
		case "panics":
			panic("a bug")
		case "deferred":
			until = until.Add(time.Hour)
		case "done":
			return nil
		}
		if err := q.Defer(ctx, until, m...); err != nil {
			t.Error(err)
		}
		return []jobs.Failure{{ID: m[0].ID, Err: &jobs.Deferred{Until: until}}}
	})}
	answer, err := p.Handle(ctx, e)
	if err != nil || len(answer.BatchItemFailures) != 4 {
		t.Fatalf("answered %v, %v", answer, err)
	}
	for _, r := range e.Records {
		if slices.Contains(namedIn(answer), r.MessageId) {
			continue
		}
		if r.Body != "done" {
			t.Errorf("%s is not named", r.Body)
		}
		if _, err := c.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: &r.ReceiptHandle}); err != nil {
			t.Error(err)
		}
	}
	again := eventFrom(t, c, url)
	if len(again.Records) != 1 || again.Records[0].Body != "given back" || again.Records[0].Attributes["ApproximateReceiveCount"] != "2" {
		t.Errorf("came again: %+v, want what was given back", again.Records)
	}
	q.Wait = 0
	if d, err := q.Depth(ctx, jobs.QueueWork); err == nil && (d.Waiting != 0 || d.InFlight != 4) {
		t.Errorf("depth %+v, want four in flight", d)
	}
}

// eventFrom receives what is there, as an event.
func eventFrom(t *testing.T, c *sqs.Client, url string) (e events.SQSEvent) {
	t.Helper()
	out, err := c.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{
		QueueUrl: &url, MaxNumberOfMessages: 10, VisibilityTimeout: 3600,
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range out.Messages {
		e.Records = append(e.Records, events.SQSMessage{
			MessageId: aws.ToString(m.MessageId), ReceiptHandle: aws.ToString(m.ReceiptHandle), Body: aws.ToString(m.Body), Attributes: m.Attributes,
		})
	}
	return e
}
