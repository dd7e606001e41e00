package batchapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// answers is the table of answers to errors. Official clients repeat 408, 409, 429 and 5xx by themselves, so a fault that
// will not go away is never one of these, and says so.
var answers = map[jobs.Code]answer{
	jobs.CodeInvalid:  {status: http.StatusBadRequest, kind: kindInvalid},
	jobs.CodeNotFound: {status: http.StatusNotFound, kind: kindInvalid},
	jobs.CodeConflict: {status: http.StatusServiceUnavailable, kind: kindServer, again: true}, // others were faster, many times
	jobs.CodeLimit:    {status: http.StatusTooManyRequests, kind: kindLimit, again: true},
	jobs.CodeUpstream: {status: http.StatusBadGateway, kind: kindServer, again: true},
	jobs.CodeDenied:   {status: http.StatusUnauthorized, kind: kindInvalid},
	jobs.CodeInternal: {status: http.StatusInternalServerError, kind: kindServer, again: true},
}

type answer struct {
	status int
	kind   string
	again  bool // the same request may do better later
}

// Types of errors, in the words of the wire.
const (
	kindInvalid = "invalid_request_error"
	kindLimit   = "rate_limit_error"
	kindServer  = "server_error"
)

// failure is an error that knows its answer. Its message goes to whoever asked.
type failure struct {
	status  int
	code    string // a word for programs; may be empty
	param   string // the field that is wrong; may be empty
	message string
	after   time.Duration // not before this; 0 = any time
}

func (f *failure) Error() string { return f.message }

// invalid is a field that is wrong.
func invalid(param, format string, args ...any) error {
	return &failure{status: http.StatusBadRequest, param: param, message: fmt.Sprintf(format, args...)}
}

// refuse is a request that cannot be done.
func refuse(status int, code, format string, args ...any) error {
	return &failure{status: status, code: code, message: fmt.Sprintf(format, args...)}
}

// notFound is what somebody else's thing is too.
func notFound(what, id string) error {
	return &failure{status: http.StatusNotFound, message: fmt.Sprintf("No such %s object: %.80s", what, id)}
}

// absent makes a not-found of a thing that the store does not have, in the words of the wire.
func absent(err error, what, id string) error {
	if errors.Is(err, jobs.ErrNotFound) {
		return notFound(what, id)
	}
	return err
}

// writeError answers with an error. What is ours to know goes to the log alone; the answer then has the request's id.
func (h *Handler) writeError(w http.ResponseWriter, r *http.Request, err error) {
	f := h.describe(r, err)
	again := f.status == http.StatusConflict || f.status == http.StatusTooManyRequests || f.status >= 500
	w.Header().Set("X-Should-Retry", strconv.FormatBool(again))
	if f.after > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((f.after+time.Second-1)/time.Second)))
	}
	if f.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="fanout"`)
	}
	body := ErrorBody{ErrorDetail{Message: f.message, Type: kindOf(f.status), Param: optional(f.param), Code: optional(f.code)}}
	writeJSON(w, f.status, body)
}

func kindOf(status int) string {
	switch {
	case status == http.StatusTooManyRequests:
		return kindLimit
	case status >= 500:
		return kindServer
	default:
		return kindInvalid
	}
}

func (h *Handler) describe(r *http.Request, err error) failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return *f
	}
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return failure{status: http.StatusRequestEntityTooLarge, code: "request_too_large",
			message: fmt.Sprintf("The request has more than %d bytes.", tooLarge.Limit)}
	}
	a := answers[jobs.CodeOf(err)]
	f := failure{status: a.status, message: withHint(err)}
	if a.kind == kindServer {
		id := requestID(r.Context())
		h.opt.Log.ErrorContext(r.Context(), "answer a request", "request", id, "method", r.Method, "route", r.Pattern, "error", err)
		f.message = fmt.Sprintf("The server had an error while processing your request (request %s).", id)
		f.after = time.Second
	}
	return f
}

// withHint is an error with what to try.
func withHint(err error) string {
	if e, ok := errors.AsType[*jobs.Error](err); ok && e.Hint != "" {
		return err.Error() + "; try: " + e.Hint
	}
	return err.Error()
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err)) // our own types always encode
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // a client that has gone needs no answer
}

// optional is null for "".
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// unix is null for no time.
func unix(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	s := t.Unix()
	return &s
}
