package frontdoor

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"
)

// asked is what a front door hands over.
func asked(method, path, query, body string) *events.LambdaFunctionURLRequest {
	r := &events.LambdaFunctionURLRequest{
		Version: "2.0", RawPath: path, RawQueryString: query, Headers: map[string]string{"host": "api.example", "x-of": "a"},
		Body: base64.StdEncoding.EncodeToString([]byte(body)), IsBase64Encoded: true,
	}
	r.RequestContext.DomainName, r.RequestContext.HTTP.Method = "api.example", method
	return r
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Length", "77") // of which the front door knows better
	w.Header().Add("X-Two", "a")
	w.Header().Add("X-Two", "b")
	w.WriteHeader(http.StatusAccepted)
	fmt.Fprintf(w, "%s %s %s %s %s %s", r.Method, r.Host, r.URL.Path, r.URL.RawQuery, r.Header.Get("X-Of"), body)
}

func TestBothDoorsHandOverTheRequestAndTheAnswer(t *testing.T) {
	for path, is := range map[string]string{"/v1/files": "/v1/files", "/a%20b": "/a b", "/100%": "/100%", "/a b": "/a b", "": "/"} {
		want := "POST api.example " + is + " limit=2 a \x01body"
		b, err := Buffered(http.HandlerFunc(echo))(t.Context(), asked("POST", path, "limit=2", "\x01body"))
		if err != nil {
			t.Fatalf("%q: %v", path, err)
		}
		if b.Body != want || b.StatusCode != 202 || b.Headers["X-Two"] != "a,b" || b.Headers["Content-Length"] != "" {
			t.Errorf("%q, buffered: %d %v %q", path, b.StatusCode, b.Headers, b.Body)
		}
		s, err := Streaming(http.HandlerFunc(echo))(t.Context(), asked("POST", path, "limit=2", "\x01body"))
		if err != nil {
			t.Fatalf("%q: %v", path, err)
		}
		if body, err := io.ReadAll(s.Body); err != nil || string(body) != want || s.StatusCode != 202 {
			t.Errorf("%q, streaming: %d %q, %v", path, s.StatusCode, body, err)
		}
	}
}

func TestWhatIsNoTextIsBase64(t *testing.T) {
	for name, body := range map[string][]byte{"bytes": {0xff, 0xfe, 0}, "a gzip": {0x1f, 0x8b, 8, 0}, "much": bytes.Repeat([]byte(`"`), MaxBuffered)} {
		out, err := Buffered(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) }))(t.Context(), asked("GET", "/", "", ""))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := base64.StdEncoding.DecodeString(out.Body); err != nil || !out.IsBase64Encoded || !bytes.Equal(got, body) {
			t.Errorf("%s: %v %.20q, %v", name, out.IsBase64Encoded, out.Body, err)
		}
	}
}

func TestAnAnswerThatIsTooLargeIsAnErrorOfTheAPI(t *testing.T) {
	out, err := Buffered(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("x", MaxBuffered+1))
	}))(t.Context(), asked("GET", "/", "", ""))
	if err != nil || out.StatusCode != 400 || !strings.Contains(out.Body, "answer_too_large") || out.Headers["X-Should-Retry"] != "false" {
		t.Errorf("%d %v %.200s, %v", out.StatusCode, out.Headers, out.Body, err)
	}
}

func TestAnAnswerThatIsBrokenOffIsNotWhole(t *testing.T) {
	broken := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "half")
		panic(http.ErrAbortHandler)
	})
	if _, err := Buffered(broken)(t.Context(), asked("GET", "/", "", "")); !errors.Is(err, errAborted) {
		t.Errorf("buffered: %v", err)
	}
	s, err := Streaming(broken)(t.Context(), asked("GET", "/", "", ""))
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(s.Body); !errors.Is(err, errAborted) || string(body) != "half" {
		t.Errorf("streaming: %q, %v", body, err)
	}
}

func TestAHandlerLearnsThatNobodyReadsOn(t *testing.T) {
	failed := make(chan error, 1)
	s, err := Streaming(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write([]byte("more")); err != nil {
				failed <- err
				return
			}
		}
	}))(t.Context(), asked("GET", "/", "", ""))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Body.(io.Closer).Close(); err != nil {
		t.Fatal(err)
	}
	if <-failed == nil {
		t.Error("it wrote on")
	}
}
