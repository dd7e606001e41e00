package function

import (
	"context"
	"io"
	"log/slog"

	"github.com/aws/aws-lambda-go/lambdacontext"
)

// NewLog writes lines of JSON, each with the request id of its invocation.
func NewLog(out io.Writer, level slog.Level) *slog.Logger {
	return slog.New(requestLog{slog.NewJSONHandler(out, &slog.HandlerOptions{Level: level})})
}

type requestLog struct{ slog.Handler }

// Handle adds the request id.
func (l requestLog) Handle(ctx context.Context, r slog.Record) error {
	if invocation, ok := lambdacontext.FromContext(ctx); ok {
		r.AddAttrs(slog.String("request", invocation.AwsRequestID))
	}
	return l.Handler.Handle(ctx, r)
}

// WithAttrs keeps the request id.
func (l requestLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return requestLog{l.Handler.WithAttrs(attrs)}
}

// WithGroup keeps the request id.
func (l requestLog) WithGroup(name string) slog.Handler { return requestLog{l.Handler.WithGroup(name)} }
