package localjobs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

func TestALaneOfOneHandlerCoalesces(t *testing.T) {
	inBubble(t, func(p *pumpTest) {
		names := make([]string, 25)
		for i := range names {
			names[i] = fmt.Sprint(i)
		}
		p.send(names...)
		sizes := make(chan int, 25)
		var now, most atomic.Int32
		h := handlerFunc(func(_ context.Context, m []jobs.Message) []jobs.Failure {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			time.Sleep(time.Second)
			sizes <- len(m)
			return nil
		})
		p.run(context.Background(), Lane{Queue: jobs.QueueWork, Handler: h, Concurrency: 1, Batch: 10})
		if diff := cmp.Diff([]int{10, 10, 5}, []int{<-sizes, <-sizes, <-sizes}); diff != "" {
			p.Errorf("batches (-want +got):\n%s", diff)
		}
		if most.Load() != 1 {
			p.Errorf("%d handlers ran at once, want 1", most.Load())
		}
	})
}

func TestALaneRunsAsManyHandlersAsItMay(t *testing.T) {
	for _, ready := range []func(context.Context) error{nil, func(context.Context) error { return nil }} {
		t.Run(fmt.Sprintf("WithReady=%t", ready != nil), func(t *testing.T) {
			inBubble(t, func(p *pumpTest) {
				names := make([]string, 60)
				for i := range names {
					names[i] = fmt.Sprint(i)
				}
				p.send(names...)
				var mu sync.Mutex
				running, most, seen := 0, 0, map[string]int{}
				done := make(chan struct{})
				h := handlerFunc(func(_ context.Context, m []jobs.Message) []jobs.Failure {
					mu.Lock()
					running++
					most = max(most, running)
					for _, m := range m {
						seen[string(m.Body)]++
					}
					if len(seen) == len(names) {
						close(done)
					}
					mu.Unlock()
					time.Sleep(time.Second)
					mu.Lock()
					running--
					mu.Unlock()
					return nil
				})
				start := time.Now()
				p.run(context.Background(), Lane{Queue: jobs.QueueWork, Handler: h, Concurrency: 15, Ready: ready})
				<-done
				p.end()
				if most != 15 || time.Since(start) != 4*time.Second {
					p.Errorf("%d handlers at once, %s in all; want 15 and 4s", most, time.Since(start))
				}
			})
		})
	}
}

func TestALaneWaitsForRoom(t *testing.T) {
	inBubble(t, func(p *pumpTest) {
		p.send("message")
		room := make(chan error, 1)
		h, got := deliveries(fine)
		p.run(context.Background(), Lane{Queue: jobs.QueueWork, Handler: h, Ready: func(ctx context.Context) error {
			select {
			case err := <-room:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}})
		synctest.Wait()
		if d := p.depth(); d != (jobs.Depth{Waiting: 1}) {
			p.Errorf("depth %+v without room, want it waiting", d)
		}
		trouble := errors.New("trouble")
		room <- trouble
		if err := <-p.told; !errors.Is(err, trouble) {
			p.Errorf("told %v, want %v", err, trouble)
		}
		room <- nil
		<-got
	})
}

func TestOneRequestForTheSweepWaitsAtATime(t *testing.T) {
	inBubble(t, func(p *pumpTest) {
		p.pump.SweepEvery = time.Minute
		p.run(context.Background())
		depth := func() int64 {
			d, err := p.queue.Depth(context.Background(), jobs.QueueAggregate)
			if err != nil {
				p.Fatal(err)
			}
			return d.Waiting
		}
		synctest.Wait()
		if n := depth(); n != 1 {
			p.Errorf("%d requests at the start, want 1", n)
		}
		time.Sleep(10*time.Minute + time.Second)
		if n := depth(); n != 1 {
			p.Errorf("%d requests after ten minutes in which nobody came, want 1", n)
		}
		// While one is in hand, the next may wait.
		m, err := p.queue.Receive(context.Background(), jobs.QueueAggregate, 10, time.Hour)
		if err != nil || len(m) != 1 || !cmp.Equal(m[0].Body, jobs.TickBody()) {
			p.Fatalf("received %v, %v; want one request for the sweep", m, err)
		}
		time.Sleep(2 * time.Minute)
		if n := depth(); n != 1 {
			p.Errorf("%d requests while one was in hand, want 1", n)
		}
	})
}

func TestPumpTellsWhatItCouldNotAck(t *testing.T) {
	l := openAt(t, t.TempDir(), Options{})
	if _, err := l.Queue.Send(t.Context(), jobs.QueueWork, []byte("message")); err != nil {
		t.Fatal(err)
	}
	told := make(chan jobs.Message, 10)
	p := Pump{Queue: l.Queue, OnFailure: func(m jobs.Message, err error) {
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
	if err := p.Run(t.Context(), nil, Lane{Queue: jobs.QueueWork, Handler: h}); !errors.Is(err, errClosed) {
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
	h, _ := deliveries(fine)
	p := Pump{Queue: l.Queue}
	if err := p.Run(t.Context(), nil, Lane{Queue: jobs.QueueWork, Handler: h}); !errors.Is(err, errClosed) {
		t.Errorf("run: %v, want %v", err, errClosed)
	}
}

func TestLanesThatCannotWorkAreRefused(t *testing.T) {
	h, _ := deliveries(fine)
	for _, lane := range []Lane{
		{Handler: h},
		{Queue: jobs.QueueWork},
		{Queue: jobs.QueueWork, Handler: h, Batch: 11},
		{Queue: jobs.QueueWork, Handler: h, Batch: -1},
		{Queue: jobs.QueueWork, Handler: h, Concurrency: -1},
	} {
		if err := (&Pump{}).Run(t.Context(), nil, lane); jobs.CodeOf(err) != jobs.CodeInvalid {
			t.Errorf("lane %+v: %v, want code invalid", lane, err)
		}
	}
}
