package upstreams

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/fanout-inference/fanout/internal/config"
	"github.com/fanout-inference/fanout/pkg/jobs"
)

// amazon is a server that takes only what is signed for a service, as AWS does.
func amazon(t *testing.T, service string, answer func(w http.ResponseWriter, r *http.Request, body []byte)) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if !signed(t, r, body, service) {
			http.Error(w, `{"__type":"InvalidSignatureException"}`, http.StatusForbidden)
			return
		}
		answer(w, r, body)
	}))
	t.Cleanup(server.Close)
	for name, value := range map[string]string{
		"AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "token",
		"AWS_ENDPOINT_URL": server.URL, "AWS_CONFIG_FILE": "/nowhere", "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
	} {
		t.Setenv(name, value)
	}
}

// signed signs what came once more, with the time that it names, and compares.
func signed(t *testing.T, r *http.Request, body []byte, service string) bool {
	t.Helper()
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil {
		return false
	}
	again := r.Clone(r.Context())
	again.URL.Scheme, again.URL.Host = "http", r.Host
	again.Header = http.Header{}
	_, names, _ := strings.Cut(r.Header.Get("Authorization"), "SignedHeaders=")
	names, _, _ = strings.Cut(names, ",")
	for name := range strings.SplitSeq(names, ";") {
		if v := r.Header.Values(name); len(v) > 0 {
			again.Header[http.CanonicalHeaderKey(name)] = v
		}
	}
	sum := sha256.Sum256(body)
	credentials := aws.Credentials{AccessKeyID: "AKID", SecretAccessKey: "secret", SessionToken: "token"}
	if err := v4.NewSigner().SignHTTP(t.Context(), credentials, again, hex.EncodeToString(sum[:]), service, "eu-central-1", at); err != nil {
		t.Error(err)
	}
	return again.Header.Get("Authorization") == r.Header.Get("Authorization")
}

const completion = `{"id":"x","object":"chat.completion","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}`

func TestUpstreamsOfAWSAreCalledWithTheirSignature(t *testing.T) {
	for target, want := range map[string]struct{ service, path string }{
		"bedrock":           {"bedrock", "/openai/v1/chat/completions"},
		"sagemaker:llama-3": {"sagemaker", "/endpoints/llama-3/invocations"},
	} {
		t.Run(target, func(t *testing.T) {
			var path string
			amazon(t, want.service, func(w http.ResponseWriter, r *http.Request, _ []byte) {
				path = r.URL.Path
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, completion)
			})
			router, err := Open(t.Context(), config.Worker{Upstream: target, CallTimeout: time.Minute, Concurrency: 1})
			if err != nil {
				t.Fatal(err)
			}
			name, u := router.Route("m")
			a, err := u.Call(t.Context(), jobs.Request{URL: "/v1/chat/completions", Body: []byte(`{"model":"m"}`), IdempotencyKey: "k"})
			if err != nil || a.Status != 200 || a.Usage.Total != 2 || path != want.path || name != target {
				t.Errorf("%s answers %+v at %s, %v", name, a, path, err)
			}
		})
	}
}

func TestTheKeyOfAnUpstreamComesFromAParameter(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer sesame" {
			w.WriteHeader(http.StatusUnauthorized)
		}
		_, _ = io.WriteString(w, completion)
	}))
	defer upstream.Close()
	amazon(t, "ssm", func(w http.ResponseWriter, r *http.Request, body []byte) {
		var ask struct {
			Name           string
			WithDecryption bool
		}
		if err := json.Unmarshal(body, &ask); err != nil || !ask.WithDecryption || r.Header.Get("X-Amz-Target") != "AmazonSSM.GetParameter" {
			t.Errorf("asked %s: %v", body, err)
		}
		if ask.Name != "/aws/reference/secretsmanager/key" {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"__type":"ParameterNotFound"}`)
			return
		}
		_, _ = io.WriteString(w, `{"Parameter":{"Value":"sesame\n"}}`)
	})
	c := config.Worker{Upstream: upstream.URL, UpstreamKeyFrom: "/aws/reference/secretsmanager/key", CallTimeout: time.Minute, Concurrency: 1}
	router, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	_, u := router.Route("m")
	if _, err := u.Call(t.Context(), jobs.Request{URL: "/v1/chat/completions", Body: []byte(`{"model":"m"}`)}); err != nil {
		t.Error(err)
	}
	c.UpstreamKeyFrom = "/none"
	if _, err := Open(t.Context(), c); err == nil || !strings.Contains(err.Error(), "ParameterNotFound") || strings.Contains(err.Error(), "sesame") {
		t.Errorf("a parameter that is not there: %v", err)
	}
}
