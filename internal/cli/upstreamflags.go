package cli

import (
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/upstream"
)

// upstreamFlags say where models are served, to the commands that call upstreams themselves.
type upstreamFlags struct {
	upstream string
	keyEnv   string
	routes   []string
}

func (u *upstreamFlags) add(f *pflag.FlagSet) {
	f.StringVar(&u.upstream, "upstream", upstream.BuiltinName, "builtin, or the `URL` of an OpenAI-compatible server")
	f.StringVar(&u.keyEnv, "upstream-key-env", "", "`NAME` of the environment variable that holds the upstream's key")
	f.StringArrayVar(&u.routes, "route", nil, "`MODELS=UPSTREAM`, with ,key-env=NAME behind it if it needs a key: another upstream for some models, such as llama*; the first that matches counts")
}

// table is what the flags say, with the keys.
func (u *upstreamFlags) table(cmd *cobra.Command) (jobs.Routes, error) {
	if u.keyEnv != "" && os.Getenv(u.keyEnv) == "" {
		return nil, usageError(cmd, "--upstream-key-env: the environment variable %s is not set", u.keyEnv)
	}
	routes, err := jobs.ParseRoutes(strings.Join(u.routes, " "))
	if err != nil {
		return nil, usageError(cmd, "--route: %v", err)
	}
	for _, r := range routes {
		if r.KeyFrom != "" {
			return nil, usageError(cmd, "--route: key-from is for workers on AWS; here the key for %s is in an environment variable, key-env", r.Models)
		}
	}
	if routes, err = routes.Else(jobs.Route{Target: u.upstream, KeyEnv: u.keyEnv}).WithKeys(os.Getenv); err != nil {
		return nil, usageError(cmd, "--route: %v", err)
	}
	return routes, nil
}

// words are the flags as the user would type them.
func (u *upstreamFlags) words() []string {
	var words []string
	if u.upstream != upstream.BuiltinName {
		words = append(words, "--upstream", quoteWord(u.upstream))
	}
	for _, r := range u.routes {
		words = append(words, "--route", quoteWord(r))
	}
	return words
}

// names are the upstreams of a table, for messages.
func names(table jobs.Routes) string {
	var all []string
	for _, r := range table {
		if name := upstream.Name(r.Target); !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return strings.Join(all, " and ")
}

// served identifies where each model is served, however that is written, for the digest of a run.
func served(table jobs.Routes) string {
	var b strings.Builder
	for _, r := range table[:len(table)-1] {
		b.WriteString(string(r.Models) + "=" + server(r.Target) + "\n")
	}
	return b.String() + server(table[len(table)-1].Target)
}

// server is an address without what may stand at its end or not.
func server(target string) string { return strings.TrimSuffix(strings.TrimRight(target, "/"), "/v1") }
