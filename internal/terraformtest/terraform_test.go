package terraformtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// module is where the module stands.
const module = "../../infra/terraform"

// providerVersion is what the stand-in says it is: that whose schemas it has.
const providerVersion = "6.45.0"

// terraform runs the program on a copy of the module, so that nothing is left in it.
type terraform struct {
	t   *testing.T
	dir string
	env []string
}

// mirror is a folder with the stand-in, as a registry would keep it, and a configuration that leads there.
var mirror = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "fanout-terraform-")
	if err != nil {
		return "", err
	}
	mirrorIn = dir
	place := filepath.Join(dir, "registry.terraform.io/hashicorp/aws", providerVersion, runtime.GOOS+"_"+runtime.GOARCH)
	if err := os.MkdirAll(place, 0o755); err != nil {
		return "", err
	}
	out, err := exec.Command("go", "build", "-o", filepath.Join(place, "terraform-provider-aws_v"+providerVersion), "./provider").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the provider: %w\n%s", err, out)
	}
	config := "provider_installation {\n  filesystem_mirror {\n    path = \"" + dir + "\"\n  }\n}\n"
	return dir, os.WriteFile(filepath.Join(dir, "config.tfrc"), []byte(config), 0o600)
})

var mirrorIn string // the folder that TestMain removes

func TestMain(m *testing.M) {
	code := m.Run()
	if mirrorIn != "" {
		_ = os.RemoveAll(mirrorIn)
	}
	os.Exit(code)
}

// leaveOut leaves a test out that applies the module, where it would not be to nothing, which only the stand-in makes sure of.
func leaveOut(t *testing.T) {
	t.Helper()
	if os.Getenv("FANOUT_TEST_AWS_PROVIDER") != "" {
		t.Skip("the real provider would make it")
	}
	needTerraform(t)
}

// needTerraform leaves a test out where nobody can run it, which scripts/test tells. In CI that is a failure.
func needTerraform(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("terraform"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("terraform is not installed")
		}
		t.Skip("terraform is not installed: the module is NOT TESTED")
	}
}

// newTerraform copies the module and makes ready the folder below it, "" for the module itself.
func newTerraform(t *testing.T, below string) *terraform {
	t.Helper()
	needTerraform(t)
	root := t.TempDir()
	if err := os.CopyFS(root, os.DirFS(module)); err != nil {
		t.Fatal(err)
	}
	f := &terraform{t: t, dir: filepath.Join(root, below), env: append(os.Environ(), "TF_IN_AUTOMATION=1", "CHECKPOINT_DISABLE=1", "AWS_EC2_METADATA_DISABLED=true")}
	if os.Getenv("FANOUT_TEST_AWS_PROVIDER") == "" {
		dir, err := mirror()
		if err != nil {
			t.Fatal(err)
		}
		f.env = append(f.env, "TF_CLI_CONFIG_FILE="+filepath.Join(dir, "config.tfrc"))
	}
	f.run("init", "-backend=false", "-input=false", "-no-color")
	return f
}

// run runs a command, which must succeed, and returns what it printed.
func (f *terraform) run(args ...string) string {
	f.t.Helper()
	out, err := f.try(args...)
	if err != nil {
		f.t.Fatalf("terraform %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (f *terraform) try(args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(f.t.Context(), "terraform", args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = f.dir, f.env, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String() + stderr.String(), err
	}
	return stdout.String(), nil
}

// apply applies the module with these variables, to nothing, so that every value is known, and returns what was made.
func (f *terraform) apply(variables map[string]any) []stateResource {
	f.t.Helper()
	leaveOut(f.t)
	raw, err := json.Marshal(variables)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(f.dir, "test.auto.tfvars.json"), raw, 0o600); err != nil {
		f.t.Fatal(err)
	}
	f.run("apply", "-auto-approve", "-input=false", "-no-color", "-refresh=false")
	var state struct {
		Values struct {
			RootModule stateModule `json:"root_module"`
		}
	}
	if err := json.Unmarshal([]byte(f.run("show", "-json")), &state); err != nil {
		f.t.Fatal(err)
	}
	return state.Values.RootModule.all()
}

type stateModule struct {
	Resources    []stateResource
	ChildModules []stateModule `json:"child_modules"`
}

func (m *stateModule) all() []stateResource {
	all := m.Resources
	for i := range m.ChildModules {
		all = append(all, m.ChildModules[i].all()...)
	}
	return all
}

// stateResource is what was made.
type stateResource struct {
	Address, Mode, Type, Name string
	Index                     any
	Values                    map[string]any
}
