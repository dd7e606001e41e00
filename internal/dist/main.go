// Dist packs the functions for Lambda: a zip for each, and each architecture, with nothing in it but the binary.
//
// The same commit gives the same bytes, on any machine with the same Go: paths and times are left out, and the version comes
// from the commit. So whoever deploys can check what somebody else has built.
package main

import (
	"archive/zip"
	"cmp"
	"compress/flate"
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"text/tabwriter"
)

// Functions are what is packed, by the names of their folders below functions/.
var functions = []string{"api", "ingest", "worker", "aggregate", "notify"}

// maxBinary is the budget for a binary: what is larger starts slower. That of api has the operators' routes and the console in
// it too (ADR 0023).
func maxBinary(function string) int {
	if function == "api" {
		return 16_000_000
	}
	return 15_000_000
}

func main() {
	var (
		out  = flag.String("o", "dist", "`DIR` for the zips")
		arch = flag.String("arch", "arm64,amd64", "`LIST` of architectures")
	)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := pack(ctx, *out, strings.Split(*arch, ","), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "build:", err)
		os.Exit(1) //nolint:gocritic // nothing is left to stop
	}
}

// pack builds and packs every function, and lists what it made.
func pack(ctx context.Context, out string, archs []string, list io.Writer) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	var sums strings.Builder
	table := tabwriter.NewWriter(list, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "zip\tbinary, MB\tzip, MB\t")
	for _, arch := range archs {
		for _, name := range functions {
			path := filepath.Join(out, name+"-"+arch+".zip")
			sum, err := packOne(ctx, name, arch, path, table)
			if err != nil {
				return fmt.Errorf("pack %s for %s: %w", name, arch, err)
			}
			fmt.Fprintf(&sums, "%s  %s\n", sum, filepath.Base(path))
		}
	}
	if err := os.WriteFile(filepath.Join(out, "SHA256SUMS"), []byte(sums.String()), 0o644); err != nil {
		return err
	}
	return table.Flush()
}

func packOne(ctx context.Context, name, arch, path string, table io.Writer) (sum string, err error) {
	dir, err := os.MkdirTemp("", "fanout-build-")
	if err != nil {
		return "", err
	}
	defer func() { err = cmp.Or(err, os.RemoveAll(dir)) }()
	binary := filepath.Join(dir, "bootstrap")
	if err := build(ctx, "./functions/"+name, arch, binary); err != nil {
		return "", err
	}
	body, err := os.ReadFile(binary)
	if err != nil {
		return "", err
	}
	if most := maxBinary(name); len(body) > most {
		return "", fmt.Errorf("the binary has %d bytes, more than its budget of %d", len(body), most)
	}
	packed, err := create(path, body)
	if err != nil {
		return "", err
	}
	fmt.Fprintf(table, "%s\t%.1f\t%.1f\t\n", filepath.Base(path), float64(len(body))/1e6, float64(len(packed))/1e6)
	return fmt.Sprintf("%x", sha256.Sum256(packed)), nil
}

// build builds a main package as Lambda wants it. lambda.norpc leaves out what only an older runtime needs.
func build(ctx context.Context, pkg, arch, binary string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-tags", "lambda.norpc", "-trimpath", "-ldflags", "-s -w", "-o", binary, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS=", "GOAMD64=", "GOARM64=", "GOEXPERIMENT=")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return cmd.Run()
}

// create writes a zip with one executable file, without a time.
func create(path string, body []byte) (packed []byte, err error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = cmp.Or(err, f.Close()) }()
	if err := write(f, body); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

func write(w io.Writer, body []byte) error {
	z := zip.NewWriter(w)
	z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, flate.BestCompression) })
	header := &zip.FileHeader{Name: "bootstrap", Method: zip.Deflate}
	header.SetMode(0o755)
	file, err := z.CreateHeader(header)
	if err != nil {
		return err
	}
	if _, err := file.Write(body); err != nil {
		return err
	}
	return z.Close()
}
