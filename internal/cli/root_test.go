package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

func TestExitCodeFollowsFromTheError(t *testing.T) {
	interrupted, cancel := context.WithCancel(t.Context())
	cancel()
	tests := []struct {
		name string
		ctx  context.Context
		err  error
		code int
		said string
	}{
		{name: "none", code: 0},
		{name: "invalid", err: jobs.Errorf(jobs.CodeInvalid, "read x: no"), code: 2, said: "fanout: read x: no\n"},
		{name: "hint", err: jobs.Errorf(jobs.CodeInvalid, "read x: no").WithHint("y"), code: 2, said: "fanout: read x: no\nTry: y\n"},
		{name: "hint within a chain", err: fmt.Errorf("run: %w", jobs.Errorf(jobs.CodeInvalid, "no").WithHint("y")), code: 2, said: "fanout: run: no\nTry: y\n"},
		{name: "not found", err: jobs.ErrNotFound, code: 2, said: "fanout: not found\n"},
		{name: "conflict", err: jobs.ErrConflict, code: 1, said: "fanout: somebody saved it since it was read\n"},
		{name: "limit", err: jobs.Errorf(jobs.CodeLimit, "too fast"), code: 1, said: "fanout: too fast\n"},
		{name: "upstream", err: jobs.Errorf(jobs.CodeUpstream, "it is down"), code: 1, said: "fanout: it is down\n"},
		{name: "denied", err: jobs.Errorf(jobs.CodeDenied, "wrong key"), code: 1, said: "fanout: wrong key\n"},
		{name: "unknown", err: errors.New("disk on fire"), code: 1, said: "fanout: disk on fire\n"},
		{name: "told", err: fmt.Errorf("run: %w", told(exitItemsFailed)), code: 3},
		{name: "interrupted", ctx: interrupted, err: fmt.Errorf("spool stdin: %w", context.Canceled), code: 130, said: "fanout: interrupted\n"},
		{name: "interrupted, with a hint", ctx: interrupted, err: jobs.Errorf(jobs.CodeInternal, "interrupted after 3 items%w", silent{context.Canceled}).WithHint("again"), code: 130,
			said: "fanout: interrupted after 3 items\nTry: again\n"},
		{name: "cancelled from inside", err: fmt.Errorf("call: %w", context.Canceled), code: 1, said: "fanout: call: context canceled\n"},
		{name: "control characters", err: errors.New("read \x1b[31mx\ny"), code: 1, said: "fanout: read  [31mx y\n"},
		{name: "control characters above ASCII", err: errors.New("read \u009b31mx\u0085y\u2028z"), code: 1, said: "fanout: read  31mx y z\n"},
		{name: "bytes that are no text", err: errors.New("read \x9b31m"), code: 1, said: "fanout: read \uFFFD31m\n"},
		{name: "overrides of the direction", err: errors.New("read \u202egpj.exe\u2066\u200f"), code: 1, said: "fanout: read gpj.exe\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx := tt.ctx
			if ctx == nil {
				ctx = t.Context()
			}
			var stderr bytes.Buffer
			code := exit(ctx, &stderr, tt.err)
			if code != tt.code || stderr.String() != tt.said {
				t.Errorf("exit code %d, said %q; want %d, %q", code, stderr.String(), tt.code, tt.said)
			}
		})
	}
}

// silent is in the chain but not in the sentence.
type silent struct{ error }

func (silent) Error() string   { return "" }
func (s silent) Unwrap() error { return s.error }

func TestHelpShowsEveryExitCode(t *testing.T) {
	help := helpOf(t)
	for _, e := range exits {
		if line := fmt.Sprintf("%d  %s\n", e.code, e.means); !strings.Contains(help, line) {
			t.Errorf("help does not say %q", line)
		}
	}
	for code, status := range exitOf {
		if !strings.Contains(help, fmt.Sprintf("%3d  ", status)) {
			t.Errorf("%s errors exit with %d, which the help does not explain", code, status)
		}
	}
}

func TestHelpEndsWithTwoExamples(t *testing.T) {
	commands := [][]string{nil}
	for _, c := range newRoot().Commands() {
		commands = append(commands, []string{c.Name()})
	}
	for _, args := range commands {
		_, examples, _ := strings.Cut(helpOf(t, args...), "\nExamples:\n")
		shown := strings.Split(strings.TrimSuffix(examples, "\n"), "\n")
		if len(shown) < 2 {
			t.Errorf("help of fanout %v ends with %q, want two examples or more", args, examples)
		}
		for _, line := range shown {
			if !strings.Contains(line, "fanout ") {
				t.Errorf("help of fanout %v: %q is no example", args, line)
			}
		}
	}
}

func helpOf(t *testing.T, command ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := Main(t.Context(), append(command, "--help"), nil, &stdout, &stderr); code != 0 || stderr.Len() > 0 {
		t.Fatalf("help of fanout %v: exit code %d, said %q", command, code, stderr.String())
	}
	return stdout.String()
}
