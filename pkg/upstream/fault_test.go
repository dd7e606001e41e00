package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/upstream/upstreamtest"
)

// TestFaultSaysWhatWasSeen is the table of all bad weather that a server can make. HOST stands for its address.
func TestFaultSaysWhatWasSeen(t *testing.T) {
	object := func(status int) jobs.Fault {
		return jobs.Fault{Cause: jobs.CauseStatus, Status: status, Code: fmt.Sprintf("status_%d", status), IsObject: true,
			Message: fmt.Sprintf("this request asked for status %d", status)}
	}
	waits := func(f jobs.Fault, d time.Duration) jobs.Fault { f.RetryAfter = d; return f }
	malformed := func(what string) jobs.Fault {
		return jobs.Fault{Cause: jobs.CauseMalformed, Status: 200, Code: "malformed_response",
			Message: "HOST answered 200 with " + what + " instead of a JSON object"}
	}
	reset := func(why string) jobs.Fault {
		return jobs.Fault{Cause: jobs.CauseReset, Code: "connection_reset", Message: "the connection to HOST broke before its whole answer: " + why}
	}
	timeout := jobs.Fault{Cause: jobs.CauseTimeout, Code: "request_timeout", Message: "HOST gave no whole answer within 200ms"}
	huge := jobs.Fault{Cause: jobs.CauseTooLarge, Status: 200, Code: "response_too_large", Message: "HOST answered with more than 1048576 bytes, the limit"}

	tests := []struct {
		weather string
		want    jobs.Fault
	}{
		{"status=400", object(400)},
		{"status=401", object(401)},
		{"status=404", object(404)},
		{"status=500", object(500)},
		{"status=529", object(529)},
		{"status=429 retry-after=2", waits(object(429), 2*time.Second)},
		{"status=503 retry-after=1.5", waits(object(503), 1500*time.Millisecond)},
		{"status=429 retry-after=9 retry-after-ms=250", waits(object(429), 250*time.Millisecond)},
		{"status=400 code=context_length_exceeded", jobs.Fault{Cause: jobs.CauseStatus, Status: 400, Code: "context_length_exceeded",
			IsObject: true, Message: "this request asked for status 400"}},
		{"status=404 bare", jobs.Fault{Cause: jobs.CauseStatus, Status: 404, Code: "http_404", Message: "HOST answered 404 with text/plain"}},
		{"status=502 bare", jobs.Fault{Cause: jobs.CauseStatus, Status: 502, Code: "http_502", Message: "HOST answered 502 with text/plain"}},
		{"status=307 location=https://k:p@other.example/v1?key=1", jobs.Fault{Cause: jobs.CauseStatus, Status: 307, Code: "status_307", IsObject: true,
			Message: "HOST answered 307, a redirect to https://other.example/v1; redirects are not followed, so name that host as the upstream"}},
		{"status=300 bare", jobs.Fault{Cause: jobs.CauseStatus, Status: 300, Code: "http_300", Message: "HOST answered 300, which is no answer to a request"}},
		{"hang", timeout},
		{"trickle", timeout},
		{"reset", reset("connection reset by peer")},
		{"drop", reset("the other side closed it")},
		{"cut", reset("the other side closed it")},
		{"html", malformed("text/html")},
		{"empty", malformed("an empty body")},
		{"array", malformed("JSON that is not an object")},
		{"broken", malformed("invalid JSON after 7 of 8 bytes")},
		{"latin1", malformed("text that is not UTF-8")},
		{"huge", huge},
		{"huge gzip", huge},
	}
	for _, tt := range tests {
		t.Run(tt.weather, func(t *testing.T) {
			t.Parallel()
			s := new(upstreamtest.Server)
			base := s.Start(t)
			host := strings.TrimPrefix(base, "http://")
			o := OpenAIOptions{BaseURL: base, Key: testKey, MaxResponse: 1 << 20}
			if tt.want.Cause == jobs.CauseTimeout {
				o.Timeout = 200 * time.Millisecond
			}
			got := faultOf(t, newOpenAI(t, o), ask("[["+tt.weather+"]]"))
			tt.want.Message = strings.ReplaceAll(tt.want.Message, "HOST", host)
			if diff := cmp.Diff(&tt.want, got, cmpopts.IgnoreFields(jobs.Fault{}, "Err", "Body", "RequestID")); diff != "" {
				t.Errorf("fault (-want +got):\n%s", diff)
			}
			if answered := got.Status != 0; answered != strings.HasPrefix(got.RequestID, "req_") {
				t.Errorf("request id %q of status %d", got.RequestID, got.Status)
			}
			if tt.want.IsObject != (len(got.Body) > 0) || bytes.ContainsAny(got.Body, "\r\n") {
				t.Errorf("body %q, want one line of JSON exactly if the answer was an object", got.Body)
			}
			if s.Calls() != 1 {
				t.Errorf("the upstream was asked %d times by one call", s.Calls())
			}
			if s.Written() > 64<<20 {
				t.Errorf("%d bytes of a huge answer were taken", s.Written())
			}
		})
	}
}

// answering serves one fixed answer.
func answering(t *testing.T, status int, contentType, body string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestErrorObjectIsReadInEveryShape(t *testing.T) {
	long := strings.Repeat("é", maxMessage)
	tests := []struct {
		name, body    string
		code, message string
		isObject      bool
		line          string // "" = no body is kept
	}{
		{"openai", `{"error":{"message":"m","type":"t","param":null,"code":"c"}}`, "c", "m", true, `{"error":{"message":"m","type":"t","param":null,"code":"c"}}`},
		{"code null", `{"error":{"message":"m","type":"t","code":null}}`, "t", "m", true, `{"error":{"message":"m","type":"t","code":null}}`},
		{"code a number", `{"error":{"message":"m","type":"t","code":402}}`, "t", "m", true, `{"error":{"message":"m","type":"t","code":402}}`},
		{"no code, no type", `{"error":{"message":"m","code":402}}`, "http_418", "m", true, `{"error":{"message":"m","code":402}}`},
		{"message of many lines", `{"error":{"message":"a\n  b\u001b[31m\u0000c","type":"t"}}`, "t", "a b [31m c", true, `{"error":{"message":"a\n  b\u001b[31m\u0000c","type":"t"}}`},
		{"many lines", "{\n \"error\": {\"message\": \"m\", \"code\": \"c\"}\r\n}\n", "c", "m", true, `{"error":{"message":"m","code":"c"}}`},
		{"long message", `{"error":{"message":"` + long + `","code":"c"}}`, "c", long[:maxMessage-4] + "…", true, `{"error":{"message":"` + long + `","code":"c"}}`},
		{"duplicate names", `{"error":{"message":"m","message":"n","code":"c"}}`, "c", "n", true, `{"error":{"message":"m","message":"n","code":"c"}}`},
		{"lone surrogate", `{"error":{"message":"\ud800","code":"c"}}`, "c", "\uFFFD", true, `{"error":{"message":"\ud800","code":"c"}}`},
		{"without envelope", `{"object":"error","message":"m","type":"NotFoundError","code":404}`, "NotFoundError", "m", true, `{"object":"error","message":"m","type":"NotFoundError","code":404}`},
		{"error a string", `{"error":"m"}`, "http_418", "m", false, `{"error":"m"}`},
		{"detail", `{"detail":"Not Found"}`, "http_418", "Not Found", false, `{"detail":"Not Found"}`},
		{"message alone", `{"message":"Forbidden"}`, "http_418", "Forbidden", false, `{"message":"Forbidden"}`},
		{"error empty", `{"error":{}}`, "http_418", "HOST answered 418 with application/json", false, `{"error":{}}`},
		{"error null", `{"error":null}`, "http_418", "HOST answered 418 with application/json", false, `{"error":null}`},
		{"array", `["no"]`, "http_418", "HOST answered 418 with application/json", false, `["no"]`},
		{"broken", `{"error":{"message":"m"`, "http_418", "HOST answered 418 with application/json", false, ""},
		{"empty", ``, "http_418", "HOST answered 418 with an empty body", false, ""},
		{"not UTF-8", "{\"error\":{\"message\":\"\xff\"}}", "http_418", "HOST answered 418 with application/json", false, ""},
		{"too long", `{"error":{"message":"` + strings.Repeat("x", maxErrorBody) + `"}}`, "http_418", "HOST answered 418 with more than 65536 bytes", false, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			base := answering(t, 418, "application/json", tt.body)
			got := faultOf(t, newOpenAI(t, OpenAIOptions{BaseURL: base}), ask("x"))
			want := &jobs.Fault{Cause: jobs.CauseStatus, Status: 418, Code: tt.code, IsObject: tt.isObject,
				Message: strings.ReplaceAll(tt.message, "HOST", strings.TrimPrefix(base, "http://"))}
			if tt.line != "" {
				want.Body = []byte(tt.line)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("fault (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNobodyThereIsUnreachable(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refusing := free.Addr().String()
	_ = free.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	unknown := httptest.NewUnstartedServer(http.NotFoundHandler())
	unknown.Config.ErrorLog = log.New(io.Discard, "", 0) // it complains of clients that turn away
	unknown.StartTLS()
	t.Cleanup(unknown.Close)
	silent := saying(t, "")

	tests := []struct{ name, base, message string }{
		{"refused", "http://" + refusing, "connect to " + refusing + ": connection refused"},
		{"name", "http://no-such-host.invalid", "look up no-such-host.invalid: "},
		{"no TLS", "https://" + plain.Listener.Addr().String(), "agree on TLS with " + plain.Listener.Addr().String() + ": it does not speak TLS; is it an http:// URL?"},
		{"unknown authority", unknown.URL, "agree on TLS with " + unknown.Listener.Addr().String() + ": its certificate is signed by an authority that this machine does not trust"},
		{"closed in the handshake", "https://" + silent, "agree on TLS with " + silent + ": "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := faultOf(t, newOpenAI(t, OpenAIOptions{BaseURL: tt.base, Key: testKey}), ask("x"))
			if f.Cause != jobs.CauseUnreachable || f.Code != "upstream_unreachable" || f.Status != 0 || !strings.HasPrefix(f.Message, tt.message) {
				t.Errorf("got %s, %q, status %d, %q, want unreachable and %q", f.Cause, f.Code, f.Status, f.Message, tt.message)
			}
		})
	}
}

// saying is the address of a server that says one thing as soon as something came, and closes the connection.
func saying(t *testing.T, what string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 64<<10))
			_, _ = io.WriteString(conn, what)
			_ = conn.Close()
		}
	}()
	return l.Addr().String()
}

func TestAnswerThatIsNotHTTPIsMalformed(t *testing.T) {
	f := faultOf(t, newOpenAI(t, OpenAIOptions{BaseURL: "http://" + saying(t, "SSH-2.0-OpenSSH_9.6\r\n\r\n")}), ask("x"))
	if f.Cause != jobs.CauseMalformed || !strings.Contains(f.Message, "does not answer in proper HTTP") || f.Err != nil {
		t.Errorf("got %s, %q with chain %v, want malformed, and nothing of what came in the chain", f.Cause, f.Message, f.Err)
	}
}

// TestStatusOutlivesItsBody has servers that say a status and then nothing more, and keep the connection.
func TestStatusOutlivesItsBody(t *testing.T) {
	for status, want := range map[int]string{
		101: "HOST answered 101, which is no answer to a request",
		503: "HOST answered 503 with a body that broke off",
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
			_, _ = fmt.Fprintf(conn, "HTTP/1.1 %d x\r\nConnection: Upgrade\r\nUpgrade: x\r\nRetry-After: 1\r\n\r\n", status)
		}))
		t.Cleanup(s.Close)
		u := newOpenAI(t, OpenAIOptions{BaseURL: s.URL, Timeout: 100 * time.Millisecond})
		f := faultOf(t, u, ask("x"))
		want = strings.ReplaceAll(want, "HOST", s.Listener.Addr().String())
		if f.Cause != jobs.CauseStatus || f.Status != status || f.Message != want || f.RetryAfter != time.Second {
			t.Errorf("got %s %d %q, wait %s, want status %d, %q, 1s", f.Cause, f.Status, f.Message, f.RetryAfter, status, want)
		}
	}
}

func TestCallEndedByItsCallerIsAborted(t *testing.T) {
	for _, weather := range []string{"[[hang]]", "[[trickle]]"} {
		t.Run(weather, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			s := &upstreamtest.Server{OnCall: func(upstreamtest.Call) { cancel() }}
			u := newOpenAI(t, OpenAIOptions{BaseURL: s.Start(t)})
			_, err := u.Call(ctx, ask(weather))
			var f *jobs.Fault
			if !errors.As(err, &f) || f.Cause != jobs.CauseAborted || f.Code != "request_aborted" || !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want aborted, by context.Canceled", err)
			}
		})
	}
}

func TestCallersDeadlineIsNoTimeoutOfTheUpstream(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	u := newOpenAI(t, OpenAIOptions{BaseURL: new(upstreamtest.Server).Start(t), Timeout: time.Hour})
	_, err := u.Call(ctx, ask("[[hang]]"))
	var f *jobs.Fault
	if !errors.As(err, &f) || f.Cause != jobs.CauseAborted {
		t.Errorf("got %v, want aborted", err)
	}
}
