package prom

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/fanout-inference/fanout/internal/metrics"
	"github.com/fanout-inference/fanout/pkg/jobs"
)

// TestWhatAFunctionTellsThisTellsByTheSameName: whoever knows the one knows the other.
func TestWhatAFunctionTellsThisTellsByTheSameName(t *testing.T) {
	e := New(fullQueue{}, jobs.QueueWork)
	w := e.Watch()
	w.Outcome("j", true)
	w.CallStarted("u", "m")
	w.CallEnded("u", "m", nil, time.Second)
	for _, status := range []int{400, 401, 429, 500} {
		w.CallStarted("u", "m")
		w.CallEnded("u", "m", &jobs.Fault{Cause: jobs.CauseStatus, Status: status, IsObject: true}, time.Second)
	}
	w.Limited("u", "m", 7)
	w.Folded("j", 10*time.Second)
	for phase := range metrics.EndMetrics {
		w.JobEnded(jobs.Job{Phase: phase})
	}
	m := jobs.Message{Queue: jobs.QueueWork}
	e.Counting(jobs.QueueWork, doneAll{}).Handle(t.Context(), []jobs.Message{m})
	e.Failed(m, &jobs.Deferred{})
	e.Failed(m, context.Canceled)
	e.Request("GET /v1/files", 200, time.Second)
	e.Request("GET /v1/files", 503, 2*time.Second)
	r := httptest.NewRecorder()
	e.Handler().ServeHTTP(r, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	scraped := r.Body.String()
	for _, line := range []string{
		metrics.ItemsAnswered + "_total 1", metrics.ItemsFailed + "_total 0", metrics.JobsCompleted + "_total 1", metrics.JobsFailed + "_total 1",
		metrics.JobsExpired + "_total 1", metrics.JobsCancelled + "_total 1", metrics.CallSeconds + `_count{upstream="u"} 5`,
		metrics.CallsAnswered + `_total{upstream="u"} 1`, metrics.CallsFailed + `_total{upstream="u"} 4`, metrics.CallsThrottled + `_total{upstream="u"} 1`,
		metrics.CallsRejected + `_total{upstream="u"} 1`, metrics.CallsHeld + `_total{upstream="u"} 1`, metrics.CallsWeather + `_total{upstream="u"} 1`,
		metrics.CallsSuspect + `_total{upstream="u"} 1`, metrics.CallsInFlight + `{upstream="u"} 0`, metrics.CallLimit + `{upstream="u"} 7`,
		metrics.FoldLag + "_sum 10", metrics.QueueOldest + `{queue="work"} 60`, `queue_messages{queue="work",state="dead"} 3`,
		metrics.Requests + "_total 2", metrics.RequestsFailed + "_total 1", metrics.RequestSeconds + `_sum{route="GET /v1/files",status="503"} 2`,
		metrics.MessagesDone + `_total{queue="work"} 1`, metrics.MessagesDeferred + `_total{queue="work"} 1`, metrics.MessagesFailed + `_total{queue="work"} 1`,
	} {
		if !strings.Contains(scraped, "\nfanout_"+line+"\n") {
			t.Errorf("a scrape lacks fanout_%s", line)
		}
	}
}

type doneAll struct{}

func (doneAll) Handle(context.Context, []jobs.Message) []jobs.Failure { return nil }

// fullQueue has something of everything.
type fullQueue struct{ jobs.Queue }

func (fullQueue) Depth(context.Context, jobs.QueueName) (jobs.Depth, error) {
	return jobs.Depth{Waiting: 1, Dead: 3, Oldest: time.Minute}, nil
}
