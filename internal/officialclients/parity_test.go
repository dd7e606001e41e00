package officialclients

import (
	"bufio"
	"bytes"
	_ "embed" // what the Node client is, pinned
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fanout-inference/fanout/internal/awstest"
)

var update = flag.Bool("update", false, "write docs/parity.md")

const parityFile = "../../docs/parity.md"

var (
	//go:embed node/package.json
	packageJSON []byte
	//go:embed node/package-lock.json
	packageLock []byte
	//go:embed node/client.mjs
	nodeScript []byte
)

// TestOfficialClientsWork asks each client for each feature, and compares what came of it with what docs/parity.md says.
func TestOfficialClientsWork(t *testing.T) {
	s := start(t)
	s.lossy = losing(t, s.url)
	verdicts := map[string]map[string]bool{} // client → feature → works
	for _, client := range []struct {
		name string
		test func(t *testing.T, s *server, verdict func(feature, wrong string))
	}{
		{"openai-go " + goVersion(t), testGo}, {"openai-node " + nodeVersion(t), testNode}, {"curl", testCurl},
	} {
		verdicts[client.name] = map[string]bool{}
		client.test(t, s, func(feature, wrong string) {
			verdicts[client.name][feature] = wrong == ""
			if wrong != "" {
				t.Errorf("%s, %s:\n%s", client.name, feature, wrong)
			}
		})
	}
	table := parityTable(verdicts)
	if *update {
		if err := os.WriteFile(parityFile, []byte(table), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	said, err := os.ReadFile(parityFile)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(said), table); diff != "" {
		t.Errorf("docs/parity.md says otherwise; go test ./internal/officialclients -update (-said +is):\n%s", diff)
	}
}

func goVersion(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Version}}", "github.com/openai/openai-go/v3").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(strings.TrimSpace(string(out)), "v")
}

func nodeVersion(t *testing.T) string {
	t.Helper()
	var p struct{ Dependencies map[string]string }
	if err := json.Unmarshal(packageJSON, &p); err != nil {
		t.Fatal(err)
	}
	return p.Dependencies["openai"]
}

func testGo(t *testing.T, s *server, verdict func(feature, wrong string)) {
	for _, feature := range slices.Sorted(maps.Keys(goFeatures)) {
		verdict(feature, wrongOf(goFeatures[feature](within(t), newGoClient(s))))
	}
}

func testCurl(t *testing.T, s *server, verdict func(feature, wrong string)) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Fatalf("curl is needed: %v", err)
	}
	for _, feature := range slices.Sorted(maps.Keys(curlFeatures)) {
		verdict(feature, wrongOf(curlFeatures[feature](within(t), curlClient{s, t.TempDir()})))
	}
}

func wrongOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// testNode runs the script of the Node client, which prints a line a feature.
func testNode(t *testing.T, s *server, verdict func(feature, wrong string)) {
	dir, err := awstest.InstallPackages(t.Context(), "official-clients", packageJSON, packageLock)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(within(t), "node", "--input-type=module", "-")
	cmd.Stdin = bytes.NewReader(nodeScript)
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), "CLIENT_PACKAGES="+dir, "BASE_URL="+s.url, "LOSSY_URL="+s.lossy, "API_KEY="+s.key,
		"LINES="+answeredLines, "REFUSED="+refusedLine, "SLOW="+slowLines)
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("node: %v\n%s", err, out)
	}
	n := 0
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); n++ {
		var line struct{ Feature, Wrong string }
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		verdict(line.Feature, line.Wrong)
	}
	if n == 0 {
		t.Error("the Node client was asked for nothing")
	}
}

// parityTable is docs/parity.md.
func parityTable(verdicts map[string]map[string]bool) string {
	clients := slices.Sorted(maps.Keys(verdicts))
	features := map[string]bool{}
	for _, of := range verdicts {
		for f := range of {
			features[f] = true
		}
	}
	var b strings.Builder
	b.WriteString(`# What official clients can do

Written by ` + "`go test ./internal/officialclients -update`" + `, from what the clients did: unmodified, against the built ` + "`fanout serve`" + `. An empty
field is a feature that the client does not have, or that is not asked of it. Every body is held to OpenAI's published schemas
besides (` + "`pkg/batchapi`" + `).

`)
	fmt.Fprintf(&b, "| feature | %s |\n|---|%s\n", strings.Join(clients, " | "), strings.Repeat("---|", len(clients)))
	for _, f := range slices.Sorted(maps.Keys(features)) {
		fmt.Fprintf(&b, "| %s |", f)
		for _, c := range clients {
			works, asked := verdicts[c][f]
			switch {
			case !asked:
				b.WriteString("  |")
			case works:
				b.WriteString(" works |")
			default:
				b.WriteString(" **fails** |")
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}
