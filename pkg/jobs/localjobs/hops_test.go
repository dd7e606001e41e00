package localjobs

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// TestChainsOfMessagesAreShort: Lambda counts the functions that stand in a chain of messages, each sent while the one before
// was handled, and drops what comes after about 16 of one. So no chain may grow with the job, in whatever order messages
// are handled; nor may their number grow faster than the splits.
// https://docs.aws.amazon.com/lambda/latest/dg/invocation-recursion.html
func TestChainsOfMessagesAreShort(t *testing.T) {
	const splits, mostOfOne = 12, 4
	for name, pick := range map[string]func(visible int) int{
		"oldest first": func(int) int { return 0 },
		"newest first": func(visible int) int { return visible - 1 },
		"any":          rand.New(rand.NewPCG(1, 2)).IntN,
	} {
		t.Run(name, func(t *testing.T) {
			h := newHops(t)
			h.open(splits)
			h.run(pick)
			for queue, n := range h.most {
				if n > mostOfOne {
					t.Errorf("%s stands %d times in a chain, want %d at most", queue, n, mostOfOne)
				}
			}
			if n := h.sent[jobs.QueueIngest]; n > 4*splits {
				t.Errorf("%d messages were sent to ingest for %d splits", n, splits)
			}
		})
	}
}

// hops is a queue that carries with each message how often each function stands in the chain that has led to it.
type hops struct {
	jobs.Queue
	t        *testing.T
	local    *Local
	handlers map[jobs.QueueName]jobs.Handler
	now      time.Time
	messages []*hop
	sent     map[jobs.QueueName]int
	most     map[jobs.QueueName]int
}

type hop struct {
	jobs.Message
	chain   map[jobs.QueueName]int
	visible time.Time
}

type chainKey struct{}

func newHops(t *testing.T) *hops {
	h := &hops{t: t, local: openAt(t, t.TempDir(), Options{}), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		sent: map[jobs.QueueName]int{}, most: map[jobs.QueueName]int{}}
	p := jobs.Ports{Ledger: h.local.Store, Registry: h.local.Store, Queue: h, Files: h.local.Files, Now: func() time.Time { return h.now }}.WithDefaults()
	h.handlers = map[jobs.QueueName]jobs.Handler{
		jobs.QueueIngest:    jobs.NewIngest(p, jobs.IngestOptions{}),
		jobs.QueueWork:      jobs.NewWorker(p, jobs.WorkerOptions{Route: func(string) (string, jobs.Upstream) { return "u", answersAtOnce{} }}),
		jobs.QueueAggregate: jobs.NewAggregate(p, jobs.AggregateOptions{}),
	}
	return h
}

type answersAtOnce struct{}

func (answersAtOnce) Call(context.Context, jobs.Request) (jobs.Answer, error) {
	return jobs.Answer{Status: 200, Body: []byte(`{}`)}, nil
}

// open opens a job with so many splits of two chunks.
func (h *hops) open(splits int) {
	h.t.Helper()
	line := `{"custom_id":"c%04d","method":"POST","url":"/v1/chat/completions","body":{"model":"m"}}` + "\n"
	var input strings.Builder
	for i := range 4 * splits {
		fmt.Fprintf(&input, line, i)
	}
	w, err := h.local.Files.Create(h.t.Context(), "files/tenant/input")
	h.must(err)
	_, err = w.Write([]byte(input.String()))
	h.must(err)
	info, err := w.Commit(h.t.Context())
	h.must(err)
	p := jobs.Ports{Ledger: h.local.Store, Registry: h.local.Store, Queue: h, Files: h.local.Files, Now: func() time.Time { return h.now }}.WithDefaults()
	_, err = jobs.Submit(h.t.Context(), p, jobs.Job{
		ID: theJob, Tenant: "tenant", Input: info.FileRef, InputBytes: info.Bytes, Endpoint: "/v1/chat/completions", OnInvalid: jobs.InvalidSkips,
		Cut: jobs.Cut{SplitBytes: info.Bytes / int64(splits), ChunkLines: 2, ChunkBytes: 4 << 20, LineBytes: 20 << 20},
	})
	h.must(err)
}

// run handles messages one at a time, with a sweep each minute, until the job has ended. A second passes with each.
func (h *hops) run(pick func(visible int) int) {
	h.t.Helper()
	tick := h.now.Add(time.Minute)
	for range 5000 {
		if j, err := h.local.Store.Job(h.t.Context(), theJob); err == nil && j.Phase.Ended() {
			return
		}
		h.now = h.now.Add(time.Second)
		if !h.now.Before(tick) {
			tick = tick.Add(time.Minute)
			_, err := h.Send(h.t.Context(), jobs.QueueAggregate, jobs.TickBody())
			h.must(err)
		}
		visible := slices.DeleteFunc(slices.Clone(h.messages), func(m *hop) bool { return m.visible.After(h.now) })
		if len(visible) > 0 {
			h.deliver(visible[pick(len(visible))])
		}
	}
	h.t.Fatal("the job has not ended")
}

func (h *hops) deliver(m *hop) {
	chain := maps.Clone(m.chain)
	chain[m.Queue]++
	h.most[m.Queue] = max(h.most[m.Queue], chain[m.Queue])
	m.Receives++
	m.visible = h.now.Add(5 * time.Second) // unless its handler says otherwise
	failures := h.handlers[m.Queue].Handle(context.WithValue(h.t.Context(), chainKey{}, chain), []jobs.Message{m.Message})
	if len(failures) == 0 {
		h.messages = slices.DeleteFunc(h.messages, func(other *hop) bool { return other == m })
	}
}

// Send is jobs.Queue's.
func (h *hops) Send(ctx context.Context, q jobs.QueueName, bodies ...[]byte) ([]jobs.Unsent, error) {
	chain, _ := ctx.Value(chainKey{}).(map[jobs.QueueName]int)
	if chain == nil {
		chain = map[jobs.QueueName]int{}
	}
	for _, body := range bodies {
		h.sent[q]++
		id := fmt.Sprint(len(h.sent), "-", h.sent[q], "-", q)
		h.messages = append(h.messages, &hop{jobs.Message{ID: id, Receipt: id, Queue: q, Body: body, Sent: h.now}, chain, h.now})
	}
	return nil, nil
}

// Defer is jobs.Queue's.
func (h *hops) Defer(_ context.Context, until time.Time, messages ...jobs.Message) error {
	for _, m := range messages {
		for _, mine := range h.messages {
			if mine.ID == m.ID {
				mine.visible = until
			}
		}
	}
	return nil
}

func (h *hops) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}
