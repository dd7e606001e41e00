package awsjobs

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// entryFault is why SQS did not do what one entry of a call asked for.
type entryFault struct {
	code, message string
	sender        bool // it says that the fault is ours
}

// faults says what became of each of n entries: nil, or why it failed. One that the answer does not mention failed too.
func faults(n int, done []*string, failed []types.BatchResultErrorEntry) []*entryFault {
	all := make([]*entryFault, n)
	for i := range all {
		all[i] = &entryFault{message: "SQS did not say what became of it"}
	}
	at := func(id *string, f *entryFault) {
		if i, err := strconv.Atoi(aws.ToString(id)); err == nil && i >= 0 && i < n {
			all[i] = f
		}
	}
	for _, id := range done {
		at(id, nil)
	}
	for _, e := range failed {
		code := aws.ToString(e.Code)
		code = code[strings.LastIndexAny(code, ".#")+1:] // some carry the name of the service
		at(e.Id, &entryFault{code, aws.ToString(e.Message), e.SenderFault})
	}
	return all
}

func ids[E any](entries []E, id func(E) *string) []*string {
	all := make([]*string, len(entries))
	for i, e := range entries {
		all[i] = id(e)
	}
	return all
}

func entryID(n int) *string { return aws.String(strconv.Itoa(n)) }

// refusal is the fault as an error; nil is none. What SQS will never do has a code; throttling and its own faults pass.
func (f *entryFault) refusal() error {
	if f == nil {
		return nil
	}
	err := errors.New(strings.TrimPrefix(f.code+": "+f.message, ": "))
	switch {
	case !f.sender, strings.Contains(f.code, "Throttl"), f.code == "OverLimit":
		return err
	case strings.Contains(f.message, "shorter than"), strings.Contains(f.message, "longer than"), strings.Contains(f.message, "VisibilityTimeout"):
		return jobs.Errorf(jobs.CodeLimit, "%w", err)
	default:
		return jobs.Errorf(jobs.CodeInvalid, "%w", err)
	}
}

// unknownReceipt tells that the message was acked, or delivered again, or was never there. SQS has three ways to say it,
// and the code of the last is for other things too.
func (f *entryFault) unknownReceipt() bool {
	switch f.code {
	case "ReceiptHandleIsInvalid", "MessageNotInflight":
		return true
	default:
		return f.code == "InvalidParameterValue" && strings.Contains(f.message, "ReceiptHandle")
	}
}

// failed names the operation and the queue of a call that failed. A missing permission is told with what is missing.
func failed(operation, url string, err error) error {
	if url == "" {
		return fmt.Errorf("%s: this process was not told where the queue is", operation)
	}
	var op *smithy.OperationError
	if errors.As(err, &op) {
		err = op.Err // names the operation too
	}
	err = fmt.Errorf("%s on %s: %w", operation, url, err)
	var said smithy.APIError
	if errors.As(err, &said) && strings.HasPrefix(said.ErrorCode(), "AccessDenied") {
		return jobs.Errorf(jobs.CodeInternal, "%w", err).
			WithHint("allow sqs:%s on the queue %s to the role of this process", strings.TrimSuffix(operation, "Batch"), url)
	}
	return err
}

// atOnce does n things, up to maxCalls at a time, and begins none once one has failed. It returns the first failure.
func atOnce(n int, do func(i int) error) error {
	var mu sync.Mutex
	var failure error
	begun := 0
	next := func() (int, bool) {
		mu.Lock()
		defer mu.Unlock()
		if failure != nil || begun == n {
			return 0, false
		}
		begun++
		return begun - 1, true
	}
	var running sync.WaitGroup
	for range min(n, maxCalls) {
		running.Go(func() {
			for i, ok := next(); ok; i, ok = next() {
				if err := do(i); err != nil {
					mu.Lock()
					if failure == nil {
						failure = err
					}
					mu.Unlock()
				}
			}
		})
	}
	running.Wait()
	return failure
}

// seconds32 is a duration in seconds, rounded up; what is below zero is zero.
func seconds32(d time.Duration) int32 {
	if d <= 0 {
		return 0
	}
	return int32((d + time.Second - 1) / time.Second)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
