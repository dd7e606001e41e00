package upstream

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

func TestUsageIsReadByBothNames(t *testing.T) {
	tests := []struct {
		name, usage string
		want        jobs.Usage
	}{
		{"chat", `{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21,"prompt_tokens_details":{"cached_tokens":4,"audio_tokens":1},"completion_tokens_details":{"reasoning_tokens":5}}`,
			jobs.Usage{Input: 9, Cached: 4, Output: 12, Reasoning: 5, Total: 21}},
		{"responses", `{"input_tokens":9,"input_tokens_details":{"cached_tokens":4},"output_tokens":12,"output_tokens_details":{"reasoning_tokens":5},"total_tokens":21}`,
			jobs.Usage{Input: 9, Cached: 4, Output: 12, Reasoning: 5, Total: 21}},
		{"both", `{"prompt_tokens":9,"input_tokens":0,"completion_tokens":0,"output_tokens":12,"total_tokens":21}`, jobs.Usage{Input: 9, Output: 12, Total: 21}},
		{"embeddings", `{"prompt_tokens":9,"total_tokens":9}`, jobs.Usage{Input: 9, Total: 9}},
		{"no total", `{"prompt_tokens":9,"completion_tokens":12}`, jobs.Usage{Input: 9, Output: 12, Total: 21}},
		{"details null", `{"prompt_tokens":9,"prompt_tokens_details":null,"completion_tokens_details":[],"total_tokens":9}`, jobs.Usage{Input: 9, Total: 9}},
		{"null", `null`, jobs.Usage{}},
		{"array", `[1]`, jobs.Usage{}},
		{"empty", `{}`, jobs.Usage{}},
		{"odd", `{"prompt_tokens":"9","completion_tokens":-1,"total_tokens":1.5,"input_tokens":null,"output_tokens":{"output_tokens":3}}`, jobs.Usage{}},
		{"absurd", `{"prompt_tokens":99999999999999999999,"completion_tokens":1e3,"total_tokens":7}`, jobs.Usage{Total: 7}},
		{"detail at the wrong place", `{"cached_tokens":3,"reasoning_tokens":3,"prompt_tokens_details":{"reasoning_tokens":3}}`, jobs.Usage{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, body := range []string{
				`{"id":"x","usage":` + tt.usage + `,"choices":[{"usage":{"prompt_tokens":1000}}]}`,
				"\n{ \"prompt_tokens\": 1000,\n\"usage\" : " + tt.usage + "\n}\n",
			} {
				got, err := new(reader).check([]byte(body))
				if err != nil {
					t.Fatalf("%s: %v", body, err)
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", body, diff)
				}
			}
		})
	}
}

func TestAnswerIsOneObjectOrMalformed(t *testing.T) {
	for _, good := range []string{
		`{}`, " \r\n{}\t\n", `{"a":1,"a":2}`, `{"a":"\ud800"}`, `{"\udc00":1}`, `{"a":"\ud83d\ude00"}`, `{"a":1e999}`, `{"usage":3}`,
	} {
		if _, err := new(reader).check([]byte(good)); err != nil {
			t.Errorf("%q: %v, want it to be good", good, err)
		}
	}
	for _, bad := range []string{
		``, ` `, `{`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{}{}`, `{} x`, `{}]`, `[1]`, `[{}`, `null`, `"a"`, `1`, `{"a":"` + "\n" + `"}`, `{"a":'1'}`, "{\"a\":\"\xff\"}",
		"{\"\xed\xa0\x80\":1}", "\ufeff{}", `{"a":01}`, `{"a":NaN}`, `{"usage":{"prompt_tokens":}}`, `{"usage":{"prompt_tokens":1`, "data: {}\n\n",
		strings.Repeat(`{"a":`, 20_000),
	} {
		if _, err := new(reader).check([]byte(bad)); err == nil {
			t.Errorf("%.40q: want it to be malformed", bad)
		}
	}
}

// TestCheckAgreesWithTheStandardLibrary on what is an object, for anything that looks a little like JSON.
func TestCheckAgreesWithTheStandardLibrary(t *testing.T) {
	shard := rapid.SampledFrom([]string{"{", "}", "[", "]", ",", ":", `"a"`, `"usage"`, `"prompt_tokens"`, "1", "-0.5e3", "null", "true", " ", "\n", `"é"`, `"\ud800"`, "\xff"})
	rapid.Check(t, func(t *rapid.T) {
		body := []byte(strings.Join(rapid.SliceOfN(shard, 0, 14).Draw(t, "shards"), ""))
		if rapid.Bool().Draw(t, "wrapped") {
			body = append(append([]byte(`{"usage":`), body...), '}')
		}
		_, err := new(reader).check(body)
		want := json.Valid(body) && utf8.Valid(body) && bytes.HasPrefix(bytes.TrimLeft(body, " \n"), []byte("{"))
		if (err == nil) != want {
			t.Fatalf("%q: error %v, but the standard library says %t", body, err, want)
		}
	})
}

func TestOneLineTouchesOnlySpaces(t *testing.T) {
	tests := []struct{ in, want string }{
		{`{"a": 1}`, `{"a": 1}`},
		{"{\"a\": 1}\n", `{"a": 1}`},
		{" {\"a\": 1}\r\n\t", `{"a": 1}`},
		{"{\n \"a\" : [ 1.50, 1E+2, -0, 12345678901234567890 ]\r\n}", `{"a":[1.50,1E+2,-0,12345678901234567890]}`},
		{"{\"a\":\r\"\\u00e9\\/\\ud800\\n<&>\u2028\"}", `{"a":"\u00e9\/\ud800\n<&>` + "\u2028" + `"}`},
		{"{\"a\":1,\n\"a\":2}", `{"a":1,"a":2}`},
		{"{\n\"\\ud800\":1}", `{"\ud800":1}`},
	}
	for _, tt := range tests {
		in := []byte(tt.in)
		got, err := oneLine(in)
		if err != nil || string(got) != tt.want {
			t.Errorf("%q: got %q (%v), want %q", tt.in, got, err, tt.want)
		}
		for i := range in {
			in[i] = '#' // the memory is used again
		}
		if string(got) != tt.want {
			t.Errorf("%q: the line is not the caller's own", tt.in)
		}
	}
}

func TestReadStopsAtTheLimit(t *testing.T) {
	var r reader
	for _, n := range []int64{0, 1, 511, 512, 513, 70_000} {
		source := strings.NewReader(strings.Repeat("x", 100_000))
		if _, err := r.read(source, n); !errors.Is(err, errTooLarge) {
			t.Errorf("limit %d of 100000: got %v, want errTooLarge", n, err)
		}
		if took := 100_000 - int64(source.Len()); took > n+1 {
			t.Errorf("limit %d: %d bytes were read", n, took)
		}
		if b, err := r.read(strings.NewReader(strings.Repeat("x", int(n))), n); err != nil || int64(len(b)) != n {
			t.Errorf("limit %d of as many: got %d bytes, %v", n, len(b), err)
		}
	}
}
