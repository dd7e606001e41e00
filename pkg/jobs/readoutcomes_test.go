package jobs

import (
	"bytes"
	"encoding/json"
	"testing"
)

func FuzzParseCursor(f *testing.F) {
	for _, s := range []string{"", "0.0.0", "7999.9223372036854775807.4096", "-1.0.0", "1.2", "1.2.3.4", "01.2.3", "1. 2.3", "8000.0.0", "1.2.4097", "+1.2.3", "1.2.3\n", "ü.1.1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseCursor(s)
		if err == nil && c.String() != s {
			t.Errorf("%q is read as %s", s, c)
		}
		if err != nil && CodeOf(err) != CodeInvalid {
			t.Errorf("%q: %v", s, err)
		}
	})
}

func FuzzMergedLineIsJSON(f *testing.F) {
	for _, s := range []string{`{"a":1}`, `{"a":1,"a":2}`, ` {"s":"\ud800"} `, `[1]`, `{"a":`, "\xff\xfe", "", `{"a":"` + "\xff" + `"}`, `{"a":1} {"b":2}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		line := bytes.NewBufferString(`{"id":"x","error":null}` + "\n")
		mergeInput(line, input)
		var l struct {
			ID    string          `json:"id"`
			Input json.RawMessage `json:"input"`
		}
		if err := json.Unmarshal(line.Bytes(), &l); err != nil || l.ID != "x" || l.Input == nil {
			t.Errorf("%q is merged as %q: %v", input, line, err)
		}
	})
}
