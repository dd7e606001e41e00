package poll_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/poll"
	"github.com/fanout-inference/fanout/pkg/jobs/poll/polltest"
)

// handlerFunc makes a function a handler.
type handlerFunc func(ctx context.Context, m []jobs.Message) []jobs.Failure

func (f handlerFunc) Handle(ctx context.Context, m []jobs.Message) []jobs.Failure { return f(ctx, m) }

// pumpTest is a pump that runs in a bubble, where time is virtual: it passes only when everything waits.
type pumpTest struct {
	*testing.T
	queue *polltest.Queue
	pump  *poll.Pump
	stop  chan struct{}
	ended chan error
	told  chan error
}

// inBubble runs a claim with a pump in a bubble, and stops the pump afterwards.
func inBubble(t *testing.T, claim func(p *pumpTest)) {
	synctest.Test(t, func(t *testing.T) {
		q := polltest.NewQueue()
		p := &pumpTest{T: t, queue: q, stop: make(chan struct{}), ended: make(chan error, 1), told: make(chan error, 1000)}
		p.pump = &poll.Pump{Source: q, OnFailure: func(_ jobs.Message, err error) { p.told <- err }}
		claim(p)
		p.end()
	})
}

func (p *pumpTest) run(ctx context.Context, lanes ...poll.Lane) {
	go func() { p.ended <- p.pump.Run(ctx, p.stop, lanes...) }()
}

// end stops the pump and waits for it.
func (p *pumpTest) end() {
	select {
	case <-p.stop:
		return
	default:
	}
	close(p.stop)
	if err := <-p.ended; err != nil {
		p.Errorf("run: %v", err)
	}
}

func (p *pumpTest) send(bodies ...string) {
	p.Helper()
	raw := make([][]byte, len(bodies))
	for i, b := range bodies {
		raw[i] = []byte(b)
	}
	if _, err := p.queue.Send(context.Background(), jobs.QueueWork, raw...); err != nil {
		p.Fatal(err)
	}
}

func (p *pumpTest) depth() jobs.Depth {
	p.Helper()
	d, err := p.queue.Depth(context.Background(), jobs.QueueWork)
	if err != nil {
		p.Fatal(err)
	}
	return d
}

// deliveries is a handler that says what it got, and answers with fate.
func deliveries(fate func(m jobs.Message) error) (jobs.Handler, chan jobs.Message) {
	got := make(chan jobs.Message, 1000)
	return handlerFunc(func(_ context.Context, messages []jobs.Message) (failures []jobs.Failure) {
		for _, m := range messages {
			got <- m
			if err := fate(m); err != nil {
				failures = append(failures, jobs.Failure{ID: m.ID, Err: err})
			}
		}
		return failures
	}), got
}

func fine(jobs.Message) error { return nil }

func TestPumpIsWokenBySend(t *testing.T) {
	inBubble(t, func(p *pumpTest) {
		h, got := deliveries(fine)
		p.run(context.Background(), poll.Lane{Queue: jobs.QueueWork, Handler: h})
		for i := range 3 {
			synctest.Wait() // it waits for messages now
			sent := time.Now()
			p.send(fmt.Sprint(i))
			if m := <-got; string(m.Body) != fmt.Sprint(i) {
				p.Errorf("got %s, want %d", m.Body, i)
			}
			if late := time.Since(sent); late != 0 {
				p.Errorf("message %d came after %s, want at once", i, late)
			}
		}
		p.end()
		if d := p.depth(); d != (jobs.Depth{}) {
			p.Errorf("left %+v, want all acked", d)
		}
	})
}

func TestPumpWakesWhenADeferredMessageIsDue(t *testing.T) {
	inBubble(t, func(p *pumpTest) {
		p.send("message")
		start := time.Now()
		h, got := deliveries(func(m jobs.Message) error {
			if m.Receives > 1 {
				return nil
			}
			// The handler's own time counts, not the pump's back-off.
			if err := p.queue.Defer(context.Background(), start.Add(7*time.Minute), m); err != nil {
				return err
			}
			return &jobs.Deferred{Until: start.Add(time.Hour), Why: "weather"}
		})
		p.run(context.Background(), poll.Lane{Queue: jobs.QueueWork, Handler: h})
		<-got
		synctest.Wait()
		if d := p.depth(); d != (jobs.Depth{Delayed: 1}) {
			p.Errorf("depth %+v, want one delayed and none in flight", d)
		}
		m := <-got
		if after := time.Since(start); after != 7*time.Minute || m.Receives != 2 {
			p.Errorf("came again after %s with %d receives, want 7m and 2", after, m.Receives)
		}
	})
}

func TestPumpBacksOffFailures(t *testing.T) {
	inBubble(t, func(p *pumpTest) {
		p.send("message")
		start := time.Now()
		weather := errors.New("weather")
		h, got := deliveries(func(m jobs.Message) error {
			switch m.Receives {
			case 3:
				return &jobs.Deferred{Until: time.Now().Add(time.Hour), Why: "not due"}
			case 4:
				return nil
			}
			return weather
		})
		p.run(context.Background(), poll.Lane{Queue: jobs.QueueWork, Handler: h})
		var came []time.Duration
		for range 4 {
			<-got
			came = append(came, time.Since(start))
		}
		want := []time.Duration{0, 5 * time.Second, 15 * time.Second, 15*time.Second + time.Hour}
		if diff := cmp.Diff(want, came); diff != "" {
			p.Errorf("deliveries (-want +got):\n%s", diff)
		}
		if err := <-p.told; !errors.Is(err, weather) {
			p.Errorf("told %v, want %v", err, weather)
		}
	})
}

func TestPumpAcksTheRestOfABatch(t *testing.T) {
	inBubble(t, func(p *pumpTest) {
		p.send("good 1", "bad", "good 2")
		h, got := deliveries(func(m jobs.Message) error {
			if strings.HasPrefix(string(m.Body), "bad") {
				return errors.New("bad")
			}
			return nil
		})
		p.run(context.Background(), poll.Lane{Queue: jobs.QueueWork, Handler: h, Batch: 10})
		for range 3 {
			<-got
		}
		synctest.Wait()
		if d := p.depth(); d != (jobs.Depth{Delayed: 1}) {
			p.Errorf("depth %+v, want only the bad one, delayed", d)
		}
		if m := <-got; string(m.Body) != "bad" {
			p.Errorf("%s came again", m.Body)
		}
	})
}

func TestPumpFailsABatchWithAForeignFailure(t *testing.T) {
	inBubble(t, func(p *pumpTest) {
		p.send("one", "two")
		h := handlerFunc(func(context.Context, []jobs.Message) []jobs.Failure {
			return []jobs.Failure{{ID: "nobody", Err: errors.New("x")}}
		})
		p.run(context.Background(), poll.Lane{Queue: jobs.QueueWork, Handler: h, Batch: 10})
		if err := <-p.told; !strings.Contains(err.Error(), `"nobody"`) {
			p.Errorf("told %v", err)
		}
		synctest.Wait()
		if d := p.depth(); d != (jobs.Depth{Delayed: 2}) {
			p.Errorf("depth %+v, want both delayed", d)
		}
	})
}

func TestPumpOutlivesPanics(t *testing.T) {
	inBubble(t, func(p *pumpTest) {
		p.send("message")
		start := time.Now()
		h, got := deliveries(func(m jobs.Message) error {
			if m.Receives == 1 {
				panic("a bug")
			}
			return nil
		})
		p.run(context.Background(), poll.Lane{Queue: jobs.QueueWork, Handler: h})
		<-got
		if err := <-p.told; !strings.Contains(err.Error(), "panic: a bug") || !strings.Contains(err.Error(), "pump_test.go") {
			p.Errorf("told %v, want the panic with its stack", err)
		}
		<-got
		if after := time.Since(start); after != 30*time.Second {
			p.Errorf("came again after %s, want 30s", after)
		}
	})
}

func TestPumpKeepsMessagesHiddenWhileTheirHandlerRuns(t *testing.T) {
	inBubble(t, func(p *pumpTest) {
		p.send("slow")
		p.pump.Visibility = time.Minute
		got := make(chan int, 10)
		h := handlerFunc(func(_ context.Context, m []jobs.Message) []jobs.Failure {
			got <- m[0].Receives
			time.Sleep(time.Hour)
			return nil
		})
		p.run(context.Background(), poll.Lane{Queue: jobs.QueueWork, Handler: h, Concurrency: 4})
		<-got
		time.Sleep(59 * time.Minute)
		if d := p.depth(); d != (jobs.Depth{InFlight: 1}) {
			p.Errorf("depth %+v, want one in flight", d)
		}
		p.end()
		if len(got) > 0 {
			p.Error("the message came again while its handler ran")
		}
		if d := p.depth(); d != (jobs.Depth{}) {
			p.Errorf("left %+v, want it acked", d)
		}
	})
}

func TestPumpWaitsForHandlersWhenItIsStopped(t *testing.T) {
	inBubble(t, func(p *pumpTest) {
		p.send("one", "two")
		started := make(chan struct{})
		h := handlerFunc(func(ctx context.Context, _ []jobs.Message) []jobs.Failure {
			started <- struct{}{}
			time.Sleep(time.Minute)
			if ctx.Err() != nil {
				p.Error("a stop ended the handler's context")
			}
			return nil
		})
		p.run(context.Background(), poll.Lane{Queue: jobs.QueueWork, Handler: h})
		<-started
		stopped := time.Now()
		p.end()
		if took := time.Since(stopped); took != time.Minute {
			p.Errorf("the stop took %s, want the minute that the handler needs", took)
		}
		if d := p.depth(); d != (jobs.Depth{Waiting: 1}) {
			p.Errorf("left %+v, want the second message waiting", d)
		}
	})
}

func TestPumpGivesMessagesBackAtOnceWhenItsContextEnds(t *testing.T) {
	inBubble(t, func(p *pumpTest) {
		p.send("message")
		ctx, cancel := context.WithCancel(context.Background())
		h := handlerFunc(func(ctx context.Context, m []jobs.Message) []jobs.Failure {
			cancel()
			<-ctx.Done()
			return []jobs.Failure{{ID: m[0].ID, Err: ctx.Err()}}
		})
		p.run(ctx, poll.Lane{Queue: jobs.QueueWork, Handler: h})
		if err := <-p.ended; err != nil {
			p.Errorf("run: %v", err)
		}
		close(p.stop)
		if d := p.depth(); d != (jobs.Depth{Waiting: 1}) {
			p.Errorf("left %+v, want it waiting", d)
		}
	})
}
