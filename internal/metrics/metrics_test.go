package metrics

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// TestFlushWritesLinesThatCloudWatchReads holds the lines to the embedded metric format: every metric and dimension that is
// announced stands beside the announcement.
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
func TestFlushWritesLinesThatCloudWatchReads(t *testing.T) {
	var out bytes.Buffer
	r := New("worker", &out)
	r.now = func() time.Time { return time.UnixMilli(1_700_000_000_123) }
	w := r.Watch()
	w.Outcome("j", true)
	w.Outcome("j", true)
	w.Outcome("j", false)
	r.Count(MessagesDone, 3)
	w.CallStarted("u", "m")
	w.CallStarted("u", "m2")
	w.Limited("u", "m", 7)
	w.Limited("u", "m", 3)
	w.Folded("j", 10*time.Second)
	w.JobEnded(jobs.Job{Phase: jobs.PhaseExpired})
	w.CallEnded("u", "m", nil, 1500*time.Millisecond)
	w.CallEnded("u", "m2", &jobs.Fault{Cause: jobs.CauseStatus, Status: 429}, 500*time.Millisecond)
	w.Pinged(jobs.QueueWork, 2*time.Second)
	r.Flush()

	type line struct {
		dimensions, values map[string]any
	}
	var got []line
	for raw := range strings.Lines(out.String()) {
		var all map[string]any
		if err := json.Unmarshal([]byte(raw), &all); err != nil {
			t.Fatalf("%q: %v", raw, err)
		}
		var head struct {
			AWS struct {
				Timestamp         int64
				CloudWatchMetrics []struct {
					Namespace  string
					Dimensions [][]string
					Metrics    []struct{ Name, Unit string }
				}
			} `json:"_aws"`
		}
		if err := json.Unmarshal([]byte(raw), &head); err != nil {
			t.Fatal(err)
		}
		l := line{map[string]any{}, map[string]any{}}
		if head.AWS.Timestamp != 1_700_000_000_123 || len(head.AWS.CloudWatchMetrics) != 1 || len(head.AWS.CloudWatchMetrics[0].Dimensions) != 1 {
			t.Fatalf("the head of %s", raw)
		}
		m := head.AWS.CloudWatchMetrics[0]
		for _, d := range m.Dimensions[0] {
			l.dimensions[d] = all[d]
		}
		for _, d := range m.Metrics {
			l.values[d.Name+" "+d.Unit] = all[d.Name]
		}
		if m.Namespace != "fanout" || len(all) != 1+len(l.dimensions)+len(l.values) {
			t.Errorf("%s has more than it announces", raw)
		}
		got = append(got, l)
	}
	want := []line{
		{map[string]any{"function": "worker"}, map[string]any{"items_answered Count": 2.0, "items_failed Count": 1.0, "jobs_expired Count": 1.0, "messages_done Count": 3.0}},
		{map[string]any{"function": "worker"}, map[string]any{"ping_age Seconds": 2.0}},
		{map[string]any{"function": "worker"}, map[string]any{"fold_lag_seconds Seconds": []any{10.0}}},
		{map[string]any{"function": "worker", "upstream": "u"},
			map[string]any{"calls_answered Count": 1.0, "calls_failed Count": 1.0, "calls_throttled Count": 1.0, "calls_weather Count": 1.0, "calls_in_flight Count": 2.0,
				"call_limit Count": 3.0, "call_seconds Seconds": []any{1.5, 0.5}}},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(line{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}

	out.Reset()
	r.Flush()
	if out.Len() > 0 {
		t.Errorf("a second flush writes %s", out.Bytes())
	}
}

// TestALineHasNoMoreValuesThanCloudWatchReads: the rest of a distribution stands in lines of its own.
func TestALineHasNoMoreValuesThanCloudWatchReads(t *testing.T) {
	var out bytes.Buffer
	r := New("worker", &out)
	w := r.Watch()
	for range 250 {
		w.CallStarted("u", "m")
		w.CallEnded("u", "m", nil, time.Second)
	}
	r.Flush()
	var sizes []int
	answered := 0.0
	for raw := range strings.Lines(out.String()) {
		var l struct {
			Seconds  []float64 `json:"call_seconds"`
			Answered float64   `json:"calls_answered"`
		}
		if err := json.Unmarshal([]byte(raw), &l); err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(l.Seconds))
		answered += l.Answered
	}
	if diff := cmp.Diff([]int{100, 100, 50}, sizes); diff != "" || answered != 250 {
		t.Errorf("%g answered, in lines of (-want +got)\n%s", answered, diff)
	}
}

// TestTheOldestMessageOfABatchIsTold: where the queue itself does not say it.
func TestTheOldestMessageOfABatchIsTold(t *testing.T) {
	var out bytes.Buffer
	r := New("aggregate", &out)
	now := time.UnixMilli(1_700_000_000_000)
	r.now = func() time.Time { return now }
	r.Counting(doneAll{}).Handle(t.Context(), []jobs.Message{{ID: "a", Sent: now.Add(-time.Second)}, {ID: "b", Sent: now.Add(-90 * time.Second)}, {ID: "c"}})
	r.Flush()
	if !strings.Contains(out.String(), `"queue_oldest_seconds":90`) {
		t.Errorf("it is told: %s", out.String())
	}
}

type doneAll struct{}

func (doneAll) Handle(context.Context, []jobs.Message) []jobs.Failure { return nil }
