package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/fanout-inference/fanout/pkg/batchapi"
)

// resultsFlags are the flags of job results.
type resultsFlags struct {
	output string
	status string
	input  bool
	follow bool
	after  string
	merged bool
}

func newJobResults(f *clientFlags) *cobra.Command {
	var r resultsFlags
	cmd := &cobra.Command{
		Use: "results ID", Short: "Read the results of a job in input order, also while it runs",
		Long: `Writes the results of a job, answers and failures, in the order of its input. Of a job that runs these are the results up to
the first item that has none yet; with --follow it waits for the others, to the end. Where it stopped is told on stderr, and
--after goes on from there.`,
		Example: `  fanout job results batch_abc -o results.jsonl
  fanout job results batch_abc --follow --status failed --input | jq -r .input.custom_id`,
		Args: oneArgument("job ID"), ValidArgsFunction: completeJobs(f),
		RunE: func(cmd *cobra.Command, args []string) error {
			if r.status != "" && r.status != "completed" && r.status != "failed" {
				return usageError(cmd, "--status must be completed or failed, not %q", r.status)
			}
			if r.merged && (r.status != "" || r.follow || r.after != "") {
				return usageError(cmd, "--merged reads all there is: it goes with --output and --input only")
			}
			c, err := f.client()
			if err != nil {
				return err
			}
			if c, _, err = reaching(cmd.Context(), c, args[0]); err != nil {
				return err
			}
			if r.merged {
				return writeOutput(r.output, cmd.OutOrStdout(), func(w io.Writer) error { return mergeResults(cmd.Context(), c, args[0], r.input, w) })
			}
			var after, state string
			err = writeOutput(r.output, cmd.OutOrStdout(), func(w io.Writer) error {
				after, state, err = r.read(cmd.Context(), c, args[0], w)
				return err
			})
			if err == nil && state != "complete" {
				fmt.Fprintf(cmd.ErrOrStderr(), "more is to come: go on with --after %s\n", after)
			}
			return err
		},
	}
	cmd.Flags().StringVarP(&r.output, "output", "o", "", "`FILE` to write to (default stdout)")
	cmd.Flags().StringVar(&r.status, "status", "", "only `completed|failed` ones")
	cmd.Flags().BoolVar(&r.input, "input", false, "each with the request that asked for it")
	cmd.Flags().BoolVar(&r.follow, "follow", false, "wait for what is still to come")
	cmd.Flags().BoolVar(&r.merged, "merged", false, "with those of its retries in the place of its failures, once all have ended")
	cmd.Flags().StringVar(&r.after, "after", "", "go on after `PLACE`, as an earlier call told it")
	return cmd
}

// read writes page after page.
func (r *resultsFlags) read(ctx context.Context, c *batchapi.Client, id string, w io.Writer) (after, state string, err error) {
	after = r.after
	tag := ""
	for {
		q := batchapi.ResultsQuery{After: after, Status: r.status, Input: r.input}
		next, state, err := c.Results(ctx, id, q, func(line []byte) error {
			_, err := fmt.Fprintf(w, "%s\n", line)
			return err
		})
		if err != nil {
			return after, state, err
		}
		after = next
		switch {
		case state == "complete" || state == "pending" && !r.follow:
			return after, state, nil
		case state == "pending":
			if flush, ok := w.(interface{ Flush() error }); ok {
				if err := flush.Flush(); err != nil { // whoever reads along wants it now
					return after, state, err
				}
			}
			if _, tag, err = c.WaitBatch(ctx, id, tag, waitFor); err != nil {
				return after, state, err
			}
		}
	}
}
