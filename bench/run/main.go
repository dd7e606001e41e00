// Command run measures fanout against its budgets and prints one table. scripts/bench calls it, at the top of the
// repository; README.md in the folder above says what each figure means.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fanout-inference/fanout/bench"
)

// parts are what can be measured by itself, in the order of the table.
var parts = []string{"pairs", "memory", "scan", "start", "api"}

// plan is how much is measured.
type plan struct {
	Items       int // of a pair
	Pairs       int
	Concurrency int
	Memory      []int // items of the runs that are measured for memory
	ScanRounds  int
	APIRounds   int
	Parts       []string
}

func (p plan) has(part string) bool { return slices.Contains(p.Parts, part) }

var (
	full  = plan{Items: 20_000, Pairs: 7, Concurrency: 64, Memory: []int{100_000, 1_000_000}, ScanRounds: 3, APIRounds: 7}
	quick = plan{Items: 20_000, Pairs: 3, Concurrency: 64, Memory: []int{50_000, 100_000}, ScanRounds: 1, APIRounds: 3}
)

func main() {
	log.SetFlags(0)
	check := flag.Bool("check", false, "exit with 1 if a figure is over its budget")
	less := flag.Bool("quick", false, "measure less: fewer pairs, smaller inputs")
	dir := flag.String("dir", ".cache/bench", "`DIR` for inputs and outputs, on the kind of disk that is to be measured")
	only := flag.String("only", strings.Join(parts, ","), "`LIST` of what to measure")
	flag.Parse()
	if flag.NArg() > 0 {
		log.Fatalf("there are no arguments, only flags: %q", flag.Args())
	}
	p := full
	if *less {
		p = quick
	}
	p.Parts = strings.Split(*only, ",")
	for _, part := range p.Parts {
		if !slices.Contains(parts, part) {
			log.Fatalf("--only %s: there are only %s", part, strings.Join(parts, ", "))
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	figures, err := run(ctx, p, *dir)
	if err == nil {
		err = printTable(os.Stdout, figures)
	}
	if err != nil {
		log.Fatal(err)
	}
	if *check && anyOver(figures) {
		os.Exit(1)
	}
}

// run measures everything in a directory of its own below dir, which it removes.
func run(ctx context.Context, p plan, dir string) (_ []figure, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp(dir, "run-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	if work, err = filepath.Abs(work); err != nil {
		return nil, err
	}
	var figures []figure
	for _, part := range []struct {
		wanted  bool
		measure func() ([]figure, error)
	}{
		{p.has("pairs") || p.has("memory"), func() ([]figure, error) { return fanoutRuns(ctx, p, work) }},
		{p.has("scan"), func() ([]figure, error) { return scanRatios(ctx, p.ScanRounds) }},
		{p.has("start"), func() ([]figure, error) { return coldStarts(ctx, work) }},
		{p.has("api"), func() ([]figure, error) { return apiRatios(ctx, work, p.APIRounds) }},
	} {
		if !part.wanted {
			continue
		}
		more, err := part.measure()
		if err != nil {
			return nil, err
		}
		figures = append(figures, more...)
	}
	return figures, nil
}

// fanoutRuns measures `fanout run`, by pairs and for memory.
func fanoutRuns(ctx context.Context, p plan, work string) (figures []figure, err error) {
	for _, binary := range []string{"./cmd/fanout", "./bench/bareloop", "./bench/upstream"} {
		if err := build(ctx, work, binary); err != nil {
			return nil, err
		}
	}
	u, err := startServer(ctx, filepath.Join(work, "upstream"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, u.stop()) }()
	b := &runs{dir: work, upstream: u.url, concurrency: p.Concurrency}

	if p.has("pairs") {
		if figures, err = b.pairs(ctx, p.Items, p.Pairs); err != nil {
			return nil, err
		}
	}
	if !p.has("memory") {
		return figures, nil
	}
	for _, items := range p.Memory {
		f, err := b.memory(ctx, items)
		if err != nil {
			return nil, err
		}
		figures = append(figures, f)
	}
	return figures, nil
}

// runs are runs of the two binaries, one at a time.
type runs struct {
	dir         string
	upstream    string
	concurrency int
}

func (b *runs) path(name string) string { return filepath.Join(b.dir, name) }

func (b *runs) bareLoop(ctx context.Context, input string) (usage, error) {
	return measure(ctx, b.path("bareloop"), input, b.path("bare.jsonl"), b.upstream, fmt.Sprint(b.concurrency))
}

func (b *runs) fanout(ctx context.Context, input string) (usage, error) {
	return measure(ctx, b.path("fanout"), "run", input, "-o", b.path("fanout.jsonl"), "--upstream", b.upstream,
		"--concurrency", fmt.Sprint(b.concurrency))
}

// pairs runs the bare loop and fanout by turns, so that a machine that is busy for a while slows both.
func (b *runs) pairs(ctx context.Context, items, pairs int) ([]figure, error) {
	input := b.path("input.jsonl")
	if err := bench.WriteInput(input, items); err != nil {
		return nil, err
	}
	wall := figure{Name: fmt.Sprintf("wall time of %s items, over a bare loop", thousands(items)), Unit: "×", Budget: 1.3}
	cpu := figure{Name: "CPU time of the same", Unit: "×", Budget: 1.4}
	for n := range pairs {
		bare, err := b.bareLoop(ctx, input)
		if err != nil {
			return nil, err
		}
		full, err := b.fanout(ctx, input)
		if err != nil {
			return nil, err
		}
		if err := sameLines(b.path("bare.jsonl"), b.path("fanout.jsonl")); err != nil {
			return nil, err
		}
		wall.Samples = append(wall.Samples, full.Wall.Seconds()/bare.Wall.Seconds())
		cpu.Samples = append(cpu.Samples, full.CPU.Seconds()/bare.CPU.Seconds())
		log.Printf("pair %d of %d: bare loop %v; fanout %v", n+1, pairs, bare, full)
	}
	return []figure{wall, cpu}, nil
}

// memory runs fanout alone.
func (b *runs) memory(ctx context.Context, items int) (figure, error) {
	input := b.path("input.jsonl")
	if err := bench.WriteInput(input, items); err != nil {
		return figure{}, err
	}
	u, err := b.fanout(ctx, input)
	if err != nil {
		return figure{}, err
	}
	log.Printf("%s items: %v, %.0f µs of CPU an item", thousands(items), u, u.CPU.Seconds()*1e6/float64(items))
	return figure{
		Name: fmt.Sprintf("memory of %s items", thousands(items)), Unit: " MiB", Budget: 150, Samples: []float64{float64(u.RSS) / (1 << 20)},
	}, nil
}
