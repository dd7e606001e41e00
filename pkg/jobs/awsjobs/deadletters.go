package awsjobs

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// How dead letters are looked at. SQS shows them only to who takes them: they are hidden meanwhile, and shown again when the
// look has ended, or after that time if it could not say so.
const (
	peekHides = 2 * time.Minute
	peekWait  = time.Second // a receive that does not wait asks some of the servers only
)

// Peek receives the letters of a queue until it has none left to show, and then shows them again. One that comes a second
// time, as the look took too long, is not yielded again. The service counts all that it hides, and hides no more than 120,000.
func (q *Queue) Peek(ctx context.Context, name jobs.QueueName) iter.Seq2[jobs.Letter, error] {
	return func(yield func(jobs.Letter, error) bool) {
		_, url := q.urls.of(name)
		seen := map[string]string{} // by id: the receipt that it was last taken with
		defer func() { q.showAgain(context.WithoutCancel(ctx), url, seen) }()
		for news := true; news; {
			out, err := q.client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
				QueueUrl: &url, MaxNumberOfMessages: MaxReceive, VisibilityTimeout: seconds32(peekHides), WaitTimeSeconds: seconds32(min(q.Wait, peekWait)),
				MessageAttributeNames:       []string{"All"},
				MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameSentTimestamp},
			})
			if err != nil {
				yield(jobs.Letter{}, fmt.Errorf("list dead letters of queue %s: %w", name, failed("ReceiveMessage", url, err)))
				return
			}
			var fresh []jobs.Letter
			for _, m := range out.Messages {
				l := letterOf(m)
				if _, again := seen[l.ID]; !again {
					fresh = append(fresh, l)
				}
				seen[l.ID] = l.Receipt // also of those that nobody will look at
			}
			for _, l := range fresh {
				if !yield(l, nil) {
					return
				}
			}
			news = len(fresh) > 0
		}
	}
}

func letterOf(m types.Message) jobs.Letter {
	l := jobs.Letter{ID: aws.ToString(m.MessageId), Receipt: aws.ToString(m.ReceiptHandle), Body: []byte(aws.ToString(m.Body))}
	if ms, err := strconv.ParseInt(m.Attributes[string(types.MessageSystemAttributeNameSentTimestamp)], 10, 64); err == nil {
		l.At = time.UnixMilli(ms)
	}
	text := func(name string) string { return aws.ToString(m.MessageAttributes[name].StringValue) }
	l.Burial = jobs.Burial{Job: jobs.JobID(text("job")), Code: text("code"), Message: text("message")}
	l.Burial.Number, _ = strconv.Atoi(text("number")) // 0 where the queue itself gave it up
	l.Burial.Attempts, _ = strconv.Atoi(text("attempts"))
	return l
}

// showAgain ends a look. What it cannot show comes back by itself.
func (q *Queue) showAgain(ctx context.Context, url string, seen map[string]string) {
	var handles []string
	for _, handle := range seen {
		handles = append(handles, handle)
	}
	_ = atOnce((len(handles)+maxEntries-1)/maxEntries, func(n int) error {
		var entries []types.ChangeMessageVisibilityBatchRequestEntry
		for i, handle := range handles[n*maxEntries : min(len(handles), (n+1)*maxEntries)] {
			entries = append(entries, types.ChangeMessageVisibilityBatchRequestEntry{Id: entryID(i), ReceiptHandle: &handle})
		}
		_, err := q.client.ChangeMessageVisibilityBatch(ctx, &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: &url, Entries: entries})
		return err
	})
}

// Discard deletes letters.
func (q *Queue) Discard(ctx context.Context, name jobs.QueueName, letters ...jobs.Letter) error {
	messages := make([]jobs.Message, len(letters))
	for i, l := range letters {
		messages[i] = jobs.Message{Queue: name, Receipt: receiptOf(l.Receipt, time.Time{})}
	}
	if err := q.each(messages, q.dead, q.deleting(ctx)); err != nil {
		return fmt.Errorf("discard %d dead letters of queue %s: %w", len(letters), name, err)
	}
	return nil
}

// Move starts a task of SQS, which has its own rate if none is asked for, and takes up to 36 hours.
func (q *Queue) Move(ctx context.Context, name jobs.QueueName, perSecond int) error {
	if perSecond < 0 || perSecond > jobs.MaxMoveRate {
		return jobs.Errorf(jobs.CodeInvalid, "move the dead letters of queue %s: %d a second is not from 0 to %d", name, perSecond, jobs.MaxMoveRate)
	}
	url, dead := q.urls.of(name)
	task, err := q.runningMove(ctx, dead)
	if err == nil && task != nil {
		err = fmt.Errorf("they are being moved: %w", jobs.ErrConflict)
	}
	var from, to string
	if err == nil {
		from, err = q.arn(ctx, dead)
	}
	if err == nil {
		to, err = q.arn(ctx, url)
	}
	if err == nil {
		in := &sqs.StartMessageMoveTaskInput{SourceArn: &from, DestinationArn: &to} // SQS knows no source of what was sent there
		if perSecond > 0 {
			in.MaxNumberOfMessagesPerSecond = aws.Int32(int32(perSecond))
		}
		if _, err = q.client.StartMessageMoveTask(ctx, in); err != nil {
			err = failed("StartMessageMoveTask", dead, err)
		}
	}
	if err != nil {
		return fmt.Errorf("move the dead letters of queue %s: %w", name, err)
	}
	return nil
}

// Moves asks SQS, which knows the last ten.
func (q *Queue) Moves(ctx context.Context, name jobs.QueueName) ([]jobs.Move, error) {
	_, dead := q.urls.of(name)
	tasks, err := q.moveTasks(ctx, dead)
	if err != nil {
		return nil, fmt.Errorf("list the moves of the dead letters of queue %s: %w", name, err)
	}
	var all []jobs.Move
	for _, t := range tasks {
		m := jobs.Move{State: moveStates[aws.ToString(t.Status)], Began: time.UnixMilli(t.StartedTimestamp), Moved: t.ApproximateNumberOfMessagesMoved, Why: aws.ToString(t.FailureReason)}
		m.Total = max(m.Moved, aws.ToInt64(t.ApproximateNumberOfMessagesToMove))
		if m.State == "" {
			m.State, m.Why = jobs.MoveFailed, "SQS says that it is "+aws.ToString(t.Status)
		}
		all = append(all, m)
	}
	return all, nil
}

var moveStates = map[string]jobs.MoveState{
	"RUNNING": jobs.MoveRunning, "COMPLETED": jobs.MoveCompleted, "CANCELLING": jobs.MoveStopped, "CANCELLED": jobs.MoveStopped, "FAILED": jobs.MoveFailed,
}

// StopMove cancels the task that is running.
func (q *Queue) StopMove(ctx context.Context, name jobs.QueueName) error {
	_, dead := q.urls.of(name)
	task, err := q.runningMove(ctx, dead)
	switch {
	case err != nil:
	case task == nil:
		err = fmt.Errorf("none is under way: %w", jobs.ErrNotFound)
	default:
		if _, err = q.client.CancelMessageMoveTask(ctx, &sqs.CancelMessageMoveTaskInput{TaskHandle: task.TaskHandle}); err != nil {
			err = failed("CancelMessageMoveTask", dead, err)
		}
	}
	if err != nil {
		return fmt.Errorf("stop the move of the dead letters of queue %s: %w", name, err)
	}
	return nil
}

// runningMove is the task that is running, or nil: there is at most one of a queue.
func (q *Queue) runningMove(ctx context.Context, dead string) (*types.ListMessageMoveTasksResultEntry, error) {
	tasks, err := q.moveTasks(ctx, dead)
	if err != nil {
		return nil, err
	}
	for _, t := range tasks {
		if moveStates[aws.ToString(t.Status)] == jobs.MoveRunning {
			return &t, nil
		}
	}
	return nil, nil
}

func (q *Queue) moveTasks(ctx context.Context, dead string) ([]types.ListMessageMoveTasksResultEntry, error) {
	arn, err := q.arn(ctx, dead)
	if err != nil {
		return nil, err
	}
	out, err := q.client.ListMessageMoveTasks(ctx, &sqs.ListMessageMoveTasksInput{SourceArn: &arn, MaxResults: aws.Int32(10)})
	if err != nil {
		return nil, failed("ListMessageMoveTasks", dead, err)
	}
	return out.Results, nil
}

// arn is the other name of a queue, by which tasks know it.
func (q *Queue) arn(ctx context.Context, url string) (string, error) {
	out, err := q.client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameQueueArn}})
	if err != nil {
		return "", failed("GetQueueAttributes", url, err)
	}
	arn := out.Attributes[string(types.QueueAttributeNameQueueArn)]
	if arn == "" {
		return "", errors.New("SQS does not say the ARN of queue " + url)
	}
	return arn, nil
}
