package lambdatest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// maxReceive is the most messages that SQS gives in one answer, or deletes in one call.
const maxReceive = 10

// pollSeconds is how long a poll waits for the first message. Lambda waits 20 s; here Stop waits for the poll's end, so that
// no message is given to somebody who no longer listens.
const pollSeconds = 1

// Mapping is how a queue is mapped to a function, with partial batch responses.
type Mapping struct {
	Client      *sqs.Client
	Queue       string // its URL
	Function    *Function
	BatchSize   int           // messages an invocation at most; 0 = 10. More than 10 needs a window, as on AWS
	Window      time.Duration // how long to wait for a full batch from its first message on
	Concurrency int           // invocations at once at most; 0 = 5
	// Arrange makes invocations of the messages that were received for one: it may reorder them, share them out, or put one
	// into several, which are then under way at once, each with the same receipt. What it leaves out comes again when its
	// visibility ends. nil = one invocation, in the order of the queue.
	Arrange func(batch []types.Message) [][]types.Message
	// OnInvoke and OnResult are told before and after each invocation, by many goroutines at once. OnResult comes after the
	// messages were deleted.
	OnInvoke func(batch []types.Message)
	OnResult func(d Delivery)
}

// Delivery is an invocation with a batch, and what became of that.
type Delivery struct {
	Messages []types.Message
	Result   Result
	Err      error    // why the batch failed as a whole: a *FunctionError, a response that breaks the rules, no environment
	Deleted  []string // ids of messages that SQS deleted
	Kept     []string // ids of the others. They come again when their visibility ends, which is not changed here
}

// Source is an event source: it pumps a queue into a function. Safe for concurrent use.
type Source struct {
	Mapping
	arn        string
	visibility time.Duration

	ctx      context.Context // ends with the test
	places   chan struct{}
	stopping chan struct{}
	stop     sync.Once
	ended    chan struct{} // closed when nothing is received and nothing runs

	mu      sync.Mutex
	err     error         // why it ended by itself
	calls   int           // invocations so far
	running int           // invocations now
	changed chan struct{} // closed, and replaced, after an invocation and after a poll that found nothing
}

// Map attaches a source to the queue, which works until Stop or the end of the test.
func Map(t testing.TB, m Mapping) *Source {
	t.Helper()
	if m.BatchSize == 0 {
		m.BatchSize = maxReceive
	}
	if m.Concurrency == 0 {
		m.Concurrency = 5
	}
	if m.Arrange == nil {
		m.Arrange = func(batch []types.Message) [][]types.Message { return [][]types.Message{batch} }
	}
	s := &Source{
		Mapping: m, places: make(chan struct{}, m.Concurrency),
		stopping: make(chan struct{}), ended: make(chan struct{}), changed: make(chan struct{}),
	}
	if err := s.check(t.Context()); err != nil {
		t.Fatalf("map queue %s: %v", m.Queue, err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	s.ctx = ctx
	go s.run() // ends with Stop
	t.Cleanup(func() {
		cancel()
		s.Stop()
		if s.err != nil {
			t.Errorf("pump queue %s: %v", m.Queue, s.err)
		}
	})
	return s
}

// check holds the mapping against what AWS demands when one is created.
func (s *Source) check(ctx context.Context) error {
	got, err := s.attributes(ctx, types.QueueAttributeNameQueueArn, types.QueueAttributeNameVisibilityTimeout)
	if err != nil {
		return err
	}
	seconds, err := strconv.Atoi(got[string(types.QueueAttributeNameVisibilityTimeout)])
	if err != nil {
		return err
	}
	s.arn, s.visibility = got[string(types.QueueAttributeNameQueueArn)], time.Duration(seconds)*time.Second
	switch {
	case s.BatchSize < 1 || s.BatchSize > 10_000 || s.BatchSize > maxReceive && s.Window < time.Second:
		return fmt.Errorf("a batch size of %d with a window of %s; more than 10 needs a window of a second", s.BatchSize, s.Window)
	case s.Function.Timeout > s.visibility:
		return fmt.Errorf("the function's timeout of %s is more than the queue's visibility timeout of %s", s.Function.Timeout, s.visibility)
	}
	return nil
}

func (s *Source) attributes(ctx context.Context, names ...types.QueueAttributeName) (map[string]string, error) {
	out, err := s.Client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &s.Queue, AttributeNames: names})
	if err != nil {
		return nil, err
	}
	return out.Attributes, nil
}

// Stop ends the polling and waits for what runs.
func (s *Source) Stop() {
	s.stop.Do(func() { close(s.stopping) })
	<-s.ended
}

// run receives while there is a place for an invocation, and launches. Places are taken here, before the launch.
func (s *Source) run() {
	defer close(s.ended)
	var invocations sync.WaitGroup
	defer invocations.Wait()
	for {
		select {
		case <-s.stopping:
			return
		case s.places <- struct{}{}:
		}
		batch, err := s.gather()
		if err == nil && len(batch) > 0 {
			err = s.launch(&invocations, s.Arrange(batch))
		} else {
			<-s.places
		}
		if err != nil && s.ctx.Err() == nil {
			s.mu.Lock()
			s.err = err
			s.mu.Unlock()
			return
		}
		if len(batch) == 0 {
			s.note(0, 0)
		}
	}
}

// gather receives a batch: what is there, with a window what comes until it is full or the window has passed. After Stop it
// returns with what it has.
func (s *Source) gather() ([]types.Message, error) {
	var batch []types.Message
	var full <-chan time.Time
	for {
		in := &sqs.ReceiveMessageInput{
			QueueUrl: &s.Queue, MaxNumberOfMessages: int32(min(maxReceive, s.BatchSize-len(batch))), WaitTimeSeconds: pollSeconds,
			// Lambda's records have all attributes. One of the servers knows the older name only.
			AttributeNames:        []types.QueueAttributeName{types.QueueAttributeNameAll}, //nolint:staticcheck // as said
			MessageAttributeNames: []string{"All"},
		}
		in.MessageSystemAttributeNames = []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll}
		out, err := s.Client.ReceiveMessage(s.ctx, in)
		if err != nil {
			return nil, err
		}
		batch = append(batch, out.Messages...)
		if len(batch) == 0 || len(batch) >= s.BatchSize || s.Window == 0 {
			return batch, nil
		}
		if full == nil {
			full = time.After(s.Window)
		}
		select {
		case <-full:
			return batch, nil
		case <-s.stopping:
			return batch, nil
		default:
		}
	}
}

// launch starts the invocations together. One place is taken already.
func (s *Source) launch(running *sync.WaitGroup, calls [][]types.Message) error {
	if len(calls) > s.Concurrency {
		<-s.places
		return fmt.Errorf("arranged for %d invocations at once, of %d that may be", len(calls), s.Concurrency)
	}
	if len(calls) == 0 {
		<-s.places
		return nil
	}
	for range calls[1:] {
		s.places <- struct{}{}
	}
	s.note(len(calls), 0)
	for _, batch := range calls {
		running.Go(func() {
			defer func() { <-s.places }()
			s.deliver(batch)
			s.note(0, 1)
		})
	}
	return nil
}

// note counts invocations and wakes who waits.
func (s *Source) note(begun, ended int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls += begun
	s.running += begun - ended
	if begun == 0 {
		close(s.changed)
		s.changed = make(chan struct{})
	}
}

// deliver invokes the function with a batch and deletes what is done.
func (s *Source) deliver(batch []types.Message) {
	if s.OnInvoke != nil {
		s.OnInvoke(batch)
	}
	d := Delivery{Messages: batch}
	failed, err := s.invoke(&d)
	if err != nil {
		d.Err, failed = err, ids(batch)
	}
	s.delete(&d, failed)
	if s.OnResult != nil {
		s.OnResult(d)
	}
}

// invoke returns the ids that the response calls failed. An invocation waits for an environment as long as its messages are
// hidden.
func (s *Source) invoke(d *Delivery) (failed []string, err error) {
	payload, err := newEvent(s.arn, d.Messages)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.visibility)
	defer cancel()
	if d.Result, err = s.Function.Invoke(ctx, payload); err != nil {
		return nil, err
	}
	if d.Result.Err != nil {
		return nil, d.Result.Err
	}
	return failedOf(d.Result.Payload, ids(d.Messages))
}

// delete deletes the messages of a batch but the failed ones.
func (s *Source) delete(d *Delivery, failed []string) {
	gone := map[string]bool{}
	done := slices.DeleteFunc(slices.Clone(d.Messages), func(m types.Message) bool { return slices.Contains(failed, *m.MessageId) })
	for ten := range slices.Chunk(done, maxReceive) {
		in := &sqs.DeleteMessageBatchInput{QueueUrl: &s.Queue}
		for n, m := range ten {
			in.Entries = append(in.Entries, types.DeleteMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(n)), ReceiptHandle: m.ReceiptHandle})
		}
		out, err := s.Client.DeleteMessageBatch(s.ctx, in)
		if err != nil { // nobody knows which; they may come again
			continue
		}
		for n, m := range ten { // an entry that failed has a receipt that is no longer good
			gone[*m.MessageId] = slices.ContainsFunc(out.Successful, func(e types.DeleteMessageBatchResultEntry) bool { return *e.Id == strconv.Itoa(n) })
		}
	}
	for _, id := range ids(d.Messages) {
		if gone[id] {
			d.Deleted = append(d.Deleted, id)
		} else {
			d.Kept = append(d.Kept, id)
		}
	}
}

func ids(batch []types.Message) []string {
	all := make([]string, len(batch))
	for n, m := range batch {
		all[n] = aws.ToString(m.MessageId)
	}
	return all
}

// WaitFor returns when done says so. It is asked now, after each invocation, and after each poll that found nothing: about
// once a second. The source's own end is an error.
func (s *Source) WaitFor(ctx context.Context, done func(ctx context.Context) (bool, error)) error {
	for {
		s.mu.Lock()
		changed, failure := s.changed, s.err
		s.mu.Unlock()
		if ok, err := done(ctx); ok || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-s.ended:
			return errors.Join(fmt.Errorf("wait for queue %s: its source has ended", s.Queue), failure)
		case <-ctx.Done():
			return fmt.Errorf("wait for queue %s: %w", s.Queue, context.Cause(ctx))
		}
	}
}

// WaitIdle returns when the queues of all sources are empty, also of hidden and delayed messages, and nothing runs: with none
// of them starting anything between two looks at all of them.
func WaitIdle(ctx context.Context, sources ...*Source) error {
	for before := -1; ; {
		calls := 0
		for _, s := range sources {
			if err := s.WaitFor(ctx, s.idle); err != nil {
				return err
			}
			s.mu.Lock()
			calls += s.calls
			s.mu.Unlock()
		}
		if calls == before {
			return nil
		}
		before = calls
	}
}

func (s *Source) idle(ctx context.Context) (bool, error) {
	all := []types.QueueAttributeName{
		types.QueueAttributeNameApproximateNumberOfMessages,
		types.QueueAttributeNameApproximateNumberOfMessagesNotVisible,
		types.QueueAttributeNameApproximateNumberOfMessagesDelayed,
	}
	got, err := s.attributes(ctx, all...)
	if err != nil {
		return false, err
	}
	for _, name := range all {
		if got[string(name)] != "0" {
			return false, nil
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running == 0, nil
}
