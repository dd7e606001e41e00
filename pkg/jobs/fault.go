package jobs

import (
	"fmt"
	"time"
)

// Cause is what was seen when a call failed. What it means is Judge's to say.
type Cause string

// The causes.
const (
	CauseStatus      Cause = "status"      // an HTTP answer that is not 2xx
	CauseUnreachable Cause = "unreachable" // refused, DNS, TLS: nobody took the request
	CauseReset       Cause = "reset"       // the connection broke after the request was sent
	CauseTimeout     Cause = "timeout"     // no whole answer within the call's timeout
	CauseMalformed   Cause = "malformed"   // 2xx, but no JSON object
	CauseTooLarge    Cause = "too_large"   // the answer is over the limit
	CausePanic       Cause = "panic"       // the call panicked
	CauseAborted     Cause = "aborted"     // we ended it ourselves; it says nothing of the item
)

// Fault is a failed call.
type Fault struct {
	Cause      Cause
	Status     int           // HTTP status; 0 = there was no answer
	Code       string        // of the error object in the answer, else one of ours: request_timeout, upstream_unreachable, …
	Message    string        // a sentence; the answer's, where there is one
	RetryAfter time.Duration // asked for by the answer; 0 = it did not
	IsObject   bool          // the answer is an OpenAI error object: the API itself spoke, not something before it
	RequestID  string
	Body       []byte // the answer as one line of JSON, for the error line; nil if it was none
	Err        error  // the chain, for the log; may be nil
}

func (f *Fault) Error() string {
	if f.Status != 0 {
		return fmt.Sprintf("status %d: %s: %s", f.Status, f.Code, f.Message)
	}
	return fmt.Sprintf("%s: %s", f.Code, f.Message)
}

// Unwrap gives the chain.
func (f *Fault) Unwrap() error { return f.Err }
