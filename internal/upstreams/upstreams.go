// Package upstreams opens where a worker is told that models are served, with the key or the signature that it needs.
//
// It is apart from the other clients of AWS since the built-in models come with it, which only a worker has a use for.
package upstreams

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/fanout-inference/fanout/internal/cloud"
	"github.com/fanout-inference/fanout/internal/config"
	"github.com/fanout-inference/fanout/internal/release"
	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/upstream"
)

// Open opens the upstreams of a worker.
func Open(ctx context.Context, c config.Worker) (*upstream.Router, error) {
	o := upstream.OpenAIOptions{Timeout: c.CallTimeout, Conns: c.Concurrency, Version: release.Version()}
	table, err := c.Table().WithKeys(os.Getenv)
	if err != nil {
		return nil, err
	}
	return upstream.OpenRoutes(table, func(r jobs.Route) (jobs.Upstream, error) { return openOne(ctx, r, o) })
}

func openOne(ctx context.Context, r jobs.Route, o upstream.OpenAIOptions) (jobs.Upstream, error) {
	target := r.Target
	endpoint, sagemaker := strings.CutPrefix(target, config.SageMaker)
	if sagemaker || target == config.Bedrock || r.KeyFrom != "" {
		cfg, err := cloud.Configure(ctx, 0)
		if err != nil {
			return nil, err
		}
		switch {
		case r.KeyFrom != "":
			if o.Key, err = keyFrom(ctx, cfg, r.KeyFrom); err != nil {
				return nil, err
			}
		case sagemaker:
			target, o.Path = serviceURL(cfg, "runtime.sagemaker"), "/endpoints/"+endpoint+"/invocations"
			o.Sign = signing(cfg, "sagemaker")
		default:
			target = serviceURL(cfg, "bedrock-runtime") + "/openai/v1"
			o.Sign = signing(cfg, "bedrock")
		}
	}
	o.Key = cmp.Or(o.Key, r.Key)
	return upstream.Open(target, o)
}

// serviceURL is where a service is, unless the environment says otherwise as for every client of AWS.
func serviceURL(cfg aws.Config, service string) string {
	if cfg.BaseEndpoint != nil {
		return *cfg.BaseEndpoint
	}
	domain := "amazonaws.com"
	if strings.HasPrefix(cfg.Region, "cn-") {
		domain += ".cn"
	}
	return "https://" + service + "." + cfg.Region + "." + domain
}

// signing signs requests for a service with the credentials of this process.
func signing(cfg aws.Config, service string) func(*http.Request, []byte) error {
	signer := v4.NewSigner()
	return func(r *http.Request, body []byte) error {
		credentials, err := cfg.Credentials.Retrieve(r.Context())
		if err != nil {
			return fmt.Errorf("find credentials: %w", err)
		}
		sum := sha256.Sum256(body)
		return signer.SignHTTP(r.Context(), credentials, r, hex.EncodeToString(sum[:]), service, cfg.Region, time.Now())
	}
}

// keyFrom reads a key from the parameter store, which also hands out what Secrets Manager keeps, below
// /aws/reference/secretsmanager/: https://docs.aws.amazon.com/systems-manager/latest/userguide/integration-ps-secretsmanager.html
// It is one request; the store's client would make every function larger by 1 MB.
func keyFrom(ctx context.Context, cfg aws.Config, name string) (upstream.Secret, error) {
	fail := func(err error) (upstream.Secret, error) {
		return "", fmt.Errorf("read the upstream's key from parameter %s: %w", name, err)
	}
	ask, err := json.Marshal(map[string]any{"Name": name, "WithDecryption": true})
	if err != nil {
		return fail(err)
	}
	ctx, cancel := context.WithTimeout(ctx, keyTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, serviceURL(cfg, "ssm")+"/", bytes.NewReader(ask))
	if err != nil {
		return fail(err)
	}
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("X-Amz-Target", "AmazonSSM.GetParameter")
	if err := signing(cfg, "ssm")(r, ask); err != nil {
		return fail(err)
	}
	out, err := cfg.HTTPClient.Do(r)
	if err != nil {
		return fail(err)
	}
	defer out.Body.Close()
	var answer struct {
		Parameter struct{ Value string }
		Type      string `json:"__type"`
	}
	switch err := json.NewDecoder(io.LimitReader(out.Body, maxKey)).Decode(&answer); {
	case err != nil:
		return fail(err)
	case out.StatusCode != http.StatusOK:
		return fail(jobs.Errorf(jobs.CodeDenied, "the parameter store answers %s %s", out.Status, answer.Type).WithHint("the permission ssm:GetParameter, and for a secret secretsmanager:GetSecretValue"))
	default:
		return upstream.Secret(strings.TrimSpace(answer.Parameter.Value)), nil
	}
}

const (
	keyTimeout = 10 * time.Second
	maxKey     = 64 << 10 // bytes of an answer
)
