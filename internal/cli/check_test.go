package cli

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

func TestSummaryNamesTheCommonestModelFirst(t *testing.T) {
	s := checkSummary{
		Items: 1203, Bytes: 9,
		Models:      map[string]int64{"b": 100, "a": 100, "much-used": 1000},
		OtherModels: 3, Violations: 0,
	}
	tests := []struct {
		name    string
		aligned bool
		want    string
	}{
		{"for a person", true, "items            1203\n" +
			"bytes            9\n" +
			"model much-used  1000\n" +
			"model a          100\n" +
			"model b          100\n" +
			"other models     3\n" +
			"violations       0\n"},
		{"for a program", false, "items\t1203\nbytes\t9\nmodel much-used\t1000\nmodel a\t100\nmodel b\t100\nother models\t3\nviolations\t0\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var b bytes.Buffer
			out := bufio.NewWriter(&b)
			if err := (&checkText{out: out, aligned: tt.aligned}).summary(s); err != nil {
				t.Fatal(err)
			}
			if err := out.Flush(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, b.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestViolationCannotDriveTheTerminal(t *testing.T) {
	var b bytes.Buffer
	out := bufio.NewWriter(&b)
	text := &checkText{out: out}
	if err := text.violation(jobs.Violation{Code: jobs.ViolationURL, Line: 3, Message: "url is \x1b[2J\nline 4: fine"}); err != nil {
		t.Fatal(err)
	}
	if err := out.Flush(); err != nil {
		t.Fatal(err)
	}
	if want := "line 3: url_mismatch: url is  [2J line 4: fine\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func TestInterruptedCheckLeavesNothingBehind(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout, stderr bytes.Buffer
	path := write(t, "in.jsonl", []byte(strings.Repeat(twoLines, 10)))
	if code := Main(ctx, []string{"check", path}, nil, &stdout, &stderr); code != exitInterrupted || stderr.String() != "fanout: interrupted\n" {
		t.Errorf("exit code %d, said %q; want %d and that it was interrupted", code, stderr.String(), exitInterrupted)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left %v behind (%v)", left, err)
	}
}
