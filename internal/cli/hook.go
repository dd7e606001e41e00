package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fanout-inference/fanout/pkg/batchapi"
)

func newHook() *cobra.Command {
	var f clientFlags
	var tenant string
	cmd := newGroup(&f, "hook", "Make and watch webhooks, which are told when a job ends, as an operator", `  fanout hook create https://example.com/batches --event batch.completed
  fanout hook deliveries
  fanout hook replay dlv_5f0c63d1`,
		newHookCreate(&f, &tenant), newHookList(&f, &tenant), newHookRemove(&f, &tenant), newHookDeliveries(&f, &tenant), newHookReplay(&f, &tenant))
	cmd.PersistentFlags().StringVar(&tenant, "tenant", "", "whose they are (default your own)")
	return cmd
}

func newHookCreate(f *clientFlags, tenant *string) *cobra.Command {
	var events []string
	cmd := &cobra.Command{
		Use: "create URL", Short: "Make a webhook, whose secret is shown this once",
		Long: `Makes a webhook and prints its secret. It is shown this once.

The URL is posted an event when a job of the tenant ends: batch.completed, batch.failed, batch.expired or batch.cancelled,
signed as Standard Webhooks has it; OpenAI's clients check it with client.webhooks.unwrap() and the secret. What is not
answered 2xx within 15 seconds is sent again, ever more seldom, for a day. An event may come more than once, always with
the same webhook-id.

The URL must begin with https:// and lead to a public address, unless the server allows others.`,
		Example: `  fanout hook create https://example.com/batches
  fanout hook create https://example.com/failed --event batch.failed,batch.expired --tenant blue`,
		Args: oneArgument("URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			h, err := c.CreateHook(cmd.Context(), batchapi.CreateHookRequest{Tenant: *tenant, URL: args[0], Events: events})
			if err != nil {
				return err
			}
			if f.json {
				return printJSON(cmd.OutOrStdout(), h)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "webhook %s of tenant %s, for %s; its secret is shown this once:\n", h.ID, h.Tenant, strings.Join(h.Events, ", "))
			_, err = fmt.Fprintln(cmd.OutOrStdout(), or(h.Secret))
			return err
		},
	}
	cmd.Flags().StringSliceVar(&events, "event", nil, "what it is told: batch.completed, batch.failed, batch.expired, batch.cancelled (default all)")
	return cmd
}

func newHookList(f *clientFlags, tenant *string) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List webhooks, without their secrets",
		Example: `  fanout hook list
  fanout hook list --tenant blue --json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			l, err := c.Hooks(cmd.Context(), *tenant)
			if err != nil {
				return err
			}
			return printAll(cmd, f, l.Data, []string{"ID", "TENANT", "EVENTS", "CREATED", "URL"}, func(h batchapi.Hook) []string {
				return []string{h.ID, h.Tenant, strings.Join(h.Events, ","), at(&h.CreatedAt), h.URL}
			})
		},
	}
}

func newHookRemove(f *clientFlags, tenant *string) *cobra.Command {
	return &cobra.Command{
		Use: "rm ID", Short: "Delete a webhook: nothing more is sent to it",
		Example: `  fanout hook rm hook_3xk2mfq7ab4c`,
		Args:    oneArgument("webhook ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			d, err := c.DeleteHook(cmd.Context(), *tenant, args[0])
			if err == nil && f.json {
				err = printJSON(cmd.OutOrStdout(), d)
			}
			return err
		},
	}
}

func newHookDeliveries(f *clientFlags, tenant *string) *cobra.Command {
	var l listFlags
	cmd := &cobra.Command{
		Use: "deliveries", Short: "List what was, or is to be, told, newest first",
		Example: `  fanout hook deliveries
  fanout hook deliveries --all --json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			columns := []string{"ID", "STATUS", "TYPE", "JOB", "CREATED", "ATTEMPTS", "NEXT", "LAST"}
			return list(cmd, f, l, 100, func(q batchapi.ListQuery) (batchapi.List[batchapi.Delivery], error) {
				return c.Deliveries(cmd.Context(), *tenant, q)
			}, columns, func(d batchapi.Delivery) []string {
				return []string{d.ID, d.Status, d.Type, d.Batch, at(&d.CreatedAt), strconv.Itoa(len(d.Attempts)), at(d.NextAttemptAt), lastOf(&d)}
			})
		},
	}
	l.add(cmd)
	return cmd
}

// lastOf is what came of the last attempt, or why there will be no other.
func lastOf(d *batchapi.Delivery) string {
	switch n := len(d.Attempts); {
	case d.Reason != nil:
		return *d.Reason
	case n == 0:
		return "-"
	case d.Attempts[n-1].Status != nil:
		return "answered " + strconv.Itoa(*d.Attempts[n-1].Status)
	default:
		return or(d.Attempts[n-1].Error)
	}
}

func newHookReplay(f *clientFlags, tenant *string) *cobra.Command {
	return &cobra.Command{
		Use: "replay ID", Short: "Send a delivery again, whatever became of it",
		Example: `  fanout hook replay dlv_5f0c63d1
  fanout hook deliveries --all | awk '$2 == "failed" { print $1 }' | xargs -n1 fanout hook replay`,
		Args: oneArgument("delivery ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			d, err := c.Replay(cmd.Context(), *tenant, args[0])
			if err == nil && f.json {
				err = printJSON(cmd.OutOrStdout(), d)
			}
			return err
		},
	}
}
