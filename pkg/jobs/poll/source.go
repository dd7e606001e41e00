package poll

import (
	"context"
	"errors"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// MaxReceive is how many messages a Source gives at once, at most.
const MaxReceive = 10

// ErrClosed is in the error of a source that will never answer again.
var ErrClosed = errors.New("the queue is closed")

// Source is a queue as the pump sees it: what jobs.Queue leaves out, since handlers have no use for it. A message is in hand
// from its receive until it is acked, put off, deferred by its handler (jobs.Queue's Defer), or delivered again; stale
// receipts are left alone, without error. Safe for concurrent use.
type Source interface {
	// Await takes up to n messages (at most MaxReceive), hides them for a while, and waits for the first until ctx ends.
	// Then it may return an error, and messages that it has taken all the same.
	Await(ctx context.Context, q jobs.QueueName, n int, visibility time.Duration) ([]jobs.Message, error)
	// Ack removes messages.
	Ack(ctx context.Context, m ...jobs.Message) error
	// Renew hides messages until then; those that are no longer in hand are left alone. CodeLimit, and nothing is hidden
	// for longer, if the transport does not hide one of them until then.
	Renew(ctx context.Context, until time.Time, m ...jobs.Message) error
	// PutOff lets messages come again then, at once if then has passed, and as late as it can past the transport's limit.
	// Those that are no longer in hand are left alone: what a handler deferred keeps its time.
	PutOff(ctx context.Context, until time.Time, m ...jobs.Message) error
}
