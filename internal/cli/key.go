package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fanout-inference/fanout/pkg/batchapi"
)

func newKey() *cobra.Command {
	var f clientFlags
	return newGroup(&f, "key", "Make, list and revoke API keys, as an operator", `  fanout key create --tenant blue --note "nightly batches"
  fanout key list --tenant blue`,
		newKeyCreate(&f), newKeyList(&f), newKeyRevoke(&f))
}

func newKeyCreate(f *clientFlags) *cobra.Command {
	var q batchapi.CreateKeyRequest
	var expires time.Duration
	cmd := &cobra.Command{
		Use: "create", Short: "Make a key, which is shown this once",
		Long: `Makes a key and prints it. It is shown this once: of its secret only a digest is kept.

A key is of one tenant, and sees nothing of any other's. Its scopes are submit (put files, make and cancel jobs), read (list
and read), and operate, which is for whoever runs the deployment: it makes keys for any tenant.`,
		Example: `  fanout key create --tenant blue --scope submit,read --expires 2160h
  export FANOUT_KEY=$(fanout key create --tenant blue)`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			if expires != 0 {
				q.ExpiresIn = expires.String()
			}
			k, err := c.CreateKey(cmd.Context(), q)
			if err != nil {
				return err
			}
			if f.json {
				return printJSON(cmd.OutOrStdout(), k)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "key %s of tenant %s, for %s; it is shown this once:\n", k.ID, k.Tenant, strings.Join(k.Scopes, " and "))
			_, err = fmt.Fprintln(cmd.OutOrStdout(), or(k.Secret))
			return err
		},
	}
	cmd.Flags().StringVar(&q.Tenant, "tenant", "", "whose it is (default your own)")
	cmd.Flags().StringSliceVar(&q.Scopes, "scope", nil, "submit, read, operate (default submit,read)")
	cmd.Flags().StringVar(&q.Note, "note", "", "what it is for")
	cmd.Flags().DurationVar(&expires, "expires", 0, "after how long it is of no use any more (default never)")
	return cmd
}

func newKeyList(f *clientFlags) *cobra.Command {
	var tenant string
	cmd := &cobra.Command{
		Use: "list", Short: "List keys, without their secrets",
		Example: `  fanout key list
  fanout key list --tenant blue --json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			l, err := c.Keys(cmd.Context(), tenant)
			if err != nil {
				return err
			}
			columns := []string{"ID", "TENANT", "SCOPES", "CREATED", "EXPIRES", "REVOKED", "NOTE"}
			return printAll(cmd, f, l.Data, columns, func(k batchapi.Key) []string {
				return []string{k.ID, k.Tenant, strings.Join(k.Scopes, ","), at(&k.CreatedAt), at(k.ExpiresAt), at(k.RevokedAt), k.Note}
			})
		},
	}
	cmd.Flags().StringVar(&tenant, "tenant", "", "only those of this tenant")
	return cmd
}

func newKeyRevoke(f *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID", Short: "Make a key useless, within a minute everywhere",
		Example: `  fanout key revoke 3xk2mfq7ab4c
  fanout key list --tenant blue | cut -f1 | xargs -n1 fanout key revoke`,
		Args: oneArgument("key ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			k, err := c.RevokeKey(cmd.Context(), args[0])
			if err == nil && f.json {
				err = printJSON(cmd.OutOrStdout(), k)
			}
			return err
		},
	}
}
