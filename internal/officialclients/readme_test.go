package officialclients

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/fanout-inference/fanout/internal/awstest"
)

// block is the code of a language in the README.
func block(t *testing.T, language string) string {
	t.Helper()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllSubmatch(readme, -1)
	if len(found) != 1 {
		t.Fatalf("the README has %d blocks of %s, not one", len(found), language)
	}
	return string(found[0][1])
}

// TestTheCallsOfTheREADMEWork runs them as they stand there, but for where the server is.
func TestTheCallsOfTheREADMEWork(t *testing.T) {
	s := start(t)
	if env := block(t, "sh"); !strings.Contains(env, "OPENAI_BASE_URL=") || !strings.Contains(env, "OPENAI_API_KEY=") {
		t.Errorf("it tells clients by other variables: %s", env)
	}
	packages, err := awstest.InstallPackages(t.Context(), "official-clients", packageJSON, packageLock)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := filepath.Join(dir, "readme.mjs")
	if err := os.Symlink(filepath.Join(packages, "node_modules"), filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(script, []byte(block(t, "js")), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{"node": {"node", script}, "curl": {"bash", "-euo", "pipefail", "-c", block(t, "bash")}} {
		cmd := exec.CommandContext(within(t), args[0], args[1:]...)
		var stderr bytes.Buffer
		cmd.Dir, cmd.Stderr = "../..", &stderr
		cmd.Env = append(os.Environ(), "OPENAI_BASE_URL="+s.url, "OPENAI_API_KEY="+s.key)
		out, err := cmd.Output()
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, &stderr)
			continue
		}
		id := regexp.MustCompile(`batch_[a-z0-9]+`).FindString(string(out))
		b, err := newGoClient(s).ended(within(t), id)
		if err != nil || b.Status != "completed" || b.RequestCounts.Completed != 300 {
			t.Errorf("%s made batch %q, which ends as %+v, %v; it printed %s", name, id, b, err, out)
		}
	}
}
