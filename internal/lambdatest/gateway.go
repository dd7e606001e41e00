package lambdatest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// Gateway is the URL of a server that calls a function until the test ends, as an API Gateway HTTP API does, or, if it streams, as a Function
// URL does: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
func Gateway(t testing.TB, f *Function, streams bool) (at string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		payload, err := requestEvent(r)
		if err != nil {
			return // the client has gone
		}
		if len(payload) > maxPayload {
			http.Error(w, `{"message":"Request Entity Too Large"}`, http.StatusRequestEntityTooLarge)
			return
		}
		if streams {
			stream(f, w, r, payload)
		} else {
			buffer(f, w, r, payload)
		}
	}))
	t.Cleanup(server.Close)
	return strings.Replace(server.URL, "127.0.0.1", "localhost", 1) // another host than that of the servers it may lead to
}

// requestEvent is a request in payload format 2.0.
func requestEvent(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	headers := map[string]string{"host": r.Host, "x-forwarded-proto": "https"}
	for name, values := range r.Header {
		headers[strings.ToLower(name)] = strings.Join(values, ",")
	}
	text, base := string(body), false
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/json" && !strings.HasPrefix(kind, "text/") {
		text, base = base64.StdEncoding.EncodeToString(body), true
	}
	query := map[string]string{}
	if values, err := url.ParseQuery(r.URL.RawQuery); err == nil {
		for name, v := range values {
			query[name] = strings.Join(v, ",")
		}
	}
	type object = map[string]any
	return json.Marshal(object{
		"version": "2.0", "routeKey": "$default", "rawPath": r.URL.Path, "rawQueryString": r.URL.RawQuery, // the path as API Gateway has it: decoded
		"headers": headers, "queryStringParameters": query, "body": text, "isBase64Encoded": base,
		"requestContext": object{
			"accountId": account, "apiId": "api", "domainName": r.Host, "stage": "$default", "requestId": newID(8), "timeEpoch": time.Now().UnixMilli(),
			"http": object{"method": r.Method, "path": r.URL.Path, "protocol": r.Proto, "sourceIp": "127.0.0.1", "userAgent": r.UserAgent()},
		},
	})
}

// prelude is how an answer begins.
type prelude struct {
	StatusCode int               `json:"statusCode"`
	Headers    map[string]string `json:"headers"`
}

func (p *prelude) write(w http.ResponseWriter) {
	for name, value := range p.Headers {
		w.Header().Set(name, value)
	}
	w.WriteHeader(p.StatusCode)
}

func buffer(f *Function, w http.ResponseWriter, r *http.Request, payload []byte) {
	result, err := f.Invoke(r.Context(), payload)
	var answer struct {
		prelude
		Body   string `json:"body"`
		Base64 bool   `json:"isBase64Encoded"`
	}
	switch {
	case err != nil:
		return // the client has gone
	case result.Err != nil, len(result.Payload) > maxPayload, json.Unmarshal(result.Payload, &answer) != nil:
		http.Error(w, `{"message":"Internal Server Error"}`, http.StatusInternalServerError)
		return
	}
	body := []byte(answer.Body)
	if answer.Base64 {
		if body, err = base64.StdEncoding.DecodeString(answer.Body); err != nil {
			http.Error(w, `{"message":"Internal Server Error"}`, http.StatusInternalServerError)
			return
		}
	}
	answer.prelude.write(w)
	_, _ = w.Write(body) // a client that has gone needs no answer
}

func stream(f *Function, w http.ResponseWriter, r *http.Request, payload []byte) {
	out := &streamed{w: w, control: http.NewResponseController(w)}
	result, err := f.InvokeStream(r.Context(), payload, out)
	switch {
	case err != nil || out.begun && result.Err != nil:
		panic(http.ErrAbortHandler)
	case result.Err != nil:
		http.Error(w, "Internal Server Error", http.StatusBadGateway)
	}
}

// streamed passes on what a function streams: a prelude of JSON, eight zero bytes, and the body as it comes.
type streamed struct {
	w       http.ResponseWriter
	control *http.ResponseController
	head    []byte
	begun   bool
}

func (s *streamed) Write(p []byte) (int, error) {
	if s.begun {
		n, err := s.w.Write(p)
		if err == nil {
			err = s.control.Flush()
		}
		return n, err
	}
	s.head = append(s.head, p...)
	head, body, whole := bytes.Cut(s.head, make([]byte, 8))
	if !whole {
		return len(p), nil
	}
	var begin prelude
	if err := json.Unmarshal(head, &begin); err != nil {
		return 0, fmt.Errorf("read the prelude %q: %w", head, err)
	}
	s.begun = true
	begin.write(s.w)
	if _, err := s.w.Write(body); err != nil {
		return 0, err
	}
	return len(p), s.control.Flush()
}
