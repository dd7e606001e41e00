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

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Namespace is that of all metrics.
const Namespace = "fanout"

// Metrics, and their units. Those of calls are of an upstream too.
const (
	ItemsAnswered    = "items_answered"       // count
	ItemsFailed      = "items_failed"         // count
	MessagesDone     = "messages_done"        // count
	MessagesDeferred = "messages_deferred"    // count: put off on purpose
	MessagesFailed   = "messages_failed"      // count: to come again after an error
	PingAge          = "ping_age"             // seconds since the day's ping was sent
	CallsAnswered    = "calls_answered"       // count
	CallsFailed      = "calls_failed"         // count
	CallsThrottled   = "calls_throttled"      // count: those of the failed that ask for fewer calls
	CallsRejected    = "calls_rejected"       // count: those of the failed that are the item's own fault
	CallsHeld        = "calls_held"           // count: of the failed, refusals that may be the credential's fault
	CallsWeather     = "calls_weather"        // count: of the failed, what lies outside the item
	CallsSuspect     = "calls_suspect"        // count: of the failed, what may be either's fault
	CallSeconds      = "call_seconds"         // seconds of each call: a distribution
	CallsInFlight    = "calls_in_flight"      // count: under way; of a function the most at once
	CallLimit        = "call_limit"           // count: how many may be under way, as throttling has it
	JobsCompleted    = "jobs_completed"       // count
	JobsFailed       = "jobs_failed"          // count
	JobsExpired      = "jobs_expired"         // count
	JobsCancelled    = "jobs_cancelled"       // count
	QueueOldest      = "queue_oldest_seconds" // age of the oldest message; of a function, of those that it handled
	FoldLag          = "fold_lag_seconds"     // seconds since a split was last folded, when it is folded with news: how old progress is
	Requests         = "requests"             // count of requests of the API that were answered
	RequestsFailed   = "requests_failed"      // count: those of them that were answered 5xx
	RequestSeconds   = "request_seconds"      // seconds of all of them
)

// Recorder counts until it is flushed. Safe for concurrent use.
type Recorder struct {
	function string
	out      io.Writer
	now      func() time.Time

	mu        sync.Mutex
	counts    map[string]int
	ages      []float64
	lags      []float64
	oldest    float64
	requests  float64 // seconds
	upstreams map[string]*calls
	inFlight  map[string]int
}

type calls struct {
	counts      map[string]int
	seconds     []float64
	most, limit int // calls in flight; limit 0 = it was not told
}

// ClassMetrics are the counts of failed calls, by the class of their fault.
var ClassMetrics = map[jobs.Class]string{
	jobs.ClassFailed: CallsRejected, jobs.ClassHeld: CallsHeld, jobs.ClassWeather: CallsWeather, jobs.ClassSuspect: CallsSuspect,
}

// EndMetrics are the counts of jobs, by how they ended.
var EndMetrics = map[jobs.Phase]string{
	jobs.PhaseCompleted: JobsCompleted, jobs.PhaseFailed: JobsFailed, jobs.PhaseExpired: JobsExpired, jobs.PhaseCancelled: JobsCancelled,
}

// New makes a Recorder for a function of that name, which writes to out.
func New(function string, out io.Writer) *Recorder {
	r := &Recorder{function: function, out: out, now: time.Now, inFlight: map[string]int{}}
	r.reset()
	return r
}

func (r *Recorder) reset() {
	r.counts, r.ages, r.lags, r.oldest, r.requests, r.upstreams = map[string]int{}, nil, nil, 0, 0, map[string]*calls{}
}

// Watch is what a handler tells.
func (r *Recorder) Watch() jobs.Watch {
	return jobs.Watch{
		CallStarted: r.callStarted,
		CallEnded:   r.callEnded,
		Limited: func(upstream, _ string, limit int) {
			r.mu.Lock()
			defer r.mu.Unlock()
			c := r.of(upstream)
			if c.limit == 0 || limit < c.limit {
				c.limit = limit
			}
		},
		Folded: func(_ jobs.JobID, lag time.Duration) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.lags = append(r.lags, lag.Seconds())
		},
		JobEnded: func(j jobs.Job) { r.Count(EndMetrics[j.Phase], 1) },
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
	c.r.took(m)
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

// took notes how old messages were when they were taken.
func (r *Recorder) took(all []jobs.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range all {
		if !m.Sent.IsZero() {
			r.oldest = max(r.oldest, r.now().Sub(m.Sent).Seconds())
		}
	}
}

// of is what is counted of an upstream; the caller holds the lock.
func (r *Recorder) of(upstream string) *calls {
	c := r.upstreams[upstream]
	if c == nil {
		c = &calls{counts: map[string]int{}, most: r.inFlight[upstream]}
		r.upstreams[upstream] = c
	}
	return c
}

func (r *Recorder) callStarted(upstream, _ string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inFlight[upstream]++
	c := r.of(upstream)
	c.most = max(c.most, r.inFlight[upstream])
}

func (r *Recorder) callEnded(upstream, _ string, fault *jobs.Fault, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inFlight[upstream]--
	c := r.of(upstream)
	c.seconds = append(c.seconds, took.Seconds())
	if fault == nil {
		c.counts[CallsAnswered]++
		return
	}
	c.counts[CallsFailed]++
	if fault.Throttles() {
		c.counts[CallsThrottled]++
	}
	if metric := ClassMetrics[fault.Class()]; metric != "" {
		c.counts[metric]++
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
			line.add(metric, count, r.counts[metric])
		}
		if r.counts[Requests] > 0 {
			line.add(RequestSeconds, seconds, r.requests)
		}
		if r.oldest > 0 {
			line.add(QueueOldest, seconds, r.oldest)
		}
		line.write(r.out, r.now())
	}
	for _, age := range r.ages {
		r.line().add(PingAge, seconds, age).write(r.out, r.now())
	}
	for values := range slices.Chunk(r.lags, mostValues) {
		r.line().add(FoldLag, seconds, values).write(r.out, r.now())
	}
	for _, name := range slices.Sorted(maps.Keys(r.upstreams)) {
		r.flushCalls(name, r.upstreams[name])
	}
	r.reset()
}

// flushCalls writes a line for what was counted of an upstream, with as many of its latencies as a line may have, and others
// for the rest of them.
func (r *Recorder) flushCalls(upstream string, c *calls) {
	if len(c.seconds) == 0 && c.limit == 0 {
		return // calls that have begun only
	}
	line := r.line(dimension{"upstream", upstream})
	for _, metric := range slices.Sorted(maps.Keys(c.counts)) {
		line.add(metric, count, c.counts[metric])
	}
	line.add(CallsInFlight, count, c.most)
	if c.limit > 0 {
		line.add(CallLimit, count, c.limit)
	}
	for values := range slices.Chunk(c.seconds, mostValues) {
		line.add(CallSeconds, seconds, values).write(r.out, r.now())
		line = r.line(dimension{"upstream", upstream})
	}
	if len(line.units) > 0 {
		line.write(r.out, r.now())
	}
}

// line begins a line. The dimensions are few on purpose: CloudWatch takes money for each combination of their values, and a
// model is named by strangers.
func (r *Recorder) line(more ...dimension) *line {
	return newLine(append([]dimension{{"function", r.function}}, more...)...)
}
