package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fanout-inference/fanout/pkg/batchapi"
)

func newJobPause(f *clientFlags) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "pause ID", Short: "Hold a job, as an operator: nothing of it is begun any more",
		Long: `Holds a job of any tenant. Within five seconds nothing of it is begun any more; what is in flight is finished. Its window
runs on: what was not answered by its end expires.`,
		Example: `  fanout job pause batch_abc --reason "the model is being replaced"`,
		Args:    oneArgument("job ID"), ValidArgsFunction: completeJobs(f),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			b, err := c.PauseJob(cmd.Context(), args[0], reason)
			if err == nil && f.json {
				err = printJSON(cmd.OutOrStdout(), b)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for whoever looks at the job")
	return cmd
}

func newJobResume(f *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use: "resume ID", Short: "Let a job go on, as an operator, whoever held it",
		Long: `Ends the pause of a job of any tenant: an operator's, that of a broken credential, or that of too many failures. A job that
was paused for its failures is not paused for them again.`,
		Example: `  fanout job resume batch_abc`,
		Args:    oneArgument("job ID"), ValidArgsFunction: completeJobs(f),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			b, err := c.ResumeJob(cmd.Context(), args[0])
			if err == nil && f.json {
				err = printJSON(cmd.OutOrStdout(), b)
			}
			return err
		},
	}
}

func newJobErrors(f *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use: "errors ID", Short: "Group the errors of a job, as an operator, commonest first",
		Long: `Groups the items of a job of any tenant by their last error: how many have failed with it, how many are still to be called,
and how many of these wait in the dead letters. Samples are lines of the input.`,
		Example: `  fanout job errors batch_abc
  fanout job errors batch_abc --json | jq -r '.samples[].custom_id'`,
		Args: oneArgument("job ID"), ValidArgsFunction: completeJobs(f),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			l, err := c.JobErrors(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			columns := []string{"FAILED", "OPEN", "DEAD", "STATUS", "CODE", "SAMPLES", "MESSAGE"}
			return printAll(cmd, f, l.Data, columns, func(t batchapi.Trouble) []string {
				count := func(n int64) string { return strconv.FormatInt(n, 10) }
				status := "-"
				if t.Status != nil {
					status = strconv.Itoa(*t.Status)
				}
				var samples []string
				for _, s := range t.Samples {
					samples = append(samples, fmt.Sprintf("line %d (%s)", s.Line, s.CustomID))
				}
				return []string{count(t.Failed), count(t.Open), count(t.Dead), status, t.Code, strings.Join(samples, ", "), t.Message}
			})
		},
	}
}

func newErrors() *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use: "errors", Short: "Group the errors of all jobs, as an operator, commonest first",
		Long: `Groups the items of jobs of all tenants by their last error, as the last look at each job has it: of jobs that run, have ended
within the hour, or have dead chunks. fanout job errors shows one job as it is now, with samples.

` + apiHelp,
		Example: `  fanout errors
  fanout errors --json | jq -r 'select(.code == "upstream_error").samples[]'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			l, err := c.FleetErrors(cmd.Context())
			if err != nil {
				return err
			}
			return printAll(cmd, &f, l.Data, []string{"ITEMS", "JOBS", "CODE", "SUCH AS", "MESSAGE"}, func(t batchapi.FleetTrouble) []string {
				return []string{strconv.FormatInt(t.Requests, 10), strconv.Itoa(t.Batches), t.Code, strings.Join(t.Samples, ", "), t.Message}
			})
		},
	}
	f.add(cmd)
	return cmd
}

func newAudit() *cobra.Command {
	var f clientFlags
	var l listFlags
	cmd := &cobra.Command{
		Use: "audit", Short: "List what was done by hand, newest first, as an operator",
		Long: "Lists who has done what, and when: keys, webhooks, limits, cancels, pauses, retries, redrives, purges.\n\n" + apiHelp,
		Example: `  fanout audit
  fanout audit --all --json | jq 'select(.action == "key.revoke")'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			columns := []string{"AT", "BY", "ACTION", "TENANT", "OF", "COUNT", "WHY"}
			return list(cmd, &f, l, 500, func(q batchapi.ListQuery) (batchapi.List[batchapi.AuditRecord], error) {
				return c.Audit(cmd.Context(), q)
			}, columns, func(a batchapi.AuditRecord) []string {
				return []string{at(&a.At), a.By, a.Action, or(a.Tenant), or(a.Of), strconv.FormatInt(a.Count, 10), or(a.Why)}
			})
		},
	}
	f.add(cmd)
	l.add(cmd)
	return cmd
}
