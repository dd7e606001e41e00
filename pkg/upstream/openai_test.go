package upstream

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/upstream/upstreamtest"
)

const (
	chatURL = "/v1/chat/completions"
	testKey = Secret("sk-test-0123456789abcdef")
)

// newOpenAI makes an upstream that must be valid.
func newOpenAI(t testing.TB, o OpenAIOptions) *OpenAI {
	t.Helper()
	u, err := NewOpenAI(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	return u
}

// ask is a request whose only user message is text.
func ask(text string) jobs.Request {
	body, err := json.Marshal(map[string]any{"model": "m", "messages": []any{map[string]any{"role": "user", "content": text}}})
	if err != nil {
		panic(err)
	}
	return jobs.Request{URL: chatURL, Model: "m", IdempotencyKey: "key of " + text, Body: body}
}

// faultOf is the fault of a call that must fail.
func faultOf(t *testing.T, u jobs.Upstream, r jobs.Request) *jobs.Fault {
	t.Helper()
	answer, err := u.Call(t.Context(), r)
	var f *jobs.Fault
	if !errors.As(err, &f) {
		t.Fatalf("call %.60s: got %d %.100q and error %v, want a fault", r.Body, answer.Status, answer.Body, err)
	}
	return f
}

func TestCallBringsAnswerBack(t *testing.T) {
	for _, weather := range []string{"", "[[pretty]]", "[[gzip]]", "[[pretty gzip]]", "[[delay=1ms]]"} {
		t.Run(weather, func(t *testing.T) {
			u := newOpenAI(t, OpenAIOptions{BaseURL: new(upstreamtest.Server).Start(t)})
			text := "say it  twice " + weather
			got, err := u.Call(t.Context(), ask(text))
			if err != nil {
				t.Fatal(err)
			}
			words := int64(len(strings.Fields(text)))
			if diff := cmp.Diff(jobs.Usage{Input: words, Output: words, Total: 2 * words}, got.Usage); diff != "" {
				t.Errorf("usage (-want +got):\n%s", diff)
			}
			if got.Status != 200 || !strings.HasPrefix(got.RequestID, "req_") {
				t.Errorf("status %d, request id %q, want 200 and the upstream's id", got.Status, got.RequestID)
			}
			var answer struct {
				Choices []struct{ Message struct{ Content string } }
			}
			if err := json.Unmarshal(got.Body, &answer); err != nil || bytes.ContainsAny(got.Body, "\r\n") {
				t.Fatalf("body %q is not JSON on one line: %v", got.Body, err)
			}
			if answer.Choices[0].Message.Content != text {
				t.Errorf("content %q, want %q", answer.Choices[0].Message.Content, text)
			}
		})
	}
}

// TestKeptConnectionThatClosesIsNotAskedAgain would fail if net/http were let to replay requests: it does so with those
// that carry an Idempotency-Key.
func TestKeptConnectionThatClosesIsNotAskedAgain(t *testing.T) {
	for _, weather := range []string{"[[drop]]", "[[reset]]"} {
		t.Run(weather, func(t *testing.T) {
			s := new(upstreamtest.Server)
			u := newOpenAI(t, OpenAIOptions{BaseURL: s.Start(t)})
			if _, err := u.Call(t.Context(), ask("warm up")); err != nil {
				t.Fatal(err)
			}
			if f := faultOf(t, u, ask(weather)); f.Cause != jobs.CauseReset {
				t.Errorf("got %v, want a reset", f)
			}
			if n := s.CallsOf(weather); n != 1 {
				t.Errorf("asked %d times, want once", n)
			}
		})
	}
}

func TestRequestCarriesItsHeaders(t *testing.T) {
	calls := make(chan upstreamtest.Call, 1)
	s := &upstreamtest.Server{Key: string(testKey), OnCall: func(c upstreamtest.Call) { calls <- c }}
	u := newOpenAI(t, OpenAIOptions{BaseURL: s.Start(t), Key: testKey, Version: "1.2.3"})
	if _, err := u.Call(t.Context(), ask("x")); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"Authorization": "Bearer " + string(testKey), "User-Agent": "fanout/1.2.3", "Idempotency-Key": "key of x",
		"Content-Type": "application/json", "Accept": "application/json",
	}
	call := <-calls
	for name, value := range want {
		if got := call.Header.Values(name); !cmp.Equal(got, []string{value}) {
			t.Errorf("%s: got %q, want %q", name, got, value)
		}
	}
}

func TestWithoutKeyNothingIsClaimed(t *testing.T) {
	calls := make(chan upstreamtest.Call, 1)
	s := &upstreamtest.Server{OnCall: func(c upstreamtest.Call) { calls <- c }}
	u := newOpenAI(t, OpenAIOptions{BaseURL: s.Start(t)})
	r := ask("x")
	r.IdempotencyKey = ""
	if _, err := u.Call(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	call := <-calls
	for _, name := range []string{"Authorization", "Idempotency-Key"} {
		if _, there := call.Header[name]; there {
			t.Errorf("%s was sent: %q", name, call.Header[name])
		}
	}
}

func TestItemURLIsJoinedToBase(t *testing.T) {
	tests := []struct{ base, item, want string }{
		{"", "/v1/chat/completions", "/v1/chat/completions"},
		{"/", "/v1/chat/completions", "/v1/chat/completions"},
		{"/v1", "/v1/chat/completions", "/v1/chat/completions"},
		{"/v1/", "/v1/chat/completions", "/v1/chat/completions"},
		{"/v1", "/chat/completions", "/v1/chat/completions"},
		{"/proxy/openai", "/v1/chat/completions", "/proxy/openai/v1/chat/completions"},
		{"/proxy/v1", "/v1/chat/completions", "/proxy/v1/chat/completions"},
		{"/a%2Fb", "/v1/chat/completions", "/a%2Fb/v1/chat/completions"},
		{"/v1", "/v2/chat/completions", "/v1/v2/chat/completions"},
		{"/myv1", "/v1/chat/completions", "/myv1/v1/chat/completions"},
		{"/v1", "/v1/chat/completions?api-version=3", "/v1/chat/completions?api-version=3"},
	}
	calls := make(chan upstreamtest.Call, 1)
	s := &upstreamtest.Server{OnCall: func(c upstreamtest.Call) { calls <- c }}
	host := s.Start(t)
	for _, tt := range tests {
		u := newOpenAI(t, OpenAIOptions{BaseURL: host + tt.base})
		r := ask("x")
		r.URL = tt.item
		for range 2 { // the second finds it remembered
			if _, err := u.Call(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			if got := (<-calls).Path; got != tt.want {
				t.Errorf("base %q, item %q: got %q, want %q", tt.base, tt.item, got, tt.want)
			}
		}
	}
}

func TestItemURLThatLeadsElsewhereIsRefused(t *testing.T) {
	s := new(upstreamtest.Server)
	u := newOpenAI(t, OpenAIOptions{BaseURL: s.Start(t) + "/v1"})
	for _, item := range []string{
		"", "v1/chat/completions", "//other.example/v1", "https://other.example/v1/chat/completions", "/v1/../admin", "/v1/%2e%2e/admin",
		"/v1//chat/completions", "/v1/chat/completions#x", "/v1/chat\n", "@other.example/v1", "/%zz",
	} {
		r := ask("x")
		r.URL = item
		f := faultOf(t, u, r)
		if f.Status != 400 || f.Code != "invalid_url" || !f.IsObject || !json.Valid(f.Body) {
			t.Errorf("url %q: got %v, want 400 invalid_url", item, f)
		}
	}
	if s.Calls() != 0 {
		t.Errorf("the upstream was asked %d times", s.Calls())
	}
}

func TestOptionsThatCannotWorkAreRefusedWithASentence(t *testing.T) {
	const secret = "hunter2hunter2"
	tests := []struct {
		name string
		o    OpenAIOptions
		want string
	}{
		{"empty", OpenAIOptions{}, "read upstream URL: it is empty"},
		{"no scheme", OpenAIOptions{BaseURL: "localhost:8000/v1"}, "read upstream URL: it must begin with http:// or https://"},
		{"other scheme", OpenAIOptions{BaseURL: "ftp://h"}, "read upstream URL: it must begin with http:// or https://"},
		{"no host", OpenAIOptions{BaseURL: "https:///v1"}, "read upstream URL: it names no host"},
		{"port alone", OpenAIOptions{BaseURL: "http://:80"}, "read upstream URL: it names no host"},
		{"credentials", OpenAIOptions{BaseURL: "https://me:" + secret + "@h/v1"}, "read upstream URL: it carries credentials; the key has an option of its own"},
		{"broken credentials", OpenAIOptions{BaseURL: "https://me:" + secret + "%@h/v1"}, "read upstream URL: it is not a URL"},
		{"query", OpenAIOptions{BaseURL: "https://h/v1?key=" + secret}, "read upstream URL: the query of https://h is not taken; an item's url may have one"},
		{"fragment", OpenAIOptions{BaseURL: "https://h/v1#" + secret}, "read upstream URL: the fragment of https://h is not taken"},
		{"endpoint", OpenAIOptions{BaseURL: "https://h/v1/chat/completions"}, "read upstream URL: https://h/v1/chat/completions is one endpoint; give what stands before /chat/completions"},
		{"key of two lines", OpenAIOptions{BaseURL: "https://h", Key: secret + "\n"}, "read upstream key: it holds a space, a line break or another character that no key has"},
		{"negative", OpenAIOptions{BaseURL: "https://h", Timeout: -time.Second}, "read upstream options: timeout -1s, response limit 0 and connections 0 must not be negative"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := NewOpenAI(tt.o)
			if err == nil || err.Error() != tt.want || jobs.CodeOf(err) != jobs.CodeInvalid {
				t.Errorf("got %v (%s), want %q (invalid)", err, jobs.CodeOf(err), tt.want)
			}
			var hinted *jobs.Error
			if errors.As(err, &hinted) && strings.Contains(err.Error()+hinted.Hint, secret) {
				t.Errorf("%v, hint %q: the secret is in it", err, hinted.Hint)
			}
		})
	}
}

func TestProxyIsUsedOnlyIfItIsGiven(t *testing.T) {
	s := new(upstreamtest.Server) // a proxy of plain HTTP is asked as a server is
	proxy, err := url.Parse(s.Start(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("HTTP_PROXY", proxy.String())
	const nowhere = "http://no-such-host.invalid"
	if f := faultOf(t, newOpenAI(t, OpenAIOptions{BaseURL: nowhere}), ask("x")); f.Cause != jobs.CauseUnreachable {
		t.Errorf("without a proxy: got %v, want unreachable", f)
	}
	u := newOpenAI(t, OpenAIOptions{BaseURL: nowhere, Proxy: http.ProxyURL(proxy)})
	if _, err := u.Call(t.Context(), ask("x")); err != nil {
		t.Errorf("by the proxy: %v", err)
	}
}

func TestProxyThatRefusesIsUnreachable(t *testing.T) {
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusProxyAuthRequired)
	}))
	t.Cleanup(refusing.Close)
	proxy, err := url.Parse(refusing.URL)
	if err != nil {
		t.Fatal(err)
	}
	f := faultOf(t, newOpenAI(t, OpenAIOptions{BaseURL: "https://h.invalid", Proxy: http.ProxyURL(proxy)}), ask("x"))
	want := "connect by proxy " + proxy.Host + ": it answered 407 Proxy Authentication Required"
	if f.Cause != jobs.CauseUnreachable || f.Message != want {
		t.Errorf("got %s %q, want unreachable, %q", f.Cause, f.Message, want)
	}
}

func TestTLSUpstreamIsSpokenToInHTTP2(t *testing.T) {
	protos := make(chan string, 2)
	s := new(upstreamtest.Server)
	secure := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		protos <- r.Proto
		s.ServeHTTP(w, r)
	}))
	secure.EnableHTTP2 = true
	secure.StartTLS()
	t.Cleanup(secure.Close)
	u := newOpenAI(t, OpenAIOptions{BaseURL: secure.URL, Key: testKey})
	u.transport.TLSClientConfig.RootCAs = secure.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	if _, err := u.Call(t.Context(), ask("x")); err != nil {
		t.Fatal(err)
	}
	if got := <-protos; got != "HTTP/2.0" {
		t.Errorf("spoke %s", got)
	}
	if n := s.CallsByKey()["key of x"]; n != 1 {
		t.Errorf("the idempotency key came %d times", n)
	}
	if f := faultOf(t, u, ask("[[drop]]")); f.Cause != jobs.CauseReset || s.CallsOf("[[drop]]") != 1 {
		t.Errorf("got %v after %d calls, want a reset after one", f, s.CallsOf("[[drop]]"))
	}
}

func TestConcurrentCallsKeepTheirConnections(t *testing.T) {
	const width = 16
	opened := make(chan struct{}, 10*width)
	all := make(chan struct{})
	arrived := make(chan struct{}, width)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		arrived <- struct{}{}
		<-all
		_, _ = io.WriteString(w, `{}`)
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened <- struct{}{}
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	u := newOpenAI(t, OpenAIOptions{BaseURL: s.URL, Conns: width})
	round := func() {
		errs := make(chan error, width)
		for i := range width {
			go func() {
				_, err := u.Call(t.Context(), ask(fmt.Sprint(i)))
				errs <- err
			}()
		}
		for range width {
			<-arrived // so all are in flight at once
		}
		for range width {
			all <- struct{}{}
		}
		for range width {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	}
	round()
	first := len(opened)
	round()
	if len(opened) != first {
		t.Errorf("%d connections after one round, %d after two", first, len(opened))
	}
}
