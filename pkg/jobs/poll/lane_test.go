package poll_test

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
	"github.com/fanout-inference/fanout/pkg/jobs/poll"
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
		p.run(context.Background(), poll.Lane{Queue: jobs.QueueWork, Handler: h, Concurrency: 1, Batch: 10})
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
				p.run(context.Background(), poll.Lane{Queue: jobs.QueueWork, Handler: h, Concurrency: 15, Ready: ready})
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
		p.run(context.Background(), poll.Lane{Queue: jobs.QueueWork, Handler: h, Ready: func(ctx context.Context) error {
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

func TestLanesThatCannotWorkAreRefused(t *testing.T) {
	h, _ := deliveries(fine)
	for _, lane := range []poll.Lane{
		{Handler: h},
		{Queue: jobs.QueueWork},
		{Queue: jobs.QueueWork, Handler: h, Batch: 11},
		{Queue: jobs.QueueWork, Handler: h, Batch: -1},
		{Queue: jobs.QueueWork, Handler: h, Concurrency: -1},
	} {
		if err := (&poll.Pump{}).Run(t.Context(), nil, lane); jobs.CodeOf(err) != jobs.CodeInvalid {
			t.Errorf("lane %+v: %v, want code invalid", lane, err)
		}
	}
}
