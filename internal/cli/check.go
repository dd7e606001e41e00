package cli

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/localjobs"
)

func newCheck() *cobra.Command {
	var endpoint string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check INPUT [flags]",
		Short: "List every line that breaks the input rules, without calling anything",
		Long: `Reads a whole batch file, plain or gzip, or stdin for -, and lists each line that breaks the input rules.
Nothing is called. The exit code is 2 if there is any such line.

With --json each violation is an object on a line of its own: code, line, message, param. The last line is the
summary: input, endpoint, items, lines, bytes, models, other_models, violations.`,
		Example: `  fanout check examples/violations.jsonl
  zcat requests.jsonl.gz | fanout check - --json --endpoint /v1/embeddings`,
		Args: oneInput,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("endpoint") && !strings.HasPrefix(endpoint, "/") {
				return usageError(cmd, "--endpoint must be a path such as /v1/chat/completions, not %q", endpoint)
			}
			out := bufio.NewWriter(cmd.OutOrStdout())
			var report checkReport = &checkText{out: out, aligned: isTerminal(cmd.OutOrStdout())}
			if asJSON {
				report = newCheckJSON(out)
			}
			err := check(cmd.Context(), args[0], cmd.InOrStdin(), endpoint, report)
			if flushErr := out.Flush(); flushErr != nil {
				err = errors.Join(err, fmt.Errorf("write the report: %w", flushErr))
			}
			return err
		},
	}
	cmd.Flags().StringVar(&endpoint, "endpoint", "", "the `URL` that every line must have (default that of the first valid line)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON, one object a line")
	return cmd
}

// checkReport is how a check is told.
type checkReport interface {
	violation(jobs.Violation) error
	summary(checkSummary) error
}

// checkSummary is what a check found, over all.
type checkSummary struct {
	Input       string           `json:"input"`
	Endpoint    string           `json:"endpoint,omitempty"`
	Items       int64            `json:"items"`
	Lines       int64            `json:"lines"`
	Bytes       int64            `json:"bytes"`
	Models      map[string]int64 `json:"models"`
	OtherModels int64            `json:"other_models,omitempty"`
	Violations  int64            `json:"violations"`
}

// check tells every violation of INPUT as it is found, then the summary. That there are any is an error too.
func check(ctx context.Context, arg string, stdin io.Reader, endpoint string, report checkReport) (err error) {
	in, err := openInput(ctx, arg, stdin, "", defaultSpoolLimits)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	if endpoint == "" {
		if endpoint, err = firstEndpoint(in); err != nil {
			return fmt.Errorf("check %s: %w", in.Name, err)
		}
	}
	found, err := inspect(ctx, in, endpoint, report.violation)
	if err != nil {
		return fmt.Errorf("check %s: %w", in.Name, err)
	}
	err = report.summary(checkSummary{
		Input: in.Name, Endpoint: endpoint, Items: found.Items, Lines: found.Lines, Bytes: found.Bytes,
		Models: found.Models, OtherModels: found.OtherModel, Violations: found.Violations,
	})
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	switch found.Violations {
	case 0:
		return nil
	case 1:
		return jobs.Errorf(jobs.CodeInvalid, "check %s: it breaks the input rules once", in.Name)
	default:
		return jobs.Errorf(jobs.CodeInvalid, "check %s: it breaks the input rules %d times", in.Name, found.Violations)
	}
}

// firstEndpoint is the url of the first valid line, or "" if there is none: then the inspection says why, of each line.
func firstEndpoint(in *input) (string, error) {
	f, err := os.Open(in.Path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	endpoint, err := jobs.FirstEndpoint(f, jobs.DefaultCut(in.Bytes).LineBytes)
	if jobs.CodeOf(err) == jobs.CodeInvalid {
		return "", nil
	}
	return endpoint, err
}

// maxScans bounds the memory of a check: each split that is scanned takes some 32 MiB.
const maxScans = 8

// inspect inspects the input with a data directory that is gone afterwards.
func inspect(ctx context.Context, in *input, endpoint string, report func(jobs.Violation) error) (found jobs.Inspection, err error) {
	dir, err := os.MkdirTemp("", "fanout-check-*")
	if err != nil {
		return found, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	const name = "input"
	local, err := localjobs.Open(ctx, dir, localjobs.Options{Mount: map[string]string{name: in.Path}})
	if err != nil {
		return found, err
	}
	defer func() { err = errors.Join(err, local.Close()) }()

	info, err := local.Files.Stat(ctx, name)
	if err != nil {
		return found, err
	}
	o := jobs.InspectOptions{Endpoint: endpoint, Prefix: "check/", Parallel: min(runtime.GOMAXPROCS(0), maxScans)}
	rand.Read(o.HashKey[:]) // never fails
	return jobs.Inspect(ctx, local.Files, info.FileRef, info.Bytes, o, report)
}

// checkText tells a check to a person.
type checkText struct {
	out     *bufio.Writer
	aligned bool
}

func (t *checkText) violation(v jobs.Violation) error {
	var err error
	if v.Line > 0 {
		_, err = fmt.Fprintf(t.out, "line %d: %s: %s\n", v.Line, v.Code, oneLine(v.Message))
	} else {
		_, err = fmt.Fprintf(t.out, "%s: %s\n", v.Code, oneLine(v.Message))
	}
	return err
}

func (t *checkText) summary(s checkSummary) error {
	rows := [][2]string{
		{"items", strconv.FormatInt(s.Items, 10)},
		{"bytes", strconv.FormatInt(s.Bytes, 10)},
	}
	byCount := func(a, b string) int { return cmp.Or(cmp.Compare(s.Models[b], s.Models[a]), cmp.Compare(a, b)) }
	for _, model := range slices.SortedFunc(maps.Keys(s.Models), byCount) {
		rows = append(rows, [2]string{"model " + oneLine(model), strconv.FormatInt(s.Models[model], 10)})
	}
	if s.OtherModels > 0 {
		rows = append(rows, [2]string{"other models", strconv.FormatInt(s.OtherModels, 10)})
	}
	rows = append(rows, [2]string{"violations", strconv.FormatInt(s.Violations, 10)})
	return writeRows(t.out, t.aligned, rows)
}

// checkJSON tells a check to a program.
type checkJSON struct{ out *json.Encoder }

func newCheckJSON(out io.Writer) checkJSON {
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	return checkJSON{e}
}

func (j checkJSON) violation(v jobs.Violation) error { return j.out.Encode(v) }
func (j checkJSON) summary(s checkSummary) error     { return j.out.Encode(s) }
