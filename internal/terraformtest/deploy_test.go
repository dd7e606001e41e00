package terraformtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestTheWayToDeployIsOfThisModule: every variable, output and command of docs/deploy.md is there.
func TestTheWayToDeployIsOfThisModule(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/deploy.md")
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile(filepath.Join(module, "examples/minimal/main.tf"))
	if err != nil {
		t.Fatal(err)
	}
	variables, err := os.ReadFile(filepath.Join(module, "variables.tf"))
	if err != nil {
		t.Fatal(err)
	}
	fanout := filepath.Join(t.TempDir(), "fanout")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", fanout, "../../cmd/fanout").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	checked := map[string]int{}
	has := func(kind, name, in string, pattern string) {
		checked[kind]++
		if !regexp.MustCompile(strings.ReplaceAll(pattern, "NAME", regexp.QuoteMeta(name))).MatchString(in) {
			t.Errorf("there is no %s %s", kind, name)
		}
	}
	for line := range strings.Lines(string(page)) {
		for _, m := range regexp.MustCompile(`-var (\w+)=|TF_VAR_(\w+)=`).FindAllStringSubmatch(line, -1) {
			has("variable", m[1]+m[2], string(example), `(?m)^variable "NAME"`)
		}
		for _, m := range regexp.MustCompile(`terraform output -raw (\w+)`).FindAllStringSubmatch(line, -1) {
			has("output", m[1], string(example), `(?m)^output "NAME"`)
		}
		if m := regexp.MustCompile(`^    upstream = \{ (.*) \}`).FindStringSubmatch(line); m != nil {
			for _, field := range regexp.MustCompile(`(\w+) =`).FindAllStringSubmatch(m[1], -1) {
				has("field of upstream", field[1], string(variables), `(?m)^    NAME +=`)
			}
		}
		command, ok := strings.CutPrefix(line, "    fanout ")
		if !ok {
			continue
		}
		words := strings.Fields(command)
		help, err := exec.CommandContext(t.Context(), fanout, words[0], words[1], "--help").Output()
		if err != nil || !strings.Contains(string(help), "fanout "+words[0]+" "+words[1]) {
			t.Errorf("fanout %s %s: %v\n%s", words[0], words[1], err, help)
		}
		for _, flag := range slices.DeleteFunc(words[2:], func(w string) bool { return !strings.HasPrefix(w, "--") }) {
			has("flag", flag, string(help), `(?m)^ .*NAME\b`)
		}
		checked["command"]++
	}
	for kind, least := range map[string]int{"variable": 4, "output": 2, "field of upstream": 6, "flag": 5, "command": 5} {
		if checked[kind] < least {
			t.Errorf("only %d of kind %s were found in the page", checked[kind], kind)
		}
	}
	for _, script := range regexp.MustCompile(`scripts/\w+`).FindAllString(string(page), -1) {
		if _, err := os.Stat(filepath.Join("../..", script)); err != nil {
			t.Error(err)
		}
	}
}
