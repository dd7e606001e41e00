// Package frontdoor lets an http.Handler answer what comes to a Lambda function by HTTP: buffered behind an API Gateway HTTP
// API, or streaming behind a Function URL. Both hand over payload format 2.0.
package frontdoor

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambdaurl"
)

// MaxBuffered is how many bytes of a body pass a buffered front door. An invocation returns 6 MB of JSON, in which a body
// that is base64 takes a third more: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
const MaxBuffered = 4_500_000

type abortedKey struct{}

// Streaming answers as it goes. An answer that is broken off does not end as one that is whole.
func Streaming(h http.Handler) func(context.Context, *events.LambdaFunctionURLRequest) (*events.LambdaFunctionURLStreamingResponse, error) {
	wrapped := lambdaurl.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			if err, _ := p.(error); errors.Is(err, http.ErrAbortHandler) {
				r.Context().Value(abortedKey{}).(*atomic.Bool).Store(true)
			} else if p != nil {
				panic(p)
			}
		}()
		h.ServeHTTP(w, r)
	}))
	return func(ctx context.Context, r *events.LambdaFunctionURLRequest) (*events.LambdaFunctionURLStreamingResponse, error) {
		var aborted atomic.Bool
		r.RawPath = escaped(r.RawPath)
		out, err := wrapped(context.WithValue(ctx, abortedKey{}, &aborted), r)
		if err != nil {
			return nil, fmt.Errorf("read the request: %w", err)
		}
		out.Body = &body{from: out.Body, aborted: &aborted}
		return out, nil
	}
}

// escaped is a path as it stands in a URL. API Gateway hands it over decoded, where it may be none.
func escaped(path string) string {
	path = "/" + strings.TrimPrefix(path, "/")
	if u, err := url.ParseRequestURI(path); err == nil && u.RawQuery == "" {
		return path
	}
	return (&url.URL{Path: path}).EscapedPath()
}

// body does not end as if it were whole when the handler has broken off.
type body struct {
	from    io.Reader
	aborted *atomic.Bool
}

// Read reads on.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.from.Read(p)
	if errors.Is(err, io.EOF) && b.aborted.Load() {
		err = errAborted
	}
	return n, err
}

// Close lets the handler know that nobody reads on.
func (b *body) Close() error {
	if c, ok := b.from.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

var errAborted = errors.New("the answer was broken off")

// Buffered answers in one piece. What is broken off is an error of the invocation, and what is larger than the front door
// lets pass is answered with an error of the API.
func Buffered(h http.Handler) func(context.Context, *events.LambdaFunctionURLRequest) (events.APIGatewayV2HTTPResponse, error) {
	streaming := Streaming(h)
	return func(ctx context.Context, r *events.LambdaFunctionURLRequest) (events.APIGatewayV2HTTPResponse, error) {
		s, err := streaming(ctx, r)
		if err != nil {
			return events.APIGatewayV2HTTPResponse{}, err
		}
		whole, err := io.ReadAll(s.Body)
		if err != nil {
			return events.APIGatewayV2HTTPResponse{}, err
		}
		out := events.APIGatewayV2HTTPResponse{StatusCode: s.StatusCode, Headers: s.Headers, Cookies: s.Cookies}
		if len(whole) > MaxBuffered {
			out.StatusCode, whole = http.StatusBadRequest, tooLarge(len(whole))
			out.Headers = map[string]string{"Content-Type": "application/json", "X-Should-Retry": "false"}
		}
		delete(out.Headers, "Content-Length") // of what it sends the front door says how much it is
		out.Body, out.IsBase64Encoded = encode(whole)
		return out, nil
	}
}

// small bodies go as they are, which whoever reads a log of them is glad of.
const small = 256 << 10

// encode is a body in an answer. What would be escaped in JSON can take six times its bytes; base64 takes a third more.
func encode(whole []byte) (text string, base bool) {
	if len(whole) <= small && bytes.IndexFunc(whole, func(r rune) bool { return r == '\ufffd' || r == 0 }) < 0 {
		return string(whole), false
	}
	return base64.StdEncoding.EncodeToString(whole), true
}

func tooLarge(n int) []byte {
	return fmt.Appendf(nil, `{"error":{"message":"The answer has %d bytes, more than the %d that this front door lets pass; ask for less at once.","type":"invalid_request_error","param":null,"code":"answer_too_large"}}`+"\n", n, MaxBuffered)
}
