package terraformtest

import (
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// examples are applied, to nothing, with these variables.
var examples = map[string]object{
	"minimal": {"operator_key_sha256": digest},
	"production": {
		"operator_key_sha256": digest, "kms_key_arn": "arn:aws:kms:us-west-2:123456789012:key/1", "alarm_topic_arn": "arn:aws:sns:us-west-2:123456789012:alarms",
		"jwt": object{"issuer": "https://id.example.com", "audience": []string{"fanout"}},
	},
	"gpu-worker": {
		"operator_key_sha256": digest, "vpc_id": "vpc-1", "subnet_ids": []string{"subnet-1"}, "route_table_ids": []string{"rtb-1"},
		"worker_image": "worker:1", "model_image": "vllm:1",
	},
}

const digest = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

func TestExamplesAreWhole(t *testing.T) {
	folders, err := os.ReadDir(filepath.Join(module, "examples"))
	if err != nil {
		t.Fatal(err)
	}
	if len(folders) != len(examples) {
		t.Errorf("there are %d examples, and %d are tested", len(folders), len(examples))
	}
	for name, variables := range examples {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := os.Stat(filepath.Join(module, "examples", name, "README.md")); err != nil {
				t.Error(err)
			}
			f := newTerraform(t, filepath.Join("examples", name))
			f.run("validate", "-no-color")
			variables["packages"] = "../../tests/packages"
			f.apply(variables)
			var outputs map[string]struct{ Value any }
			if err := json.Unmarshal([]byte(f.run("output", "-json")), &outputs); err != nil {
				t.Fatal(err)
			}
			if url, want := outputs["api_url"].Value, madeUpURL+cmp.Or(map[string]string{"production": "fanout-production"}[name], "fanout")+"/v1"; url != want {
				t.Errorf("the API is at %v, not %s", url, want)
			}
		})
	}
}
