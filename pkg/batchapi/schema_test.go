package batchapi

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// testdata/openai-schemas.json is an extract of OpenAI's published OpenAPI description (MIT). Its "overlay" says where the
// description's own examples, and the live service, differ from its types: those are applied here.
var openAISchemas = sync.OnceValues(func() (map[string]any, error) {
	raw, err := os.ReadFile("testdata/openai-schemas.json")
	if err != nil {
		return nil, err
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	all := doc.(map[string]any)
	defs, overlay := all["$defs"].(map[string]any), all["overlay"].(map[string]any)
	each := func(rule string, apply func(def map[string]any, name string)) {
		for def, names := range overlay[rule].(map[string]any) {
			for _, name := range names.([]any) {
				apply(defs[def].(map[string]any), name.(string))
			}
		}
	}
	properties := func(def map[string]any) map[string]any { return def["properties"].(map[string]any) }
	each("notEmptyString", func(def map[string]any, name string) {
		if p, ok := properties(def)[name].(map[string]any); ok && p["type"] == "string" {
			p["minLength"] = json.Number("1")
		}
	})
	each("nullable", func(def map[string]any, name string) {
		properties(def)[name] = map[string]any{"anyOf": []any{properties(def)[name], map[string]any{"type": "null"}}}
	})
	each("explicit", func(def map[string]any, name string) {
		required, _ := def["required"].([]any)
		if !slices.Contains(required, any(name)) {
			def["required"] = append(required, name)
		}
	})
	return all, nil
})

// conform holds a body to one of OpenAI's schemas.
func conform(t *testing.T, schema string, body []byte) {
	t.Helper()
	all, err := openAISchemas()
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("openai.json", all); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("openai.json#/$defs/" + schema)
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		t.Fatalf("%s: %v: %q", schema, err, body)
	}
	if err := s.Validate(v); err != nil {
		t.Errorf("no %s: %v\n%s", schema, err, body)
	}
}

func TestSchemasHoldUsToThem(t *testing.T) {
	all, err := openAISchemas()
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("openai.json", all); err != nil {
		t.Fatal(err)
	}
	batch, err := c.Compile("openai.json#/$defs/Batch")
	if err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(b map[string]any){
		"an empty file id":    func(b map[string]any) { b["error_file_id"] = "" },
		"a time left out":     func(b map[string]any) { delete(b, "failed_at") },
		"an unknown status":   func(b map[string]any) { b["status"] = "paused" },
		"counts without some": func(b map[string]any) { b["request_counts"] = map[string]any{"total": 1} },
		"a time as a string":  func(b map[string]any) { b["created_at"] = "now" },
	} {
		raw, err := json.Marshal(Batch{ID: "batch_1", Object: "batch", Endpoint: "/v1/embeddings", InputFileID: "file-1", CompletionWindow: "24h", Status: "validating"})
		if err != nil {
			t.Fatal(err)
		}
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		if err := batch.Validate(v); err != nil {
			t.Fatalf("an ordinary batch is refused: %v", err)
		}
		change(v.(map[string]any))
		if batch.Validate(v) == nil {
			t.Errorf("%s passes", what)
		}
	}
}
