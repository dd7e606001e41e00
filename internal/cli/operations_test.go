package cli

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestEverySymptomOfOperationsIsRehearsed holds docs/operations.md to what there is: each command is one, with its flags, and
// each symptom names tests that are there.
func TestEverySymptomOfOperationsIsRehearsed(t *testing.T) {
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := testsOf(t, "../..")
	symptoms := strings.Split(string(page), "\n## ")[1:]
	if len(symptoms) < 12 {
		t.Errorf("there are %d symptoms", len(symptoms))
	}
	for _, symptom := range symptoms {
		title, _, _ := strings.Cut(symptom, "\n")
		commands := regexp.MustCompile(`(?m)^    (fanout .*)$`).FindAllStringSubmatch(symptom, -1)
		if len(commands) == 0 {
			t.Errorf("%s: no command", title)
		}
		for _, c := range commands {
			if err := parses(c[1]); err != nil {
				t.Errorf("%s: %s: %v", title, c[1], err)
			}
		}
		_, by, ok := strings.Cut(symptom, "\nRehearsed: ")
		if !ok {
			t.Errorf("%s: nothing rehearses it", title)
		}
		for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(by, -1) {
			if !rehearses(tests, name[1], commands) {
				t.Errorf("%s: %s is no test, or no script that runs one of the commands", title, name[1])
			}
		}
	}
}

// parses tells whether a line is a command of fanout with flags that it has.
func parses(line string) error {
	line, _, _ = strings.Cut(line, "  #")
	words := strings.Fields(strings.ReplaceAll(line, `"`, ""))[1:]
	root := newRoot()
	root.SilenceErrors, root.SilenceUsage = true, true
	cmd, rest, err := root.Find(words)
	if err != nil {
		return err
	}
	if !cmd.HasParent() || cmd.HasSubCommands() {
		return os.ErrNotExist
	}
	return cmd.ParseFlags(rest)
}

// testsOf is the text of each file of tests, and of each script, by its path.
func testsOf(t *testing.T, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".cache" || d.Name() == "node_modules" || d.Name() == ".git"):
			return filepath.SkipDir
		case d.IsDir():
			return nil
		}
		if strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, ".txtar") || strings.Contains(path, "jobstest") {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			name, err := filepath.Rel(root, path)
			all[name] = string(text)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// rehearses tells whether a name is a test, or a part of one, or a script that runs one of the commands.
func rehearses(tests map[string]string, name string, commands [][]string) bool {
	if script, ok := tests[name]; ok {
		for _, c := range commands {
			words := strings.Fields(c[1])
			if len(words) >= 3 && strings.Contains(script, strings.Join(words[:3], " ")) || strings.Contains(script, strings.Join(words[:2], " ")) {
				return true
			}
		}
		return false
	}
	function, part, _ := strings.Cut(name, "/")
	found, inPart := false, part == ""
	for path, text := range tests {
		found = found || strings.HasSuffix(path, "_test.go") && strings.Contains(text, "func "+function+"(t ")
		inPart = inPart || strings.Contains(text, `"`+part+`"`)
	}
	return found && inPart
}
