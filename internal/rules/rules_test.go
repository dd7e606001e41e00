package rules

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/fanout-inference/fanout"

// pkg is what `go list` says of a package, tests left out.
type pkg struct {
	ImportPath, Name, Doc string
	Imports, Deps         []string
	GoFiles               []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command("go", "list", "-json=ImportPath,Name,Doc,Imports,Deps,GoFiles", "./...")
	cmd.Dir, cmd.Stderr = "../..", &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	var all []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 5 {
		t.Fatalf("go list found %d packages only", len(all))
	}
	return all
}

func within(importPath, place string) bool {
	return importPath == place || strings.HasPrefix(importPath, place+"/")
}

// TestImportsPointOneWay holds each row: no package below place may have, directly or through others, what is forbidden.
func TestImportsPointOneWay(t *testing.T) {
	rows := []struct {
		place     string
		forbidden []string
		why       string
	}{
		{"pkg/jobs", []string{"net/http", "database/sql", "os/exec", "modernc.org/sqlite", "github.com/aws", module + "/pkg/upstream", module + "/internal"},
			"the rules know no queue service, database, HTTP server or command line"},
		{"pkg/jobs/poll", []string{"net/http", "database/sql", "os/exec", "modernc.org/sqlite", "github.com/aws", module + "/pkg/upstream", module + "/internal",
			module + "/pkg/jobs/localjobs", module + "/pkg/jobs/awsjobs"},
			"a pump knows queues by what they do, whoever keeps them"},
		{"pkg/upstream", []string{"database/sql", "modernc.org/sqlite", module + "/pkg/jobs/localjobs", module + "/internal"},
			"an upstream makes one call; it keeps nothing"},
		{"pkg/jobs/localjobs", []string{"net/http", "github.com/aws", module + "/pkg/upstream", module + "/internal"},
			"a driver knows the rules and its engine, and no other driver"},
		{"pkg/jobs/awsjobs", []string{"database/sql", "modernc.org/sqlite", module + "/pkg/jobs/localjobs", module + "/pkg/upstream", module + "/internal"},
			"a driver knows the rules and its services, and no other driver"},
		{"pkg/webhook", []string{"database/sql", "github.com/aws", module + "/pkg/upstream", module + "/pkg/jobs/localjobs", module + "/internal"},
			"who calls strangers knows one message, and neither queues nor records"},
		{"pkg/batchapi", []string{"database/sql", "modernc.org/sqlite", "github.com/aws", module + "/pkg/upstream", module + "/pkg/jobs/localjobs", module + "/pkg/jobs/awsjobs", module + "/internal"},
			"the API knows the rules, whoever keeps what it says and whoever answers"},
		{"pkg/console", []string{"github.com", "modernc.org", "golang.org", "pgregory.net"},
			"the console is files: all that it knows it asks the API for, in the browser"},
		{"internal/inbox", []string{"net/http", "github.com/aws", module + "/pkg/upstream", module + "/pkg/batchapi"},
			"a folder needs no API"},
		{"functions", []string{"database/sql", "modernc.org/sqlite", module + "/pkg/jobs/localjobs", module + "/internal/cli"},
			"a function carries no database and no command line: its size is paid for with each start"},
		{"internal/config", []string{"github.com/aws"}, "what a deployment is told says nothing of clients"},
	}
	for _, p := range packages(t) {
		for _, r := range rows {
			exact := r.place == "pkg/jobs" // its drivers are rows of their own
			if here := module + "/" + r.place; p.ImportPath != here && (exact || !within(p.ImportPath, here)) {
				continue
			}
			for _, dep := range p.Deps {
				if i := slices.IndexFunc(r.forbidden, func(f string) bool { return within(dep, f) }); i >= 0 {
					t.Errorf("%s depends on %s: %s", p.ImportPath, dep, r.why)
				}
			}
		}
	}
}

// TestFewKnowTheCloud: what a laptop runs links the clients of AWS for `fanout worker`, and nothing else of it touches them.
func TestFewKnowTheCloud(t *testing.T) {
	few := []string{"pkg/jobs/awsjobs", "internal/cloud", "internal/upstreams", "internal/function", "internal/frontdoor", "internal/awstest", "internal/lambdatest", "bench/barefunction"}
	for _, p := range packages(t) {
		if slices.ContainsFunc(few, func(place string) bool { return within(p.ImportPath, module+"/"+place) }) {
			continue
		}
		for _, i := range p.Imports {
			if within(i, "github.com/aws") {
				t.Errorf("%s imports %s: only %v do", p.ImportPath, i, few)
			}
		}
	}
}

// TestTheRulesReadNoEnvironment: what pkg/jobs does follows from its arguments.
func TestTheRulesReadNoEnvironment(t *testing.T) {
	for _, p := range packages(t) {
		if p.ImportPath == module+"/pkg/jobs" && slices.Contains(p.Imports, "os") {
			t.Errorf("%s imports os: time, ids and configuration are fields", p.ImportPath)
		}
	}
}

func TestEveryPackageSaysInOneSentenceWhatItIs(t *testing.T) {
	saysNothing := []string{"util", "utils", "common", "shared", "helper", "helpers", "types", "base", "misc", "manager", "service"}
	for _, p := range packages(t) {
		if len(p.GoFiles) > 0 && p.Doc == "" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
		if slices.Contains(saysNothing, path.Base(p.ImportPath)) {
			t.Errorf("%s: the name says nothing", p.ImportPath)
		}
	}
}
