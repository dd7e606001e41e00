package main

import (
	"archive/zip"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// TestAZipIsWhatLambdaWants: one executable file of the right name, and the same bytes each time.
func TestAZipIsWhatLambdaWants(t *testing.T) {
	body := bytes.Repeat([]byte("binary"), 10_000)
	var zips [2][]byte
	for i := range zips {
		var err error
		if zips[i], err = create(filepath.Join(t.TempDir(), "x.zip"), body); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(zips[0], zips[1]) {
		t.Error("two zips of the same file differ")
	}
	z, err := zip.NewReader(bytes.NewReader(zips[0]), int64(len(zips[0])))
	if err != nil {
		t.Fatal(err)
	}
	if len(z.File) != 1 || z.File[0].Name != "bootstrap" || z.File[0].Mode() != 0o755 || !z.File[0].Modified.IsZero() && z.File[0].Modified.Year() > 1980 {
		t.Fatalf("it holds %+v", z.File)
	}
	f, err := z.File[0].Open()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, body) {
		t.Errorf("%d bytes come out, %v", len(got), err)
	}
}

// TestABuildKnowsNoPath: nothing of this machine is in a binary, and building it again gives the same.
func TestABuildKnowsNoPath(t *testing.T) {
	t.Chdir("../..")
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	var built [2][]byte
	for i := range built {
		binary := filepath.Join(t.TempDir(), "bootstrap")
		if err := build(t.Context(), "./functions/aggregate", runtime.GOARCH, binary); err != nil {
			t.Fatal(err)
		}
		if built[i], err = os.ReadFile(binary); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(built[0], built[1]) {
		t.Error("two builds differ")
	}
	if bytes.Contains(built[0], []byte(here)) {
		t.Errorf("the binary names %s", here)
	}
}

// TestEveryFunctionKeepsItsBudget: one that is larger starts slower.
func TestEveryFunctionKeepsItsBudget(t *testing.T) {
	t.Chdir("../..")
	for _, name := range functions {
		binary := filepath.Join(t.TempDir(), "bootstrap")
		if err := build(t.Context(), "./functions/"+name, "amd64", binary); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(binary)
		if err != nil {
			t.Fatal(err)
		}
		if most := maxBinary(name); info.Size() > int64(most) {
			t.Errorf("%s has %d bytes, more than its budget of %d", name, info.Size(), most)
		}
	}
}
