package upstream

import (
	"net/url"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// BuiltinName is what Open takes for the upstream that is part of the binary.
const BuiltinName = "builtin"

// Open finds an upstream by what users call it: BuiltinName, or the URL of an OpenAI-compatible server, which takes the place of
// o.BaseURL.
func Open(target string, o OpenAIOptions) (jobs.Upstream, error) {
	if target == BuiltinName {
		return NewBuiltin(), nil
	}
	o.BaseURL = target
	return NewOpenAI(o)
}

// Name is the name under which Open's upstream is known in gates, metrics and messages: its host, never a credential.
func Name(target string) string {
	u, err := url.Parse(target)
	if err != nil || u.Host == "" {
		return target
	}
	return u.Host
}
