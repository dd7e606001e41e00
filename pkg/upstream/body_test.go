package upstream

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

func TestBodyArrivesWhole(t *testing.T) {
	for _, n := range []int{2, maxCopied, maxCopied + 1, 3 << 20} {
		body := []byte(`"` + strings.Repeat("x", n-2) + `"`)
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			got, err := io.ReadAll(r.Body)
			if err != nil || !bytes.Equal(got, body) || r.ContentLength != int64(n) {
				t.Errorf("got %d bytes (%v) of announced %d, want %d as they were sent", len(got), err, r.ContentLength, n)
			}
			_, _ = io.WriteString(w, "{}")
		}))
		if _, err := newOpenAI(t, OpenAIOptions{BaseURL: s.URL}).Call(t.Context(), jobs.Request{URL: chatURL, Body: body}); err != nil {
			t.Error(err)
		}
		s.Close()
	}
}

// TestBodyIsTheCallersAfterTheCall has a server that answers before it has read: net/http is still sending when the call
// returns. The race detector sees a reader that goes on.
func TestBodyIsTheCallersAfterTheCall(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
	}))
	t.Cleanup(s.Close)
	u := newOpenAI(t, OpenAIOptions{BaseURL: s.URL})
	for _, n := range []int{maxCopied, 16 << 20} {
		body := bytes.Repeat([]byte("x"), n)
		f := faultOf(t, u, jobs.Request{URL: chatURL, Body: body})
		clear(body)
		// A server that closes while it is sent to is seen as either.
		if f.Status != http.StatusRequestEntityTooLarge && f.Cause != jobs.CauseReset {
			t.Errorf("body of %d bytes: got %v, want 413 or a reset", n, f)
		}
	}
}

func TestLentBodyCannotBeReadAfterItsReturn(t *testing.T) {
	req := &http.Request{}
	body := bytes.Repeat([]byte("x"), maxCopied+1)
	takeBack := setBody(req, body)
	again, err := req.GetBody()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []io.ReadCloser{req.Body, again} {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, body) {
			t.Errorf("read %d bytes (%v), want all %d", len(got), err, len(body))
		}
	}
	late, err := req.GetBody()
	if err != nil {
		t.Fatal(err)
	}
	takeBack()
	if n, err := late.Read(make([]byte, 8)); n != 0 || !errors.Is(err, errLoanEnded) {
		t.Errorf("after its return: read %d bytes, %v", n, err)
	}
}

func TestSmallBodyIsCopied(t *testing.T) {
	req := &http.Request{}
	body := []byte("before")
	setBody(req, body)()
	copy(body, "after!")
	got, err := io.ReadAll(req.Body)
	if diff := cmp.Diff("before", string(got)); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}
