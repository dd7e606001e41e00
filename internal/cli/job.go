package cli

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fanout-inference/fanout/pkg/batchapi"
	"github.com/fanout-inference/fanout/pkg/jobs"
)

func newJob() *cobra.Command {
	var f clientFlags
	return newGroup(&f, "job", "Submit, watch, read and cancel jobs on a server; hold them, and see what fails", `  fanout job submit requests.jsonl --watch
  fanout job results batch_abc --follow`,
		newJobSubmit(&f), newJobList(&f), newJobShow(&f), newJobWatch(&f), newJobCancel(&f), newJobResults(&f),
		newJobPause(&f), newJobResume(&f), newJobErrors(&f), newJobRetry(&f))
}

// completeJobs offers the ids of the newest jobs.
func completeJobs(f *clientFlags) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		c, err := f.client()
		if err != nil || len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Second)
		defer cancel()
		l, err := c.Batches(ctx, batchapi.ListQuery{})
		if jobs.CodeOf(err) == jobs.CodeDenied {
			l, err = c.Jobs(ctx, "", batchapi.ListQuery{})
		}
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var ids []cobra.Completion
		for _, b := range l.Data {
			ids = append(ids, cobra.CompletionWithDesc(b.ID, b.Status))
		}
		return ids, cobra.ShellCompDirectiveNoFileComp
	}
}

// reaching finds a job of the key's tenant, or, where that has none such or the key may not read, of any tenant as an
// operator. The client that is returned is the one that reaches it.
func reaching(ctx context.Context, c *batchapi.Client, id string) (*batchapi.Client, batchapi.Batch, error) {
	b, err := c.Batch(ctx, id)
	if code := jobs.CodeOf(err); err == nil || code != jobs.CodeDenied && code != jobs.CodeNotFound {
		return c, b, err
	}
	operator := c.AnyTenant()
	b, again := operator.Batch(ctx, id)
	if jobs.CodeOf(again) == jobs.CodeDenied { // it is no operator's key: what was said first is what is wrong
		return c, b, err
	}
	return operator, b, again
}

func newJobList(f *clientFlags) *cobra.Command {
	var l listFlags
	var tenant string
	var everyone bool
	cmd := &cobra.Command{
		Use: "list", Short: "List jobs, newest first",
		Long: `Lists the jobs of the key's own tenant, newest first.

Operators list those of all tenants with --all-tenants, as far as they run or have ended within the hour, and all jobs of one
with --tenant. A key that may only operate does the former by itself.`,
		Example: `  fanout job list
  fanout job list --tenant blue
  fanout job list --all --json | jq -r 'select(.status == "failed").id'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			columns := []string{"ID", "STATUS", "ANSWERED", "FAILED", "TOTAL", "CREATED", "MODEL"}
			row := func(b batchapi.Batch) []string {
				n := b.RequestCounts
				return []string{b.ID, statusText(&b), strconv.FormatInt(n.Completed, 10), strconv.FormatInt(n.Failed, 10), strconv.FormatInt(n.Total, 10), at(&b.CreatedAt), or(b.Model)}
			}
			operating := func() error {
				return list(cmd, f, l, 100, func(q batchapi.ListQuery) (batchapi.List[batchapi.Batch], error) {
					return c.Jobs(cmd.Context(), tenant, q)
				}, append(columns, "TENANT"), func(b batchapi.Batch) []string { return append(row(b), b.Fanout.Tenant) })
			}
			if everyone || tenant != "" {
				return operating()
			}
			err = list(cmd, f, l, 100, func(q batchapi.ListQuery) (batchapi.List[batchapi.Batch], error) {
				return c.Batches(cmd.Context(), q)
			}, columns, row)
			if jobs.CodeOf(err) != jobs.CodeDenied {
				return err
			}
			again := operating()
			if jobs.CodeOf(again) == jobs.CodeDenied {
				return err // it is no operator's key either: what was said first is what is wrong
			}
			if again == nil {
				fmt.Fprintln(cmd.ErrOrStderr(), "the key may not read its own tenant: these are the jobs of all that run, or have ended within the hour; --tenant lists all of one")
			}
			return again
		},
	}
	l.add(cmd)
	cmd.Flags().BoolVar(&everyone, "all-tenants", false, "those of all tenants that run, or have ended within the hour, as an operator")
	cmd.Flags().StringVar(&tenant, "tenant", "", "those of one tenant, as an operator")
	cmd.MarkFlagsMutuallyExclusive("all-tenants", "tenant")
	return cmd
}

// statusText is the status, and that nothing moves.
func statusText(b *batchapi.Batch) string {
	if b.Fanout.Pause != nil {
		return b.Status + " (paused: " + b.Fanout.Pause.Reason + ")"
	}
	return b.Status
}

func newJobShow(f *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show one job, and why it is where it is",
		Example: `  fanout job show batch_abc
  fanout job show batch_abc --json | jq .request_counts`,
		Args: oneArgument("job ID"), ValidArgsFunction: completeJobs(f),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			_, b, err := reaching(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if f.json {
				return printJSON(cmd.OutOrStdout(), b)
			}
			return writeRows(cmd.OutOrStdout(), isTerminal(cmd.OutOrStdout()), rowsOf(&b))
		},
	}
}

// rowsOf is a job for a person.
func rowsOf(b *batchapi.Batch) [][2]string {
	n := b.RequestCounts
	rows := [][2]string{
		{"id", b.ID}, {"tenant", cmp.Or(b.Fanout.Tenant, "-")}, {"status", b.Status}, {"endpoint", b.Endpoint}, {"model", or(b.Model)},
		{"items", fmt.Sprintf("%d of %d answered, %d failed", n.Completed, n.Total, n.Failed)},
		{"tokens", fmt.Sprintf("%d in, %d out", b.Usage.InputTokens, b.Usage.OutputTokens)},
		{"created", at(&b.CreatedAt)}, {"expires", at(b.ExpiresAt)},
		{"input", b.InputFileID}, {"output", or(b.OutputFileID)}, {"errors", or(b.ErrorFileID)},
	}
	if p := b.Fanout.Pause; p != nil {
		rows = append(rows, [2]string{"paused", p.Reason + ": " + oneLine(p.Message)}, [2]string{"window", "runs on, until " + at(b.ExpiresAt)})
	}
	if l := b.Fanout.Latency; l != nil {
		rows = append(rows, [2]string{"latency", fmt.Sprintf("half within %.3g s, 90 %% within %.3g s, 99 %% within %.3g s", l.P50, l.P90, l.P99)})
	}
	if c := b.Fanout.CostUSD; c != nil {
		rows = append(rows, [2]string{"cost", "$" + strconv.FormatFloat(*c, 'f', 4, 64)})
	}
	if most := b.Fanout.MaxCostUSD; most != nil {
		rows = append(rows, [2]string{"may cost", "$" + strconv.FormatFloat(*most, 'f', 2, 64)})
	}
	if b.Fanout.Parent != nil {
		rows = append(rows, [2]string{"retries", *b.Fanout.Parent})
	}
	for _, child := range b.Fanout.Children {
		rows = append(rows, [2]string{"retried by", child})
	}
	if s := b.Fanout.Stop; s != nil {
		rows = append(rows, [2]string{"stopped", s.Code + ": " + oneLine(s.Reason)})
	}
	if b.Fanout.Dead > 0 {
		rows = append(rows, [2]string{"dead chunks", strconv.FormatInt(b.Fanout.Dead, 10)})
	}
	for _, e := range b.Fanout.Errors {
		rows = append(rows, [2]string{fmt.Sprintf("%d failures", e.Count), e.Code + ": " + oneLine(e.Message)})
	}
	for key, value := range b.Metadata {
		rows = append(rows, [2]string{"metadata " + oneLine(key), oneLine(value)})
	}
	if b.Errors == nil {
		return rows
	}
	const most = 20
	for _, e := range b.Errors.Data[:min(most, len(b.Errors.Data))] {
		where := "violation"
		if e.Line != nil {
			where = fmt.Sprintf("line %d", *e.Line)
		}
		rows = append(rows, [2]string{where, e.Code + ": " + oneLine(e.Message)})
	}
	if more := len(b.Errors.Data) - most; more > 0 {
		rows = append(rows, [2]string{"and", fmt.Sprintf("%d more; see --json", more)})
	}
	return rows
}

func newJobWatch(f *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use: "watch ID", Short: "Watch a job until it has ended",
		Long: `Shows a job's progress until it has ended. The exit code is 0 if every item was answered, 3 if some were not, and 2 if the
job's input broke the rules.`,
		Example: `  fanout job watch batch_abc
  fanout job watch batch_abc && fanout job results batch_abc -o answers.jsonl`,
		Args: oneArgument("job ID"), ValidArgsFunction: completeJobs(f),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			if c, _, err = reaching(cmd.Context(), c, args[0]); err != nil {
				return err
			}
			return watchJob(cmd, c, f, args[0])
		},
	}
}

// waitFor is how long one request waits for a change: below what front doors allow.
const waitFor = 25 * time.Second

// watchJob shows the progress of a job until it has ended, and what came of it.
func watchJob(cmd *cobra.Command, c *batchapi.Client, f *clientFlags, id string) error {
	p := newProgress(cmd.ErrOrStderr())
	defer p.Stop()
	b, tag, err := c.WaitBatch(cmd.Context(), id, "", 0)
	shown, status := batchapi.RequestCounts{}, ""
	for err == nil {
		if text := statusText(&b); text != status {
			status = text
			p.Note(id + " is " + text)
		}
		switch n := b.RequestCounts; {
		case shown.Total == 0 && n.Total > 0:
			p.Start(n.Total, n.Completed, n.Failed)
			shown = n
		case n.Total > 0:
			p.Add(n.Completed-shown.Completed, n.Failed-shown.Failed)
			shown = n
		}
		if b.Ended() {
			break
		}
		b, tag, err = c.WaitBatch(cmd.Context(), id, tag, waitFor)
	}
	if err != nil {
		return err
	}
	p.Stop()
	if f.json {
		err = printJSON(cmd.OutOrStdout(), b)
	} else {
		err = writeRows(cmd.OutOrStdout(), isTerminal(cmd.OutOrStdout()), rowsOf(&b))
	}
	if err != nil {
		return err
	}
	return endOf(&b)
}

// endOf is the exit code of a job that has ended; it was told already.
func endOf(b *batchapi.Batch) error {
	switch {
	case b.Status == "failed":
		return told(exitInvalid)
	case b.RequestCounts.Completed < b.RequestCounts.Total || b.Status != "completed":
		return told(exitItemsFailed)
	default:
		return nil
	}
}

func newJobCancel(f *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use: "cancel ID", Short: "Cancel a job: what was answered is kept",
		Example: `  fanout job cancel batch_abc
  fanout job cancel batch_abc && fanout job watch batch_abc`,
		Args: oneArgument("job ID"), ValidArgsFunction: completeJobs(f),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			b, err := c.CancelBatch(cmd.Context(), args[0])
			if code := jobs.CodeOf(err); code == jobs.CodeDenied || code == jobs.CodeNotFound { // it is not its tenant's key; an operator's may
				if other, again := c.AnyTenant().CancelBatch(cmd.Context(), args[0]); jobs.CodeOf(again) != jobs.CodeDenied {
					b, err = other, again
				}
			}
			if err != nil {
				return err
			}
			if f.json {
				return printJSON(cmd.OutOrStdout(), b)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), strings.TrimSpace(b.Status))
			return err
		},
	}
}
