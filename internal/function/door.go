package function

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/fanout-inference/fanout/internal/cloud"
	"github.com/fanout-inference/fanout/internal/metrics"
	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Door is a function that answers HTTP.
type Door struct {
	Ports jobs.Ports // with a log

	recorder *metrics.Recorder
}

// NewDoor begins a function that answers HTTP. Its log and its metrics are lines of JSON on out.
func NewDoor(level slog.Level, p *cloud.Ports, out io.Writer) *Door {
	d := &Door{Ports: p.Jobs(), recorder: metrics.New(installed("api"), out)}
	d.Ports.Log = NewLog(out, level)
	return d
}

// Request counts a request that was answered.
func (d *Door) Request(route string, status int, took time.Duration) {
	d.recorder.Request(route, status, took)
}

// Answer is the handler of Lambda's events, which tells after each what was counted. What a streaming one counts at its end
// is told after the next.
func Answer[In, Out any](d *Door, h func(context.Context, In) (Out, error)) func(context.Context, In) (Out, error) {
	return func(ctx context.Context, in In) (Out, error) {
		defer d.recorder.Flush()
		return h(ctx, in)
	}
}
