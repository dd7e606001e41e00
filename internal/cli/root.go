// Package cli is the fanout command line.
package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fanout-inference/fanout/internal/release"
	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Main runs the command line args, without the program's name, and returns the exit code. Data goes to stdout and talk to
// stderr. When ctx is cancelled the command ends in an orderly way.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(append([]string{}, args...)) // cobra takes nil for "use os.Args"
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return exit(ctx, stderr, root.ExecuteContext(ctx))
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "fanout COMMAND",
		Short: "Turn a file of inference requests into one file of answers",
		Long: `fanout takes a file of inference requests (OpenAI batch JSONL, one request a line) and brings every
answer back exactly once, in input order, in one output file.

` + exitHelp(),
		Example: `  fanout run examples/sentiment.jsonl -o answers.jsonl
  fanout check examples/violations.jsonl`,
		Version:       release.Version(),
		Args:          knownCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceErrors: true, // exit tells them
		SilenceUsage:  true,
	}
	root.AddCommand(newRun(), newCheck(), newServe(), newWorker(), newJob(), newFile(), newKey(), newHook(), newDLQ(), newErrors(), newUpstream(), newTenant(), newAudit())
	root.SuggestionsMinimumDistance = 2

	root.SetVersionTemplate("fanout {{.Version}}\n")
	root.SetUsageTemplate(usageTemplate)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError(cmd, "%w", err)
	})
	return root
}

// usageError is a command that was called wrongly.
func usageError(cmd *cobra.Command, format string, args ...any) error {
	return jobs.Errorf(jobs.CodeInvalid, format, args...).WithHint("%s --help", cmd.CommandPath())
}

// knownCommand refuses what is left over when no command has that name.
func knownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := jobs.Errorf(jobs.CodeInvalid, "there is no command %q", args[0])
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return err.WithHint("%s %s", cmd.CommandPath(), near[0])
	}
	return err.WithHint("%s --help", cmd.CommandPath())
}

// oneInput wants exactly one INPUT.
func oneInput(cmd *cobra.Command, args []string) error {
	switch len(args) {
	case 1:
		return nil
	case 0:
		return usageError(cmd, "%s needs an INPUT: a file, or - for stdin", cmd.Name())
	default:
		return usageError(cmd, "%s takes one INPUT, not %d: %s", cmd.Name(), len(args), strings.Join(args, " "))
	}
}

func exitHelp() string {
	var b strings.Builder
	b.WriteString("Exit codes:\n")
	for _, e := range exits {
		fmt.Fprintf(&b, "  %3d  %s\n", e.code, e.means)
	}
	return b.String()
}

// usageTemplate is cobra's with the examples last, where the eye is when the text has scrolled by.
const usageTemplate = `Usage:
{{- if .HasAvailableSubCommands}}
  {{.CommandPath}} COMMAND [flags]{{else}}
  {{.UseLine}}{{end}}
{{- if .HasAvailableSubCommands}}

Commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}
{{- if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}
{{- if .HasAvailableInheritedFlags}}

Global flags:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}
{{- if .HasExample}}

Examples:
{{.Example}}{{end}}
`
