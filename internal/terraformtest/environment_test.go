package terraformtest

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/fanout-inference/fanout/internal/config"
)

// loads read the environment of each function as its main does, and say which variables it knows.
var loads = map[string]func(environ []string) (known []string, err error){
	"api": load[config.API], "ingest": load[config.Ingest], "worker": load[config.Worker], "aggregate": load[config.Aggregate], "notify": load[config.Notify],
}

func load[T any, P config.Checked[T]](environ []string) ([]string, error) {
	c, err := config.Load[T, P](environ)
	return variablesOf(reflect.TypeOf(c)), err
}

func variablesOf(t reflect.Type) (all []string) {
	for i := range t.NumField() {
		f := t.Field(i)
		if name, _, _ := strings.Cut(f.Tag.Get("env"), ","); name != "" {
			all = append(all, name)
		} else if f.Type.Kind() == reflect.Struct {
			all = append(all, variablesOf(f.Type)...)
		}
	}
	return all
}

// unset are variables that the module never sets, each with its reason.
var unset = map[string]string{
	"FANOUT_UPSTREAM_KEY":    "a key stands in the parameter store or in Secrets Manager, and not in a function's configuration",
	"FANOUT_OPERATOR_TENANT": "its default will do",
	"FANOUT_MAX_FILE_BYTES":  "its default will do",
}

// TestFunctionsAreToldWhatTheyRead: each starts with what it is told, is told nothing else, and every variable is set by some
// knob.
func TestFunctionsAreToldWhatTheyRead(t *testing.T) {
	t.Parallel()
	told, known := map[string]bool{}, map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(variants)) {
		for _, f := range apply(t, name).of("aws_lambda_function") {
			function := strings.TrimPrefix(f.text("function_name"), "fanout-")
			variables, _ := f.block("environment")["variables"].(map[string]any)
			var environ []string
			for variable, value := range variables {
				environ = append(environ, variable+"="+value.(string))
				told[variable] = true
			}
			reads, err := loads[function](environ)
			if err != nil {
				t.Errorf("%s, %s: %v", name, function, err)
			}
			for _, variable := range reads {
				known[variable] = true
			}
			for variable := range variables {
				if !slices.Contains(reads, variable) {
					t.Errorf("%s, %s: it is told %s, which it does not read", name, function, variable)
				}
			}
		}
	}
	for variable := range known {
		if told[variable] == (unset[variable] != "") {
			t.Errorf("%s: it is set: %v; the reason why not: %q", variable, told[variable], unset[variable])
		}
	}
}
