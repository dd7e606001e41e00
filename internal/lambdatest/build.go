package lambdatest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/gofrs/flock"
)

// buildFlags are what scripts/build makes the zips with.
var buildFlags = []string{"-tags", "lambda.norpc", "-trimpath", "-ldflags", "-s -w"}

var built sync.Map // directory → func() (string, error)

// Build makes the main package in dir (relative to the caller's package) into the bootstrap that Lambda would run, for this
// machine's architecture, once a test process, and returns its path, which is below .cache.
func Build(t testing.TB, dir string) string {
	t.Helper()
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	once, _ := built.LoadOrStore(dir, sync.OnceValues(func() (string, error) { return build(dir) }))
	path, err := once.(func() (string, error))()
	if err != nil {
		t.Fatalf("build %s: %v", dir, err)
	}
	return path
}

// build leaves a binary that is up to date alone; processes that build the same one do so one after the other.
func build(dir string) (string, error) {
	root, err := moduleRoot(dir)
	if err != nil {
		return "", err
	}
	place, err := filepath.Rel(root, dir)
	if err != nil {
		return "", err
	}
	path := filepath.Join(root, ".cache", "lambdatest", place, "bootstrap")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute) // before go test ends us after ten
	defer cancel()
	lock := flock.New(path + ".lock")
	if _, err := lock.TryLockContext(ctx, 20*time.Millisecond); err != nil {
		return "", fmt.Errorf("wait for who builds it: %w", err)
	}
	defer lock.Close()
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-o", path}, append(buildFlags, ".")...)...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
}

// moduleRoot is the directory of the go.mod that dir belongs to.
func moduleRoot(dir string) (string, error) {
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("%s is in no Go module", dir)
		}
	}
}
