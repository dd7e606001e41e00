package awstest

import (
	"context"
	"crypto/sha256"
	_ "embed" // the servers' packages, pinned
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/gofrs/flock"
)

// versitygw is the S3 server. It is built from its module, as scripts/test builds the linter.
const (
	versitygwModule  = "github.com/versity/versitygw/cmd/versitygw"
	versitygwVersion = "v1.8.0"
)

// The packages of the other servers. After a change of package.json, in servers/:
//
//	npm install --package-lock-only --ignore-scripts --omit-lockfile-registry-resolved
var (
	//go:embed servers/package.json
	packageJSON []byte
	//go:embed servers/package-lock.json
	packageLock []byte
	//go:embed servers/serve.cjs
	serveScript string
)

// installWithin leaves a test that has to install time to say what went wrong, before go test ends it after ten minutes.
const installWithin = 8 * time.Minute

// Install installs what the servers need, below .cache, unless it is there. Any number of processes may do so at once.
func Install(ctx context.Context) error {
	_, npm := installNodeServers(ctx)
	_, s3 := installVersitygw(ctx)
	return errors.Join(npm, s3)
}

// installNodeServers returns the directory that holds node_modules, as the lock file has it.
func installNodeServers(ctx context.Context) (dir string, err error) {
	return InstallPackages(ctx, "aws-servers", packageJSON, packageLock)
}

// InstallPackages installs packages of npm as a lock file has them, below .cache and the name, unless they are there, and returns
// the directory that holds node_modules.
func InstallPackages(ctx context.Context, name string, packageJSON, packageLock []byte) (dir string, err error) {
	sum := sha256.Sum256(packageLock)
	return install(ctx, filepath.Join(name, hex.EncodeToString(sum[:8])), "node_modules", func(ctx context.Context, dir string) error {
		for name, body := range map[string][]byte{"package.json": packageJSON, "package-lock.json": packageLock} {
			if err := os.WriteFile(filepath.Join(dir, name), body, 0o644); err != nil {
				return err
			}
		}
		if _, err := exec.LookPath("npm"); err != nil {
			return fmt.Errorf("%w: these tests need Node with npm", err)
		}
		// What they need is prebuilt: no package's install script has to run.
		return finish(ctx, dir, os.Environ(), "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	})
}

// installVersitygw returns the directory that holds the binary.
func installVersitygw(ctx context.Context) (dir string, err error) {
	name := fmt.Sprintf("versitygw-%s-%s", versitygwVersion, runtime.Version())
	return install(ctx, filepath.Join("bin", name), "versitygw", func(ctx context.Context, dir string) error {
		return finish(ctx, dir, append(os.Environ(), "GOFLAGS=", "GOBIN="+dir), "go", "install", versitygwModule+"@"+versitygwVersion)
	})
}

// install returns the directory of that name below .cache, made by fill if it does not hold file yet. Whoever sees it sees
// it whole; who comes second waits.
func install(ctx context.Context, name, file string, fill func(ctx context.Context, dir string) error) (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, name)
	there := func() bool {
		_, err := os.Stat(filepath.Join(dir, file))
		return err == nil
	}
	if there() {
		return dir, nil
	}
	ctx, cancel := context.WithTimeout(ctx, installWithin)
	defer cancel()
	part := dir + ".part"
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	lock := flock.New(dir + ".lock")
	if _, err := lock.TryLockContext(ctx, 100*time.Millisecond); err != nil {
		return "", fmt.Errorf("wait for who installs %s: %w", dir, err)
	}
	defer lock.Close()
	if there() {
		return dir, nil
	}
	// What an interrupted installation left, or somebody cleared by half.
	if err := errors.Join(os.RemoveAll(part), os.RemoveAll(dir), os.Mkdir(part, 0o755)); err != nil {
		return "", err
	}
	if err := fill(ctx, part); err != nil {
		return "", fmt.Errorf("install %s: %w", name, err)
	}
	return dir, os.Rename(part, dir)
}

func finish(ctx context.Context, dir string, env []string, args ...string) error {
	p, err := run(command{args: args, dir: dir, env: env})
	if err != nil {
		return err
	}
	if err := p.finish(ctx); err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	return nil
}

// cacheDir is .cache of the repository that the test runs in.
func cacheDir() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			return filepath.Join(at, ".cache"), nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("find .cache: %s is in no Go module", dir)
		}
	}
}

// node is the Node of the packages: some servers need at least 22.5. For a system that the lock file has none for, the
// Node on PATH has to do.
func node(dir string) string {
	arch := map[string]string{"amd64": "x64"}[runtime.GOARCH]
	if arch == "" {
		arch = runtime.GOARCH
	}
	path := filepath.Join(dir, "node_modules", "node-"+runtime.GOOS+"-"+arch, "bin", "node")
	if _, err := os.Stat(path); err != nil {
		return "node"
	}
	return path
}
