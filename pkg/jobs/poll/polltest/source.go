package polltest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/poll"
)

// SourceUnderTest is an empty source.
type SourceUnderTest struct {
	poll.Source
	// Queue is what handlers of its messages are given.
	Queue jobs.Queue
}

// TestSource proves that a source keeps its promises. run calls a claim with an empty source; where time is virtual it does
// so in a bubble. Claims take seconds.
func TestSource(t *testing.T, run func(t *testing.T, claim func(t *testing.T, s SourceUnderTest))) {
	for _, claim := range []struct {
		name string
		test func(s sourceTest)
	}{
		{"AwaitIsWokenBySend", awaitIsWokenBySend},
		{"AwaitIsWokenWhenAMessageIsDue", awaitIsWokenWhenAMessageIsDue},
		{"AwaitEndsWithItsContext", awaitEndsWithItsContext},
		{"AckedMessagesAreGone", ackedMessagesAreGone},
		{"RenewedMessagesStayHidden", renewedMessagesStayHidden},
		{"RenewLeavesAloneWhatWasDeferred", renewLeavesAloneWhatWasDeferred},
		{"PutOffLeavesAloneWhatWasDeferred", putOffLeavesAloneWhatWasDeferred},
		{"PutOffIntoThePastShowsAtOnce", putOffIntoThePastShowsAtOnce},
		{"PutOffPastTheLimitIsNoError", putOffPastTheLimitIsNoError},
		{"APumpHandlesEverythingAndLetsFailuresComeAgain", aPumpHandlesEverything},
	} {
		t.Run(claim.name, func(t *testing.T) {
			run(t, func(t *testing.T, s SourceUnderTest) { claim.test(sourceTest{t, s}) })
		})
	}
}

// sourceTest says in one word each what the claims do.
type sourceTest struct {
	*testing.T
	SourceUnderTest
}

// long is a visibility that does not end within a claim; most is far beyond what may be late in one.
const (
	long = time.Minute
	most = 30 * time.Second
)

func (s sourceTest) send(bodies ...string) {
	s.Helper()
	raw := make([][]byte, len(bodies))
	for i, b := range bodies {
		raw[i] = []byte(b)
	}
	if unsent, err := s.Queue.Send(s.Context(), jobs.QueueWork, raw...); err != nil || len(unsent) > 0 {
		s.Fatalf("send: unsent %v, %v", unsent, err)
	}
}

// await takes n messages.
func (s sourceTest) await(n int, visibility time.Duration) (taken []jobs.Message) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), most)
	defer cancel()
	for len(taken) < n {
		m, err := s.Await(ctx, jobs.QueueWork, n-len(taken), visibility)
		if err != nil || len(m) == 0 {
			s.Fatalf("received %d messages and then %d, %v; want %d", len(taken), len(m), err, n)
		}
		taken = append(taken, m...)
	}
	return taken
}

// wantNext waits for a message, which must be this one and not come before its time.
func (s sourceTest) wantNext(body string, receives int, notBefore time.Time) {
	s.Helper()
	m := s.await(1, long)[0]
	if early := time.Until(notBefore); early > 50*time.Millisecond { // clocks that count coarsely
		s.Errorf("message %s came %s early", m.Body, early)
	}
	if string(m.Body) != body || m.Receives != receives {
		s.Errorf("received %s with %d receives, want %s with %d", m.Body, m.Receives, body, receives)
	}
}

func (s sourceTest) do(what string, err error) {
	s.Helper()
	if err != nil {
		s.Fatalf("%s: %v", what, err)
	}
}

func awaitIsWokenBySend(s sourceTest) {
	came := make(chan []jobs.Message, 1)
	go func() {
		m, err := s.Await(s.Context(), jobs.QueueWork, 10, long)
		if err != nil {
			s.Error(err)
		}
		came <- m
	}()
	time.Sleep(time.Second) // likely it waits by then; if not, that is as good
	start := time.Now()
	s.send("message")
	if m := <-came; len(m) != 1 || string(m[0].Body) != "message" || m[0].Receives != 1 || m[0].Receipt == "" || m[0].Queue != jobs.QueueWork {
		s.Errorf("received %+v", m)
	}
	if late := time.Since(start); late > 5*time.Second {
		s.Errorf("it came after %s", late)
	}
}

func awaitIsWokenWhenAMessageIsDue(s sourceTest) {
	s.send("message")
	m := s.await(1, long)
	due := time.Now().Add(2 * time.Second)
	s.do("put off", s.PutOff(s.Context(), due, m...))
	s.wantNext("message", 2, due)
}

func awaitEndsWithItsContext(s sourceTest) {
	ctx, cancel := context.WithTimeout(s.Context(), time.Second)
	defer cancel()
	start := time.Now()
	if m, _ := s.Await(ctx, jobs.QueueWork, 10, long); len(m) > 0 { // an error is as good as none
		s.Errorf("received %v of an empty queue", m)
	}
	if took := time.Since(start); took < 900*time.Millisecond || took > 10*time.Second {
		s.Errorf("it ended after %s, want the second of its context", took)
	}
}

func ackedMessagesAreGone(s sourceTest) {
	s.send("acked", "deferred and acked")
	m := s.await(2, time.Second)
	for _, m := range m {
		if string(m.Body) != "acked" {
			s.do("defer", s.Queue.Defer(s.Context(), time.Now().Add(time.Second), m))
		}
	}
	s.do("ack", s.Ack(s.Context(), m...))
	s.do("ack again", s.Ack(s.Context(), m...))
	s.do("ack nothing", s.Ack(s.Context()))
	time.Sleep(3 * time.Second)
	s.send("another")
	s.wantNext("another", 1, time.Time{})
}

func renewedMessagesStayHidden(s sourceTest) {
	s.send("message")
	m := s.await(1, 2*time.Second)
	until := time.Now().Add(4 * time.Second)
	s.do("renew", s.Renew(s.Context(), until, m...))
	s.do("renew nothing", s.Renew(s.Context(), until))
	s.wantNext("message", 2, until)
}

func renewLeavesAloneWhatWasDeferred(s sourceTest) {
	s.send("message")
	m := s.await(1, long)
	due := time.Now().Add(time.Second)
	s.do("defer", s.Queue.Defer(s.Context(), due, m...))
	s.do("renew", s.Renew(s.Context(), time.Now().Add(2*most), m...))
	s.wantNext("message", 2, due)
}

func putOffLeavesAloneWhatWasDeferred(s sourceTest) {
	s.send("first", "second")
	m := s.await(2, long)
	if string(m[0].Body) != "first" {
		m[0], m[1] = m[1], m[0]
	}
	now := time.Now()
	s.do("defer", s.Queue.Defer(s.Context(), now.Add(time.Second), m[1]))
	s.do("put off", s.PutOff(s.Context(), now.Add(4*time.Second), m...))
	s.wantNext("second", 2, now.Add(time.Second))
	s.wantNext("first", 2, now.Add(4*time.Second))
	s.do("put off what was delivered again", s.PutOff(s.Context(), now, m...))
}

func putOffIntoThePastShowsAtOnce(s sourceTest) {
	s.send("message")
	s.do("put off", s.PutOff(s.Context(), time.Now().Add(-time.Hour), s.await(1, long)...))
	s.wantNext("message", 2, time.Time{})
}

func putOffPastTheLimitIsNoError(s sourceTest) {
	s.send("far off", "near")
	m := s.await(2, 2*time.Second)
	s.do("put off", s.PutOff(s.Context(), time.Now().AddDate(1, 0, 0), m...))
	s.send("other")
	s.wantNext("other", 1, time.Time{}) // and nothing of what is far off
}

func aPumpHandlesEverything(s sourceTest) {
	want := map[string][]int{} // the receives of each
	bodies := make([]string, 25)
	for i := range bodies {
		bodies[i] = fmt.Sprint(i)
		want[bodies[i]] = []int{1}
		if i%4 > 0 {
			want[bodies[i]] = []int{1, 2}
		}
	}
	s.send(bodies...)
	got, all := map[string][]int{}, make(chan struct{})
	seen := make(chan jobs.Message)
	go func() {
		defer close(all)
		for range 25 + 18 {
			m := <-seen
			got[string(m.Body)] = append(got[string(m.Body)], m.Receives)
		}
	}()
	h := handlerFunc(func(ctx context.Context, messages []jobs.Message) (failures []jobs.Failure) {
		for _, m := range messages {
			seen <- m
			if s.fails(ctx, m) {
				failures = append(failures, jobs.Failure{ID: m.ID, Err: &jobs.Deferred{Until: time.Now(), Why: "not yet"}})
			}
		}
		return failures
	})
	stop, ended := make(chan struct{}), make(chan error)
	p := &poll.Pump{Source: s.Source}
	go func() {
		ended <- p.Run(s.Context(), stop, poll.Lane{Queue: jobs.QueueWork, Handler: h, Concurrency: 2, Batch: 4})
	}()
	<-all
	close(stop)
	s.do("run", <-ended)
	if diff := cmp.Diff(want, got); diff != "" {
		s.Errorf("receives (-want +got):\n%s", diff)
	}
	if d, err := s.Queue.Depth(s.Context(), jobs.QueueWork); err != nil || d.Waiting+d.InFlight+d.Delayed > 0 {
		s.Errorf("left %+v, %v; want all acked", d, err)
	}
}

// fails makes three of four fail once, one after it was deferred.
func (s sourceTest) fails(ctx context.Context, m jobs.Message) bool {
	var n int
	if _, err := fmt.Sscan(string(m.Body), &n); err != nil {
		s.Error(err)
	}
	if n%4 == 0 || m.Receives > 1 {
		return false
	}
	if n%4 == 1 {
		if err := s.Queue.Defer(ctx, time.Now().Add(time.Second), m); err != nil {
			s.Error(err)
		}
	}
	return true
}

// handlerFunc makes a function a handler.
type handlerFunc func(ctx context.Context, m []jobs.Message) []jobs.Failure

func (f handlerFunc) Handle(ctx context.Context, m []jobs.Message) []jobs.Failure { return f(ctx, m) }
