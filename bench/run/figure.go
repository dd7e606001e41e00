package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// figure is one line of the table.
type figure struct {
	Name    string
	Unit    string
	Budget  float64
	AtLeast bool // more is better
	Samples []float64
}

// median is what is judged.
func (f *figure) median() float64 {
	s := slices.Sorted(slices.Values(f.Samples))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

func (f *figure) over() bool {
	if f.AtLeast {
		return f.median() < f.Budget
	}
	return f.median() > f.Budget
}

func (f *figure) format(x float64) string {
	decimals := 2
	if f.Budget >= 100 {
		decimals = 0
	}
	return strconv.FormatFloat(x, 'f', decimals, 64) + f.Unit
}

// spread is the median and what it lies between.
func (f *figure) spread() string {
	return fmt.Sprintf("%s (%s – %s)", f.format(f.median()), f.format(slices.Min(f.Samples)), f.format(slices.Max(f.Samples)))
}

func anyOver(figures []figure) bool {
	return slices.ContainsFunc(figures, func(f figure) bool { return f.over() })
}

func printTable(out io.Writer, figures []figure) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "figure\tbudget\tmedian\tmin – max\t")
	for _, f := range figures {
		sign, verdict := "≤ ", "ok"
		if f.AtLeast {
			sign = "≥ "
		}
		if f.over() {
			verdict = "over"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s – %s\t%s\n", f.Name, sign+f.format(f.Budget), f.format(f.median()),
			f.format(slices.Min(f.Samples)), f.format(slices.Max(f.Samples)), verdict)
	}
	return w.Flush()
}

// scanRatios runs the benchmark of the scan, which measures its own reference by turns.
func scanRatios(ctx context.Context, rounds int) ([]figure, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkScan$", "-benchtime", "5x",
		"-count", strconv.Itoa(rounds), "./pkg/jobs")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("run the benchmark of the scan: %w\n%s", err, out)
	}
	var figures []figure
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		name, ratio, ok := readRatio(lines.Text())
		if !ok {
			continue
		}
		i := slices.IndexFunc(figures, func(f figure) bool { return f.Name == name })
		if i < 0 {
			i = len(figures)
			figures = append(figures, figure{Name: name, Unit: "×", Budget: 0.75, AtLeast: true})
		}
		figures[i].Samples = append(figures[i].Samples, ratio)
	}
	if len(figures) == 0 {
		return nil, fmt.Errorf("run the benchmark of the scan: it printed no ratio\n%s", out)
	}
	return figures, nil
}

// readRatio reads a line such as "BenchmarkScan/line=200-2  5  1234 ns/op  0.91 ratio".
func readRatio(line string) (name string, ratio float64, ok bool) {
	fields := strings.Fields(line)
	i := slices.Index(fields, "ratio")
	if i < 1 || !strings.HasPrefix(fields[0], "BenchmarkScan/line=") {
		return "", 0, false
	}
	ratio, err := strconv.ParseFloat(fields[i-1], 64)
	if err != nil {
		return "", 0, false
	}
	of := strings.TrimPrefix(fields[0], "BenchmarkScan/line=")
	if dash := strings.LastIndexByte(of, '-'); dash > 0 { // the number of CPUs
		of = of[:dash]
	}
	size, text, escapes := strings.Cut(of, "/")
	name = "scan of " + size + " B lines, over validating them"
	if escapes {
		name += ", with " + text
	}
	return name, ratio, true
}

// thousands writes 20000 as 20,000.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
