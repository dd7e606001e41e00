package cli

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fanout-inference/fanout/pkg/batchapi"
	"github.com/fanout-inference/fanout/pkg/jobs"
)

func newJobRetry(f *clientFlags) *cobra.Command {
	var codes, set []string
	var yes bool
	cmd := &cobra.Command{
		Use: "retry ID", Short: "Ask for failed items again, changed, as an operator",
		Long: `Makes a job of the failed items of one that has ended: of those with certain error codes, or all. Their requests are as they
were, but for what --set changes. Without --yes it only counts. Items that were answered are not asked again, and lines that broke
the rules of the input are left out.

fanout job results --merged then shows both: an answer of the first job wins, else the newest retry's counts. As long as a
retry has not ended, its items cannot be redriven.`,
		Example: `  fanout job retry batch_abc --code context_length_exceeded                    # counts
  fanout job retry batch_abc --code context_length_exceeded --set body.max_tokens=512 --yes`,
		Args: oneArgument("job ID"), ValidArgsFunction: completeJobs(f),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := batchapi.RetryRequest{Codes: codes, Set: map[string]json.RawMessage{}, DryRun: !yes}
			for _, one := range set {
				path, value, ok := strings.Cut(one, "=")
				if !ok {
					return usageError(cmd, "--set takes PATH=VALUE, such as body.max_tokens=512, not %q", one)
				}
				q.Set[path] = valueOf(value)
			}
			c, err := f.client()
			if err != nil {
				return err
			}
			done, err := c.RetryJob(cmd.Context(), args[0], q)
			if err != nil {
				return err
			}
			if f.json {
				return printJSON(cmd.OutOrStdout(), done)
			}
			if done.Batch != nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "asks again for %d items\n", done.Requests)
				_, err = fmt.Fprintln(cmd.OutOrStdout(), done.Batch.ID)
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "would ask again for %d items\n", done.Requests)
			for _, code := range slices.Sorted(maps.Keys(done.ByCode)) {
				fmt.Fprintf(cmd.OutOrStdout(), "%d\t%s\n", done.ByCode[code], oneLine(code))
			}
			if done.Requests > 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "nothing was made; --yes does it")
			}
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&codes, "code", nil, "those that failed with this `CODE`; may be given several times (default all)")
	cmd.Flags().StringArrayVar(&set, "set", nil, "`PATH=VALUE` to set in each request, such as body.max_tokens=512; a value that is no JSON is taken as text")
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	cmd.Flags().Bool("dry-run", true, "count only, which is the default")
	cmd.MarkFlagsMutuallyExclusive("dry-run", "yes")
	return cmd
}

// valueOf is a value as JSON: what is none is a text.
func valueOf(s string) json.RawMessage {
	if json.Valid([]byte(s)) {
		return json.RawMessage(s)
	}
	quoted, err := json.Marshal(s)
	if err != nil {
		panic(err) // a text always encodes
	}
	return quoted
}

// resultLine is a line of results, and what it is of.
type resultLine struct {
	raw      []byte
	customID string
	answered bool
	again    bool // it may have been asked for again: its request was not refused as a line
}

// maxMerged is how many jobs are read at once: a job, its retries, and theirs.
const maxMerged = 64

// mergeResults writes the results of a job and of its retries as one, in the order of the job's input. An answer of the job
// wins, else the newest retry's result counts.
func mergeResults(ctx context.Context, c *batchapi.Client, id string, input bool, w io.Writer) error {
	left := maxMerged
	out := bufio.NewWriter(w)
	for line, err := range merged(ctx, c, id, input, &left) {
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(out, "%s\n", line.raw); err != nil {
			return err
		}
	}
	return out.Flush()
}

// merged yields the results of a job with those of its retries in the place of its failures. A retry has some of its job's
// items, in their order: so one look ahead in each is enough.
func merged(ctx context.Context, c *batchapi.Client, id string, input bool, left *int) iter.Seq2[resultLine, error] {
	return func(yield func(resultLine, error) bool) {
		if *left--; *left < 0 {
			yield(resultLine{}, jobs.Errorf(jobs.CodeLimit, "job %s and its retries are more than %d jobs", id, maxMerged))
			return
		}
		b, err := c.Batch(ctx, id)
		if err != nil {
			yield(resultLine{}, err)
			return
		}
		if !b.Ended() {
			yield(resultLine{}, jobs.Errorf(jobs.CodeConflict, "job %s is %s: results are merged when a job and its retries have ended", id, b.Status).WithHint("fanout job watch %s", id))
			return
		}
		type child struct {
			next func() (resultLine, error, bool)
			head resultLine
			some bool
		}
		var children []*child // newest first
		for _, id := range b.Fanout.Children {
			next, stop := iter.Pull2(merged(ctx, c, id, input, left))
			defer stop()
			one := &child{next: next}
			one.head, err, one.some = next()
			if jobs.CodeOf(err) == jobs.CodeNotFound {
				continue // it was named, and never made
			}
			if err != nil {
				yield(resultLine{}, err)
				return
			}
			children = append(children, one)
		}
		for line, err := range resultsOf(ctx, c, id, input) {
			if err != nil {
				yield(line, err)
				return
			}
			best := line
			for _, one := range children {
				if !line.again || !one.some || one.head.customID != line.customID {
					continue
				}
				if !best.answered && (one.head.answered || best.raw == nil || string(best.raw) == string(line.raw)) {
					best = one.head
				}
				if one.head, err, one.some = one.next(); err != nil {
					yield(line, err)
					return
				}
			}
			if !yield(best, nil) {
				return
			}
		}
	}
}

// resultsOf yields the results of one job.
func resultsOf(ctx context.Context, c *batchapi.Client, id string, input bool) iter.Seq2[resultLine, error] {
	return func(yield func(resultLine, error) bool) {
		after := ""
		for {
			var page []resultLine
			next, state, err := c.Results(ctx, id, batchapi.ResultsQuery{After: after, Input: input}, func(raw []byte) error {
				line, err := parseResult(raw)
				page = append(page, line)
				return err
			})
			if err != nil {
				yield(resultLine{}, err)
				return
			}
			for _, line := range page {
				if !yield(line, nil) {
					return
				}
			}
			if state != "more" {
				return
			}
			after = next
		}
	}
}

// notAsked are codes of lines that broke the rules of the input: no retry ever has them.
var notAsked = []string{jobs.ViolationJSON, jobs.ViolationDuplicate, jobs.ViolationURL, jobs.ViolationLong, jobs.ViolationRequest}

func parseResult(raw []byte) (resultLine, error) {
	var l struct {
		CustomID string `json:"custom_id"`
		Response *struct {
			Status int `json:"status_code"`
		} `json:"response"`
		Error *struct {
			Code string `json:"code"`
		} `json:"error"`
	}
	if err := json.Unmarshal(raw, &l); err != nil {
		return resultLine{}, fmt.Errorf("read a result: %w", err)
	}
	code := ""
	if l.Error != nil {
		code = l.Error.Code
	}
	answered := l.Error == nil && l.Response != nil && l.Response.Status/100 == 2
	return resultLine{raw: slices.Clone(raw), customID: l.CustomID, answered: answered, again: !slices.Contains(notAsked, cmp.Or(code, "-"))}, nil
}
