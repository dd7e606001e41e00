package localjobs

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/poll"
	"github.com/fanout-inference/fanout/pkg/jobs/poll/polltest"
)

// inBubble runs a claim with a data directory in a bubble, where time is virtual: it passes only when everything waits.
func inBubble(t *testing.T, claim func(t *testing.T, l *Local)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l, err := Open(context.Background(), dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		claim(t, l)
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestSource(t *testing.T) {
	polltest.TestSource(t, func(t *testing.T, claim func(t *testing.T, s polltest.SourceUnderTest)) {
		inBubble(t, func(t *testing.T, l *Local) { claim(t, polltest.SourceUnderTest{Source: l.Queue, Queue: l.Queue}) })
	})
}

func TestSendsWakeAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, l *Local) {
		for range 3 {
			came := make(chan time.Time, 1)
			go func() {
				if m, err := l.Queue.Await(context.Background(), jobs.QueueWork, 1, time.Hour); err != nil || len(m) != 1 {
					t.Errorf("received %d messages, %v", len(m), err)
				}
				came <- time.Now()
			}()
			synctest.Wait() // it waits for messages now
			time.Sleep(time.Minute)
			sent := time.Now()
			if _, err := l.Queue.Send(context.Background(), jobs.QueueWork, []byte("message")); err != nil {
				t.Fatal(err)
			}
			if late := (<-came).Sub(sent); late != 0 {
				t.Errorf("it came after %s, want at once", late)
			}
		}
	})
}

func TestNobodyPolls(t *testing.T) {
	inBubble(t, func(t *testing.T, l *Local) {
		var asked atomic.Int32
		l.Queue.now = func() time.Time { asked.Add(1); return time.Now() }
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() {
			_, err := l.Queue.Await(ctx, jobs.QueueWork, 1, time.Hour)
			ended <- err
		}()
		synctest.Wait()
		before := asked.Load()
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if after := asked.Load(); after != before {
			t.Errorf("looked at the clock %d times on an idle day", after-before)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestOneRequestForTheSweepWaitsAtATime(t *testing.T) {
	l := openAt(t, t.TempDir(), Options{})
	ask := func(want int64, when string) {
		for range 3 {
			if err := l.Queue.AskForSweep(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		d, err := l.Queue.Depth(t.Context(), jobs.QueueAggregate)
		if err != nil {
			t.Fatal(err)
		}
		if d.Waiting != want {
			t.Errorf("%d requests %s, want %d", d.Waiting, when, want)
		}
	}
	ask(1, "when nobody has come")
	m, err := l.Queue.Receive(t.Context(), jobs.QueueAggregate, 10, time.Hour)
	if err != nil || len(m) != 1 || !cmp.Equal(m[0].Body, jobs.TickBody()) {
		t.Fatalf("received %v, %v; want one request for the sweep", m, err)
	}
	ask(1, "while one is in hand")
}

func TestPumpTellsWhatItCouldNotAck(t *testing.T) {
	l := openAt(t, t.TempDir(), Options{})
	if _, err := l.Queue.Send(t.Context(), jobs.QueueWork, []byte("message")); err != nil {
		t.Fatal(err)
	}
	told := make(chan jobs.Message, 10)
	p := poll.Pump{Source: l.Queue, OnFailure: func(m jobs.Message, err error) {
		if errors.Is(err, errClosed) && m.ID != "" {
			told <- m
		}
	}}
	h := handlerFunc(func(context.Context, []jobs.Message) []jobs.Failure {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		return nil
	})
	if err := p.Run(t.Context(), nil, poll.Lane{Queue: jobs.QueueWork, Handler: h}); !errors.Is(err, errClosed) {
		t.Errorf("run: %v, want %v", err, errClosed)
	}
	if m := <-told; string(m.Body) != "message" {
		t.Errorf("told of %s", m.Body)
	}
}

func TestPumpEndsWhenItsQueueIsClosed(t *testing.T) {
	l := openAt(t, t.TempDir(), Options{})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	h := handlerFunc(func(context.Context, []jobs.Message) []jobs.Failure { return nil })
	p := poll.Pump{Source: l.Queue}
	if err := p.Run(t.Context(), nil, poll.Lane{Queue: jobs.QueueWork, Handler: h}); !errors.Is(err, errClosed) {
		t.Errorf("run: %v, want %v", err, errClosed)
	}
}

// handlerFunc makes a function a handler.
type handlerFunc func(ctx context.Context, m []jobs.Message) []jobs.Failure

func (f handlerFunc) Handle(ctx context.Context, m []jobs.Message) []jobs.Failure { return f(ctx, m) }
