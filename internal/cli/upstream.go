package cli

import (
	"strconv"

	"github.com/spf13/cobra"

	"github.com/fanout-inference/fanout/pkg/batchapi"
)

func newUpstream() *cobra.Command {
	var f clientFlags
	return newGroup(&f, "upstream", "See how upstreams fare, and hold them, as an operator", `  fanout upstream list
  fanout upstream pause models.example gpt-4o --reason "it is moved"`,
		newUpstreamList(&f), newUpstreamPause(&f), newUpstreamResume(&f))
}

func newUpstreamList(f *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List each model of an upstream that has answered or failed lately, or is held",
		Example: `  fanout upstream list
  fanout upstream list --json | jq 'select(.pause)'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			l, err := c.Upstreams(cmd.Context())
			if err != nil {
				return err
			}
			return printAll(cmd, f, l.Data, []string{"UPSTREAM", "MODEL", "LIMIT", "IN FLIGHT", "AS OF", "HELD", "FAILING SINCE", "WHY"}, func(u batchapi.Upstream) []string {
				limit, inFlight, held, why := "-", "-", "-", or(u.Why)
				if u.Width != nil {
					limit = strconv.Itoa(*u.Width)
				}
				if u.InFlight != nil {
					inFlight = strconv.Itoa(*u.InFlight)
				}
				if u.Pause != nil {
					held, why = u.Pause.Reason, u.Pause.Message
				}
				return []string{u.Upstream, u.Model, limit, inFlight, at(u.SeenAt), held, at(u.FailingSince), why}
			})
		},
	}
}

// twoArguments wants an upstream and a model.
func twoArguments(cmd *cobra.Command, args []string) error {
	if len(args) != 2 {
		return usageError(cmd, "%s needs an upstream and a model, not %d words (fanout upstream list has them)", cmd.CommandPath(), len(args))
	}
	return nil
}

func newUpstreamPause(f *clientFlags) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "pause UPSTREAM MODEL", Short: "Hold a model of an upstream, for all jobs",
		Long: `Holds a model of an upstream. Within five seconds nothing is begun there any more, of whatever job; what is in flight is
finished. Windows of jobs run on.`,
		Example: `  fanout upstream pause models.example gpt-4o --reason "it is moved"`,
		Args:    twoArguments,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			u, err := c.PauseUpstream(cmd.Context(), args[0], args[1], reason)
			if err == nil && f.json {
				err = printJSON(cmd.OutOrStdout(), u)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for whoever looks at it")
	return cmd
}

func newUpstreamResume(f *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use: "resume UPSTREAM MODEL", Short: "Let a model of an upstream go on, whoever held it",
		Example: `  fanout upstream resume models.example gpt-4o`,
		Args:    twoArguments,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			u, err := c.ResumeUpstream(cmd.Context(), args[0], args[1])
			if err == nil && f.json {
				err = printJSON(cmd.OutOrStdout(), u)
			}
			return err
		},
	}
}

func newTenant() *cobra.Command {
	var f clientFlags
	return newGroup(&f, "tenant", "See and set what a tenant may, as an operator", `  fanout tenant limits blue
  fanout tenant limits blue --max-cost-usd 500 --max-open-items 1000000`, newTenantLimits(&f))
}

func newTenantLimits(f *clientFlags) *cobra.Command {
	var cost float64
	var items int64
	cmd := &cobra.Command{
		Use: "limits TENANT", Short: "Show what a tenant may, or set it",
		Long: `Shows what a tenant may, or sets it. Its jobs are held once those that it has made in the calendar month (UTC) have come to
--max-cost-usd, within a minute or so; what is in flight then is finished. While it has --max-open-items items without an
outcome no other job of it is taken (429). 0 is as much as it likes.`,
		Example: `  fanout tenant limits blue
  fanout tenant limits blue --max-cost-usd 500 --max-open-items 1000000`,
		Args: oneArgument("tenant"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			l, err := c.Limits(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			set := cmd.Flags()
			if set.Changed("max-cost-usd") || set.Changed("max-open-items") {
				if set.Changed("max-cost-usd") {
					l.MaxCostUSD = cost
				}
				if set.Changed("max-open-items") {
					l.OpenRequests = items
				}
				if l, err = c.SetLimits(cmd.Context(), args[0], l.MaxCostUSD, l.OpenRequests); err != nil {
					return err
				}
			}
			if f.json {
				return printJSON(cmd.OutOrStdout(), l)
			}
			return writeRows(cmd.OutOrStdout(), isTerminal(cmd.OutOrStdout()), [][2]string{
				{"tenant", l.Tenant}, {"max cost a month", "$" + strconv.FormatFloat(l.MaxCostUSD, 'f', 2, 64)}, {"max open items", strconv.FormatInt(l.OpenRequests, 10)},
			})
		},
	}
	cmd.Flags().Float64Var(&cost, "max-cost-usd", 0, "of a calendar month, in US dollars")
	cmd.Flags().Int64Var(&items, "max-open-items", 0, "items without an outcome")
	return cmd
}
