package poll_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/poll"
	"github.com/fanout-inference/fanout/pkg/jobs/poll/polltest"
)

var errTrouble = errors.New("trouble")

// faultOf makes the first n calls of a kind fail.
func faultOf(call string, n int, err error) func(string) error {
	return func(c string) error {
		if c == call && n > 0 {
			n--
			return err
		}
		return nil
	}
}

func TestPumpTriesAgainWhenItsSourceDoesNotAnswer(t *testing.T) {
	inBubble(t, func(p *pumpTest) {
		p.send("message")
		p.queue.Fault = faultOf("Await", 7, errTrouble)
		start := time.Now()
		var at []int
		p.pump.OnFailure = func(m jobs.Message, err error) {
			if !errors.Is(err, errTrouble) || m.Queue != jobs.QueueWork || m.ID != "" {
				p.Errorf("told %v of %+v", err, m)
			}
			at = append(at, int(time.Since(start)/time.Second))
		}
		h, got := deliveries(fine)
		p.run(context.Background(), poll.Lane{Queue: jobs.QueueWork, Handler: h})
		<-got
		if diff := cmp.Diff([]int{0, 1, 3, 7, 15, 31, 61}, at); diff != "" {
			p.Errorf("seconds of the tries (-want +got):\n%s", diff)
		}
	})
}

func TestPumpSettlesAgainWhenItsSourceDoesNotAnswer(t *testing.T) {
	for _, row := range []struct {
		call     string
		fails    int
		fate     error
		told     int
		receives int // of the last delivery
	}{
		{"Ack", 3, nil, 0, 1},
		{"Ack", 4, nil, 1, 2},
		{"PutOff", 3, errTrouble, 1, 2},
		{"PutOff", 4, errTrouble, 2, 2},
	} {
		t.Run(fmt.Sprintf("%s fails %d times", row.call, row.fails), func(t *testing.T) {
			inBubble(t, func(p *pumpTest) {
				p.send("message")
				p.queue.Fault = faultOf(row.call, row.fails, errTrouble)
				h, got := deliveries(func(m jobs.Message) error {
					if m.Receives > 1 {
						return nil
					}
					return row.fate
				})
				p.run(context.Background(), poll.Lane{Queue: jobs.QueueWork, Handler: h})
				time.Sleep(time.Hour)
				p.end()
				var last jobs.Message
				for range row.receives {
					last = <-got
				}
				if last.Receives != row.receives || len(got) > 0 || len(p.told) != row.told {
					p.Errorf("delivered %d times and %d more, told %d times; want %d and %d", last.Receives, len(got), len(p.told), row.receives, row.told)
				}
				if d := p.depth(); d != (jobs.Depth{}) {
					p.Errorf("left %+v, want it acked", d)
				}
			})
		})
	}
}

func TestPumpRenewsAgainWhenItsSourceDoesNotAnswer(t *testing.T) {
	inBubble(t, func(p *pumpTest) {
		p.send("slow")
		p.queue.Fault = faultOf("Renew", 1, errTrouble)
		h := handlerFunc(func(ctx context.Context, _ []jobs.Message) []jobs.Failure {
			time.Sleep(time.Hour)
			if ctx.Err() != nil {
				p.Error("its context ended for a renewal that went wrong")
			}
			return nil
		})
		p.run(context.Background(), poll.Lane{Queue: jobs.QueueWork, Handler: h, Concurrency: 2})
		if err := <-p.told; !errors.Is(err, errTrouble) {
			p.Errorf("told %v", err)
		}
		time.Sleep(time.Hour)
		p.end()
		if d := p.depth(); d != (jobs.Depth{}) {
			p.Errorf("left %+v, want it acked", d)
		}
	})
}

func TestPumpEndsAHandlerWhoseMessagesCannotStayHidden(t *testing.T) {
	inBubble(t, func(p *pumpTest) {
		p.send("endless")
		start := time.Now()
		ended := make(chan struct{})
		h := handlerFunc(func(ctx context.Context, m []jobs.Message) []jobs.Failure {
			if m[0].Receives > 1 {
				close(ended)
				return nil
			}
			if _, bounded := ctx.Deadline(); bounded {
				p.Error("its context has a deadline: a worker would take a lease until then")
			}
			<-ctx.Done()
			if jobs.CodeOf(context.Cause(ctx)) != jobs.CodeLimit {
				p.Errorf("its context ended because of %v, want the limit", context.Cause(ctx))
			}
			left := time.Until(start.Add(polltest.MaxHidden))
			if left < time.Minute || left > 2*time.Minute {
				p.Errorf("its context ended %s before the limit, want one to two minutes", left)
			}
			time.Sleep(time.Minute) // to save what there is
			if d := p.depth(); d != (jobs.Depth{InFlight: 1}) {
				p.Errorf("depth %+v a minute later, want one in flight", d)
			}
			return []jobs.Failure{{ID: m[0].ID, Err: ctx.Err()}}
		})
		p.run(context.Background(), poll.Lane{Queue: jobs.QueueWork, Handler: h, Concurrency: 2})
		if err := <-p.told; jobs.CodeOf(err) != jobs.CodeLimit {
			p.Errorf("told %v, want the limit", err)
		}
		told := time.Now()
		<-ended
		if took := time.Since(told); took != time.Minute {
			p.Errorf("it came again after %s, want the minute of its handler and no more", took)
		}
	})
}

// lateSource gives messages only when nobody wants them any more.
type lateSource struct{ *polltest.Queue }

func (s lateSource) Await(ctx context.Context, q jobs.QueueName, n int, visibility time.Duration) ([]jobs.Message, error) {
	<-ctx.Done()
	return s.Queue.Await(context.WithoutCancel(ctx), q, n, visibility)
}

func TestPumpGivesBackWhatComesAfterTheStop(t *testing.T) {
	inBubble(t, func(p *pumpTest) {
		p.send("one", "two", "three")
		p.pump.Source = lateSource{p.queue}
		h, got := deliveries(fine)
		p.run(context.Background(), poll.Lane{Queue: jobs.QueueWork, Handler: h, Concurrency: 2})
		synctest.Wait()
		p.end()
		if len(got) > 0 || len(p.told) > 0 {
			p.Errorf("handled %d messages and told of %d, want none", len(got), len(p.told))
		}
		if d := p.depth(); d != (jobs.Depth{Waiting: 3}) {
			p.Errorf("left %+v, want all waiting", d)
		}
	})
}

func TestPumpEndsWhenItsSourceIsClosed(t *testing.T) {
	for _, call := range []string{"Await", "Ack"} {
		t.Run(call, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q, told := polltest.NewQueue(), make(chan jobs.Message, 10)
				closed := false
				q.Fault = func(c string) error {
					if closed = closed || c == call; closed {
						return fmt.Errorf("the disk is gone: %w", poll.ErrClosed)
					}
					return nil
				}
				if call == "Ack" {
					if _, err := q.Send(t.Context(), jobs.QueueWork, []byte("message")); err != nil {
						t.Fatal(err)
					}
				}
				h, _ := deliveries(fine)
				p := poll.Pump{Source: q, OnFailure: func(m jobs.Message, _ error) { told <- m }}
				start := time.Now()
				err := p.Run(t.Context(), nil, poll.Lane{Queue: jobs.QueueWork, Handler: h, Concurrency: 1})
				if !errors.Is(err, poll.ErrClosed) || time.Since(start) > 0 {
					t.Errorf("run: %v after %s, want %v at once", err, time.Since(start), poll.ErrClosed)
				}
				if call == "Ack" && len(told) != 1 {
					t.Errorf("told of %d messages, want the one that was not acked", len(told))
				}
			})
		})
	}
}

func TestPumpAsksForTheSweep(t *testing.T) {
	inBubble(t, func(p *pumpTest) {
		start := time.Now()
		asked := make(chan time.Duration, 10)
		p.pump.AskForSweep = func(context.Context) error {
			asked <- time.Since(start)
			if time.Since(start) == time.Minute {
				return errTrouble
			}
			return nil
		}
		p.run(context.Background())
		for i := range 4 {
			if at := <-asked; at != time.Duration(i)*time.Minute {
				p.Errorf("asked after %s, want one a minute from the start", at)
			}
		}
		if err := <-p.told; !errors.Is(err, errTrouble) || len(p.told) > 0 {
			p.Errorf("told %v and %d more", err, len(p.told))
		}
	})
}
