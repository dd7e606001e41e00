package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fanout-inference/fanout/pkg/batchapi"
	"github.com/fanout-inference/fanout/pkg/jobs"
)

// submitFlags are the flags of job submit.
type submitFlags struct {
	endpoint  string
	window    time.Duration
	onInvalid string
	chunk     int
	attempts  int
	tolerated float64
	metadata  map[string]string
	key       string
	dryRun    bool
	watch     bool
}

func newJobSubmit(f *clientFlags) *cobra.Command {
	var s submitFlags
	cmd := &cobra.Command{
		Use: "submit INPUT", Short: "Put a file of requests on the server and make a job of it",
		Long: `Puts INPUT on the server, a batch file (JSONL, one request a line), plain or gzip, or stdin for -, and makes a job of it. A
file that is there already is named by its ID. The job's ID is printed.

With --dry-run no job is made: every line that breaks the rules is listed, and what the job would be.`,
		Example: `  fanout job submit requests.jsonl --watch
  fanout job submit file-abc --window 72h --metadata team=blue --idempotency-key nightly-2026-11-27`,
		Args: oneInput,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			return submit(cmd, c, f, s, args[0])
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&s.endpoint, "endpoint", "", "the `URL` that every line must have (default that of the first valid line)")
	fl.DurationVar(&s.window, "window", 24*time.Hour, "how long the job may take, 1m to 336h")
	fl.StringVar(&s.onInvalid, "on-invalid", "fail", "`skip|fail`: whether a line that breaks the rules fails alone, or the whole job before anything is asked")
	fl.IntVar(&s.chunk, "chunk-items", 0, "items that are claimed and saved together (default the server's)")
	fl.IntVar(&s.attempts, "max-attempts", 0, "counted calls of an item before it is given up (default the server's)")
	fl.Float64Var(&s.tolerated, "tolerate", 100, "`PER CENT` of failures above which the job pauses")
	fl.StringToStringVar(&s.metadata, "metadata", nil, "`KEY=VALUE` to be kept with the job; can be repeated")
	fl.StringVar(&s.key, "idempotency-key", "", "`WORD` that makes submitting again, with all as it is, the same job")
	fl.BoolVar(&s.dryRun, "dry-run", false, "only say what the job would be")
	fl.BoolVar(&s.watch, "watch", false, "watch the job until it has ended")
	return cmd
}

// request is what the flags ask for.
func (s *submitFlags) request(cmd *cobra.Command, file string) batchapi.CreateBatchRequest {
	q := batchapi.CreateBatchRequest{InputFileID: file, Endpoint: s.endpoint, CompletionWindow: s.window.String(), Metadata: map[string]string{}}
	if s.window == 24*time.Hour {
		q.CompletionWindow = "24h" // as every server of this API takes it
	}
	for k, v := range s.metadata {
		q.Metadata[k] = v
	}
	for flag, option := range map[string][2]string{
		"on-invalid":   {"fanout_on_invalid", s.onInvalid},
		"chunk-items":  {"fanout_chunk_items", strconv.Itoa(s.chunk)},
		"max-attempts": {"fanout_max_attempts", strconv.Itoa(s.attempts)},
		"tolerate":     {"fanout_tolerated_failure_pct", strconv.FormatFloat(s.tolerated, 'g', -1, 64)},
	} {
		if cmd.Flags().Changed(flag) {
			q.Metadata[option[0]] = option[1]
		}
	}
	return q
}

func submit(cmd *cobra.Command, c *batchapi.Client, f *clientFlags, s submitFlags, arg string) error {
	file, err := s.file(cmd, c, arg)
	if err != nil {
		return err
	}
	q := s.request(cmd, file)
	if s.dryRun {
		d, err := c.DryRun(cmd.Context(), q)
		if err != nil {
			return err
		}
		return tellDryRun(cmd, f, d)
	}
	b, err := c.CreateBatch(cmd.Context(), q, s.key)
	if err != nil {
		return err
	}
	switch {
	case s.watch:
		return watchJob(cmd, c, f, b.ID)
	case f.json:
		return printJSON(cmd.OutOrStdout(), b)
	default:
		_, err = fmt.Fprintln(cmd.OutOrStdout(), b.ID)
		return err
	}
}

// file is the input on the server: one that is there, or INPUT, put there now. It also finds the endpoint.
func (s *submitFlags) file(cmd *cobra.Command, c *batchapi.Client, arg string) (string, error) {
	if strings.HasPrefix(arg, "file-") {
		if _, err := os.Stat(arg); errors.Is(err, os.ErrNotExist) {
			return arg, s.endpointOf(cmd.Context(), c, arg)
		}
	}
	in, err := openInput(cmd.Context(), arg, cmd.InOrStdin(), "", defaultSpoolLimits)
	if err != nil {
		return "", err
	}
	defer in.Close()
	if s.endpoint == "" {
		if s.endpoint, err = firstEndpoint(in); err != nil {
			return "", err
		}
		if s.endpoint == "" {
			s.endpoint = jobs.DefaultEndpoint // no line is valid: the job will say why, of each
		}
	}
	file, err := putInput(cmd.Context(), c, in)
	return file.ID, err
}

// endpointOf finds the endpoint of a file that is on the server, from its beginning.
func (s *submitFlags) endpointOf(ctx context.Context, c *batchapi.Client, id string) error {
	if s.endpoint != "" {
		return nil
	}
	body, err := c.FileContent(ctx, id, 0)
	if err != nil {
		return err
	}
	defer body.Close()
	const most = 32 << 20
	s.endpoint, err = jobs.FirstEndpoint(io.LimitReader(body, most), jobs.DefaultCut(0).LineBytes)
	if jobs.CodeOf(err) == jobs.CodeInvalid {
		s.endpoint, err = jobs.DefaultEndpoint, nil
	}
	return err
}

// tellDryRun lists what breaks the rules, and says what the job would be.
func tellDryRun(cmd *cobra.Command, f *clientFlags, d batchapi.DryRun) error {
	out := cmd.OutOrStdout()
	if f.json {
		if err := printJSON(out, d); err != nil {
			return err
		}
	} else {
		var text bytes.Buffer
		for _, e := range d.Errors.Data {
			if e.Line != nil {
				fmt.Fprintf(&text, "line %d: ", *e.Line)
			}
			fmt.Fprintf(&text, "%s: %s\n", e.Code, oneLine(e.Message))
		}
		rows := [][2]string{{"items", strconv.FormatInt(d.RequestCounts.Total, 10)}, {"bytes", strconv.FormatInt(d.Bytes, 10)}}
		for _, model := range slices.Sorted(maps.Keys(d.Models)) {
			rows = append(rows, [2]string{"model " + oneLine(model), strconv.FormatInt(d.Models[model], 10)})
		}
		rows = append(rows, [2]string{"violations", strconv.FormatInt(d.ErrorsTotal, 10)},
			[2]string{"input tokens, about", strconv.FormatInt(d.Estimate.InputTokens, 10)}, [2]string{"chunks, about", strconv.FormatInt(d.Estimate.Chunks, 10)})
		if err := writeRows(&text, isTerminal(out), rows); err != nil {
			return err
		}
		if _, err := text.WriteTo(out); err != nil {
			return fmt.Errorf("write to stdout: %w", err)
		}
	}
	if d.WouldFail {
		return told(exitInvalid)
	}
	return nil
}
