// Package metrics counts what handlers tell, and writes it as CloudWatch metrics.
//
// A function writes lines of JSON in CloudWatch's embedded metric format to its log, from which CloudWatch makes metrics:
// no request, no permission and no endpoint are needed. A line is written for each invocation, not for each item.
package metrics

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prozz/aws-embedded-metrics-golang/emf"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Namespace is that of all metrics.
const Namespace = "fanout"

// Metrics, and their units. Those of calls are of an upstream too.
const (
	ItemsAnswered    = "items_answered"    // count
	ItemsFailed      = "items_failed"      // count
	MessagesDone     = "messages_done"     // count
	MessagesDeferred = "messages_deferred" // count: put off on purpose
	MessagesFailed   = "messages_failed"   // count: to come again after an error
	PingAge          = "ping_age"          // seconds since the day's ping was sent
	CallsAnswered    = "calls_answered"    // count
	CallsFailed      = "calls_failed"      // count
	CallsThrottled   = "calls_throttled"   // count: those of the failed that ask for fewer calls
	CallSeconds      = "call_seconds"      // seconds of all calls; over their count it is the mean latency
	Requests         = "requests"          // count of requests of the API that were answered
	RequestsFailed   = "requests_failed"   // count: those of them that were answered 5xx
	RequestSeconds   = "request_seconds"   // seconds of all of them
)

// Recorder counts until it is flushed. Safe for concurrent use.
type Recorder struct {
	function string
	out      io.Writer
	now      func() time.Time

	mu        sync.Mutex
	counts    map[string]int
	ages      []float64
	requests  float64 // seconds
	upstreams map[string]*calls
}

type calls struct {
	answered, failed, throttled int
	seconds                     float64
}

// New makes a Recorder for a function of that name, which writes to out.
func New(function string, out io.Writer) *Recorder {
	r := &Recorder{function: function, out: out, now: time.Now}
	r.reset()
	return r
}

func (r *Recorder) reset() {
	r.counts, r.ages, r.requests, r.upstreams = map[string]int{}, nil, 0, map[string]*calls{}
}

// Watch is what a handler tells.
func (r *Recorder) Watch() jobs.Watch {
	return jobs.Watch{
		CallEnded: r.callEnded,
		Outcome: func(_ jobs.JobID, answered bool) {
			if answered {
				r.Count(ItemsAnswered, 1)
			} else {
				r.Count(ItemsFailed, 1)
			}
		},
		Pinged: func(_ jobs.QueueName, age time.Duration) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.ages = append(r.ages, age.Seconds())
		},
	}
}

// Count adds n to a metric of counts.
func (r *Recorder) Count(metric string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[metric] += n
}

// Request counts a request of the API.
func (r *Recorder) Request(_ string, status int, took time.Duration) {
	r.Count(Requests, 1)
	if status >= http.StatusInternalServerError {
		r.Count(RequestsFailed, 1)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests += took.Seconds()
}

// Counting is a handler that counts what it is done with.
func (r *Recorder) Counting(h jobs.Handler) jobs.Handler { return counting{h, r} }

type counting struct {
	jobs.Handler
	r *Recorder
}

// Handle is the handler's.
func (c counting) Handle(ctx context.Context, m []jobs.Message) []jobs.Failure {
	failures := c.Handler.Handle(ctx, m)
	c.r.Count(MessagesDone, max(0, len(m)-len(failures)))
	return failures
}

// Failed counts a message that comes again, and tells the log of it: which, of which job or chunk, why, and what to try.
// That it was put off on purpose is no news; why is not told, since an upstream may quote what it was asked.
func (r *Recorder) Failed(ctx context.Context, log *slog.Logger, m jobs.Message, err error) {
	about := []any{"queue", m.Queue, "message", m.ID, "receives", m.Receives}
	if b, unreadable := jobs.DecodeMessage(m.Body); unreadable == nil {
		switch {
		case b.Chunk != nil:
			about = append(about, "job", b.Chunk.Job, "chunk", b.Chunk.ID().String())
		case b.Advance != nil:
			about = append(about, "job", b.Advance.Job, "split", b.Advance.Split)
		}
	}
	if off, ok := errors.AsType[*jobs.Deferred](err); ok {
		r.Count(MessagesDeferred, 1)
		log.DebugContext(ctx, "put off a message", append(about, "until", off.Until)...)
		return
	}
	r.Count(MessagesFailed, 1)
	log.ErrorContext(ctx, "handle a message", append(about, Telling(err)...)...)
}

// Telling is an error for a log, with what to try.
func Telling(err error) []any {
	if e, ok := errors.AsType[*jobs.Error](err); ok && e.Hint != "" {
		return []any{"error", err, "try", e.Hint}
	}
	return []any{"error", err}
}

func (r *Recorder) callEnded(upstream, _ string, fault *jobs.Fault, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.upstreams[upstream]
	if c == nil {
		c = &calls{}
		r.upstreams[upstream] = c
	}
	c.seconds += took.Seconds()
	switch {
	case fault == nil:
		c.answered++
	default:
		c.failed++
		if fault.Throttles() {
			c.throttled++
		}
	}
}

// Flush writes what was counted since the last time: a line for the function, one for each upstream and one for each ping.
// Nothing is written where nothing was counted.
func (r *Recorder) Flush() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.counts) > 0 {
		line := r.line()
		for _, metric := range slices.Sorted(maps.Keys(r.counts)) {
			line.MetricAs(metric, r.counts[metric], emf.Count)
		}
		if r.counts[Requests] > 0 {
			line.MetricFloatAs(RequestSeconds, r.requests, emf.Seconds)
		}
		line.Log()
	}
	for _, age := range r.ages {
		r.line().MetricFloatAs(PingAge, age, emf.Seconds).Log()
	}
	for _, name := range slices.Sorted(maps.Keys(r.upstreams)) {
		c := r.upstreams[name]
		r.line(emf.NewDimension("upstream", name)).
			MetricAs(CallsAnswered, c.answered, emf.Count).
			MetricAs(CallsFailed, c.failed, emf.Count).
			MetricAs(CallsThrottled, c.throttled, emf.Count).
			MetricFloatAs(CallSeconds, c.seconds, emf.Seconds).
			Log()
	}
	r.reset()
}

// line begins a line. The dimensions are few on purpose: CloudWatch takes money for each combination of their values, and a
// model is named by strangers.
func (r *Recorder) line(more ...emf.Dimension) *emf.Logger {
	of := append([]emf.Dimension{emf.NewDimension("function", r.function)}, more...)
	return emf.New(emf.WithWriter(r.out), emf.WithoutDimensions(), emf.WithTimestamp(r.now())).Namespace(Namespace).DimensionSet(of...)
}
