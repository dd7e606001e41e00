package officialclients

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/fanout-inference/fanout/internal/awstest"
)

// TestContentThatIsElsewhere: where a front door is too small, the content of a file is a redirect to another host. Who follows
// it leaves the key behind; OpenAI's Go client does not go to another host, and says so. docs/aws.md tells of it.
func TestContentThatIsElsewhere(t *testing.T) {
	const content = "it was elsewhere"
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("the key came along")
		}
		_, _ = io.WriteString(w, content)
	}))
	defer elsewhere.Close()
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL+"/object", http.StatusFound)
	}))
	defer api.Close()
	base := strings.Replace(api.URL, "127.0.0.1", "localhost", 1) + "/v1"

	packages, err := awstest.InstallPackages(t.Context(), "official-clients", packageJSON, packageLock)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := filepath.Join(dir, "content.mjs")
	if err := os.Symlink(filepath.Join(packages, "node_modules"), filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	const code = "import OpenAI from 'openai'\nprocess.stdout.write(await (await new OpenAI().files.content('file-x')).text())\n"
	if err := os.WriteFile(script, []byte(code), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"node": {"node", script}, "curl": {"curl", "-sSL", base + "/files/file-x/content", "-H", "Authorization: Bearer secret"},
	} {
		cmd := exec.CommandContext(within(t), args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "OPENAI_BASE_URL="+base, "OPENAI_API_KEY=secret")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.HasSuffix(string(out), content) {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
	client := openai.NewClient(option.WithBaseURL(base), option.WithAPIKey("secret"), option.WithMaxRetries(0))
	r, err := client.Files.Content(t.Context(), "file-x")
	if err == nil {
		_ = r.Body.Close() // it was not to be had
	}
	if got := fmt.Sprint(err); !strings.Contains(got, "origin must match") {
		t.Errorf("the Go client: %s; if it follows now, docs/aws.md is to say so", got)
	}
}
