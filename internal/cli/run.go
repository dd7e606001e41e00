package cli

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// runOptions are the flags of run, checked.
type runOptions struct {
	Input      string
	Output     string
	Errors     string
	Data       string
	Upstreams  upstreamFlags
	Routes     jobs.Routes // what they say
	OnInvalid  jobs.OnInvalid
	ChunkItems int
	SplitBytes int64 // 0 = by the size of the input

	Concurrency int
	MaxCalls    int
	Timeout     time.Duration
	GiveUpAfter time.Duration

	FirstAnswerWithin time.Duration
	NoticeAfter       time.Duration

	Restart bool
	Retry   bool
	JSON    bool
}

func newRun() *cobra.Command {
	var o runOptions
	var onInvalid string
	cmd := &cobra.Command{
		Use:   "run INPUT [flags]",
		Short: "Turn a file of requests into a file of answers, on this machine",
		Long: `Calls the upstream for each request of INPUT, a batch file (JSONL, one request a line), plain or gzip, or
stdin for -. The answers stand in OUTPUT and the failed items in a file beside it, both in the order of INPUT.

Progress is kept in DATA until the end. After Ctrl-C, a crash or a power cut the same command goes on from there, and
asks for nothing again that was answered and recorded. Items that an upstream keeps failing while it answers others are
given up; DATA is then kept, and the same command with --retry asks for just those again.`,
		Example: `  fanout run examples/sentiment.jsonl -o answers.jsonl
  fanout run requests.jsonl.gz --upstream http://127.0.0.1:8000/v1 --concurrency 200`,
		Args: oneInput,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Input, o.OnInvalid = args[0], jobs.OnInvalid(onInvalid)
			if err := o.complete(cmd); err != nil {
				return err
			}
			return run(cmd.Context(), o, streams{cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()})
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.Output, "output", "o", "", "`FILE` for the answers (default INPUT with .output.jsonl)")
	f.StringVar(&o.Errors, "errors", "", "`FILE` for the failed items (default OUTPUT with .errors.jsonl)")
	o.Upstreams.add(f)
	f.IntVar(&o.Concurrency, "concurrency", 64, "calls in flight at most; fewer while the upstream throttles")
	f.IntVar(&o.ChunkItems, "chunk-items", 100, "items that are claimed and saved together; more of them where lines are small")
	f.StringVar(&onInvalid, "on-invalid", "skip", "`skip|fail`: whether a line that breaks the rules fails alone, or the whole run before anything is asked")
	f.DurationVar(&o.Timeout, "timeout", 120*time.Second, "of one call")
	f.DurationVar(&o.GiveUpAfter, "give-up-after", time.Hour, "how long to wait for an upstream that stopped answering")
	f.StringVar(&o.Data, "data", "", "`DIR` for what is needed to go on after an interruption (default OUTPUT.fanout)")
	f.BoolVar(&o.Restart, "restart", false, "forget an interrupted run and begin anew")
	f.BoolVar(&o.Retry, "retry", false, "after a finished run: ask again for the items that were given up")
	f.BoolVar(&o.JSON, "json", false, "print the summary as one JSON object on stdout")

	// For tests: a small input with several splits, and patience that ends sooner.
	f.Int64Var(&o.SplitBytes, "split-bytes", 0, "bytes of INPUT that are scanned and joined as a unit (default by its size)")
	f.IntVar(&o.MaxCalls, "max-calls", jobs.DefaultMaxCalls, "calls that failed while others were answered, after which an item is given up")
	f.DurationVar(&o.FirstAnswerWithin, "first-answer-within", firstAnswerWithin, "an upstream that answers nothing at all for so long ends the run")
	f.DurationVar(&o.NoticeAfter, "notice-after", noticeAfter, "one that stops answering is told after so long")
	for _, name := range []string{"split-bytes", "max-calls", "first-answer-within", "notice-after"} {
		if err := f.MarkHidden(name); err != nil {
			panic(err)
		}
	}
	return cmd
}

// complete fills in the defaults and refuses what cannot work, before anything is touched.
func (o *runOptions) complete(cmd *cobra.Command) error {
	switch {
	case o.OnInvalid != jobs.InvalidSkips && o.OnInvalid != jobs.InvalidFails:
		return usageError(cmd, "--on-invalid must be skip or fail, not %q", o.OnInvalid)
	case o.Concurrency < 1 || o.Concurrency > 10_000:
		return usageError(cmd, "--concurrency must be from 1 to 10000, not %d", o.Concurrency)
	case o.ChunkItems < 1 || o.ChunkItems > jobs.MaxChunkLines:
		return usageError(cmd, "--chunk-items must be from 1 to %d, not %d", jobs.MaxChunkLines, o.ChunkItems)
	case o.MaxCalls < 1:
		return usageError(cmd, "--max-calls must be above 0, not %d", o.MaxCalls)
	case o.Timeout <= 0:
		return usageError(cmd, "--timeout must be above 0, not %s", o.Timeout)
	case o.GiveUpAfter <= 0:
		return usageError(cmd, "--give-up-after must be above 0, not %s", o.GiveUpAfter)
	case o.FirstAnswerWithin <= 0 || o.NoticeAfter <= 0:
		return usageError(cmd, "--first-answer-within and --notice-after must be above 0")
	case o.SplitBytes < 0:
		return usageError(cmd, "--split-bytes must not be below 0")
	case o.Restart && o.Retry:
		return usageError(cmd, "--restart and --retry do not go together: one forgets what the other needs")
	case o.Input == "-" && o.Output == "":
		return usageError(cmd, "reading stdin needs --output: there is no file name to derive one from")
	}
	var err error
	if o.Routes, err = o.Upstreams.table(cmd); err != nil {
		return err
	}
	if o.Output == "" {
		o.Output = stem(o.Input) + ".output.jsonl"
	}
	if o.Errors == "" {
		o.Errors = stem(strings.TrimSuffix(o.Output, ".output.jsonl")) + ".errors.jsonl"
	}
	if o.Data == "" {
		o.Data = o.Output + ".fanout"
	}
	o.Data = filepath.Clean(o.Data)
	return o.checkPlaces(cmd)
}

// stem is a name without what says how it is written.
func stem(name string) string {
	return strings.TrimSuffix(strings.TrimSuffix(name, ".gz"), ".jsonl")
}

// again is the command that goes on, as the user would type it.
func (o *runOptions) again(flags ...string) string {
	words := append([]string{"fanout run", quoteWord(o.Input), "-o", quoteWord(o.Output)}, flags...)
	words = append(words, o.Upstreams.words()...)
	return "the same command again" + map[bool]string{true: " with " + strings.Join(flags, " ")}[len(flags) > 0] + " (" + strings.Join(words, " ") + " …)"
}

func quoteWord(w string) string {
	if strings.ContainsAny(w, " \t'\"$&|;<>()*?!\\") {
		return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
	}
	return w
}

// since rounds a time to what a person wants to read.
func since(t time.Time) string {
	d := time.Since(t)
	if d < 10*time.Second {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}
