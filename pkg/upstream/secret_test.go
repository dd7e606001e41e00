package upstream

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/fanout-inference/fanout/pkg/upstream/upstreamtest"
)

// TestNoFaultTellsTheKey has upstreams that quote the key back in all that they say.
func TestNoFaultTellsTheKey(t *testing.T) {
	quoting := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		auth := r.Header.Get("Authorization")
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		switch {
		case bytes.Contains(body, []byte("object")):
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = fmt.Fprintf(w, `{"error":{"message":"Incorrect API key: %s","type":"%s","code":null}}`, auth, auth)
		case bytes.Contains(body, []byte("page")):
			w.WriteHeader(http.StatusBadGateway)
			_, _ = fmt.Fprintf(w, "<html>%s</html>", auth)
		case bytes.Contains(body, []byte("header")):
			w.Header().Set("X-Request-Id", auth)
			w.Header().Set("Content-Type", "text/"+strings.Fields(auth)[1])
			w.WriteHeader(http.StatusBadGateway)
			_, _ = io.WriteString(w, "no")
		case bytes.Contains(body, []byte("redirect")):
			w.Header().Set("Location", "/"+strings.Fields(auth)[1]+"/sign-in?key="+strings.Fields(auth)[1])
			w.WriteHeader(http.StatusFound)
		default:
			_, _ = io.WriteString(w, "[\""+auth+"\"]")
		}
	}))
	t.Cleanup(quoting.Close)
	bad := new(upstreamtest.Server).Start(t)

	check := func(base, text string) {
		f := faultOf(t, newOpenAI(t, OpenAIOptions{BaseURL: base, Key: testKey, MaxResponse: 1 << 10}), ask(text))
		told := fmt.Sprintf("%v %+v %s %s", f, f, f.Body, f.RequestID)
		for err := error(f); err != nil; {
			told += " " + err.Error()
			wrapped, ok := err.(interface{ Unwrap() error })
			if !ok {
				break
			}
			err = wrapped.Unwrap()
		}
		if strings.Contains(told, string(testKey)) {
			t.Errorf("%s: the key is in %s", text, told)
		}
	}
	for _, text := range []string{"object", "page", "header", "redirect", "array"} {
		check(quoting.URL, text)
	}
	for _, text := range []string{"[[status=500]]", "[[reset]]", "[[drop]]", "[[cut]]", "[[html]]", "[[huge]]"} {
		check(bad, text)
	}
	check("http://no-such-host.invalid", "nobody")
}
