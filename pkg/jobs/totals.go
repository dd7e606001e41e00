package jobs

import (
	"cmp"
	"slices"
	"time"
)

// Usage is tokens, as the wire counts them.
type Usage struct {
	Input     int64 `json:"input_tokens"`
	Cached    int64 `json:"cached_tokens,omitempty"` // of Input
	Output    int64 `json:"output_tokens"`
	Reasoning int64 `json:"reasoning_tokens,omitempty"` // of Output
	Total     int64 `json:"total_tokens"`
}

// Add is the sum.
func (u Usage) Add(o Usage) Usage {
	return Usage{u.Input + o.Input, u.Cached + o.Cached, u.Output + o.Output, u.Reasoning + o.Reasoning, u.Total + o.Total}
}

// Totals is what a fold counts. Of a chunk, a split or a job: each is the sum of the one below.
type Totals struct {
	Items      int64 `json:",omitempty"` // of scanned splits
	Answered   int64 `json:",omitempty"`
	Failed     int64 `json:",omitempty"`
	Usage      Usage
	Seconds    float64   `json:",omitempty"` // spent in answered calls
	LastAnswer time.Time `json:",omitzero"`
	Dead       int64     `json:",omitempty"` // chunks in the dead letters
	DeadItems  int64     `json:",omitempty"` // open ones in these
	// PurgedItems are open ones in chunks that were purged: nobody asks for them any more.
	PurgedItems int64        `json:",omitempty"`
	Parked      int64        `json:",omitempty"` // chunks that wait for a pause to end
	Errors      []ErrorCount `json:",omitempty"` // commonest first, at most MaxErrorGroups
	Latencies   Latencies    `json:",omitempty"` // of answered calls
	Cost        Cost         `json:",omitempty"` // of answered calls, at the prices of their time
}

// ErrorCount is how many items, failed or still failing, have an error of this kind as their last.
type ErrorCount struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Count   int64  `json:"count"`
}

// What is left over when a record would have too many kinds of error.
const (
	otherCode    = "other"
	otherMessage = "other errors"
)

// MaxErrorGroups bounds the kinds of error that a record keeps; the rest is counted as "other".
const MaxErrorGroups = 16

// Add is the sum.
func (t Totals) Add(o Totals) Totals {
	t.Items += o.Items
	t.Answered += o.Answered
	t.Failed += o.Failed
	t.Usage = t.Usage.Add(o.Usage)
	t.Seconds += o.Seconds
	if o.LastAnswer.After(t.LastAnswer) {
		t.LastAnswer = o.LastAnswer
	}
	t.Dead += o.Dead
	t.DeadItems += o.DeadItems
	t.PurgedItems += o.PurgedItems
	t.Parked += o.Parked
	t.Errors = mergeErrors(t.Errors, o.Errors)
	t.Latencies = t.Latencies.Add(o.Latencies)
	t.Cost += o.Cost
	return t
}

func mergeErrors(a, b []ErrorCount) []ErrorCount {
	if len(b) == 0 {
		return a
	}
	type key struct{ code, message string }
	sum := map[key]int64{}
	rest := ErrorCount{Code: otherCode, Message: otherMessage}
	for _, e := range slices.Concat(a, b) {
		if e.Code == rest.Code && e.Message == rest.Message {
			rest.Count += e.Count
			continue
		}
		sum[key{e.Code, e.Message}] += e.Count
	}
	merged := make([]ErrorCount, 0, len(sum))
	for k, n := range sum {
		merged = append(merged, ErrorCount{k.code, k.message, n})
	}
	slices.SortFunc(merged, func(x, y ErrorCount) int {
		return cmp.Or(cmp.Compare(y.Count, x.Count), cmp.Compare(x.Code, y.Code), cmp.Compare(x.Message, y.Message))
	})
	if len(merged) <= MaxErrorGroups && rest.Count == 0 {
		return merged
	}
	keep := min(len(merged), MaxErrorGroups-1)
	for _, e := range merged[keep:] {
		rest.Count += e.Count
	}
	return append(merged[:keep:keep], rest)
}
