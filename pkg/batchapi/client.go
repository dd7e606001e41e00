package batchapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Client calls a server of this API. Errors are *jobs.Error: of code invalid, not_found, denied, limit or upstream (the
// server). Requests that may be repeated are, a few times, while the server or the way to it is troubled. What moves, removes or
// makes work (Redrive, PurgeDead, PurgeLetters, MoveLetters, RetryJob) is repeated only where it was certainly not done. Safe for
// concurrent use.
type Client struct {
	base string // ends in /v1
	jobs string // where batches are read
	key  string
	http *retryablehttp.Client
	sure *retryablehttp.Client // for what must not be done twice
	one  *http.Client          // for what cannot be sent twice
}

// NewClient makes a client of the server at base, such as http://127.0.0.1:8080 or what is given to official clients, which
// ends in /v1.
func NewClient(base, key string) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, jobs.Errorf(jobs.CodeInvalid, "%.200q is no URL of a server, such as http://127.0.0.1:8080/v1", base)
	}
	base = strings.TrimRight(base, "/")
	if !strings.HasSuffix(base, "/v1") {
		base += "/v1"
	}
	again, sure := repeating(checkRetry), repeating(checkUndone)
	sure.HTTPClient = again.HTTPClient
	return &Client{base: base, jobs: base + "/batches", key: key, http: again, sure: sure, one: again.HTTPClient}, nil
}

func repeating(check retryablehttp.CheckRetry) *retryablehttp.Client {
	c := retryablehttp.NewClient()
	c.Logger, c.RetryMax, c.RetryWaitMin, c.RetryWaitMax = nil, 4, 250*time.Millisecond, 10*time.Second
	c.ErrorHandler = retryablehttp.PassthroughErrorHandler
	c.CheckRetry = check
	return c
}

// checkRetry repeats what the server does not say is hopeless.
func checkRetry(ctx context.Context, r *http.Response, err error) (bool, error) {
	if r != nil && r.Header.Get("X-Should-Retry") == "false" {
		return false, nil
	}
	return retryablehttp.DefaultRetryPolicy(ctx, r, err)
}

// checkUndone repeats only what was certainly not done: what reached no server, or was sent away for coming too often.
func checkUndone(ctx context.Context, r *http.Response, err error) (bool, error) {
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case err != nil:
		return notSent(err), nil
	default:
		return r.StatusCode == http.StatusTooManyRequests && r.Header.Get("X-Should-Retry") != "false", nil
	}
}

// notSent tells whether there never was a connection to send a request over.
func notSent(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && (op.Op == "dial" || op.Op == "proxyconnect")
}

// AnyTenant is the client as an operator's: its Batch, WaitBatch, Results and CancelBatch are of any tenant, and need the scope operate.
func (c *Client) AnyTenant() *Client {
	o := *c
	o.jobs = c.root() + "/fanout/v1/jobs"
	return &o
}

// root is a URL beside /v1, of what only fanout has.
func (c *Client) root() string { return strings.TrimSuffix(c.base, "/v1") }

// do sends a request that may be repeated, and decodes the answer.
func (c *Client) do(ctx context.Context, method, at string, body, answer any, header ...string) error {
	r, err := c.send(ctx, method, at, body, header...)
	if err != nil {
		return err
	}
	return c.decode(r, answer)
}

// doSure sends a request that must not be done twice, and decodes the answer. Where nobody knows whether it was done, the
// error says so.
func (c *Client) doSure(ctx context.Context, what, at string, body, answer any) error {
	r, err := c.sendBy(ctx, c.sure, http.MethodPost, at, body)
	if err == nil {
		err = c.decode(r, answer)
	}
	unknown := jobs.CodeOf(err) == jobs.CodeUpstream || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
	if err == nil || !unknown || notSent(err) {
		return err
	}
	return jobs.Errorf(jobs.CodeUpstream, "%s: it may have been done, or a part of it, since no whole answer came: %w", what, err).
		WithHint("fanout audit, which lists what was done, and a count of what is left, before you do it again")
}

func (c *Client) decode(r *http.Response, answer any) error {
	defer r.Body.Close()
	if err := json.NewDecoder(r.Body).Decode(answer); err != nil {
		return c.unreachable(err)
	}
	return nil
}

func (c *Client) send(ctx context.Context, method, at string, body any, header ...string) (*http.Response, error) {
	return c.sendBy(ctx, c.http, method, at, body, header...)
}

func (c *Client) sendBy(ctx context.Context, by *retryablehttp.Client, method, at string, body any, header ...string) (*http.Response, error) {
	var content any
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = raw
		header = append(header, "Content-Type", "application/json")
	}
	q, err := retryablehttp.NewRequestWithContext(ctx, method, at, content)
	if err != nil {
		return nil, jobs.Errorf(jobs.CodeInvalid, "call %s: %w", at, err)
	}
	c.sign(q.Header, header)
	r, err := by.Do(q)
	if err != nil {
		return nil, c.unreachable(err)
	}
	return r, failed(r)
}

func (c *Client) sign(h http.Header, header []string) {
	for i := 0; i+1 < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	if c.key != "" {
		h.Set("Authorization", "Bearer "+c.key)
	}
}

func (c *Client) unreachable(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return jobs.Errorf(jobs.CodeUpstream, "call %s: %w", c.base, err).WithHint("fanout serve, on that machine, or --api with the address of another")
}

// codeOf is the table of what a status means to whoever called.
func codeOf(status int) jobs.Code {
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return jobs.CodeDenied
	case status == http.StatusNotFound:
		return jobs.CodeNotFound
	case status == http.StatusTooManyRequests || status == http.StatusRequestEntityTooLarge:
		return jobs.CodeLimit
	case status < 500:
		return jobs.CodeInvalid
	default:
		return jobs.CodeUpstream
	}
}

// failed makes an error of an answer that is none.
func failed(r *http.Response) error {
	if r.StatusCode < 300 {
		return nil
	}
	defer r.Body.Close()
	const most = 64 << 10
	raw, _ := io.ReadAll(io.LimitReader(r.Body, most)) // what there is of it
	var body ErrorBody
	message := fmt.Sprintf("the server answered %s", r.Status)
	if json.Unmarshal(raw, &body) == nil && body.Error.Message != "" {
		message = body.Error.Message
	}
	e := jobs.Errorf(codeOf(r.StatusCode), "%s", message)
	if e.Code == jobs.CodeDenied {
		return e.WithHint("--key, or FANOUT_KEY, with a key of that server")
	}
	return e
}

// CreateFile brings a file. Its content is read once, so this is not repeated.
func (c *Client) CreateFile(ctx context.Context, name, purpose string, content io.Reader) (File, error) {
	r, w := io.Pipe()
	form := multipart.NewWriter(w)
	go func() { // ends when the form is written, or r is closed below
		err := form.WriteField("purpose", purpose)
		var part io.Writer
		if err == nil {
			part, err = form.CreateFormFile("file", name)
		}
		if err == nil {
			_, err = io.Copy(part, content)
		}
		if err == nil {
			err = form.Close()
		}
		w.CloseWithError(err)
	}()
	defer r.Close()
	var f File
	err := c.once(ctx, http.MethodPost, c.base+"/files", r, -1, &f, "Content-Type", form.FormDataContentType())
	return f, err
}

// once sends a request that cannot be repeated.
func (c *Client) once(ctx context.Context, method, at string, body io.Reader, size int64, answer any, header ...string) error {
	q, err := http.NewRequestWithContext(ctx, method, at, body)
	if err != nil {
		return jobs.Errorf(jobs.CodeInvalid, "call %s: %w", at, err)
	}
	q.ContentLength = size
	c.sign(q.Header, header)
	r, err := c.one.Do(q)
	if err != nil {
		return c.unreachable(err)
	}
	if err := failed(r); err != nil {
		return err
	}
	return c.decode(r, answer)
}

// CreateLargeFile brings a file of a known size straight to where it is kept, past the front door's limits.
func (c *Client) CreateLargeFile(ctx context.Context, name, purpose string, content io.Reader, size int64) (File, error) {
	var f File
	err := c.do(ctx, http.MethodPost, c.base+"/files?presign=true", map[string]string{"filename": name, "purpose": purpose}, &f)
	if err != nil {
		return f, err
	}
	if f.Upload == nil {
		return f, jobs.Errorf(jobs.CodeUpstream, "create file %s: the server did not say where to bring it", f.ID)
	}
	q, err := http.NewRequestWithContext(ctx, f.Upload.Method, f.Upload.URL, content)
	if err != nil {
		return f, jobs.Errorf(jobs.CodeUpstream, "create file %s: %w", f.ID, err)
	}
	q.ContentLength = size
	for k, v := range f.Upload.Headers {
		q.Header.Set(k, v)
	}
	r, err := c.one.Do(q)
	if err != nil {
		return f, c.unreachable(err)
	}
	if err := failed(r); err != nil {
		return f, err
	}
	_ = r.Body.Close() // what it says is of no interest
	return c.File(ctx, f.ID)
}

// File reads what is known of a file.
func (c *Client) File(ctx context.Context, id string) (f File, err error) {
	err = c.do(ctx, http.MethodGet, c.base+"/files/"+url.PathEscape(id), nil, &f)
	return f, err
}

// Files lists files, newest first.
func (c *Client) Files(ctx context.Context, q ListQuery) (l List[File], err error) {
	err = c.do(ctx, http.MethodGet, c.base+"/files"+q.encode(), nil, &l)
	return l, err
}

// DeleteFile deletes a file.
func (c *Client) DeleteFile(ctx context.Context, id string) (d Deleted, err error) {
	err = c.do(ctx, http.MethodDelete, c.base+"/files/"+url.PathEscape(id), nil, &d)
	return d, err
}

// FileContent opens the bytes of a file, from an offset on.
func (c *Client) FileContent(ctx context.Context, id string, from int64) (io.ReadCloser, error) {
	var header []string
	if from > 0 {
		header = []string{"Range", fmt.Sprintf("bytes=%d-", from)}
	}
	r, err := c.send(ctx, http.MethodGet, c.base+"/files/"+url.PathEscape(id)+"/content", nil, header...)
	if err != nil {
		return nil, err
	}
	return r.Body, nil
}

// ListQuery is what part of a list is asked for. Zero values are the server's defaults.
type ListQuery struct {
	After   string
	Limit   int
	Purpose string // of files
	Order   string // of files: asc or desc

	tenant string // of what operators list
}

func (q ListQuery) encode() string {
	v := url.Values{}
	for key, value := range map[string]string{"after": q.After, "purpose": q.Purpose, "order": q.Order, "tenant": q.tenant} {
		if value != "" {
			v.Set(key, value)
		}
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	if len(v) == 0 {
		return ""
	}
	return "?" + v.Encode()
}

// CreateBatchRequest is what a batch is made of.
type CreateBatchRequest struct {
	InputFileID      string            `json:"input_file_id"`
	Endpoint         string            `json:"endpoint"`
	CompletionWindow string            `json:"completion_window"`
	Metadata         map[string]string `json:"metadata,omitempty"`
}

// CreateBatch makes a batch. A key makes repeating it safe, now and later; it is made up if it is empty.
func (c *Client) CreateBatch(ctx context.Context, q CreateBatchRequest, idempotencyKey string) (b Batch, err error) {
	if idempotencyKey == "" {
		idempotencyKey = "client-" + jobs.Ports{}.WithDefaults().NewID()
	}
	err = c.do(ctx, http.MethodPost, c.base+"/batches", q, &b, "Idempotency-Key", idempotencyKey)
	return b, err
}

// DryRun says what a batch would be.
func (c *Client) DryRun(ctx context.Context, q CreateBatchRequest) (d DryRun, err error) {
	err = c.do(ctx, http.MethodPost, c.base+"/batches?dry_run=true", q, &d)
	return d, err
}

// Batch reads a batch.
func (c *Client) Batch(ctx context.Context, id string) (b Batch, err error) {
	err = c.do(ctx, http.MethodGet, c.jobs+"/"+url.PathEscape(id), nil, &b)
	return b, err
}

// WaitBatch reads a batch once it has changed since the answer that had the tag ("" = since now), or has ended, or the time
// is over. The tag is of the answer.
func (c *Client) WaitBatch(ctx context.Context, id, tag string, wait time.Duration) (b Batch, next string, err error) {
	var header []string
	if tag != "" {
		header = []string{"If-None-Match", tag}
	}
	r, err := c.send(ctx, http.MethodGet, c.jobs+"/"+url.PathEscape(id)+"?wait="+url.QueryEscape(wait.String()), nil, header...)
	if err != nil {
		return b, "", err
	}
	if err := c.decode(r, &b); err != nil {
		return b, "", err
	}
	return b, r.Header.Get("ETag"), nil
}

// Batches lists batches, newest first.
func (c *Client) Batches(ctx context.Context, q ListQuery) (l List[Batch], err error) {
	err = c.do(ctx, http.MethodGet, c.base+"/batches"+q.encode(), nil, &l)
	return l, err
}

// CancelBatch cancels a batch.
func (c *Client) CancelBatch(ctx context.Context, id string) (b Batch, err error) {
	err = c.do(ctx, http.MethodPost, c.jobs+"/"+url.PathEscape(id)+"/cancel", nil, &b)
	return b, err
}

// ResultsQuery is what results are asked for.
type ResultsQuery struct {
	After  string
	Status string // completed or failed; "" = both
	Limit  int    // lines of a page; 0 = the server's default
	Input  bool   // each with the line that asked for it
}

// Results reads one page of results in input order, line by line, and says where to go on, and whether there is more now
// ("more"), later ("pending") or never ("complete").
func (c *Client) Results(ctx context.Context, id string, q ResultsQuery, line func([]byte) error) (after, state string, err error) {
	v := url.Values{}
	for key, value := range map[string]string{"after": q.After, "status": q.Status} {
		if value != "" {
			v.Set(key, value)
		}
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.Input {
		v.Set("include", "input")
	}
	r, err := c.send(ctx, http.MethodGet, c.jobs+"/"+url.PathEscape(id)+"/results?"+v.Encode(), nil)
	if err != nil {
		return q.After, "", err
	}
	defer r.Body.Close()
	in := bufio.NewReaderSize(r.Body, 64<<10)
	for {
		l, err := in.ReadBytes('\n')
		if len(l) > 0 {
			if err := line(bytes.TrimSuffix(l, []byte("\n"))); err != nil {
				return q.After, "", err
			}
		}
		if errors.Is(err, io.EOF) {
			return r.Header.Get(HeaderResultsAfter), r.Header.Get(HeaderResultsState), nil
		}
		if err != nil {
			return q.After, "", c.unreachable(err)
		}
	}
}

// PauseJob holds a job of any tenant.
func (c *Client) PauseJob(ctx context.Context, id, reason string) (b Batch, err error) {
	err = c.do(ctx, http.MethodPost, c.root()+"/fanout/v1/jobs/"+url.PathEscape(id)+"/pause", map[string]string{"reason": reason}, &b)
	return b, err
}

// ResumeJob ends a pause, whoever set it.
func (c *Client) ResumeJob(ctx context.Context, id string) (b Batch, err error) {
	err = c.do(ctx, http.MethodPost, c.root()+"/fanout/v1/jobs/"+url.PathEscape(id)+"/resume", nil, &b)
	return b, err
}

// JobErrors groups the errors of a job of any tenant, commonest first.
func (c *Client) JobErrors(ctx context.Context, id string) (l List[Trouble], err error) {
	err = c.do(ctx, http.MethodGet, c.root()+"/fanout/v1/jobs/"+url.PathEscape(id)+"/errors", nil, &l)
	return l, err
}

// Audit lists what was done by hand, newest first.
func (c *Client) Audit(ctx context.Context, q ListQuery) (l List[AuditRecord], err error) {
	err = c.do(ctx, http.MethodGet, c.root()+"/fanout/v1/audit"+q.encode(), nil, &l)
	return l, err
}

func ofTenant(tenant string) string { return ListQuery{tenant: tenant}.encode() }

var _ slog.LogValuer = (*Client)(nil)

// LogValue keeps the key out of logs.
func (c *Client) LogValue() slog.Value { return slog.StringValue(c.base) }
