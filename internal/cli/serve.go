package cli

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fanout-inference/fanout/internal/release"
	"github.com/fanout-inference/fanout/internal/serve"
	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/upstream"
)

// serveFlags are the flags of serve that are not the server's own options.
type serveFlags struct {
	upstreams upstreamFlags
	hookAllow []string
	createKey bool
	verbose   bool
	prices    []string
}

func newServe() *cobra.Command {
	var o serve.Options
	var flags serveFlags
	cmd := &cobra.Command{
		Use:   "serve [flags]",
		Short: "Serve the OpenAI-compatible Batch API, on this machine",
		Long: `Serves OpenAI's Batch, Files and Uploads API, and does the work, in one process: official clients work with it once
their base URL is this server's. What was acknowledged is on disk in DATA; after a crash or a restart everything goes on.

Without keys it listens for this machine only and lets everybody on it in. --create-key makes the first key, which is
printed once; from then on every request needs one, and any address will do. Put a proxy with a certificate in front of
it, or give it --tls-cert and --tls-key, where requests cross a network.

On SIGTERM or SIGINT it begins nothing new, lets calls in flight end, and saves what they bring. A second signal kills at
once, which loses only what was not saved.`,
		Example: `  fanout serve
  fanout serve --upstream http://127.0.0.1:8000/v1 --concurrency 200 --data /var/lib/fanout
  fanout serve --route 'gpt-4o*=https://api.example.com/v1,key-env=EXAMPLE_KEY' --route 'llama*=http://10.0.0.7:8000/v1'
  fanout serve --inbox /srv/batches
  fanout serve --addr 0.0.0.0:8080 --create-key`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError(cmd, "serve takes no arguments")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := flags.complete(cmd, &o); err != nil {
				return err
			}
			return runServe(cmd.Context(), o, flags, streams{cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()})
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Addr, "addr", "127.0.0.1:8080", "`HOST:PORT` to listen at; port 0 finds a free one")
	f.StringVar(&o.Data, "data", "fanout.data", "`DIR` for everything that is kept")
	f.StringVar(&o.Inbox, "inbox", "", "`DIR` where a .jsonl or .jsonl.gz file that is put there becomes a job; its results appear beside it")
	flags.upstreams.add(f)
	f.IntVar(&o.Concurrency, "concurrency", 64, "calls in flight at most; fewer while the upstream throttles")
	f.DurationVar(&o.CallTimeout, "timeout", upstream.DefaultTimeout, "of one call")
	f.StringSliceVar(&flags.prices, "price", nil, "`MODELS=INPUT/OUTPUT`, in US dollars for a million tokens, such as gpt-4o*=2.5/10; the first that matches counts")
	f.Int64Var(&o.MaxFileBytes, "max-file-bytes", 50e9, "of a file that a client brings")
	f.Float64Var(&o.Rate, "rate", 500, "requests a second that one key may make")
	f.StringVar(&o.Cert, "tls-cert", "", "`FILE` with a certificate, to serve HTTPS")
	f.StringVar(&o.Key, "tls-key", "", "`FILE` with the certificate's key")
	f.StringSliceVar(&flags.hookAllow, "hook-allow", nil, "`CIDR` of private or local addresses that webhooks may lead to, such as 10.1.0.0/16")
	f.StringSliceVar(&o.HookPlain, "hook-plain", nil, "`HOST` that webhooks may lead to without TLS")
	f.BoolVar(&flags.createKey, "create-key", false, "make a key for operators, and print it, if there is none yet")
	f.DurationVar(&o.Grace, "grace", 30*time.Second, "how long calls in flight may take to end after a signal")
	f.BoolVar(&flags.verbose, "verbose", false, "log each request")
	return cmd
}

// complete refuses what cannot work before anything is touched.
func (s *serveFlags) complete(cmd *cobra.Command, o *serve.Options) error {
	switch {
	case o.Concurrency < 1 || o.Concurrency > 10_000:
		return usageError(cmd, "--concurrency must be from 1 to 10000, not %d", o.Concurrency)
	case o.CallTimeout <= 0 || o.Grace <= 0:
		return usageError(cmd, "--timeout and --grace must be above 0")
	case o.MaxFileBytes < 1:
		return usageError(cmd, "--max-file-bytes must be above 0, not %d", o.MaxFileBytes)
	case o.Rate <= 0:
		return usageError(cmd, "--rate must be above 0, not %g", o.Rate)
	case (o.Cert == "") != (o.Key == ""):
		return usageError(cmd, "--tls-cert and --tls-key go together")
	}
	for _, word := range s.hookAllow {
		prefix, err := netip.ParsePrefix(word)
		if err != nil {
			return usageError(cmd, "--hook-allow: %q is no range of addresses, such as 10.1.0.0/16", word)
		}
		o.HookAllow = append(o.HookAllow, prefix)
	}
	var err error
	if o.Routes, err = s.upstreams.table(cmd); err != nil {
		return err
	}
	if o.Prices, err = jobs.ParsePrices(strings.Join(s.prices, ",")); err != nil {
		return usageError(cmd, "--price: %v", err)
	}
	o.Data, o.Version = filepath.Clean(o.Data), release.Version()
	return nil
}

// runServe serves until ctx ends.
func runServe(ctx context.Context, o serve.Options, flags serveFlags, s streams) error {
	level := slog.LevelInfo
	if flags.verbose {
		level = slog.LevelDebug
	}
	o.Log = slog.New(slog.NewTextHandler(s.err, &slog.HandlerOptions{Level: level}))
	key := ""
	if flags.createKey {
		var err error
		if key, err = serve.CreateKey(ctx, o.Data); err != nil {
			return err
		}
	}
	server, err := serve.Open(ctx, o)
	if err != nil {
		return err
	}
	greet(s, server, key)
	return server.Run(ctx)
}

// greet says how to use the server, with a line that works. It is data: a script may read the URL and the key.
func greet(s streams, server *serve.Server, key string) {
	fmt.Fprintf(s.out, "base URL: %s\n", server.URL())
	shown := key
	switch {
	case key != "":
		fmt.Fprintf(s.out, "key:      %s\n          (shown this once; it may do everything: make others with fanout key create)\n", key)
	case server.Open():
		fmt.Fprintf(s.out, "key:      none is needed on this machine; official clients want some word, say none\n")
		shown = "none"
	default:
		shown = "$FANOUT_KEY"
	}
	fmt.Fprintf(s.out, "\n  curl %s/files -H %q -F purpose=batch -F file=@examples/sentiment.jsonl\n\n", server.URL(), "Authorization: Bearer "+strings.TrimSpace(shown))
}
