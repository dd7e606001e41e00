package upstream

import (
	"compress/flate"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Our codes, where an answer gives none.
const (
	codeTimeout     = "request_timeout"
	codeUnreachable = "upstream_unreachable"
	codeReset       = "connection_reset"
	codeMalformed   = "malformed_response"
	codeTooLarge    = "response_too_large"
	codeAborted     = "request_aborted"
)

// Bounds of what a fault keeps from an answer. The worker keeps one of them an item.
const (
	maxErrorBody = 64 << 10
	maxMessage   = 1 << 10
	maxWord      = 128 // a code, a request id
)

// broken is the fault of a call that got no answer.
func (u *OpenAI) broken(ctx, call context.Context, err error) *jobs.Fault {
	var nobody *unreachable
	switch {
	case ctx.Err() != nil:
		return u.aborted(ctx)
	case errors.As(err, &nobody):
		return &jobs.Fault{Cause: jobs.CauseUnreachable, Code: codeUnreachable, Message: nobody.message, Err: err}
	case call.Err() != nil:
		return &jobs.Fault{Cause: jobs.CauseTimeout, Code: codeTimeout, Err: err,
			Message: fmt.Sprintf("%s gave no whole answer within %s", u.host, u.timeout)}
	case strings.Contains(err.Error(), "malformed "):
		// A status line, a header or a chunk; the error quotes what came, so it is left out of the chain.
		return &jobs.Fault{Cause: jobs.CauseMalformed, Code: codeMalformed,
			Message: u.host + " does not answer in proper HTTP; is it an https:// URL?"}
	default:
		return &jobs.Fault{Cause: jobs.CauseReset, Code: codeReset, Err: err,
			Message: fmt.Sprintf("the connection to %s broke before its whole answer: %s", u.host, whyBroken(err))}
	}
}

func (u *OpenAI) aborted(ctx context.Context) *jobs.Fault {
	return &jobs.Fault{Cause: jobs.CauseAborted, Code: codeAborted, Err: context.Cause(ctx),
		Message: "the call was ended here before " + u.host + " had answered"}
}

func whyBroken(err error) string {
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		return errno.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), strings.Contains(err.Error(), "server closed idle connection"):
		return "the other side closed it"
	default:
		return tidy(err.Error(), maxMessage)
	}
}

// unread is the fault of a 2xx answer whose body could not be read to its end.
func (u *OpenAI) unread(ctx, call context.Context, resp *http.Response, err error) *jobs.Fault {
	var corrupt flate.CorruptInputError
	switch {
	case errors.Is(err, errTooLarge):
		return &jobs.Fault{Cause: jobs.CauseTooLarge, Status: resp.StatusCode, Code: codeTooLarge, RequestID: u.requestID(resp),
			Message: fmt.Sprintf("%s answered with more than %d bytes, the limit", u.host, u.limit)}
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), errors.As(err, &corrupt):
		return u.malformed(resp, nil, errors.New("a body that is not the gzip it says it is"))
	default:
		return u.broken(ctx, call, err)
	}
}

// malformed is the fault of a 2xx answer that is no JSON object. The chain says where; it quotes nothing of the answer.
func (u *OpenAI) malformed(resp *http.Response, body []byte, err error) *jobs.Fault {
	f := &jobs.Fault{Cause: jobs.CauseMalformed, Status: resp.StatusCode, Code: codeMalformed, RequestID: u.requestID(resp)}
	var (
		syntax *jsontext.SyntacticError
		what   string
	)
	switch kind := u.contentType(resp); {
	case body == nil:
		what = err.Error()
	case len(body) == 0:
		what = "an empty body"
	case kind != "" && !strings.Contains(kind, "json"):
		what = kind
	case errors.Is(err, errNoObject):
		what = "JSON that is not an object"
	case errors.Is(err, errNotUTF8):
		what = "text that is not UTF-8"
	case errors.As(err, &syntax):
		what = fmt.Sprintf("invalid JSON after %d of %d bytes", syntax.ByteOffset, len(body))
	default:
		what = err.Error()
	}
	f.Message = fmt.Sprintf("%s answered %d with %s instead of a JSON object", u.host, resp.StatusCode, what)
	return f
}

// refused is the fault of an answer that is not 2xx. Its status is known, so a body that breaks off or trickles changes
// nothing: it is left out.
func (u *OpenAI) refused(ctx context.Context, resp *http.Response, rd *reader) *jobs.Fault {
	var (
		body []byte
		err  error
	)
	if resp.StatusCode != http.StatusSwitchingProtocols { // there the body is the bare connection, which no timeout ends
		body, err = rd.read(resp.Body, maxErrorBody)
	}
	if ctx.Err() != nil {
		return u.aborted(ctx)
	}
	f := &jobs.Fault{
		Cause: jobs.CauseStatus, Status: resp.StatusCode, Code: "http_" + strconv.Itoa(resp.StatusCode),
		RetryAfter: retryAfter(resp.Header, u.now()), RequestID: u.requestID(resp),
	}
	if body = redact(u.key, body); err == nil && utf8.Valid(body) && jsontext.Value(body).IsValid(lenient) {
		f.Body, _ = oneLine(body)
		readError(f)
	}
	switch {
	case resp.StatusCode < 400:
		f.Message = u.redirected(resp)
	case f.Message == "":
		f.Message = fmt.Sprintf("%s answered %d with %s", u.host, resp.StatusCode, u.describe(resp, body, err))
	}
	return f
}

func (u *OpenAI) describe(resp *http.Response, body []byte, err error) string {
	switch kind := u.contentType(resp); {
	case errors.Is(err, errTooLarge):
		return fmt.Sprintf("more than %d bytes", maxErrorBody)
	case err != nil:
		return "a body that broke off"
	case len(body) == 0:
		return "an empty body"
	case kind != "":
		return kind
	default:
		return "a body of no known type"
	}
}

func (u *OpenAI) redirected(resp *http.Response) string {
	to, err := resp.Location()
	if err != nil {
		return fmt.Sprintf("%s answered %d, which is no answer to a request", u.host, resp.StatusCode)
	}
	to.User, to.RawQuery, to.Fragment = nil, "", "" // these may hold credentials
	return fmt.Sprintf("%s answered %d, a redirect to %s; redirects are not followed, so name that host as the upstream",
		u.host, resp.StatusCode, tidy(string(redact(u.key, []byte(to.String()))), maxWord))
}

// errorAnswer is the shapes of an error that servers are seen to give. Each is read as far as it is there.
type errorAnswer struct {
	Error   jsontext.Value `json:"error"`  // OpenAI: an object; some: a string
	Object  jsontext.Value `json:"object"` // "error": the same object without its envelope, as older vLLM has it
	Message jsontext.Value `json:"message"`
	Type    jsontext.Value `json:"type"`
	Code    jsontext.Value `json:"code"`
	Detail  jsontext.Value `json:"detail"` // FastAPI
}

// readError fills in code, message and IsObject from f.Body.
func readError(f *jobs.Fault) {
	var e errorAnswer
	if json.Unmarshal(f.Body, &e, lenient) != nil {
		return // valid JSON, but no object
	}
	inner := errorAnswer{}
	switch {
	case e.Error.Kind() == '{':
		if json.Unmarshal(e.Error, &inner, lenient) != nil {
			return
		}
	case text(e.Object) == "error":
		inner = e
	default:
		for _, v := range []jsontext.Value{e.Error, e.Detail, e.Message} {
			if f.Message == "" {
				f.Message = tidy(text(v), maxMessage)
			}
		}
		return
	}
	f.Message = tidy(text(inner.Message), maxMessage)
	for _, v := range []jsontext.Value{inner.Code, inner.Type} {
		if code := tidy(text(v), maxWord); code != "" {
			f.Code = code
			break
		}
	}
	// Gateways answer {"error":{}} too, but say nothing in it that only the API can know.
	f.IsObject = f.Message != "" || len(inner.Type) > 0
}

// text is the text of a JSON string; of anything else it is empty.
func text(v jsontext.Value) string {
	if v.Kind() != '"' {
		return ""
	}
	b, _ := jsontext.AppendUnquote(nil, v) // a lone surrogate becomes U+FFFD
	return string(b)
}

// tidy makes one line of what an upstream wrote, without control characters (it is shown on terminals), of at most limit
// bytes.
func tidy(s string, limit int) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }), " ")
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= limit {
		return s
	}
	const ellipsis = "…"
	end := limit - len(ellipsis)
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + ellipsis
}

// said is a header of an answer. Some upstreams quote the key there, too.
func (u *OpenAI) said(resp *http.Response, name string) string {
	return string(redact(u.key, []byte(resp.Header.Get(name))))
}

func (u *OpenAI) requestID(resp *http.Response) string {
	return tidy(u.said(resp, "X-Request-Id"), maxWord)
}

// contentType is the answer's media type without parameters, as far as it says one.
func (u *OpenAI) contentType(resp *http.Response) string {
	kind, _, err := mime.ParseMediaType(u.said(resp, "Content-Type"))
	if err != nil {
		return ""
	}
	return tidy(kind, maxWord)
}

const invalidRequest = "invalid_request_error"

// apiError is OpenAI's error object.
type apiError struct {
	Message string
	Type    string
	Param   string // empty = null
	Code    string // empty = null
}

// refusal is the fault of a request that we refuse as an API would.
func refusal(status int, e apiError) *jobs.Fault {
	nullable := func(s string) any {
		if s == "" {
			return nil
		}
		return s
	}
	body, err := json.Marshal(map[string]any{"error": map[string]any{
		"message": e.Message, "type": e.Type, "param": nullable(e.Param), "code": nullable(e.Code),
	}}, json.Deterministic(true), lenient)
	if err != nil {
		panic(err) // four strings always encode
	}
	f := &jobs.Fault{Cause: jobs.CauseStatus, Status: status, Body: body, Code: "http_" + strconv.Itoa(status)}
	readError(f)
	return f
}
