package webhook_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/webhook"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

func noticeTo(url string) *jobs.NoticeMessage {
	return &jobs.NoticeMessage{V: 1, Notice: "dlv_1", Tenant: "a", Attempt: 1, URL: url, EventID: "evt_1", Timestamp: 1_800_000_000, Signature: "v1,abc=", Body: `{"id":"evt_1"}`}
}

func TestNoticeIsPostedAsStandardWebhooksHasIt(t *testing.T) {
	var got *http.Request
	var body []byte
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
	}))
	defer s.Close()
	status, err := webhook.New(webhook.Options{Allow: loopback, Version: "1.2.3"}).Post(t.Context(), noticeTo(s.URL+"/a?b=c"))
	if status != 200 || err != nil {
		t.Fatalf("%d, %v", status, err)
	}
	for name, want := range map[string]string{"webhook-id": "evt_1", "webhook-timestamp": "1800000000", "webhook-signature": "v1,abc=",
		"content-type": "application/json", "user-agent": "fanout/1.2.3", "cookie": "", "accept-encoding": ""} {
		if h := got.Header.Get(name); h != want {
			t.Errorf("%s is %q, want %q", name, h, want)
		}
	}
	if got.Method != http.MethodPost || got.RequestURI != "/a?b=c" || string(body) != `{"id":"evt_1"}` {
		t.Errorf("%s %s %s", got.Method, got.RequestURI, body)
	}
}

// TestOnlyThePublicInternetIsCalled: addresses are refused when they are connected to, however they are written. Nothing is
// sent, so none of these needs to be there.
func TestOnlyThePublicInternetIsCalled(t *testing.T) {
	c := webhook.New(webhook.Options{})
	for _, host := range []string{
		"127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.1", "172.16.5.4", "192.168.1.1", "169.254.169.254", "100.64.0.1", "192.0.0.8", "198.18.0.1",
		"224.0.0.1", "255.255.255.255", "240.0.0.1", "[::1]", "[::]", "[fe80::1]", "[fc00::1]", "[fd00:ec2::254]", "[ff02::1]", "[::ffff:127.0.0.1]",
		"[::ffff:a9fe:a9fe]", "[64:ff9b::7f00:1]", "[64:ff9b:1::1]", "[2002:7f00:1::]", "[2001:db8::1]", "[::127.0.0.1]",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		_, err := c.Post(ctx, noticeTo("http://"+host+":8080/x"))
		cancel()
		if err == nil || !strings.Contains(err.Error(), "is not allowed") {
			t.Errorf("%s: %v, want it refused", host, err)
		}
	}
}

func TestNameThatLeadsToAPrivateAddressIsRefused(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was called") }))
	defer s.Close()
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	url := "http://innocent.example:" + port + "/x"
	names := resolver(t, netip.MustParseAddr("127.0.0.1"))
	_, err := webhook.New(webhook.Options{Resolver: names}).Post(t.Context(), noticeTo(url))
	if err == nil || err.Error() != "connect to innocent.example: its address is private, local or reserved, and is not allowed" {
		t.Errorf("%v, want it refused without its address", err)
	}
	s.Config.Handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	if status, err := webhook.New(webhook.Options{Resolver: names, Allow: loopback}).Post(t.Context(), noticeTo(url)); status != 200 || err != nil {
		t.Errorf("where it is allowed: %d, %v", status, err)
	}
}

func TestOnlyWhatIsAllowedIsCalled(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	for allowed, want := range map[string]bool{"127.0.0.1/32": true, "127.0.0.2/32": false, "10.0.0.0/8": false, "::ffff:127.0.0.1/128": false} {
		_, err := webhook.New(webhook.Options{Allow: []netip.Prefix{netip.MustParsePrefix(allowed)}}).Post(t.Context(), noticeTo(s.URL))
		if (err == nil) != want {
			t.Errorf("%s is allowed: %v", allowed, err)
		}
	}
}

func TestWhateverIsAnsweredIsToldByItsStatus(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	defer elsewhere.Close()
	for _, status := range []int{200, 204, 299, 301, 302, 307, 308, 400, 401, 404, 410, 429, 500, 503} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", elsewhere.URL)
			w.Header().Set("Set-Cookie", "a=b")
			w.WriteHeader(status)
		}))
		got, err := webhook.New(webhook.Options{Allow: loopback}).Post(t.Context(), noticeTo(s.URL))
		if s.Close(); got != status || err != nil {
			t.Errorf("%d: %d, %v", status, got, err)
		}
	}
}

// TestNoMoreThanALittleIsReadOfAnAnswer: a receiver that never stops talking is left.
func TestNoMoreThanALittleIsReadOfAnAnswer(t *testing.T) {
	left := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		defer close(left)
		for chunk := make([]byte, 1<<20); ; {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}))
	defer s.Close()
	if status, err := webhook.New(webhook.Options{Allow: loopback}).Post(t.Context(), noticeTo(s.URL)); status != 200 || err != nil {
		t.Errorf("%d, %v", status, err)
	}
	<-left
}

// TestWhoDoesNotAnswerIsToldInASentence: without address, path or anything else that only we may know.
func TestWhoDoesNotAnswerIsToldInASentence(t *testing.T) {
	held := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-held:
		case <-r.Context().Done():
		}
	}))
	defer slow.Close()
	defer close(held)
	rude := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_ = conn.Close()
		}
	}))
	defer rude.Close()
	huge := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Huge", strings.Repeat("x", 64<<10))
	}))
	defer huge.Close()
	untrusted := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	untrusted.Config.ErrorLog = quiet
	untrusted.StartTLS()
	defer untrusted.Close()
	gone := httptest.NewServer(nil)
	gone.Close()
	for _, row := range []struct{ name, url, want string }{
		{"slow", slow.URL, "wait for 127.0.0.1: no answer within 200ms"},
		{"rude", rude.URL, "call 127.0.0.1: it closed the connection without an answer"},
		{"a huge header", huge.URL, "call 127.0.0.1: its answer could not be read"},
		{"gone", gone.URL, "call 127.0.0.1: connection refused"},
		{"an unknown authority", untrusted.URL, "agree on TLS with 127.0.0.1: its certificate is not valid"},
		{"no TLS", strings.Replace(huge.URL, "http://", "https://", 1), "agree on TLS with 127.0.0.1: it does not speak TLS"},
		{"no URL", "http://", "post an event: the url cannot be used"},
		{"a password", "http://me:sesame@x/", "post an event: the url cannot be used"},
	} {
		timeout := time.Minute
		if row.name == "slow" {
			timeout = 200 * time.Millisecond
		}
		_, err := webhook.New(webhook.Options{Allow: loopback, Timeout: timeout}).Post(t.Context(), noticeTo(row.url+"/secret-path"))
		if row.url == "http://" || strings.Contains(row.url, "sesame") {
			_, err = webhook.New(webhook.Options{Allow: loopback}).Post(t.Context(), noticeTo(row.url))
		}
		if err == nil || err.Error() != row.want || errors.Unwrap(err) != nil {
			t.Errorf("%s: %v, want %s", row.name, err, row.want)
		}
	}
	_, err := webhook.New(webhook.Options{Resolver: resolver(t)}).Post(t.Context(), noticeTo("https://nobody.example/"))
	if want := "look up nobody.example: there is no such host"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestCertificateIsChecked(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	trusting := s.Client().Transport.(*http.Transport).TLSClientConfig
	if status, err := webhook.New(webhook.Options{Allow: loopback, TLS: trusting}).Post(t.Context(), noticeTo(s.URL)); status != 200 || err != nil {
		t.Errorf("%d, %v", status, err)
	}
}

func ExampleNew() {
	_, err := webhook.New(webhook.Options{}).Post(context.Background(), &jobs.NoticeMessage{URL: "https://169.254.169.254/latest/meta-data"})
	fmt.Println(err)
	// Output: connect to 169.254.169.254: its address is private, local or reserved, and is not allowed
}
