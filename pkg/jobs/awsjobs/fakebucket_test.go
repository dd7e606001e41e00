package awsjobs

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// fakeBucket answers as much of S3 as Files asks, in memory, and goes wrong where it is told to. What it says is held
// against a real server by the suite, which both pass.
type fakeBucket struct {
	fault func(op string, nth int) *fault // of the nth request of that kind, from 1; nil = all is well
	page  int                             // keys of a listing; 0 = 1000

	mu      sync.Mutex
	asked   map[string]int
	headers []http.Header // of each request
	objects map[string]fakeObject
	uploads map[string]*fakeUpload
}

type fakeObject struct {
	body []byte
	etag string
	meta http.Header
}

type fakeUpload struct {
	key   string
	meta  http.Header
	parts map[int][]byte
}

// fault is how a request goes wrong.
type fault struct {
	meanwhile func()    // what others do before it is answered
	code      string    // it is refused
	late      bool      // …after the answer has begun, with status 200
	lost      bool      // it is done, but its answer is lost
	unsent    bool      // it does not arrive
	hangs     bool      // it is not answered
	cut       int       // its answer ends after so many bytes, if end is set
	end       error     // …with this
	set       [2]string // a header that the answer has
}

var errBroken = errors.New("connection reset by peer")

var statusOf = map[string]int{
	"SlowDown": 503, "InternalError": 500, "AccessDenied": 403, "SignatureDoesNotMatch": 403, "NoSuchKey": 404, "NoSuchBucket": 404,
	"NoSuchUpload": 404, "PreconditionFailed": 412, "ConditionalRequestConflict": 409, "OperationAborted": 409, "InvalidRange": 416,
	"EntityTooSmall": 400, "InvalidPart": 400, "NotImplemented": 501,
}

// files is Files on this bucket, with a client that tries three times and does not wait.
func (b *fakeBucket) files() *Files {
	b.asked, b.objects, b.uploads = map[string]int{}, map[string]fakeObject{}, map[string]*fakeUpload{}
	return NewFiles(client(b), "fake")
}

func client(server s3.HTTPClient) *s3.Client {
	return s3.New(s3.Options{
		Region: "us-east-1", BaseEndpoint: aws.String("http://fake"), UsePathStyle: true, HTTPClient: server,
		Credentials: credentials.NewStaticCredentialsProvider("key", "secret", ""),
		Retryer: retry.NewStandard(func(o *retry.StandardOptions) {
			o.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 0, nil })
			o.RateLimiter = ratelimit.None
		}),
	}, asConfigured)
}

// asConfigured is what a client gets that is made from the environment: checksums where they can be had.
func asConfigured(o *s3.Options) {
	o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenSupported
	o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenSupported
}

// operation is the name of what a request asks.
func operation(r *http.Request) string {
	q := r.URL.Query()
	copied := r.Header.Get("X-Amz-Copy-Source") != ""
	switch {
	case q.Has("list-type"):
		return "ListObjectsV2"
	case q.Has("delete"):
		return "DeleteObjects"
	case q.Has("uploads"):
		return "CreateMultipartUpload"
	case q.Has("uploadId") && r.Method == http.MethodPost:
		return "CompleteMultipartUpload"
	case q.Has("uploadId") && r.Method == http.MethodDelete:
		return "AbortMultipartUpload"
	case q.Has("uploadId") && copied:
		return "UploadPartCopy"
	case q.Has("uploadId"):
		return "UploadPart"
	}
	return map[string]string{"GET": "GetObject", "HEAD": "HeadObject", "PUT": "PutObject"}[r.Method]
}

func (b *fakeBucket) Do(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	op := operation(r)
	b.mu.Lock()
	b.asked[op]++
	nth := b.asked[op]
	b.headers = append(b.headers, r.Header.Clone())
	b.mu.Unlock()

	f := &fault{}
	if b.fault != nil {
		if g := b.fault(op, nth); g != nil {
			f = g
		}
	}
	if f.meanwhile != nil {
		f.meanwhile()
	}
	if f.hangs {
		<-r.Context().Done()
	}
	switch {
	case r.Context().Err() != nil:
		return nil, r.Context().Err()
	case f.unsent:
		return nil, errBroken
	case f.late:
		return reply(r, 200, refused(f.code)), nil
	case f.code != "":
		return refusal(r, f.code), nil
	}
	b.mu.Lock()
	answer := b.do(op, r, body)
	b.mu.Unlock()
	if f.lost {
		return nil, errBroken
	}
	if f.end != nil && int64(f.cut) < answer.ContentLength { // a connection that breaks after the last byte breaks no answer
		answer.Body = io.NopCloser(io.MultiReader(io.LimitReader(answer.Body, int64(f.cut)), broken{f.end}))
	}
	if f.set[0] != "" {
		answer.Header.Set(f.set[0], f.set[1])
	}
	return answer, nil
}

// broken is a body that ends badly.
type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }

func reply(r *http.Request, status int, body []byte, header ...string) *http.Response {
	h := http.Header{"Date": {time.Now().UTC().Format(http.TimeFormat)}}
	for kv := range slices.Chunk(header, 2) {
		h.Set(kv[0], kv[1])
	}
	if h.Get("Content-Length") == "" {
		h.Set("Content-Length", strconv.Itoa(len(body)))
	}
	length, _ := strconv.ParseInt(h.Get("Content-Length"), 10, 64)
	if r.Method == http.MethodHead {
		body = nil
	}
	return &http.Response{StatusCode: status, Header: h, ContentLength: length, Body: io.NopCloser(bytes.NewReader(body)), Request: r}
}

func refusal(r *http.Request, code string) *http.Response {
	return reply(r, statusOf[code], refused(code))
}

func refused(code string) []byte {
	return fmt.Appendf(nil, "<Error><Code>%s</Code><Message>as told</Message></Error>", code)
}

func (b *fakeBucket) do(op string, r *http.Request, body []byte) *http.Response {
	key := strings.TrimPrefix(r.URL.Path, "/fake/")
	object, there := b.objects[key]
	upload := b.uploads[r.URL.Query().Get("uploadId")]
	taken := there && r.Header.Get("If-None-Match") == "*"
	match := r.Header.Get("If-Match")
	switch {
	case strings.Contains(op, "Upload") && op != "CreateMultipartUpload" && upload == nil:
		return refusal(r, "NoSuchUpload")
	case (op == "GetObject" || op == "HeadObject") && !there:
		return refusal(r, "NoSuchKey")
	case taken, match != "" && match != object.etag:
		return refusal(r, "PreconditionFailed")
	}
	switch op {
	case "GetObject", "HeadObject":
		return object.get(r)
	case "PutObject":
		b.objects[key] = newObject(body, r.Header)
		return reply(r, 200, nil, "ETag", b.objects[key].etag)
	case "CreateMultipartUpload":
		id := strconv.Itoa(b.asked[op])
		b.uploads[id] = &fakeUpload{key: key, meta: r.Header.Clone(), parts: map[int][]byte{}}
		return reply(r, 200, fmt.Appendf(nil, "<InitiateMultipartUploadResult><UploadId>%s</UploadId></InitiateMultipartUploadResult>", id))
	case "UploadPart", "UploadPartCopy":
		return b.part(op, r, upload, body)
	case "CompleteMultipartUpload":
		return b.complete(r, upload, body)
	case "AbortMultipartUpload":
		delete(b.uploads, r.URL.Query().Get("uploadId"))
		return reply(r, 204, nil)
	case "ListObjectsV2":
		return b.list(r)
	case "DeleteObjects":
		return b.delete(r, body)
	}
	return refusal(r, "NotImplemented")
}

func newObject(body []byte, meta http.Header) fakeObject {
	return fakeObject{body: body, etag: fmt.Sprintf(`"%08x"`, crc32.ChecksumIEEE(body)), meta: meta.Clone()}
}

func (o fakeObject) get(r *http.Request) *http.Response {
	header := []string{"ETag", o.etag, "Last-Modified", time.Unix(1e9, 0).UTC().Format(http.TimeFormat), "X-Amz-Meta-Fanout-Writer", o.meta.Get("X-Amz-Meta-Fanout-Writer")}
	asked := r.Header.Get("Range")
	if asked == "" {
		return reply(r, 200, o.body, header...)
	}
	from, to, ok := within(asked, len(o.body))
	if !ok {
		return refusal(r, "InvalidRange")
	}
	return reply(r, 206, o.body[from:to], append(header, "Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(o.body)))...)
}

// within reads a range header, of an object of that size.
func within(asked string, size int) (from, to int, ok bool) {
	first, last, _ := strings.Cut(strings.TrimPrefix(asked, "bytes="), "-")
	from, err := strconv.Atoi(first)
	to = size
	if last != "" {
		n, _ := strconv.Atoi(last)
		to = min(size, n+1)
	}
	return from, to, err == nil && from < size
}

func (b *fakeBucket) part(op string, r *http.Request, u *fakeUpload, body []byte) *http.Response {
	if op == "UploadPartCopy" {
		name, _ := url.PathUnescape(strings.TrimPrefix(r.Header.Get("X-Amz-Copy-Source"), "fake/"))
		from, there := b.objects[name]
		if !there {
			return refusal(r, "NoSuchKey")
		}
		if match := r.Header.Get("X-Amz-Copy-Source-If-Match"); match != "" && match != from.etag {
			return refusal(r, "PreconditionFailed")
		}
		body = from.body
		if asked := r.Header.Get("X-Amz-Copy-Source-Range"); asked != "" {
			first, to, _ := within(asked, len(from.body))
			body = from.body[first:to]
		}
	}
	n, _ := strconv.Atoi(r.URL.Query().Get("partNumber"))
	u.parts[n] = body
	etag := newObject(body, nil).etag
	return reply(r, 200, fmt.Appendf(nil, "<CopyPartResult><ETag>%s</ETag></CopyPartResult>", etag), "ETag", etag)
}

func (b *fakeBucket) complete(r *http.Request, u *fakeUpload, body []byte) *http.Response {
	var asked struct {
		Part []struct {
			PartNumber int
			ETag       string
		}
	}
	if err := xml.Unmarshal(body, &asked); err != nil {
		return refusal(r, "InvalidPart")
	}
	var whole []byte
	for i, p := range asked.Part {
		part, there := u.parts[p.PartNumber]
		if !there || newObject(part, nil).etag != p.ETag {
			return refusal(r, "InvalidPart")
		}
		if len(part) < minPart && i < len(asked.Part)-1 {
			return refusal(r, "EntityTooSmall")
		}
		whole = append(whole, part...)
	}
	delete(b.uploads, r.URL.Query().Get("uploadId"))
	o := newObject(whole, u.meta)
	o.etag = strings.TrimSuffix(o.etag, `"`) + fmt.Sprintf(`-%d"`, len(asked.Part))
	b.objects[u.key] = o
	return reply(r, 200, fmt.Appendf(nil, "<CompleteMultipartUploadResult><ETag>%s</ETag></CompleteMultipartUploadResult>", o.etag))
}

func (b *fakeBucket) list(r *http.Request) *http.Response {
	q := r.URL.Query()
	var keys []string
	for key := range b.objects {
		if strings.HasPrefix(key, q.Get("prefix")) && key > q.Get("continuation-token") {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	var answer strings.Builder
	answer.WriteString("<ListBucketResult>")
	if page := cmp.Or(b.page, 1000); len(keys) > page {
		keys = keys[:page]
		answer.WriteString("<IsTruncated>true</IsTruncated><NextContinuationToken>")
		_ = xml.EscapeText(&answer, []byte(keys[page-1]))
		answer.WriteString("</NextContinuationToken>")
	}
	for _, key := range keys {
		o := b.objects[key]
		fmt.Fprintf(&answer, "<Contents><Key>%s</Key><ETag>", url.QueryEscape(key))
		_ = xml.EscapeText(&answer, []byte(o.etag))
		fmt.Fprintf(&answer, "</ETag><Size>%d</Size><LastModified>2001-09-09T01:46:40Z</LastModified></Contents>", len(o.body))
	}
	answer.WriteString("</ListBucketResult>")
	return reply(r, 200, []byte(answer.String()))
}

func (b *fakeBucket) delete(r *http.Request, body []byte) *http.Response {
	var asked struct{ Object []struct{ Key string } }
	if err := xml.Unmarshal(body, &asked); err != nil || len(asked.Object) > 1000 {
		return refusal(r, "InvalidPart")
	}
	answer := "<DeleteResult>"
	for _, o := range asked.Object {
		if strings.HasPrefix(o.Key, "denied") {
			answer += "<Error><Key>" + o.Key + "</Key><Code>AccessDenied</Code><Message>as told</Message></Error>"
			continue
		}
		delete(b.objects, o.Key)
	}
	return reply(r, 200, []byte(answer+"</DeleteResult>"))
}
