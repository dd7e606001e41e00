package awsjobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

const (
	hiddenPast    = time.Minute // a crash delays its messages by so much past the invocation's deadline
	defaultMargin = 2 * time.Second
	tellWithin    = 5 * time.Second // what the pump itself waits for SQS
	// heldMost is more than an event source ever holds a message before it hands it over, which is the visibility timeout
	// of the queue: six times that of the function.
	heldMost = 2 * time.Hour
)

// Pump drives a handler from the events of a queue's event source: lambda.Start(p.Handle). It needs ReportBatchItemFailures:
// what a handler has done is deleted by Lambda, what comes again is named in the answer. Safe for concurrent use.
//
// Lambda counts invocations in a chain: what is sent during one carries its trace header, with a count for each function,
// and at about 16 the next is dropped. A message that comes again does not lengthen its chain, only a send does; so nothing
// here, and nothing in pkg/jobs, sends a message again because it failed. What sends what, and how often each function then
// stands in its chain:
//
//	                                              ingest  worker  aggregate  notify
//	a split to scan       sends the job              1       0        0         0
//	a job to check        sends its splits           2       0        0         0
//	a split to dispatch   sends its chunks           3       0        0         0
//	a chunk               sends its split            3       1        0         0
//	a split to compact    sends the job              3       1        1         0
//	a job to finalize     sends its notices          3       1        2         0
//	a notice              sends its report           3       1        2         1
//	a report              sends nothing              3       1        3         1
//
// An upload before that is one more of ingest, a sweep one more of aggregate, which may enter at any row. What a row records
// is never taken back, so a chain goes down this table. Which chain an invocation continues whose batch has messages of
// several is not documented: docs/aws.md says what follows for ingest and aggregate.
type Pump struct {
	// Source is the queues. The handler must be given it as its Queue: what that has put off keeps its time.
	Source  *Source
	Name    jobs.QueueName // of the queue whose events come
	Handler jobs.Handler
	// Each hands over one message a call, all calls at once, as a poller does; else all of an event go into one call.
	Each bool
	// Margin is what is kept of the invocation's time for writing down and telling what became of messages: the handler's
	// context ends so much before; 0 = 2 s. A worker's lease outlasts its context by 10 s, so it has to be less than that.
	Margin time.Duration
	// OnFailure is told of each message that comes again and why (a *jobs.Deferred where that was expected), of panics,
	// and of what went wrong with the queue itself (then m may have a Queue only). ctx is of the invocation. It is called
	// by many goroutines at once; nil = nobody is told.
	OnFailure func(ctx context.Context, m jobs.Message, err error)
}

// Handle hands over the messages of an event and names those that come again. It returns when all calls have: whatever
// still ran would be frozen, and thaw in a later invocation. The error is always nil, and no id in the answer is empty or
// unknown, since Lambda takes either for a failure of all.
func (p *Pump) Handle(ctx context.Context, e events.SQSEvent) (events.SQSEventResponse, error) {
	messages := p.deliveries(ctx, e.Records)
	if deadline, ok := ctx.Deadline(); ok {
		p.hide(ctx, p.Source.Renew, deadline.Add(hiddenPast), messages...)
	}
	batches := [][]jobs.Message{messages}
	if p.Each {
		batches = slices.Collect(slices.Chunk(messages, 1)) // as many calls at once as an event has messages
	}
	again := make([][]jobs.Message, len(batches))
	var calls sync.WaitGroup
	for i, batch := range batches {
		calls.Go(func() { again[i] = p.handle(ctx, batch) })
	}
	calls.Wait()

	answer := events.SQSEventResponse{BatchItemFailures: []events.SQSBatchItemFailure{}}
	for _, m := range slices.Concat(again...) {
		answer.BatchItemFailures = append(answer.BatchItemFailures, events.SQSBatchItemFailure{ItemIdentifier: m.ID})
	}
	return answer, nil
}

// deliveries makes messages of records. Of a message that is there twice only the later delivery is handed over, whose
// receipt is the good one: an answer cannot tell them apart. What has no id is not of a queue, and could not be named.
func (p *Pump) deliveries(ctx context.Context, records []events.SQSMessage) []jobs.Message {
	messages := make([]jobs.Message, 0, len(records))
	at := make(map[string]int, len(records))
	now := p.Source.now()
	for i := range records {
		r := &records[i]
		if r.MessageId == "" {
			p.tell(ctx, jobs.Message{Queue: p.Name}, jobs.Errorf(jobs.CodeInvalid, "record %d of the event has no message id: it is left out", i))
			continue
		}
		m := delivery(p.Name, r.MessageId, r.ReceiptHandle, r.Body, r.Attributes, receivedSince(r.Attributes, now))
		first, twice := at[m.ID]
		switch {
		case !twice:
			at[m.ID] = len(messages)
			messages = append(messages, m)
		case m.Receives > messages[first].Receives:
			messages[first] = m
		}
	}
	return messages
}

// receivedSince is a time before which a message of an event was not received. SQS tells only of the first receive.
func receivedSince(attributes map[string]string, now time.Time) time.Time {
	since := now.Add(-heldMost)
	ms, err := strconv.ParseInt(attributes[string(types.MessageSystemAttributeNameApproximateFirstReceiveTimestamp)], 10, 64)
	if first := time.UnixMilli(ms); err == nil && first.After(since) {
		return first
	}
	return since
}

// handle calls the handler, and puts off what it failed. It returns what is to come again.
func (p *Pump) handle(ctx context.Context, batch []jobs.Message) (again []jobs.Message) {
	if len(batch) == 0 {
		return nil
	}
	failed, err := p.deliver(ctx, batch)
	if err != nil {
		err = fmt.Errorf("handle %d messages of queue %s: %w", len(batch), p.Name, err)
		if _, panicked := errors.AsType[*jobs.HandlerPanic](err); panicked && len(batch) > 1 {
			p.tell(ctx, jobs.Message{Queue: p.Name}, err)
			for m := range slices.Chunk(batch, 1) { // only one of them made it panic
				again = append(again, p.handle(ctx, m)...)
			}
			return again
		}
		failed = map[string]error{}
		for _, m := range batch {
			failed[m.ID] = err
		}
	}
	back := map[time.Duration][]jobs.Message{}
	for _, m := range batch {
		why, comes := failed[m.ID]
		if !comes {
			continue
		}
		p.tell(ctx, m, why)
		again = append(again, m)
		after := jobs.BackOff(m, why, p.Source.now()) // who names failures one by one gets no back-off from Lambda
		back[after] = append(back[after], m)
	}
	for _, after := range slices.Sorted(maps.Keys(back)) {
		p.hide(ctx, p.Source.PutOff, p.Source.now().Add(after), back[after]...)
	}
	return again
}

// deliver calls the handler, with a context that ends before the invocation.
func (p *Pump) deliver(ctx context.Context, batch []jobs.Message) (map[string]error, error) {
	if deadline, ok := ctx.Deadline(); ok {
		margin := min(cmp.Or(p.Margin, defaultMargin), time.Until(deadline)/4) // of a short time, most is for the work
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-margin))
		defer cancel()
	}
	return jobs.Deliver(ctx, p.Handler, batch)
}

// hide hides messages until then, unless that would cost the answer. If it cannot be done they come when their visibility
// ends: that is what at least once means.
func (p *Pump) hide(ctx context.Context, how func(context.Context, time.Time, ...jobs.Message) error, until time.Time, messages ...jobs.Message) {
	within := tellWithin
	if deadline, ok := ctx.Deadline(); ok {
		within = min(within, time.Until(deadline)/2)
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if err := how(ctx, until, messages...); err != nil {
		p.tell(ctx, jobs.Message{Queue: p.Name}, err)
	}
}

func (p *Pump) tell(ctx context.Context, m jobs.Message, err error) {
	if p.OnFailure != nil {
		p.OnFailure(ctx, m, err)
	}
}
