// Package prom shows Prometheus what one process of fanout does.
//
// What a function of a deployment tells CloudWatch, this tells by the same names (package metrics) between fanout_ and
// _total; latencies are histograms. Only the day's ping has nothing here: it is sent by a schedule of the deployment.
package prom

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/fanout-inference/fanout/internal/metrics"
	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Exporter counts, and answers scrapes. Safe for concurrent use.
type Exporter struct {
	registry *prometheus.Registry

	answered, failed                               prometheus.Counter
	requests, requestsFailed                       prometheus.Counter
	callsAnswered, callsFailed, callsThrottled     *prometheus.CounterVec // upstream
	seconds                                        *prometheus.HistogramVec
	inFlight, limit                                *prometheus.GaugeVec
	classes                                        map[jobs.Class]*prometheus.CounterVec // upstream
	ends                                           map[jobs.Phase]prometheus.Counter
	lag                                            prometheus.Histogram
	messagesDone, messagesDeferred, messagesFailed *prometheus.CounterVec   // queue
	requestSeconds                                 *prometheus.HistogramVec // route, status
}

// New makes an Exporter. Depths of queues are read when it is scraped.
func New(q jobs.Queue, queues ...jobs.QueueName) *Exporter {
	counter := func(name, help string, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: metrics.Namespace, Name: name + "_total", Help: help}, []string{label})
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: metrics.Namespace, Name: name, Help: help, Buckets: buckets}, labels)
	}
	item := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: metrics.Namespace, Name: name + "_total", Help: help})
	}
	e := &Exporter{
		registry:       prometheus.NewRegistry(),
		answered:       item(metrics.ItemsAnswered, "Items that were answered."),
		failed:         item(metrics.ItemsFailed, "Items whose outcome is an error."),
		callsAnswered:  counter(metrics.CallsAnswered, "Calls of an upstream that were answered.", "upstream"),
		callsFailed:    counter(metrics.CallsFailed, "Calls of an upstream that failed, throttled ones among them.", "upstream"),
		callsThrottled: counter(metrics.CallsThrottled, "Calls of an upstream that it throttled.", "upstream"),
		seconds:        histogram(metrics.CallSeconds, "Seconds that a call of an upstream took.", prometheus.ExponentialBuckets(0.01, 2, 15), "upstream"),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: metrics.Namespace, Name: metrics.CallsInFlight,
			Help: "Calls of an upstream that are under way."}, []string{"upstream"}),
		limit: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: metrics.Namespace, Name: metrics.CallLimit,
			Help: "Calls of an upstream that may be under way, of the model that was called last."}, []string{"upstream"}),
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: metrics.Namespace, Name: metrics.FoldLag,
			Help: "Seconds since a split was last folded, when it is folded with news: how old progress is.", Buckets: []float64{1, 5, 10, 15, 30, 60, 120, 300, 600, 3600}}),
		classes: map[jobs.Class]*prometheus.CounterVec{}, ends: map[jobs.Phase]prometheus.Counter{},
		messagesDone:     counter(metrics.MessagesDone, "Messages of a queue that are done with.", "queue"),
		messagesDeferred: counter(metrics.MessagesDeferred, "Messages of a queue that were put off on purpose.", "queue"),
		messagesFailed:   counter(metrics.MessagesFailed, "Messages of a queue that come again after an error.", "queue"),
		requests:         item(metrics.Requests, "Requests of the API that were answered."),
		requestsFailed:   item(metrics.RequestsFailed, "Requests of the API that were answered 5xx."),
		requestSeconds: histogram(metrics.RequestSeconds, "Seconds that a request of the API took.",
			[]float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60}, "route", "status"),
	}
	for class, name := range metrics.ClassMetrics {
		e.classes[class] = counter(name, "Calls of an upstream that failed, of the class "+string(class)+".", "upstream")
		e.registry.MustRegister(e.classes[class])
	}
	for phase, name := range metrics.EndMetrics {
		e.ends[phase] = item(name, "Jobs that have ended as "+string(phase)+".")
		e.registry.MustRegister(e.ends[phase])
	}
	e.registry.MustRegister(e.limit, e.lag, e.answered, e.failed, e.callsAnswered, e.callsFailed, e.callsThrottled, e.seconds, e.inFlight,
		e.messagesDone, e.messagesDeferred, e.messagesFailed, e.requests, e.requestsFailed, e.requestSeconds,
		depths{q, queues}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return e
}

// Handler answers scrapes.
func (e *Exporter) Handler() http.Handler {
	return promhttp.HandlerFor(e.registry, promhttp.HandlerOpts{Timeout: 10 * time.Second})
}

// Watch is what handlers of messages tell.
func (e *Exporter) Watch() jobs.Watch {
	return jobs.Watch{
		CallStarted: func(upstream, _ string) { e.inFlight.WithLabelValues(upstream).Inc() },
		CallEnded: func(upstream, _ string, fault *jobs.Fault, took time.Duration) {
			e.inFlight.WithLabelValues(upstream).Dec()
			e.seconds.WithLabelValues(upstream).Observe(took.Seconds())
			if fault == nil {
				e.callsAnswered.WithLabelValues(upstream).Inc()
				return
			}
			if fault.Throttles() {
				e.callsThrottled.WithLabelValues(upstream).Inc()
			}
			if c := e.classes[fault.Class()]; c != nil {
				c.WithLabelValues(upstream).Inc()
			}
			e.callsFailed.WithLabelValues(upstream).Inc()
		},
		Limited:  func(upstream, _ string, calls int) { e.limit.WithLabelValues(upstream).Set(float64(calls)) },
		Folded:   func(_ jobs.JobID, lag time.Duration) { e.lag.Observe(lag.Seconds()) },
		JobEnded: func(j jobs.Job) { e.ends[j.Phase].Inc() },
		Outcome: func(_ jobs.JobID, answered bool) {
			if answered {
				e.answered.Inc()
			} else {
				e.failed.Inc()
			}
		},
	}
}

// Counting is a handler of a queue's messages that counts what it is done with.
func (e *Exporter) Counting(q jobs.QueueName, h jobs.Handler) jobs.Handler {
	return counting{h, e.messagesDone.WithLabelValues(string(q))}
}

type counting struct {
	jobs.Handler
	done prometheus.Counter
}

// Handle is the handler's.
func (c counting) Handle(ctx context.Context, m []jobs.Message) []jobs.Failure {
	failures := c.Handler.Handle(ctx, m)
	c.done.Add(float64(max(0, len(m)-len(failures))))
	return failures
}

// Failed counts a message that comes again.
func (e *Exporter) Failed(m jobs.Message, err error) {
	if _, off := errors.AsType[*jobs.Deferred](err); off {
		e.messagesDeferred.WithLabelValues(string(m.Queue)).Inc()
		return
	}
	e.messagesFailed.WithLabelValues(string(m.Queue)).Inc()
}

// Request counts a request of the API.
func (e *Exporter) Request(route string, status int, took time.Duration) {
	e.requests.Inc()
	if status >= http.StatusInternalServerError {
		e.requestsFailed.Inc()
	}
	e.requestSeconds.WithLabelValues(route, strconv.Itoa(status)).Observe(took.Seconds())
}

// depths collects how much the queues hold.
type depths struct {
	queue  jobs.Queue
	queues []jobs.QueueName
}

var (
	depthDesc = prometheus.NewDesc(prometheus.BuildFQName(metrics.Namespace, "", "queue_messages"), "Messages of a queue, about: waiting, in_flight, delayed, or dead.", []string{"queue", "state"}, nil)
	ageDesc   = prometheus.NewDesc(prometheus.BuildFQName(metrics.Namespace, "", metrics.QueueOldest), "Age of the oldest waiting message of a queue.", []string{"queue"}, nil)
)

// Describe says what is collected.
func (d depths) Describe(to chan<- *prometheus.Desc) {
	to <- depthDesc
	to <- ageDesc
}

// Collect reads the depths.
func (d depths) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for _, q := range d.queues {
		depth, err := d.queue.Depth(ctx, q)
		if err != nil {
			to <- prometheus.NewInvalidMetric(depthDesc, err)
			continue
		}
		for state, n := range map[string]int64{"waiting": depth.Waiting, "in_flight": depth.InFlight, "delayed": depth.Delayed, "dead": depth.Dead} {
			to <- prometheus.MustNewConstMetric(depthDesc, prometheus.GaugeValue, float64(n), string(q), state)
		}
		to <- prometheus.MustNewConstMetric(ageDesc, prometheus.GaugeValue, depth.Oldest.Seconds(), string(q))
	}
}
