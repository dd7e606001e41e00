package terraformtest

import (
	"strings"
	"testing"
)

func TestTheModuleIsFormatted(t *testing.T) {
	f := newTerraform(t, "")
	if out, err := f.try("fmt", "-check", "-recursive"); err != nil {
		t.Errorf("terraform fmt -recursive infra/terraform:\n%s", out)
	}
}

// TestTheModuleKeepsItsPromises runs tests/*.tftest.hcl.
func TestTheModuleKeepsItsPromises(t *testing.T) {
	t.Parallel()
	f := newTerraform(t, "")
	f.run("validate", "-no-color")
	out, err := f.try("test", "-no-color")
	if err != nil {
		t.Errorf("terraform test: %v\n%s", err, out)
	}
	if !strings.Contains(out, " passed, 0 failed") {
		t.Errorf("nothing was tested:\n%s", out)
	}
}
