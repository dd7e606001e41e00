package awsjobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// testEvent is what S3 sends when notifications are turned on.
const testEvent = "s3:TestEvent"

// notification is what S3 tells the ingest queue of its bucket.
type notification struct {
	Event   string // testEvent, or empty
	Records *[]eventRecord
}

type eventRecord struct {
	Source string `json:"eventSource"`
	Name   string `json:"eventName"`
	S3     struct {
		Bucket struct{ Name string }
		Object struct {
			Key       string // URL-encoded; a space is a plus
			Size      int64
			ETag      string
			Sequencer string
		}
	}
}

// uploads reads a message of S3: one upload for each object that was created. A body that is no notification is somebody
// else's to read. The error speaks of what can never be an upload; beside it there may be some that are.
//
// In a bucket that keeps versions an upload is told by its ETag all the same. So an object that was overwritten counts as
// overwritten, although its old version is there; the sequencer tells uploads of equal bytes apart.
func uploads(body []byte, bucket string) (found []jobs.UploadMessage, isNotification bool, err error) {
	var n notification
	broken := json.Unmarshal(body, &n)
	switch {
	case n.Records == nil:
		return nil, n.Event == testEvent, nil
	case broken != nil:
		return nil, true, jobs.Errorf(jobs.CodeInvalid, "decode S3 notification: %w", broken)
	}
	var wrong []error
	for _, r := range *n.Records {
		if !strings.HasPrefix(strings.TrimPrefix(r.Name, "s3:"), "ObjectCreated:") {
			continue
		}
		o := r.S3.Object
		name, err := url.QueryUnescape(o.Key)
		m := jobs.UploadMessage{
			V: jobs.SchemaVersion, Upload: jobs.FileRef{Name: name, Version: version(&o.ETag)},
			Bucket: bucket, Sequencer: o.Sequencer, Bytes: o.Size,
		}
		switch {
		case r.Source != "aws:s3":
			err = fmt.Errorf("it comes from %.40q", r.Source)
		case r.S3.Bucket.Name != bucket:
			err = fmt.Errorf("%.200q is in bucket %.80q, not in %s", name, r.S3.Bucket.Name, bucket)
		case err == nil && !utf8.ValidString(name):
			err = fmt.Errorf("key %.200q is not UTF-8", name)
		case err == nil:
			_, err = jobs.DecodeMessage(jobs.UploadBody(m))
		}
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		found = append(found, m)
	}
	if len(wrong) > 0 {
		err = jobs.Errorf(jobs.CodeInvalid, "decode S3 notification: %w", errors.Join(wrong...))
	}
	return found, true, err
}

// uploadsHandler stands before ingest, where S3 notifications arrive.
type uploadsHandler struct {
	inner  jobs.Handler
	queue  jobs.Queue
	bucket string
}

// NewUploads makes a handler that tells inner of uploads into a bucket where messages are S3's notifications; all others it
// hands on as they are. What becomes of the uploads of a message becomes of the message: it comes again if one of them is to.
// Notifications that cannot be read, or are of another bucket, go to the dead letters, with the reason.
func NewUploads(inner jobs.Handler, queue jobs.Queue, bucket string) jobs.Handler {
	return &uploadsHandler{inner, queue, bucket}
}

// Handle hands on what the messages say, all at once.
func (h *uploadsHandler) Handle(ctx context.Context, messages []jobs.Message) []jobs.Failure {
	var failures []jobs.Failure
	on := make([]jobs.Message, 0, len(messages))
	for _, d := range messages {
		found, isNotification, err := uploads(d.Body, h.bucket)
		if !isNotification {
			on = append(on, d)
			continue
		}
		if err != nil {
			why := jobs.Burial{Code: string(jobs.CodeInvalid), Message: err.Error(), Attempts: d.Receives}
			if err := h.queue.Bury(ctx, d, why); err != nil {
				failures = append(failures, jobs.Failure{ID: d.ID, Err: fmt.Errorf("bury an S3 notification: %w", err)})
			}
		}
		for _, m := range found {
			one := d
			one.Body = jobs.UploadBody(m)
			on = append(on, one)
		}
	}
	if len(on) > 0 {
		failures = append(failures, h.inner.Handle(ctx, on)...)
	}
	return oncePerMessage(failures)
}

// oncePerMessage joins what is said of one message.
func oncePerMessage(failures []jobs.Failure) []jobs.Failure {
	at := map[string]int{}
	once := failures[:0:0]
	for _, f := range failures {
		if i, said := at[f.ID]; said {
			once[i].Err = errors.Join(once[i].Err, f.Err)
			continue
		}
		at[f.ID] = len(once)
		once = append(once, f)
	}
	return once
}
