package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/fanout-inference/fanout/pkg/batchapi"
	"github.com/fanout-inference/fanout/pkg/jobs"
)

// clientFlags are what every command has that calls a server.
type clientFlags struct {
	api, key string
	json     bool
}

const defaultAPI = "http://127.0.0.1:8080/v1"

// apiHelp says which server is called, at the end of the help of each group.
const apiHelp = `The server is --api, FANOUT_API or OPENAI_BASE_URL, in this order, else ` + defaultAPI + `; the key is --key or
FANOUT_KEY, or OPENAI_API_KEY where OPENAI_BASE_URL names the server. A key on the command line can be seen by others on this
machine: better put it into the environment.`

func (f *clientFlags) add(cmd *cobra.Command) {
	p := cmd.PersistentFlags()
	p.StringVar(&f.api, "api", "", "`URL` of the server (default FANOUT_API, OPENAI_BASE_URL, or "+defaultAPI+")")
	p.StringVar(&f.key, "key", "", "API `KEY` (default FANOUT_KEY)")
	p.BoolVar(&f.json, "json", false, "print JSON, one object a line")
}

// client is of the server that is meant. A key that is for OpenAI goes to the server that OPENAI_BASE_URL names, and to no
// other.
func (f *clientFlags) client() (*batchapi.Client, error) {
	base, key := cmp.Or(f.api, os.Getenv("FANOUT_API")), cmp.Or(f.key, os.Getenv("FANOUT_KEY"))
	if other := os.Getenv("OPENAI_BASE_URL"); base == "" && other != "" {
		base, key = other, cmp.Or(key, os.Getenv("OPENAI_API_KEY"))
	}
	return batchapi.NewClient(cmp.Or(base, defaultAPI), key)
}

// newGroup is a command that only has others below it.
func newGroup(f *clientFlags, use, short, example string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Long: short + ".\n\n" + apiHelp, Example: example,
		Args: knownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	f.add(cmd)
	cmd.AddCommand(commands...)
	return cmd
}

// oneArgument wants exactly one argument.
func oneArgument(name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usageError(cmd, "%s needs one %s, not %d", cmd.CommandPath(), name, len(args))
		}
		return nil
	}
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError(cmd, "%s takes no arguments", cmd.CommandPath())
	}
	return nil
}

// printJSON prints an object on a line of its own.
func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("write to stdout: %w", err)
	}
	return nil
}

// table prints rows: aligned for a person, separated by tabs for a program.
type table struct {
	out  io.Writer
	flat bool
	rows [][]string
}

func newTable(out io.Writer, columns ...string) *table {
	t := &table{out: out, flat: !isTerminal(out)}
	if !t.flat {
		t.row(columns...)
	}
	return t
}

func (t *table) row(cells ...string) {
	for i := range cells {
		cells[i] = oneLine(cells[i])
	}
	t.rows = append(t.rows, cells)
}

func (t *table) print() error {
	var err error
	if t.flat {
		for _, r := range t.rows {
			if _, err = fmt.Fprintln(t.out, strings.Join(r, "\t")); err != nil {
				break
			}
		}
	} else {
		w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
		for _, r := range t.rows {
			fmt.Fprintln(w, strings.Join(r, "\t"))
		}
		err = w.Flush()
	}
	if err != nil {
		return fmt.Errorf("write to stdout: %w", err)
	}
	return nil
}

// printAll prints what was listed: a row each, or JSON.
func printAll[T any](cmd *cobra.Command, f *clientFlags, all []T, columns []string, row func(T) []string) error {
	t := newTable(cmd.OutOrStdout(), columns...)
	for _, o := range all {
		if f.json {
			if err := printJSON(cmd.OutOrStdout(), o); err != nil {
				return err
			}
			continue
		}
		t.row(row(o)...)
	}
	if f.json {
		return nil
	}
	return t.print()
}

// list prints what is listed, page after page, as it comes: a row each, or JSON.
func list[T any](cmd *cobra.Command, f *clientFlags, l listFlags, most int, page func(q batchapi.ListQuery) (batchapi.List[T], error), columns []string, row func(T) []string) error {
	t := newTable(cmd.OutOrStdout(), columns...)
	more, err := walk(l, most, page, func(o T) error {
		if f.json {
			return printJSON(cmd.OutOrStdout(), o)
		}
		t.row(row(o)...)
		return nil
	})
	if err == nil && !f.json {
		err = t.print()
	}
	tellMore(cmd, more && err == nil)
	return err
}

// tellMore tells whoever takes what was listed for all there is.
func tellMore(cmd *cobra.Command, more bool) {
	if more {
		fmt.Fprintln(cmd.ErrOrStderr(), "there are more; --all lists them")
	}
}

// at is a time of the wire, or a dash.
func at(unix *int64) string {
	if unix == nil {
		return "-"
	}
	return time.Unix(*unix, 0).UTC().Format(time.RFC3339)
}

// or is a text of the wire, or a dash.
func or(s *string) string {
	if s == nil {
		return "-"
	}
	return *s
}

// listFlags are what every list has.
type listFlags struct {
	limit int
	all   bool
	after string
}

func (l *listFlags) add(cmd *cobra.Command) {
	cmd.Flags().IntVar(&l.limit, "limit", 20, "how many to list")
	cmd.Flags().BoolVar(&l.all, "all", false, "list them all")
	cmd.Flags().StringVar(&l.after, "after", "", "list those that follow `ID`")
}

// walk calls each with what a list has, page after page, up to the limit, and tells whether there is more.
func walk[T any](l listFlags, most int, page func(q batchapi.ListQuery) (batchapi.List[T], error), each func(T) error) (more bool, err error) {
	if l.limit < 1 {
		return false, jobs.Errorf(jobs.CodeInvalid, "--limit must be above 0, not %d", l.limit)
	}
	q := batchapi.ListQuery{After: l.after}
	for left := l.limit; l.all || left > 0; {
		q.Limit = most
		if !l.all {
			q.Limit = min(most, left)
		}
		found, err := page(q)
		if err != nil {
			return false, err
		}
		for _, o := range found.Data {
			if err := each(o); err != nil {
				return false, err
			}
		}
		left -= len(found.Data)
		if !found.HasMore || found.LastID == nil {
			return found.HasMore, nil
		}
		q.After = *found.LastID
	}
	return true, nil
}
