package functions

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/upstream/upstreamtest"
)

// How calls are held up, so that a worker ends in the middle of them.
const (
	stayItems = 150
	stayWidth = 20 // calls in flight of a process
	stayFirst = 30 // that are answered at once
)

// TestAWorkerThatStaysHandsOver: `fanout worker` takes the place of the worker function, and ends while calls are in flight.
// Another finishes. What was answered and saved is not asked again; what was not is back in the queue at once.
func TestAWorkerThatStaysHandsOver(t *testing.T) {
	for _, row := range []struct {
		name  string
		grace string
		end   func(t *testing.T, p *process, answer func()) (code int)
		calls int  // of an item that was in flight
		saves bool // what was answered before
	}{
		{"within the grace period", "1m", func(t *testing.T, p *process, answer func()) int {
			p.signal(t, syscall.SIGTERM)
			p.await(t, `"msg":"draining"`)
			answer()
			return p.exit(t)
		}, 1, true},
		{"after the grace period", "100ms", func(t *testing.T, p *process, answer func()) int {
			p.signal(t, syscall.SIGTERM)
			defer answer()
			return p.exit(t)
		}, 2, true},
		{"by a kill", "1m", func(t *testing.T, p *process, answer func()) int {
			p.signal(t, syscall.SIGKILL)
			defer answer()
			return p.exit(t)
		}, 2, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			u := newHeldUp()
			s := newStay(t, u.Start(t))
			s.send(t, "ingest", s.upload(t, "inbox/acme/a.jsonl", ask(stayItems, nil)))

			first := s.run(t, "--grace", row.grace)
			u.await(t, first)
			want := 0
			if !row.saves {
				want = -1
			}
			if code := row.end(t, first, u.answer); code != want {
				t.Fatalf("exit code %d, want %d; it said:\n%s", code, want, first)
			}
			if n := u.Calls(); n > stayFirst+2*stayWidth {
				t.Errorf("%d calls were made, of which %d before the end", n, stayFirst+stayWidth)
			}
			if row.saves {
				s.nothingHidden(t)
			} else {
				s.passTime(t)
			}

			second := s.run(t)
			j := s.job(t, "acme")
			if j.Phase != "completed" || j.Outputs == nil || j.Outputs.Errors != nil {
				t.Fatalf("the job is %s: %+v, %+v", j.Phase, j.Stop, j.Outputs)
			}
			answered(t, s.outcomes(t, j.Outputs.Answers), stayItems)
			s.nothingDead(t)
			for key, n := range u.CallsByKey() {
				most := 1
				if u.wasHeld(key) || !row.saves {
					most = row.calls
				}
				if n > most {
					t.Errorf("item %s was called %d times, of %d that may be", key, n, most)
				}
			}
			second.signal(t, syscall.SIGTERM)
			if code := second.exit(t); code != 0 {
				t.Errorf("the second one ends with exit code %d; it said:\n%s", code, second)
			}
		})
	}
}

// TestAWorkerNamesAllVariablesThatItMisses: together, and before it touches anything.
func TestAWorkerNamesAllVariablesThatItMisses(t *testing.T) {
	t.Parallel()
	s := &stage{env: map[string]string{"FANOUT_BUCKET": "b", "FANOUT_UPSTREAM": "ftp://x", "FANOUT_CONCURRENCY": "many"}}
	p := s.run(t)
	if code := p.exit(t); code != 2 {
		t.Errorf("exit code %d, want 2", code)
	}
	for _, name := range []string{"TABLE", "INGEST_QUEUE", "WORK_QUEUE", "AGGREGATE_QUEUE", "WORK_DEAD_LETTERS", "UPSTREAM", "CONCURRENCY"} {
		if !strings.Contains(p.String(), "FANOUT_"+name+" ") {
			t.Errorf("it does not name FANOUT_%s but says:\n%s", name, p)
		}
	}
	if strings.Contains(p.String(), "FANOUT_BUCKET ") {
		t.Errorf("it names FANOUT_BUCKET, which is set:\n%s", p)
	}
}

// heldUp is an upstream that answers some calls and then none until answer is called.
type heldUp struct {
	upstreamtest.Server
	full    chan struct{} // closed when a process has all its calls in flight
	release chan struct{}
	once    sync.Once

	mu    sync.Mutex
	calls int
	held  map[string]bool // by key
}

func newHeldUp() *heldUp {
	u := &heldUp{full: make(chan struct{}), release: make(chan struct{}), held: map[string]bool{}}
	u.OnCall = func(c upstreamtest.Call) {
		u.mu.Lock()
		u.calls++
		held := u.calls > stayFirst
		if held && !u.open() {
			u.held[c.Key] = true
			if len(u.held) == stayWidth {
				close(u.full)
			}
		}
		u.mu.Unlock()
		if held {
			<-u.release
		}
	}
	return u
}

func (u *heldUp) open() bool {
	select {
	case <-u.release:
		return true
	default:
		return false
	}
}

// Start serves until the test ends.
func (u *heldUp) Start(t *testing.T) string {
	url := u.Server.Start(t)
	t.Cleanup(u.answer) // before the server ends, which waits for its calls
	return url
}

func (u *heldUp) answer() { u.once.Do(func() { close(u.release) }) }

func (u *heldUp) wasHeld(key string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.held[key]
}

// await returns when the process has all its calls in flight, which means that it has taken all answers before.
func (u *heldUp) await(t *testing.T, p *process) {
	t.Helper()
	select {
	case <-u.full:
	case <-p.ended:
		t.Fatalf("it has ended; it said:\n%s", p)
	}
}

// stay is a stage whose work is done by processes that stay.
type stay struct {
	*stage
	mu       sync.Mutex
	receipts []string // of work that was received
}

func newStay(t *testing.T, upstream string) *stay {
	t.Helper()
	s := &stay{stage: newStage(t, plan{upstream: upstream})}
	s.env["AWS_ENDPOINT_URL_SQS"] = proxy(t, s.env["AWS_ENDPOINT_URL_SQS"], func(_ *http.Request, _, answer []byte) {
		var received struct{ Messages []types.Message }
		if json.Unmarshal(answer, &received) != nil {
			return // it is the answer to something else
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, m := range received.Messages {
			s.receipts = append(s.receipts, aws.ToString(m.ReceiptHandle))
		}
	})
	s.env["FANOUT_CALL_TIMEOUT"] = "10m" // calls end by what the test does
	delete(s.mappings, "work")
	s.start(t)
	return s
}

// nothingHidden holds that nobody has any work in hand.
func (s *stay) nothingHidden(t *testing.T) {
	t.Helper()
	url := s.queues["work"]
	got, err := s.sqs.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{
		QueueUrl: &url, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameApproximateNumberOfMessagesNotVisible},
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := got.Attributes[string(types.QueueAttributeNameApproximateNumberOfMessagesNotVisible)]; n != "0" {
		t.Errorf("%s messages of work are hidden", n)
	}
}

// passTime does what two minutes do after a kill: leases run out, and what was received is shown again.
func (s *stay) passTime(t *testing.T) {
	t.Helper()
	for j, err := range s.store.Jobs(t.Context(), jobs.JobQuery{Open: true}) {
		if err != nil {
			t.Fatal(err)
		}
		for c, err := range s.store.Chunks(t.Context(), j.ID, 0, jobs.OffsetRange{}) {
			if err != nil {
				t.Fatal(err)
			}
			s.endLease(t, c.ID)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	url := s.queues["work"]
	for _, receipt := range s.receipts { // those that were deleted are not known any more
		_, err := s.sqs.ChangeMessageVisibility(t.Context(), &sqs.ChangeMessageVisibilityInput{QueueUrl: &url, ReceiptHandle: &receipt})
		if err != nil {
			t.Log(err)
		}
	}
}
