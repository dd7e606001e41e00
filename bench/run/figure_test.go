package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMedianIsJudgedAgainstTheBudget(t *testing.T) {
	for _, c := range []struct {
		f      figure
		median float64
		over   bool
	}{
		{figure{Budget: 1.3, Samples: []float64{9, 1.1, 1.2}}, 1.2, false},
		{figure{Budget: 1.3, Samples: []float64{1.3}}, 1.3, false},
		{figure{Budget: 1.3, Samples: []float64{1.2, 1.6, 1.4, 1.1}}, 1.3, false},
		{figure{Budget: 1.3, Samples: []float64{1, 1.4, 1.5}}, 1.4, true},
		{figure{Budget: 0.75, AtLeast: true, Samples: []float64{0.7}}, 0.7, true},
		{figure{Budget: 0.75, AtLeast: true, Samples: []float64{0.7, 0.8, 0.9}}, 0.8, false},
	} {
		if got := c.f.median(); got < c.median-1e-9 || got > c.median+1e-9 || c.f.over() != c.over {
			t.Errorf("%v: median %v, over %v; want %v, %v", c.f, got, c.f.over(), c.median, c.over)
		}
	}
}

func TestTableSaysWhatIsOver(t *testing.T) {
	var b strings.Builder
	err := printTable(&b, []figure{
		{Name: "wall time", Unit: "×", Budget: 1.3, Samples: []float64{1.41, 1.5, 1.45}},
		{Name: "memory", Unit: " MiB", Budget: 150, Samples: []float64{48.3}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `figure      budget      median   min – max
wall time   ≤ 1.30×     1.45×    1.41× – 1.50×     over
memory      ≤ 150 MiB   48 MiB   48 MiB – 48 MiB   ok
`
	var got strings.Builder
	for line := range strings.Lines(b.String()) {
		got.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

func TestRatioIsReadFromTheBenchmarksLine(t *testing.T) {
	for line, want := range map[string]string{
		"BenchmarkScan/line=200-2   \t 5\t 9000 ns/op\t 3500 MB/s\t 0.7531 ratio": "scan of 200 B lines, over validating them",
		"BenchmarkScan/line=2000/escapes-16 5 9000 ns/op 0.7531 ratio 12 B/op":    "scan of 2000 B lines, over validating them, with escapes",
		"BenchmarkScan/line=2000/escapes 5 9000 ns/op 0.7531 ratio":               "scan of 2000 B lines, over validating them, with escapes",
		"ok  \tgithub.com/fanout-inference/fanout/pkg/jobs\t1.2s":                 "",
		"BenchmarkValidate/line=200-2 5 9000 ns/op 3500 MB/s":                     "",
	} {
		name, ratio, ok := readRatio(line)
		if name != want || ok != (want != "") || ok && ratio != 0.7531 {
			t.Errorf("%q: %q, %v, %v; want %q", line, name, ratio, ok, want)
		}
	}
}
