package awsjobs

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

var noticedAt = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// recordOf is a record of a notification, with another value for some of what a usual one says; "-" leaves it out.
func recordOf(change ...string) string {
	values := map[string]string{
		"source": "aws:s3", "event": "ObjectCreated:Put", "bucket": "ours", "key": "inbox/t/a.jsonl",
		"size": "7", "eTag": "0123456789abcdef0123456789abcdef", "sequencer": "0055AED6DCD90281E5",
	}
	for i := 0; i < len(change); i += 2 {
		values[change[i]] = change[i+1]
	}
	object := ""
	for _, member := range []string{"key", "eTag", "sequencer"} {
		if v := values[member]; v != "-" {
			object += fmt.Sprintf("%q:%q,", member, v)
		}
	}
	return fmt.Sprintf(`{"eventVersion":"2.1","eventSource":%q,"awsRegion":"us-east-1","eventName":%q,"s3":{"s3SchemaVersion":"1.0",`+
		`"bucket":{"name":%q,"arn":"arn:aws:s3:::ours"},"object":{%s"size":%s}}}`, values["source"], values["event"], values["bucket"], object, values["size"])
}

func notice(r ...string) string { return `{"Records":[` + strings.Join(r, ",") + "]}" }

func uploadOf(name string) jobs.UploadMessage {
	return jobs.UploadMessage{
		V: jobs.SchemaVersion, Upload: jobs.FileRef{Name: name, Version: "0123456789abcdef0123456789abcdef"},
		Bucket: "ours", Sequencer: "0055AED6DCD90281E5", Bytes: 7,
	}
}

func TestNotificationsSayWhatWasUploaded(t *testing.T) {
	one := uploadOf("inbox/t/a.jsonl")
	unnumbered := one
	unnumbered.Sequencer = ""
	for name, c := range map[string]struct {
		body string
		want []jobs.UploadMessage
	}{
		"a put":                        {notice(recordOf()), []jobs.UploadMessage{one}},
		"a multipart upload":           {notice(recordOf("event", "ObjectCreated:CompleteMultipartUpload")), []jobs.UploadMessage{one}},
		"the event's name in full":     {notice(recordOf("event", "s3:ObjectCreated:Copy")), []jobs.UploadMessage{one}},
		"a quoted ETag":                {notice(recordOf("eTag", `"0123456789abcdef0123456789abcdef"`)), []jobs.UploadMessage{one}},
		"no sequencer":                 {notice(recordOf("sequencer", "-")), []jobs.UploadMessage{unnumbered}},
		"a space":                      {notice(recordOf("key", "inbox/t/a+b.jsonl")), []jobs.UploadMessage{uploadOf("inbox/t/a b.jsonl")}},
		"a plus":                       {notice(recordOf("key", "inbox/t/a%2Bb.jsonl")), []jobs.UploadMessage{uploadOf("inbox/t/a+b.jsonl")}},
		"a percent":                    {notice(recordOf("key", "inbox/t/100%25.jsonl")), []jobs.UploadMessage{uploadOf("inbox/t/100%.jsonl")}},
		"unicode":                      {notice(recordOf("key", "inbox/t/%E4%BD%9C%E4%B8%9A+%C3%BC.jsonl")), []jobs.UploadMessage{uploadOf("inbox/t/作业 ü.jsonl")}},
		"several records":              {notice(recordOf(), recordOf("key", "inbox/t/b.jsonl")), []jobs.UploadMessage{one, uploadOf("inbox/t/b.jsonl")}},
		"no records":                   {notice(), nil},
		"a deletion":                   {notice(recordOf("event", "ObjectRemoved:Delete")), nil},
		"a delete marker":              {notice(recordOf("event", "ObjectRemoved:DeleteMarkerCreated")), nil},
		"a deletion beside a put":      {notice(recordOf("event", "ObjectRemoved:Delete"), recordOf()), []jobs.UploadMessage{one}},
		"a deletion in another bucket": {notice(recordOf("event", "ObjectRemoved:Delete", "bucket", "theirs")), nil},
		"the test event":               {`{"Service":"Amazon S3","Event":"s3:TestEvent","Time":"2026-01-01T00:00:00.000Z","Bucket":"ours","RequestId":"1","HostId":"2"}`, nil},
	} {
		got, isNotification, err := uploads([]byte(c.body), "ours")
		if d := cmp.Diff(c.want, got); err != nil || !isNotification || d != "" {
			t.Errorf("%s: %t, %v (-want +got):\n%s", name, isNotification, err, d)
		}
	}
}

// The body is the example of S3's documentation, with a version of its object.
func TestTheDocumentedNotificationIsRead(t *testing.T) {
	body, err := os.ReadFile("testdata/notification.json")
	if err != nil {
		t.Fatal(err)
	}
	got, isNotification, err := uploads(body, "amzn-s3-demo-bucket")
	want := []jobs.UploadMessage{{
		V: jobs.SchemaVersion, Upload: jobs.FileRef{Name: "HappyFace.jpg", Version: "d41d8cd98f00b204e9800998ecf8427e"},
		Bucket: "amzn-s3-demo-bucket", Sequencer: "0055AED6DCD90281E5", Bytes: 1024,
	}}
	if d := cmp.Diff(want, got); err != nil || !isNotification || d != "" {
		t.Errorf("%t, %v (-want +got):\n%s", isNotification, err, d)
	}
}

func TestNotificationsThatCannotBeUploadsSayWhy(t *testing.T) {
	for name, c := range map[string]struct{ body, want string }{
		"another bucket":   {notice(recordOf("bucket", "theirs")), `"inbox/t/a.jsonl" is in bucket "theirs", not in ours`},
		"another service":  {notice(recordOf("source", "aws:ses")), `it comes from "aws:ses"`},
		"no ETag":          {notice(recordOf("eTag", "-")), "without name or version"},
		"no key":           {notice(recordOf("key", "-")), "without name or version"},
		"a broken key":     {notice(recordOf("key", "inbox/%zz")), `invalid URL escape "%zz"`},
		"no UTF-8":         {notice(recordOf("key", "inbox/t/%ff.jsonl")), "is not UTF-8"},
		"a negative size":  {notice(recordOf("size", "-1")), "an upload of -1 bytes"},
		"a size in words":  {notice(recordOf("size", `"many"`)), "cannot unmarshal"},
		"a record in word": {`{"Records":["put"]}`, "cannot unmarshal"},
		"records in words": {`{"Records":"put"}`, "cannot unmarshal"},
	} {
		got, isNotification, err := uploads([]byte(c.body), "ours")
		if len(got) > 0 || !isNotification || jobs.CodeOf(err) != jobs.CodeInvalid || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: %+v, %t, %v; want an error that says %s", name, got, isNotification, err, c.want)
		}
	}
	got, _, err := uploads([]byte(notice(recordOf("bucket", "theirs"), recordOf())), "ours")
	if d := cmp.Diff([]jobs.UploadMessage{uploadOf("inbox/t/a.jsonl")}, got); err == nil || d != "" {
		t.Errorf("beside another bucket's: %v (-want +got):\n%s", err, d)
	}
}

func TestOtherMessagesAreNoNotifications(t *testing.T) {
	for _, body := range []string{
		"", "{}", "null", "[]", "7", "{", `{"Records":null}`, `{"Event":"other"}`, `{"v":1,"advance":"j","split":-1}`,
		string(jobs.PingBody(noticedAt)), string(jobs.TickBody()), string(jobs.UploadBody(uploadOf("inbox/t/a.jsonl"))),
	} {
		if got, isNotification, err := uploads([]byte(body), "ours"); got != nil || isNotification || err != nil {
			t.Errorf("%s: %+v, %t, %v; want it left to others", body, got, isNotification, err)
		}
	}
}

// toldHandler keeps what it is handed, and fails what fails says.
type toldHandler struct {
	told  []jobs.Message
	calls int
	fails func(m jobs.Message) error
}

func (h *toldHandler) Handle(_ context.Context, messages []jobs.Message) (failures []jobs.Failure) {
	h.calls++
	for _, m := range messages {
		h.told = append(h.told, m)
		if err := h.fails(m); err != nil {
			failures = append(failures, jobs.Failure{ID: m.ID, Err: err})
		}
	}
	return failures
}

// buryingQueue keeps what is buried.
type buryingQueue struct {
	jobs.Queue
	err    error
	buried []jobs.Message
	why    []jobs.Burial
}

func (q *buryingQueue) Bury(_ context.Context, m jobs.Message, why jobs.Burial) error {
	q.buried, q.why = append(q.buried, m), append(q.why, why)
	return q.err
}

func TestUploadsHandsOnWhatNotificationsSay(t *testing.T) {
	ping, bad := string(jobs.PingBody(noticedAt)), notice(recordOf("bucket", "theirs"), recordOf())
	two := notice(recordOf(), recordOf("key", "inbox/t/b.jsonl"))
	a, b := string(jobs.UploadBody(uploadOf("inbox/t/a.jsonl"))), string(jobs.UploadBody(uploadOf("inbox/t/b.jsonl")))
	for name, c := range map[string]struct {
		bodies []string // of messages 0, 1, …
		told   []string // message and body
		fails  string   // bodies that contain it
		broken bool     // nothing can be buried
		failed []string
		buried []string
	}{
		"other messages as they are": {bodies: []string{ping, "", "{"}, told: []string{"0 " + ping, "1 ", "2 {"}},
		"both uploads of one":        {bodies: []string{ping, two}, told: []string{"0 " + ping, "1 " + a, "1 " + b}},
		"nothing of a test event":    {bodies: []string{`{"Event":"s3:TestEvent"}`, notice()}},
		"one of two fails":           {bodies: []string{two}, told: []string{"0 " + a, "0 " + b}, fails: "b.jsonl", failed: []string{"0"}},
		"both fail, as one message":  {bodies: []string{two, ping}, told: []string{"0 " + a, "0 " + b, "1 " + ping}, fails: "inbox", failed: []string{"0"}},
		"the good beside the bad":    {bodies: []string{bad}, told: []string{"0 " + a}, buried: []string{"0 " + bad}},
		"no way to bury":             {bodies: []string{bad, ping}, told: []string{"0 " + a, "1 " + ping}, buried: []string{"0 " + bad}, broken: true, failed: []string{"0"}},
	} {
		inner := &toldHandler{fails: func(m jobs.Message) error {
			if c.fails != "" && strings.Contains(string(m.Body), c.fails) {
				return errors.New("no")
			}
			return nil
		}}
		queue := &buryingQueue{}
		if c.broken {
			queue.err = errors.New("no queue")
		}
		var messages []jobs.Message
		for i, body := range c.bodies {
			messages = append(messages, jobs.Message{ID: fmt.Sprint(i), Receipt: "r", Queue: jobs.QueueIngest, Body: []byte(body), Receives: 3, Sent: noticedAt})
		}
		var failed []string
		for _, f := range NewUploads(inner, queue, "ours").Handle(t.Context(), messages) {
			failed = append(failed, f.ID)
		}
		if d := cmp.Diff(c.told, said(t, inner.told)); d != "" || inner.calls > 1 {
			t.Errorf("%s: %d calls, told (-want +got):\n%s", name, inner.calls, d)
		}
		if d := cmp.Diff(c.failed, failed); d != "" {
			t.Errorf("%s: failed (-want +got):\n%s", name, d)
		}
		if d := cmp.Diff(c.buried, said(t, queue.buried)); d != "" {
			t.Errorf("%s: buried (-want +got):\n%s", name, d)
		}
		for _, why := range queue.why {
			if why.Code != "invalid" || why.Attempts != 3 || !strings.Contains(why.Message, `"theirs", not in ours`) {
				t.Errorf("%s: buried for %+v", name, why)
			}
		}
	}
}

// said tells messages by id and body; the rest of them is to be as it came.
func said(t *testing.T, messages []jobs.Message) (told []string) {
	t.Helper()
	for _, m := range messages {
		told = append(told, m.ID+" "+string(m.Body))
		if m.Receipt != "r" || m.Queue != jobs.QueueIngest || m.Receives != 3 || !m.Sent.Equal(noticedAt) {
			t.Errorf("message %+v is not as it came", m)
		}
	}
	return told
}

func FuzzNotification(f *testing.F) {
	for _, body := range []string{
		notice(recordOf()), notice(recordOf("key", "inbox/t/%E4%BD%9C+%2B.jsonl"), recordOf("bucket", "theirs")), `{"Event":"s3:TestEvent"}`,
		notice(recordOf("event", "ObjectRemoved:Delete")), notice(recordOf("key", "%ff")), `{"Records":[{}]}`, `{"records":[null]}`, "{",
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		found, isNotification, err := uploads(body, "ours")
		if !isNotification && (found != nil || err != nil) {
			t.Fatalf("no notification, and yet %+v, %v", found, err)
		}
		if err != nil && jobs.CodeOf(err) != jobs.CodeInvalid {
			t.Fatalf("an error of code %s: %v", jobs.CodeOf(err), err)
		}
		for _, m := range found {
			b, err := jobs.DecodeMessage(jobs.UploadBody(m))
			if err != nil || b.Upload == nil || *b.Upload != m || m.Bucket != "ours" {
				t.Fatalf("%+v is read as %+v, %v", m, b.Upload, err)
			}
		}
	})
}

func FuzzNotificationKey(f *testing.F) {
	for _, key := range []string{"inbox/t/a.jsonl", "a b+c%d/é作", "\\\"'<>&\u2028\x01"} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		found, _, err := uploads([]byte(notice(recordOf("key", url.QueryEscape(key)))), "ours")
		switch {
		case err != nil && len(found) == 0: // over a limit, or not UTF-8
		case err != nil || len(found) != 1 || found[0].Upload.Name != key:
			t.Fatalf("key %q came out as %+v, %v", key, found, err)
		}
	})
}
