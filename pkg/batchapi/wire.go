package batchapi

// The objects of the wire, as OpenAI publishes them. A pointer is a field that is null where it has no value: clients read
// an absent one and a null one alike, but the service writes null. Times are Unix seconds.

// Batch is a job.
type Batch struct {
	ID               string            `json:"id"`
	Object           string            `json:"object"` // "batch"
	Endpoint         string            `json:"endpoint"`
	Model            *string           `json:"model"` // of all its requests, once that is known; null if they have several
	Errors           *BatchErrors      `json:"errors"`
	InputFileID      string            `json:"input_file_id"`
	CompletionWindow string            `json:"completion_window"`
	Status           string            `json:"status"`
	OutputFileID     *string           `json:"output_file_id"`
	ErrorFileID      *string           `json:"error_file_id"`
	CreatedAt        int64             `json:"created_at"`
	InProgressAt     *int64            `json:"in_progress_at"`
	ExpiresAt        *int64            `json:"expires_at"`
	FinalizingAt     *int64            `json:"finalizing_at"`
	CompletedAt      *int64            `json:"completed_at"`
	FailedAt         *int64            `json:"failed_at"`
	ExpiredAt        *int64            `json:"expired_at"`
	CancellingAt     *int64            `json:"cancelling_at"`
	CancelledAt      *int64            `json:"cancelled_at"`
	RequestCounts    RequestCounts     `json:"request_counts"`
	Usage            BatchUsage        `json:"usage"`
	Metadata         map[string]string `json:"metadata"`
	Fanout           BatchFanout       `json:"fanout"`
}

// Ended tells whether the batch has its files, or will never have any.
func (b *Batch) Ended() bool {
	switch b.Status {
	case "completed", "failed", "expired", "cancelled":
		return true
	default:
		return false
	}
}

// BatchErrors is why a batch failed its validation.
type BatchErrors struct {
	Object string       `json:"object"` // "list"
	Data   []BatchError `json:"data"`   // the first 1,000, by line; in a list of batches the first 20
}

// BatchError is one violation of the input rules.
type BatchError struct {
	Code    string  `json:"code"`
	Message string  `json:"message"`
	Param   *string `json:"param"`
	Line    *int64  `json:"line"` // physical line of the input, from 1
}

// RequestCounts counts requests by what became of them.
type RequestCounts struct {
	Total     int64 `json:"total"`
	Completed int64 `json:"completed"`
	Failed    int64 `json:"failed"`
}

// BatchUsage is the tokens of all answers.
type BatchUsage struct {
	InputTokens         int64         `json:"input_tokens"`
	InputTokensDetails  InputDetails  `json:"input_tokens_details"`
	OutputTokens        int64         `json:"output_tokens"`
	OutputTokensDetails OutputDetails `json:"output_tokens_details"`
	TotalTokens         int64         `json:"total_tokens"`
}

// InputDetails is a part of the input tokens.
type InputDetails struct {
	CachedTokens int64 `json:"cached_tokens"`
}

// OutputDetails is a part of the output tokens.
type OutputDetails struct {
	ReasoningTokens int64 `json:"reasoning_tokens"`
}

// BatchFanout is what fanout says of a batch beside what OpenAI does.
type BatchFanout struct {
	Pause  *BatchPause       `json:"pause"`  // why nothing moves
	Stop   *BatchStop        `json:"stop"`   // why it ended early
	Dead   int64             `json:"dead"`   // chunks given up
	Parked int64             `json:"parked"` // chunks that wait for a pause to end
	Errors []BatchErrorCount `json:"errors"` // of failed requests, commonest first

	CostUSD    *float64     `json:"cost_usd"`     // of what was answered; null = nothing has a price
	MaxCostUSD *float64     `json:"max_cost_usd"` // it pauses there; null = nowhere
	Latency    *Latency     `json:"latency"`      // of answered requests; null = none was
	History    []BatchPoint `json:"history"`      // how it came here
	Tenant     string       `json:"tenant"`
	Parent     *string      `json:"parent"`   // the batch whose failed requests these are
	Children   []string     `json:"children"` // batches of its failed requests, newest first
}

// Latency is about how many seconds answered requests took at most: half of them, nine in ten, and so on.
type Latency struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
}

// BatchPoint is how far a batch was at a time.
type BatchPoint struct {
	At        int64 `json:"at"`
	Completed int64 `json:"completed"`
	Failed    int64 `json:"failed"`
}

// BatchPause is a hold on a batch.
type BatchPause struct {
	Reason  string `json:"reason"` // operator, credential, outage, tolerated_failures, spend_cap
	Message string `json:"message"`
	At      int64  `json:"at"`
}

// BatchStop is why a batch ended, or will end, before all its requests had an answer.
type BatchStop struct {
	Code   string `json:"code"`
	Reason string `json:"reason"`
	At     int64  `json:"at"`
}

// BatchErrorCount is how many requests failed, or keep failing, in this way.
type BatchErrorCount struct {
	Code    string `json:"code"`
	Message string `json:"message"` // without what differs from request to request
	Count   int64  `json:"count"`
}

// File is an input or an output.
type File struct {
	ID            string      `json:"id"`
	Object        string      `json:"object"` // "file"
	Bytes         int64       `json:"bytes"`
	CreatedAt     int64       `json:"created_at"`
	ExpiresAt     int64       `json:"expires_at"`
	Filename      string      `json:"filename"`
	Purpose       string      `json:"purpose"`
	Status        string      `json:"status"` // uploaded while its bytes are still to come, then processed
	StatusDetails *string     `json:"status_details"`
	Upload        *FileUpload `json:"upload,omitempty"` // where the bytes of a presigned file go
}

// FileUpload says where to bring the bytes of a file: one request, without a key, once.
type FileUpload struct {
	Method    string            `json:"method"` // "PUT"
	URL       string            `json:"url"`
	Headers   map[string]string `json:"headers"` // to be sent as they are
	ExpiresAt int64             `json:"expires_at"`
}

// ContentURL says where the bytes of a file are to be had without a key, for an hour.
type ContentURL struct {
	Object string  `json:"object"` // "file.content_url"
	URL    *string `json:"url"`    // null = from the content route itself
}

// Deleted says that something is gone.
type Deleted struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Deleted bool   `json:"deleted"`
}

// Upload is a file that comes in parts.
type Upload struct {
	ID        string `json:"id"`
	Object    string `json:"object"` // "upload"
	Bytes     int64  `json:"bytes"`
	CreatedAt int64  `json:"created_at"`
	ExpiresAt int64  `json:"expires_at"`
	Filename  string `json:"filename"`
	Purpose   string `json:"purpose"`
	Status    string `json:"status"` // pending, completed, cancelled, expired
	File      *File  `json:"file"`
}

// UploadPart is one part of an upload.
type UploadPart struct {
	ID        string `json:"id"`
	Object    string `json:"object"` // "upload.part"
	CreatedAt int64  `json:"created_at"`
	UploadID  string `json:"upload_id"`
}

// Model is a model that requests may name.
type Model struct {
	ID      string `json:"id"`
	Object  string `json:"object"` // "model"
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
}

// List is a page. FirstID and LastID are null on an empty one, and on one of what has no order.
type List[T any] struct {
	Object  string  `json:"object"` // "list"
	Data    []T     `json:"data"`
	FirstID *string `json:"first_id"`
	LastID  *string `json:"last_id"`
	HasMore bool    `json:"has_more"`
}

// newList is a page of what was found by asking for one more than limit.
func newList[T any](found []T, limit int, id func(T) string) List[T] {
	l := List[T]{Object: "list", Data: found, HasMore: len(found) > limit}
	if l.HasMore {
		l.Data = found[:limit]
	}
	if l.Data == nil {
		l.Data = []T{}
	}
	if n := len(l.Data); n > 0 {
		first, last := id(l.Data[0]), id(l.Data[n-1])
		l.FirstID, l.LastID = &first, &last
	}
	return l
}

// ErrorBody is the answer to a request that failed.
type ErrorBody struct {
	Error ErrorDetail `json:"error"`
}

// ErrorDetail is what is wrong. All four are always there.
type ErrorDetail struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    *string `json:"code"`
}

// DryRun is what a batch would be, without making one. Its violations come first on the wire, as they are found.
type DryRun struct {
	Object        string           `json:"object"` // "batch.dry_run"
	Errors        BatchErrors      `json:"errors"` // every violation
	ErrorsTotal   int64            `json:"errors_total"`
	WouldFail     bool             `json:"would_fail"` // as fanout_on_invalid is
	RequestCounts RequestCounts    `json:"request_counts"`
	Lines         int64            `json:"lines"`
	Bytes         int64            `json:"bytes"`
	Models        map[string]int64 `json:"models"` // valid requests by model, the first 100
	Estimate      Estimate         `json:"estimate"`
}

// Estimate is what a batch may come to.
type Estimate struct {
	InputTokens int64 `json:"input_tokens"` // a token for four bytes of input: a rule of thumb, not a count
	Chunks      int64 `json:"chunks"`       // messages to the workers
}

// Key is an API key without its secret.
type Key struct {
	ID        string   `json:"id"`
	Object    string   `json:"object"` // "fanout.key"
	Tenant    string   `json:"tenant"`
	Scopes    []string `json:"scopes"`
	Note      string   `json:"note"`
	CreatedAt int64    `json:"created_at"`
	ExpiresAt *int64   `json:"expires_at"`
	RevokedAt *int64   `json:"revoked_at"`
	Secret    *string  `json:"key,omitempty"` // the whole key, once: when it is made
}

// Hook is a webhook: whom a tenant wants told of the ends of its batches.
type Hook struct {
	ID        string   `json:"id"`
	Object    string   `json:"object"` // "fanout.hook"
	Tenant    string   `json:"tenant"`
	URL       string   `json:"url"`
	Events    []string `json:"events"` // batch.completed, batch.failed, batch.expired, batch.cancelled
	CreatedAt int64    `json:"created_at"`
	Secret    *string  `json:"secret,omitempty"` // whsec_…, once: when it is made
}

// Delivery is one event for one webhook.
type Delivery struct {
	ID            string            `json:"id"`
	Object        string            `json:"object"` // "fanout.delivery"
	Tenant        string            `json:"tenant"`
	Hook          string            `json:"hook_id"`
	URL           string            `json:"url"`
	Event         string            `json:"event_id"` // the same in every attempt: what receivers know repetitions by
	Type          string            `json:"type"`
	Batch         string            `json:"batch_id"`
	Status        string            `json:"status"` // pending, delivered, failed
	Reason        *string           `json:"reason"` // why it was given up, where no attempt says so
	CreatedAt     int64             `json:"created_at"`
	NextAttemptAt *int64            `json:"next_attempt_at"` // of a pending one: when it is sent again, if nothing is heard
	Attempts      []DeliveryAttempt `json:"attempts"`        // the last 20
}

// DeliveryAttempt is one POST, and what came of it.
type DeliveryAttempt struct {
	Number int     `json:"number"`
	At     int64   `json:"at"`
	Status *int    `json:"status"` // of the answer; null = there was none
	Error  *string `json:"error"`
}

// Trouble is the requests of a batch whose last error is alike.
type Trouble struct {
	Object  string          `json:"object"` // "fanout.trouble"
	Code    string          `json:"code"`
	Message string          `json:"message"` // without what differs from request to request
	Status  *int            `json:"status"`  // of HTTP; null = there was no answer
	Failed  int64           `json:"failed"`  // requests that have failed with it
	Open    int64           `json:"open"`    // those that are still to be called, or wait in the dead letters
	Dead    int64           `json:"dead"`    // those of open that wait in the dead letters
	Samples []TroubleSample `json:"samples"` // up to three
}

// TroubleSample is one request.
type TroubleSample struct {
	Line     int64  `json:"line"` // of the input, from 1
	CustomID string `json:"custom_id"`
}

// AuditRecord is something that was done by hand.
type AuditRecord struct {
	ID     string  `json:"id"`
	Object string  `json:"object"` // "fanout.audit"
	At     int64   `json:"at"`
	By     string  `json:"by"`
	Action string  `json:"action"` // such as job.pause
	Tenant *string `json:"tenant"`
	Of     *string `json:"of"`    // id of what it was done to
	Count  int64   `json:"count"` // how many it moved; 0 = it is no matter of counts
	Why    *string `json:"why"`
}
