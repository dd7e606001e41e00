package awsjobs

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// The limits of SQS.
const (
	MaxBodyBytes = 1 << 20          // of a message with its attributes, and of all that go in one call
	MaxReceive   = 10               // messages a Receive
	MaxHidden    = 12 * time.Hour   // how long one receive can hide a message, all deferrals included
	MaxWait      = 20 * time.Second // how long a Receive can wait

	maxEntries        = 10 // of a call about several messages
	maxGroupBytes     = 128
	maxAttributeBytes = 1 << 10 // ours: a reason is to be read by people
)

// maxCalls is how many calls a Send, Defer or Ack has under way at once: fewer than the ten idle connections that the SDK
// keeps to a host unless told otherwise.
const maxCalls = 8

// QueueURLs says where the queues are, and the dead letters of each. A process names those that it uses.
type QueueURLs struct {
	Ingest, Work, Aggregate, Notify                 string
	IngestDead, WorkDead, AggregateDead, NotifyDead string
}

func (u QueueURLs) of(name jobs.QueueName) (url, dead string) {
	switch name {
	case jobs.QueueIngest:
		return u.Ingest, u.IngestDead
	case jobs.QueueWork:
		return u.Work, u.WorkDead
	case jobs.QueueAggregate:
		return u.Aggregate, u.AggregateDead
	case jobs.QueueNotify:
		return u.Notify, u.NotifyDead
	default:
		return "", ""
	}
}

// Queue moves messages through SQS. Beside the port it has what a process that polls needs: Receive and Ack.
//
// Times are whole seconds, rounded up. A deferred message counts as in flight. A receipt is good until the message is
// delivered again, and SQS does not promise that an old one does nothing after that. Of the trace header, by which Lambda
// breaks endless chains of invocations, nothing is said here: whatever the SDK sends along is left as it is.
type Queue struct {
	// Group says whose a body is, so that nobody's backlog holds up the others (SQS calls this fair queues, and takes a
	// little more for it); "" = it stands alone. NewQueue sets TenantOf; nil turns it off. Anything but
	// up to 128 printable ASCII characters goes as a digest. Set it before the first use.
	Group func(body []byte) string
	// Wait is how long Receive waits for a first message, at most MaxWait, which NewQueue sets. HTTP timeouts of the
	// client must be longer. Set it before the first use.
	Wait time.Duration

	client *sqs.Client
	urls   QueueURLs
	now    func() time.Time
}

var (
	_ jobs.Queue       = (*Queue)(nil)
	_ jobs.DeadLetters = (*Queue)(nil)
)

// NewQueue makes a Queue. The client's retries are all there are; one whose first answer was lost may send twice.
func NewQueue(client *sqs.Client, urls QueueURLs) *Queue {
	return &Queue{Group: TenantOf, Wait: MaxWait, client: client, urls: urls, now: time.Now}
}

// TenantOf is whose a message body is: the tenant that it names, else its job; "" if it names neither.
func TenantOf(body []byte) string {
	switch b, err := jobs.DecodeMessage(body); {
	case err != nil:
		return ""
	case b.Chunk != nil:
		return cmp.Or(b.Chunk.Tenant, string(b.Chunk.Job))
	case b.Advance != nil:
		return string(b.Advance.Job)
	case b.Notice != nil:
		return b.Notice.Tenant
	case b.Delivered != nil:
		return b.Delivered.Tenant
	default:
		return ""
	}
}

// Send takes messages, ten a call and several calls at once. Once a call has failed as a whole none is begun; if others
// were answered, what was in the rest comes back unsent, though the failed one may have sent some.
func (q *Queue) Send(ctx context.Context, name jobs.QueueName, bodies ...[]byte) ([]jobs.Unsent, error) {
	url, _ := q.urls.of(name)
	reasons := make([]error, len(bodies)) // why each was not taken
	batches := fill(bodies, reasons)
	answered := make([]bool, len(batches))
	err := atOnce(len(batches), func(n int) error {
		err := q.sendBatch(ctx, url, bodies, batches[n], reasons)
		answered[n] = err == nil
		return err
	})
	if err != nil && !slices.Contains(answered, true) {
		return nil, fmt.Errorf("send %d messages to queue %s: %w", len(bodies), name, err)
	}
	for n, batch := range batches {
		for _, i := range batch {
			if !answered[n] {
				reasons[i] = err
			}
		}
	}
	var unsent []jobs.Unsent
	for i, err := range reasons {
		if err != nil {
			unsent = append(unsent, jobs.Unsent{At: i, Err: err})
		}
	}
	return unsent, nil
}

// fill puts the indexes of bodies into batches, each as full as a call may be, and notes why one fits into none.
func fill(bodies [][]byte, reasons []error) (batches [][]int) {
	size := 0
	for i, body := range bodies {
		if reasons[i] = checkBody(body); reasons[i] != nil {
			continue
		}
		last := len(batches) - 1
		if last < 0 || len(batches[last]) == maxEntries || size+len(body) > MaxBodyBytes {
			batches, last, size = append(batches, nil), last+1, 0
		}
		batches[last] = append(batches[last], i)
		size += len(body)
	}
	return batches
}

// checkBody refuses here what SQS would refuse: there one bad body may fail the call for its neighbours too.
func checkBody(body []byte) error {
	switch {
	case len(body) == 0:
		return jobs.Errorf(jobs.CodeInvalid, "send message: it is empty")
	case len(body) > MaxBodyBytes:
		return jobs.Errorf(jobs.CodeLimit, "send message: %d bytes are more than a queue takes, which is %d", len(body), MaxBodyBytes)
	case !utf8.Valid(body):
		return jobs.Errorf(jobs.CodeInvalid, "send message: it is not UTF-8")
	}
	if at := bytes.IndexFunc(body, isForbidden); at >= 0 {
		return jobs.Errorf(jobs.CodeInvalid, "send message: byte %d begins a character that a queue does not take", at)
	}
	return nil
}

// isForbidden tells the characters that SQS refuses: those that XML cannot hold.
func isForbidden(r rune) bool {
	return r < 0x20 && r != '\t' && r != '\n' && r != '\r' || r == 0xFFFE || r == 0xFFFF
}

// sendBatch sends the bodies of a batch and notes for each why it was not taken, or nil.
func (q *Queue) sendBatch(ctx context.Context, url string, bodies [][]byte, batch []int, reasons []error) error {
	entries := make([]types.SendMessageBatchRequestEntry, len(batch))
	for n, i := range batch {
		entries[n] = types.SendMessageBatchRequestEntry{Id: entryID(n), MessageBody: aws.String(string(bodies[i])), MessageGroupId: q.group(bodies[i])}
	}
	out, err := q.client.SendMessageBatch(ctx, &sqs.SendMessageBatchInput{QueueUrl: &url, Entries: entries})
	if err != nil {
		return failed("SendMessageBatch", url, err)
	}
	done := ids(out.Successful, func(e types.SendMessageBatchResultEntry) *string { return e.Id })
	for n, fault := range faults(len(batch), done, out.Failed) {
		reasons[batch[n]] = fault.refusal()
	}
	return nil
}

// group is the group of a body as SQS takes it; nil for none.
func (q *Queue) group(body []byte) *string {
	if q.Group == nil {
		return nil
	}
	group := q.Group(body)
	if group == "" {
		return nil
	}
	if len(group) > maxGroupBytes || strings.ContainsFunc(group, func(r rune) bool { return r <= ' ' || r > '~' }) {
		digest := sha256.Sum256([]byte(group))
		group = hex.EncodeToString(digest[:])
	}
	return &group
}

// Receive takes up to n messages (at most MaxReceive), hides them for a while (a second or more, at most MaxHidden), and
// waits for the first. If ctx ends meanwhile, messages that were on their way stay hidden for that while.
func (q *Queue) Receive(ctx context.Context, name jobs.QueueName, n int, visibility time.Duration) ([]jobs.Message, error) {
	if n < 1 {
		return nil, nil
	}
	if visibility > MaxHidden {
		return nil, jobs.Errorf(jobs.CodeLimit, "receive from queue %s: messages cannot be hidden for %s, only for %s", name, visibility, MaxHidden)
	}
	url, _ := q.urls.of(name)
	since := q.now() // before the call: what is left of MaxHidden is then never overrated
	out, err := q.client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
		QueueUrl: &url, MaxNumberOfMessages: int32(min(n, MaxReceive)),
		VisibilityTimeout: max(1, seconds32(visibility)), // 0 would be the queue's own
		WaitTimeSeconds:   seconds32(min(q.Wait, MaxWait)),
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{
			types.MessageSystemAttributeNameApproximateReceiveCount, types.MessageSystemAttributeNameSentTimestamp},
	})
	if err != nil {
		return nil, fmt.Errorf("receive from queue %s: %w", name, failed("ReceiveMessage", url, err))
	}
	received := make([]jobs.Message, len(out.Messages))
	for i, m := range out.Messages {
		received[i] = delivery(name, aws.ToString(m.MessageId), aws.ToString(m.ReceiptHandle), aws.ToString(m.Body), m.Attributes, since)
	}
	return received, nil
}

// delivery makes a message of what SQS says of one, in an answer or in an event. The receive was not before since.
func delivery(name jobs.QueueName, id, handle, body string, attributes map[string]string, since time.Time) jobs.Message {
	m := jobs.Message{ID: id, Receipt: receiptOf(handle, since), Queue: name, Body: []byte(body), Receives: 1}
	if n, err := strconv.Atoi(attributes[string(types.MessageSystemAttributeNameApproximateReceiveCount)]); err == nil {
		m.Receives = n
	}
	if ms, err := strconv.ParseInt(attributes[string(types.MessageSystemAttributeNameSentTimestamp)], 10, 64); err == nil {
		m.Sent = time.UnixMilli(ms)
	}
	return m
}

// receiptOf is a receipt: the time since which SQS counts, in milliseconds, and its handle. SQS itself does not say what
// is left of MaxHidden.
func receiptOf(handle string, since time.Time) string {
	return strconv.FormatInt(since.UnixMilli(), 10) + "." + handle
}

// parseReceipt reads what receiptOf wrote. Anything else is taken for a handle of just now: SQS knows its own.
func parseReceipt(receipt string, now time.Time) (handle string, since time.Time) {
	head, handle, _ := strings.Cut(receipt, ".")
	ms, err := strconv.ParseInt(head, 10, 64)
	if err != nil || handle == "" {
		return receipt, now
	}
	return handle, time.UnixMilli(ms)
}

// Ack removes messages that were received. One that SQS does not know by its receipt is left alone, without error.
func (q *Queue) Ack(ctx context.Context, messages ...jobs.Message) error {
	if err := q.each(messages, q.live, q.deleting(ctx)); err != nil {
		return fmt.Errorf("ack %d messages: %w", len(messages), err)
	}
	return nil
}

func (q *Queue) deleting(ctx context.Context) func(url string, handles []string) ([]*entryFault, error) {
	return func(url string, handles []string) ([]*entryFault, error) {
		entries := make([]types.DeleteMessageBatchRequestEntry, len(handles))
		for n := range handles {
			entries[n] = types.DeleteMessageBatchRequestEntry{Id: entryID(n), ReceiptHandle: &handles[n]}
		}
		out, err := q.client.DeleteMessageBatch(ctx, &sqs.DeleteMessageBatchInput{QueueUrl: &url, Entries: entries})
		if err != nil {
			return nil, failed("DeleteMessageBatch", url, err)
		}
		done := ids(out.Successful, func(e types.DeleteMessageBatchResultEntry) *string { return e.Id })
		return faults(len(entries), done, out.Failed), nil
	}
}

// Defer hides received messages until then, or for longer if they are deferred again before. If one of them would be
// hidden past MaxHidden since its receive, none is deferred.
func (q *Queue) Defer(ctx context.Context, until time.Time, messages ...jobs.Message) error {
	now := q.now()
	hide := seconds32(min(until.Sub(now), 2*MaxHidden))
	for _, m := range messages {
		_, since := parseReceipt(m.Receipt, now)
		if shown := now.Add(time.Duration(hide) * time.Second); hide > 0 && shown.Sub(earlier(since, now)) > MaxHidden {
			return jobs.Errorf(jobs.CodeLimit, "defer %d messages until %s: that is more than %s after %s, when one was received",
				len(messages), until.Format(time.RFC3339), MaxHidden, since.Format(time.RFC3339))
		}
	}
	err := q.each(messages, q.live, func(url string, handles []string) ([]*entryFault, error) {
		entries := make([]types.ChangeMessageVisibilityBatchRequestEntry, len(handles))
		for n := range handles {
			entries[n] = types.ChangeMessageVisibilityBatchRequestEntry{Id: entryID(n), ReceiptHandle: &handles[n], VisibilityTimeout: hide}
		}
		out, err := q.client.ChangeMessageVisibilityBatch(ctx, &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: &url, Entries: entries})
		if err != nil {
			return nil, failed("ChangeMessageVisibilityBatch", url, err)
		}
		done := ids(out.Successful, func(e types.ChangeMessageVisibilityBatchResultEntry) *string { return e.Id })
		return faults(len(entries), done, out.Failed), nil
	})
	if err != nil {
		return fmt.Errorf("defer %d messages: %w", len(messages), err)
	}
	return nil
}

// The two queues of a name.
func (q *Queue) live(name jobs.QueueName) (url string) { url, _ = q.urls.of(name); return url }
func (q *Queue) dead(name jobs.QueueName) (url string) { _, url = q.urls.of(name); return url }

// each makes a call for every ten messages of a queue, at that of its two which at says. That SQS does not know a receipt is no error; whatever else went
// wrong with messages is told together.
func (q *Queue) each(messages []jobs.Message, at func(jobs.QueueName) string, call func(url string, handles []string) ([]*entryFault, error)) error {
	type batch struct {
		queue   jobs.QueueName
		handles []string
	}
	var batches []*batch
	open := map[jobs.QueueName]*batch{}
	for _, m := range messages {
		b := open[m.Queue]
		if b == nil || len(b.handles) == maxEntries {
			b = &batch{queue: m.Queue}
			open[m.Queue], batches = b, append(batches, b)
		}
		handle, _ := parseReceipt(m.Receipt, time.Time{})
		b.handles = append(b.handles, handle)
	}
	wrong := make([]error, len(batches))
	err := atOnce(len(batches), func(n int) error {
		each, err := call(at(batches[n].queue), batches[n].handles)
		for _, fault := range each {
			if fault != nil && !fault.unknownReceipt() {
				wrong[n] = errors.Join(wrong[n], fault.refusal())
			}
		}
		return err
	})
	return errors.Join(errors.Join(wrong...), err)
}

// Bury sends a copy of a message to the dead letters of its queue.
func (q *Queue) Bury(ctx context.Context, m jobs.Message, why jobs.Burial) error {
	_, dead := q.urls.of(m.Queue)
	_, err := q.client.SendMessage(ctx, &sqs.SendMessageInput{
		QueueUrl: &dead, MessageBody: aws.String(string(m.Body)), MessageGroupId: q.group(m.Body),
		MessageAttributes: attributesOf(why, MaxBodyBytes-len(m.Body)),
	})
	if err != nil {
		return fmt.Errorf("bury message %s of queue %s: %w", m.ID, m.Queue, failed("SendMessage", dead, err))
	}
	return nil
}

// attributesOf writes a reason as attributes, the most telling first, as many as there is room for: they count to the size
// of the message, and one that fills a queue's limit by itself must not stay for ever. SQS refuses empty ones.
func attributesOf(why jobs.Burial, room int) map[string]types.MessageAttributeValue {
	attributes := map[string]types.MessageAttributeValue{}
	for _, a := range []struct{ name, kind, value string }{
		{"number", "Number", strconv.Itoa(why.Number)},
		{"code", "String", why.Code},
		{"job", "String", string(why.Job)},
		{"attempts", "Number", strconv.Itoa(why.Attempts)},
		{"message", "String", why.Message},
	} {
		left := room - len(a.name) - len(a.kind)
		value := cut(a.value, min(left, maxAttributeBytes))
		if value == "" || a.kind == "Number" && value != a.value {
			continue
		}
		attributes[a.name] = types.MessageAttributeValue{DataType: &a.kind, StringValue: &value}
		room = left - len(value)
	}
	return attributes
}

// cut replaces what SQS refuses, and shortens to at most so many bytes.
func cut(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if isForbidden(r) {
			return utf8.RuneError
		}
		return r
	}, s)
	if len(s) > most {
		s = strings.ToValidUTF8(s[:max(0, most)], "")
	}
	return s
}

// Depth asks SQS, which counts approximately and late. Deferred messages are in flight there; how old the oldest is it
// does not say.
func (q *Queue) Depth(ctx context.Context, name jobs.QueueName) (jobs.Depth, error) {
	url, dead := q.urls.of(name)
	live, err := q.count(ctx, url)
	if err != nil {
		return jobs.Depth{}, fmt.Errorf("count queue %s: %w", name, err)
	}
	buried, err := q.count(ctx, dead)
	if err != nil {
		return jobs.Depth{}, fmt.Errorf("count the dead letters of queue %s: %w", name, err)
	}
	live.Dead = buried.Waiting + buried.InFlight + buried.Delayed
	return live, nil
}

func (q *Queue) count(ctx context.Context, url string) (d jobs.Depth, err error) {
	numbers := map[types.QueueAttributeName]*int64{
		types.QueueAttributeNameApproximateNumberOfMessages:           &d.Waiting,
		types.QueueAttributeNameApproximateNumberOfMessagesNotVisible: &d.InFlight,
		types.QueueAttributeNameApproximateNumberOfMessagesDelayed:    &d.Delayed,
	}
	in := &sqs.GetQueueAttributesInput{QueueUrl: &url}
	for name := range numbers {
		in.AttributeNames = append(in.AttributeNames, name)
	}
	out, err := q.client.GetQueueAttributes(ctx, in)
	if err != nil {
		return d, failed("GetQueueAttributes", url, err)
	}
	for name, n := range numbers {
		if *n, err = strconv.ParseInt(out.Attributes[string(name)], 10, 64); err != nil {
			return d, fmt.Errorf("read attribute %s of queue %s: %w", name, url, err)
		}
	}
	return d, nil
}
