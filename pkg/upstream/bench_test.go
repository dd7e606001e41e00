package upstream

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/upstream/upstreamtest"
)

// BenchmarkCall compares a call with a bare http.Client that does the same to the same server: one core's worth of both,
// the server included.
func BenchmarkCall(b *testing.B) {
	s := httptest.NewServer(upstreamtest.Constant())
	defer s.Close()
	r := ask(strings.Repeat("Every unhappy family is unhappy in its own way. ", 20))

	b.Run("openai", func(b *testing.B) {
		u := newOpenAI(b, OpenAIOptions{BaseURL: s.URL, Key: testKey})
		b.ReportAllocs()
		b.SetBytes(int64(len(r.Body)))
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := u.Call(b.Context(), r); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
	b.Run("bare", func(b *testing.B) {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.MaxIdleConnsPerHost = DefaultConns
		defer transport.CloseIdleConnections()
		client := &http.Client{Timeout: DefaultTimeout, Transport: transport}
		b.ReportAllocs()
		b.SetBytes(int64(len(r.Body)))
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := bareCall(client, s.URL+chatURL, r); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}

func bareCall(client *http.Client, url string, r jobs.Request) error {
	req, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(r.Body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+string(testKey))
	req.Header.Set("Idempotency-Key", r.IdempotencyKey)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.ReadAll(resp.Body)
	return err
}

func BenchmarkCheck(b *testing.B) {
	answer := []byte(`{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"` +
		strings.Repeat("All happy families are alike. ", 28) + `"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21}}`)
	var r reader
	b.ReportAllocs()
	b.SetBytes(int64(len(answer)))
	for b.Loop() {
		if _, err := r.check(answer); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBuiltin(b *testing.B) {
	u := NewBuiltin()
	for _, model := range builtinModels {
		b.Run(strings.TrimPrefix(model, "builtin/"), func(b *testing.B) {
			r := askBuiltin(model, userSays(strings.Repeat("The book was good, and so was the film. ", 10)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := u.Call(b.Context(), r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
