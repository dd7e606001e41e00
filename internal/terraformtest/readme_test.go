package terraformtest

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the tables of infra/terraform/README.md")

// described is a variable or an output, as a plan tells of it.
type described struct {
	Description string
	Default     json.RawMessage
}

// TestTheREADMEListsInputsAndOutputs: as the module has them.
func TestTheREADMEListsInputsAndOutputs(t *testing.T) {
	t.Parallel()
	f := newTerraform(t, "")
	f.run("plan", "-input=false", "-no-color", "-refresh=false", "-out=plan", "-var=packages=tests/packages")
	var plan struct {
		Configuration struct {
			RootModule struct{ Variables, Outputs map[string]described } `json:"root_module"`
		}
	}
	if err := json.Unmarshal([]byte(f.run("show", "-json", "plan")), &plan); err != nil {
		t.Fatal(err)
	}
	root := plan.Configuration.RootModule
	var b strings.Builder
	b.WriteString("## Inputs\n\n| name | default | |\n|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(root.Variables)) {
		v := root.Variables[name]
		otherwise := "*required*"
		if v.Default != nil {
			otherwise = "`" + string(v.Default) + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, otherwise, cell(v.Description))
	}
	b.WriteString("\n## Outputs\n\n| name | |\n|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(root.Outputs)) {
		fmt.Fprintf(&b, "| `%s` | %s |\n", name, cell(root.Outputs[name].Description))
	}
	path := filepath.Join(module, "README.md")
	readme, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- written by go test ./internal/terraformtest -update -->\n", "<!-- until here -->"
	between := regexp.MustCompile(`(?s)` + regexp.QuoteMeta(begin) + `.*` + regexp.QuoteMeta(end))
	if !between.Match(readme) {
		t.Fatalf("%s has no place for the tables, between %q and %q", path, begin, end)
	}
	want := between.ReplaceAllLiteralString(string(readme), begin+b.String()+end)
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, string(readme)); diff != "" {
		t.Errorf("go test ./internal/terraformtest -update (-want +got):\n%s", diff)
	}
}

// cell is a text in a table.
func cell(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.ReplaceAll(strings.Join(lines, "<br>"), "|", "\\|")
}
