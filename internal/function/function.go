// Package function runs a Lambda function: one that is pumped from a queue, or one that answers HTTP.
package function

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/fanout-inference/fanout/internal/cloud"
	"github.com/fanout-inference/fanout/internal/config"
	"github.com/fanout-inference/fanout/internal/metrics"
	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/awsjobs"
)

// Function is what a main makes: a handler on the ports of AWS.
type Function struct {
	Ports   jobs.Ports // with a log and metrics, for the handler
	Handler jobs.Handler
	// Needs is what an invocation needs of time to get anything done; one with less is an error that says so, since it
	// would only put off its messages for ever.
	Needs time.Duration

	queue    jobs.QueueName
	cloud    *cloud.Ports
	recorder *metrics.Recorder
}

// New begins a function that handles the messages of a queue. Its log and its metrics are lines of JSON on out.
func New(queue jobs.QueueName, level slog.Level, p *cloud.Ports, out io.Writer) *Function {
	f := &Function{Ports: p.Jobs(), queue: queue, cloud: p, recorder: metrics.New(installed(name(queue)), out)}
	f.Ports.Log, f.Ports.Watch = NewLog(out, level), f.recorder.Watch()
	return f
}

// margin is kept of an invocation for writing down what became of its messages.
const margin = 2 * time.Second

// name is what a function that handles a queue is called.
func name(queue jobs.QueueName) string {
	if queue == jobs.QueueWork {
		return "worker"
	}
	return string(queue)
}

// installed is the function's name as Lambda has it, which tells installs in one account apart; elsewhere its own.
func installed(name string) string { return cmp.Or(os.Getenv("AWS_LAMBDA_FUNCTION_NAME"), name) }

// Main runs a function that is made of its configuration, until Lambda ends the process. start returns what lambda.Start
// takes.
func Main[C any, P config.Checked[C]](start func(ctx context.Context, c C) (any, error)) {
	c, err := config.Load[C, P](os.Environ())
	var invocations any
	if err == nil {
		invocations, err = start(context.Background(), c)
	}
	if err != nil {
		NewLog(os.Stdout, slog.LevelInfo).Error("start the function", metrics.Telling(err)...)
		os.Exit(1)
	}
	lambda.Start(invocations)
}

// Invocations is the handler of Lambda's events. Safe for concurrent use.
func (f *Function) Invocations() func(context.Context, events.SQSEvent) (events.SQSEventResponse, error) {
	pump := &awsjobs.Pump{
		Source: f.cloud.Queue, Name: f.queue, Handler: f.recorder.Counting(f.Handler), Margin: margin,
		Each:      f.queue == jobs.QueueWork || f.queue == jobs.QueueNotify,
		OnFailure: func(ctx context.Context, m jobs.Message, err error) { f.recorder.Failed(ctx, f.Ports.Log, m, err) },
	}
	needs := f.Needs + margin
	return func(ctx context.Context, e events.SQSEvent) (events.SQSEventResponse, error) {
		defer f.recorder.Flush()
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < needs {
			try := "give the function a longer timeout"
			if f.queue == jobs.QueueWork {
				try += ", or shorten FANOUT_CALL_TIMEOUT"
			}
			return events.SQSEventResponse{}, fmt.Errorf("an invocation has %s, and needs %s: %s", time.Until(deadline).Round(time.Second), needs, try)
		}
		return pump.Handle(ctx, e)
	}
}
