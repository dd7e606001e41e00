package jobstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Transport is a queue with its dead letters, and with what its pump does beside the port.
type Transport interface {
	jobs.Queue
	jobs.DeadLetters
	// Receive takes up to n messages, at most 10, and hides them for a while. It may wait a little for the first.
	Receive(ctx context.Context, q jobs.QueueName, n int, visibility time.Duration) ([]jobs.Message, error)
	// Ack removes messages that were received; stale receipts are ignored.
	Ack(ctx context.Context, m ...jobs.Message) error
}

// QueueUnderTest is an empty queue, and where it is known to differ from others.
type QueueUnderTest struct {
	Transport
	// Pass lets time pass for the queue: a virtual clock is moved, a real one waited for. Whatever passes is a multiple
	// of Second.
	Pass func(d time.Duration)
	// Second is the shortest time that the queue tells apart, for visibility and Pass.
	Second time.Duration
	// Looks is how many empty answers in a row mean that nothing is visible: 1 where Receive sees everything.
	Looks int
	// CoarseDepth: Depth lags behind, so that only its shape can be tested.
	CoarseDepth bool
	// NoMoves: it cannot move dead letters, which another queue of the same driver shows.
	NoMoves bool
	// StaleAckRemoves: an old receipt may still remove a message that was delivered again.
	StaleAckRemoves bool
}

// TestQueue proves that a queue keeps its promises. open returns an empty one; it is called once a claim.
func TestQueue(t *testing.T, open func(t *testing.T) QueueUnderTest) {
	for _, claim := range []struct {
		name string
		test func(t *testing.T, q queueTest)
	}{
		{"EverythingSentIsReceived", everythingSentIsReceived},
		{"AckedMessagesAreGone", ackedMessagesAreGone},
		{"ReceivedMessagesAreHiddenForAWhile", receivedMessagesAreHiddenForAWhile},
		{"ReceivesAreCounted", receivesAreCounted},
		{"QueuesAreApart", queuesAreApart},
		{"DeferHidesUntilThen", deferHidesUntilThen},
		{"DeferToThePastShowsAtOnce", deferToThePastShowsAtOnce},
		{"DeferBeyondTheLimitHidesNothing", deferBeyondTheLimitHidesNothing},
		{"DeferredMessagesCanBeAcked", deferredMessagesCanBeAcked},
		{"StaleReceiptsAreLeftAlone", staleReceiptsAreLeftAlone},
		{"AnAckedMessageCannotBeDeferred", anAckedMessageCannotBeDeferred},
		{"BuriedMessagesKeepTheReason", buriedMessagesKeepTheReason},
		{"LettersStayWhereTheyAreLookedAt", lettersStayWhereTheyAreLookedAt},
		{"DiscardedLettersAreGone", discardedLettersAreGone},
		{"MovedLettersComeBack", movedLettersComeBack},
		{"AMoveCanBeStopped", aMoveCanBeStopped},
		{"TooBigMessagesComeBackUnsent", tooBigMessagesComeBackUnsent},
		{"SendOfNothingSendsNothing", sendOfNothingSendsNothing},
		{"DepthCounts", depthCounts},
		{"RacingReceiversGetDisjointMessages", racingReceiversGetDisjointMessages},
	} {
		t.Run(claim.name, func(t *testing.T) {
			q := open(t)
			q.Looks, q.Second = max(1, q.Looks), max(q.Second, time.Nanosecond)
			claim.test(t, queueTest{t, q})
		})
	}
}

// queueTest says in one word each what the claims do.
type queueTest struct {
	t *testing.T
	QueueUnderTest
}

// long is a visibility that does not end within a claim.
func (q queueTest) long() time.Duration { return max(30*q.Second, time.Minute) }

func (q queueTest) send(name jobs.QueueName, bodies ...string) {
	q.t.Helper()
	raw := make([][]byte, len(bodies))
	for i, b := range bodies {
		raw[i] = []byte(b)
	}
	if unsent, err := q.Send(q.t.Context(), name, raw...); err != nil || len(unsent) > 0 {
		q.t.Fatalf("send: unsent %v, %v", unsent, err)
	}
}

// take receives until nothing more is visible, or want messages have come.
func (q queueTest) take(name jobs.QueueName, want int, visibility time.Duration) (taken []jobs.Message) {
	q.t.Helper()
	for empty := 0; len(taken) < want && empty < q.Looks; {
		m, err := q.Receive(q.t.Context(), name, min(10, want-len(taken)), visibility)
		if err != nil {
			q.t.Fatal(err)
		}
		if empty++; len(m) > 0 {
			empty = 0
		}
		taken = append(taken, m...)
	}
	return taken
}

// one receives the only message.
func (q queueTest) one(visibility time.Duration) jobs.Message {
	q.t.Helper()
	m := q.take(jobs.QueueWork, 1, visibility)
	if len(m) != 1 {
		q.t.Fatalf("received %d messages, want 1", len(m))
	}
	return m[0]
}

func (q queueTest) none(why string) {
	q.t.Helper()
	if m := q.take(jobs.QueueWork, 1, q.long()); len(m) > 0 {
		q.t.Errorf("%s: received %s, want nothing", why, m[0].Body)
	}
}

func (q queueTest) ack(m ...jobs.Message) {
	q.t.Helper()
	if err := q.Ack(q.t.Context(), m...); err != nil {
		q.t.Errorf("ack: %v", err)
	}
}

func (q queueTest) deferUntil(d time.Duration, now time.Time, m ...jobs.Message) {
	q.t.Helper()
	if err := q.Defer(q.t.Context(), now.Add(d), m...); err != nil {
		q.t.Errorf("defer: %v", err)
	}
}

func bodies(messages []jobs.Message) map[string]int {
	times := map[string]int{}
	for _, m := range messages {
		times[string(m.Body)]++
	}
	return times
}

// numbered are n bodies, and how often each is expected.
func numbered(n int) (names []string, once map[string]int) {
	once = map[string]int{}
	for i := range n {
		names = append(names, "message "+strconv.Itoa(i))
		once[names[i]] = 1
	}
	return names, once
}

func everythingSentIsReceived(t *testing.T, q queueTest) {
	names, want := numbered(25)
	q.send(jobs.QueueWork, names...)
	got := q.take(jobs.QueueWork, len(names), q.long())
	if diff := cmp.Diff(want, bodies(got)); diff != "" {
		t.Errorf("times received (-want +got):\n%s", diff)
	}
	for _, m := range got {
		if m.ID == "" || m.Receipt == "" || m.Queue != jobs.QueueWork || m.Receives != 1 || m.Sent.IsZero() {
			t.Errorf("message %+v: want an id, a receipt, its queue, one receive and when it was sent", m)
		}
	}
}

func ackedMessagesAreGone(t *testing.T, q queueTest) {
	names, _ := numbered(13)
	q.send(jobs.QueueWork, names...)
	q.ack(q.take(jobs.QueueWork, len(names), 2*q.Second)...)
	q.Pass(3 * q.Second)
	q.none("after all were acked")
	q.ack() // of nothing
}

func receivedMessagesAreHiddenForAWhile(t *testing.T, q queueTest) {
	q.send(jobs.QueueWork, "message")
	first := q.one(2 * q.Second)
	q.none("within its visibility")
	q.Pass(3 * q.Second)
	second := q.one(q.long())
	if second.ID != first.ID || second.Receipt == first.Receipt {
		t.Errorf("delivered again with id %s and receipt %s after %s and %s; want the same id and another receipt",
			second.ID, second.Receipt, first.ID, first.Receipt)
	}
	if !second.Sent.Equal(first.Sent) {
		t.Errorf("sent at %s, and then at %s", first.Sent, second.Sent)
	}
}

func receivesAreCounted(t *testing.T, q queueTest) {
	q.send(jobs.QueueWork, "message")
	for want := 1; want <= 4; want++ {
		m := q.one(q.Second)
		if m.Receives != want {
			t.Fatalf("delivery %d counts %d receives", want, m.Receives)
		}
		q.Pass(2 * q.Second)
	}
}

func queuesAreApart(t *testing.T, q queueTest) {
	for _, name := range []jobs.QueueName{jobs.QueueIngest, jobs.QueueWork, jobs.QueueAggregate} {
		q.send(name, "for "+string(name))
	}
	for _, name := range []jobs.QueueName{jobs.QueueIngest, jobs.QueueWork, jobs.QueueAggregate} {
		got := q.take(name, 2, q.long())
		if diff := cmp.Diff(map[string]int{"for " + string(name): 1}, bodies(got)); diff != "" {
			t.Errorf("queue %s (-want +got):\n%s", name, diff)
		}
	}
}

func deferHidesUntilThen(t *testing.T, q queueTest) {
	q.send(jobs.QueueWork, "message")
	m := q.one(q.Second)
	q.deferUntil(4*q.Second, q.now(m), m)
	q.Pass(2 * q.Second) // beyond the first visibility
	q.none("before its time")
	q.Pass(3 * q.Second)
	if again := q.one(q.long()); again.Receives != 2 {
		t.Errorf("came again with %d receives, want 2", again.Receives)
	}
}

// now is the queue's time at a moment when m has just been sent.
func (q queueTest) now(m jobs.Message) time.Time { return m.Sent }

func deferToThePastShowsAtOnce(t *testing.T, q queueTest) {
	for _, until := range []func(m jobs.Message) time.Time{
		func(m jobs.Message) time.Time { return q.now(m).Add(-time.Hour) },
		func(jobs.Message) time.Time { return time.Time{} },
	} {
		q.send(jobs.QueueWork, "message")
		m := q.one(q.long())
		if err := q.Defer(t.Context(), until(m), m); err != nil {
			t.Errorf("defer to the past: %v", err)
		}
		q.ack(q.one(q.long()))
	}
}

func deferBeyondTheLimitHidesNothing(t *testing.T, q queueTest) {
	q.send(jobs.QueueWork, "message")
	m := q.one(2 * q.Second)
	if err := q.Defer(t.Context(), q.now(m).Add(13*time.Hour), m); err == nil {
		t.Error("defer by 13 hours: no error")
	}
	q.Pass(3 * q.Second)
	q.one(q.long())
}

func deferredMessagesCanBeAcked(t *testing.T, q queueTest) {
	q.send(jobs.QueueWork, "message")
	m := q.one(q.long())
	q.deferUntil(2*q.Second, q.now(m), m)
	q.ack(m)
	q.Pass(3 * q.Second)
	q.none("after the ack")
}

func staleReceiptsAreLeftAlone(t *testing.T, q queueTest) {
	q.send(jobs.QueueWork, "message")
	stale := q.one(q.Second)
	q.Pass(2 * q.Second)
	fresh := q.one(4 * q.Second)
	if err := q.Defer(t.Context(), time.Time{}, stale); err != nil {
		t.Errorf("defer by a stale receipt: %v", err)
	}
	q.none("a stale receipt showed it")
	if q.StaleAckRemoves {
		t.Skip("skipped the stale ack: this queue may take an old receipt for good")
	}
	q.ack(stale)
	q.Pass(5 * q.Second)
	if again := q.one(q.long()); again.ID != fresh.ID {
		t.Errorf("came again as %s, want %s", again.ID, fresh.ID)
	}
}

func anAckedMessageCannotBeDeferred(t *testing.T, q queueTest) {
	q.send(jobs.QueueWork, "message")
	m := q.one(q.long())
	q.ack(m)
	if err := q.Defer(t.Context(), q.now(m).Add(q.Second), m); err != nil {
		t.Errorf("defer of an acked message: %v", err)
	}
	q.Pass(2 * q.Second)
	q.none("an acked message was deferred")
}

func buriedMessagesKeepTheReason(t *testing.T, q queueTest) {
	want := []jobs.Letter{
		{Body: []byte(`{"first":1}`), Burial: jobs.Burial{Number: 3, Job: "job-1", Code: "server_error", Message: "upstream „x“ said:\t500", Attempts: 8}},
		{Body: []byte(`{"second":2}`), Burial: jobs.Burial{Code: "invalid", Message: "decode message: unexpected end"}},
	}
	for _, b := range want {
		q.send(jobs.QueueWork, string(b.Body))
		m := q.one(q.long())
		if err := q.Bury(t.Context(), m, b.Burial); err != nil {
			t.Fatal(err)
		}
		q.ack(m)
	}
	got := map[string]jobs.Burial{}
	for _, b := range all(t, q.Peek(t.Context(), jobs.QueueWork)) {
		got[string(b.Body)] = b.Burial
	}
	if diff := cmp.Diff(map[string]jobs.Burial{string(want[0].Body): want[0].Burial, string(want[1].Body): want[1].Burial}, got); diff != "" {
		t.Errorf("dead letters (-want +got):\n%s", diff)
	}
	if n := len(all(t, q.Peek(t.Context(), jobs.QueueIngest))); n != 0 {
		t.Errorf("another queue has %d dead letters", n)
	}
	q.none("after it was buried and acked")
}

func tooBigMessagesComeBackUnsent(t *testing.T, q queueTest) {
	const limit = 1 << 20
	big := bytes.Repeat([]byte("x"), limit+1)
	unsent, err := q.Send(t.Context(), jobs.QueueWork, []byte("one"), big, []byte("two"), nil)
	if err != nil {
		t.Fatal(err)
	}
	codes := map[int]jobs.Code{}
	for _, u := range unsent {
		codes[u.At] = jobs.CodeOf(u.Err)
	}
	if diff := cmp.Diff(map[int]jobs.Code{1: jobs.CodeLimit, 3: jobs.CodeInvalid}, codes); diff != "" {
		t.Errorf("unsent, by index (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]int{"one": 1, "two": 1}, bodies(q.take(jobs.QueueWork, 4, q.long()))); diff != "" {
		t.Errorf("the others (-want +got):\n%s", diff)
	}
	q.send(jobs.QueueWork, strings.Repeat("y", limit))
	if m := q.one(q.long()); len(m.Body) != limit {
		t.Errorf("a message of the limit came with %d bytes", len(m.Body))
	}
}

func sendOfNothingSendsNothing(t *testing.T, q queueTest) {
	q.send(jobs.QueueWork)
	q.none("nothing was sent")
}

func depthCounts(t *testing.T, q queueTest) {
	if q.CoarseDepth {
		if _, err := q.Depth(t.Context(), jobs.QueueWork); err != nil {
			t.Fatal(err)
		}
		t.Skip("skipped the figures: this queue counts approximately, and late")
	}
	names, _ := numbered(6)
	q.send(jobs.QueueWork, names...)
	q.Pass(10 * q.Second)
	m := q.take(jobs.QueueWork, 3, q.long())
	q.deferUntil(10*q.Second+q.long(), q.now(m[0]), m[0])
	if err := q.Bury(t.Context(), m[1], jobs.Burial{Code: "x"}); err != nil {
		t.Fatal(err)
	}
	q.ack(m[1])
	got, err := q.Depth(t.Context(), jobs.QueueWork)
	want := jobs.Depth{Waiting: 3, InFlight: 1, Delayed: 1, Dead: 1, Oldest: 10 * q.Second}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("depth: %v (-want +got):\n%s", err, diff)
	}
	if got, err := q.Depth(t.Context(), jobs.QueueIngest); err != nil || got != (jobs.Depth{}) {
		t.Errorf("depth of an empty queue: %+v, %v", got, err)
	}
}

func racingReceiversGetDisjointMessages(t *testing.T, q queueTest) {
	const senders, each = 4, 25
	var sending sync.WaitGroup
	want := map[string]int{}
	for i := range senders {
		for j := range each {
			want[fmt.Sprintf("%d-%d", i, j)] = 1
		}
		sending.Go(func() {
			for j := range each {
				if _, err := q.Send(t.Context(), jobs.QueueWork, fmt.Appendf(nil, "%d-%d", i, j)); err != nil {
					t.Errorf("send: %v", err)
				}
			}
		})
	}
	sending.Wait()

	var mu sync.Mutex
	var got []jobs.Message
	var receiving sync.WaitGroup
	for range 6 {
		receiving.Go(func() {
			for empty := 0; empty < q.Looks; empty++ {
				m, err := q.Receive(t.Context(), jobs.QueueWork, 7, q.long())
				if err != nil {
					t.Errorf("receive: %v", err)
					return
				}
				if len(m) > 7 {
					t.Errorf("received %d messages, asked for 7", len(m))
				}
				mu.Lock()
				got = append(got, m...)
				mu.Unlock()
				if len(m) > 0 {
					empty = -1
				}
			}
		})
	}
	receiving.Wait()
	if diff := cmp.Diff(want, bodies(got)); diff != "" {
		t.Errorf("times received by racing receivers (-want +got):\n%s", diff)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := q.Receive(ctx, jobs.QueueWork, 1, q.long()); !errors.Is(err, context.Canceled) {
		t.Errorf("receive with an ended context: %v, want context.Canceled", err)
	}
}
