package jobs

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestLinesAreExactlyOpenAIsShape(t *testing.T) {
	id := []byte(`"request-1"`)
	ok := &Answer{Status: 200, RequestID: "req_1", Body: []byte(`{"id":"chatcmpl-1","choices":[]}`)}
	for _, row := range []struct {
		name string
		got  []byte
		want string
	}{
		{"answered", appendAnswer(nil, "batch_req_1", id, ok),
			`{"id":"batch_req_1","custom_id":"request-1","response":{"status_code":200,"request_id":"req_1","body":{"id":"chatcmpl-1","choices":[]}},"error":null}`},
		{"answered without a request id", appendAnswer(nil, "batch_req_1", id, &Answer{Status: 201, Body: []byte(`{}`)}),
			`{"id":"batch_req_1","custom_id":"request-1","response":{"status_code":201,"request_id":null,"body":{}},"error":null}`},
		{"failed with an answer", appendFault(nil, "batch_req_1", id, &Fault{
			Cause: CauseStatus, Status: 400, Code: "c", Message: "m", RequestID: "req_2", IsObject: true, Body: []byte(`{"error":{"message":"m","code":"c"}}`)}),
			`{"id":"batch_req_1","custom_id":"request-1","response":{"status_code":400,"request_id":"req_2","body":{"error":{"message":"m","code":"c"}}},"error":null}`},
		{"failed with an answer that is no JSON", appendFault(nil, "batch_req_1", id, &Fault{Cause: CauseStatus, Status: 502, Code: "bad_gateway", Message: "the \"proxy\"\n spoke"}),
			`{"id":"batch_req_1","custom_id":"request-1","response":{"status_code":502,"request_id":null,"body":{"error":{"message":"the \"proxy\"\n spoke","type":"upstream_error","param":null,"code":"bad_gateway"}}},"error":null}`},
		{"failed without an answer", appendFault(nil, "batch_req_1", id, &Fault{Cause: CauseTimeout, Code: "request_timeout", Message: "no answer"}),
			`{"id":"batch_req_1","custom_id":"request-1","response":null,"error":{"code":"request_timeout","message":"no answer"}}`},
		{"failed with half an answer", appendFault(nil, "batch_req_1", id, &Fault{Cause: CauseTooLarge, Status: 200, Code: "response_too_large", Message: "8 MiB", Body: []byte(`{}`)}),
			`{"id":"batch_req_1","custom_id":"request-1","response":null,"error":{"code":"response_too_large","message":"8 MiB"}}`},
		{"expired", appendError(nil, "batch_req_1", id, ItemExpired, "This request could not be executed before the completion window expired."),
			`{"id":"batch_req_1","custom_id":"request-1","response":null,"error":{"code":"batch_expired","message":"This request could not be executed before the completion window expired."}}`},
		{"without a readable id", appendError(nil, "batch_req_1", nil, "invalid_json_line", "line 17: no"),
			`{"id":"batch_req_1","custom_id":"","response":null,"error":{"code":"invalid_json_line","message":"line 17: no"}}`},
		{"behind another line", appendError([]byte("x\n"), "batch_req_1", id, "c", "m"),
			"x\n" + `{"id":"batch_req_1","custom_id":"request-1","response":null,"error":{"code":"c","message":"m"}}`},
	} {
		if d := cmp.Diff(row.want, string(row.got)); d != "" {
			t.Errorf("%s (-want +got):\n%s", row.name, d)
		}
	}
}

func TestCustomIDIsGivenBackAsItCame(t *testing.T) {
	for _, raw := range []string{`"a"`, `"\u00e9\/\n"`, `"é"`, `"\ud83d\ude00"`, `"\ud83d alone"`, `"<&>"`} {
		for _, line := range [][]byte{
			appendAnswer(nil, "i", []byte(raw), &Answer{Status: 200, Body: []byte(`{}`)}),
			appendError(nil, "i", []byte(raw), "c", "m"),
			appendFault(nil, "i", []byte(raw), badRequest),
		} {
			if !bytes.Contains(line, []byte(`"custom_id":`+raw+`,`)) || !json.Valid(line) {
				t.Errorf("%s is given back as %s", raw, line)
			}
		}
	}
}

func TestAnyErrorTextMakesOneLineOfJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		code := string(rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "code"))
		message := rapid.String().Draw(t, "message") + string(rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(t, "bytes"))
		for _, line := range [][]byte{
			appendError(nil, "i", nil, code, message),
			appendFault(nil, "i", nil, &Fault{Cause: CauseStatus, Status: 500, Code: code, Message: message, RequestID: message}),
		} {
			if bytes.ContainsAny(line, "\r\n") {
				t.Fatalf("more than one line: %q", line)
			}
			type text struct{ Code, Message string }
			var read struct {
				Response *struct{ Body struct{ Error text } }
				Error    *text
			}
			if err := json.Unmarshal(line, &read); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			got := read.Error
			if got == nil {
				got = &read.Response.Body.Error
			}
			if want := (text{strings.ToValidUTF8(code, "\uFFFD"), strings.ToValidUTF8(message, "\uFFFD")}); *got != want {
				t.Fatalf("%q, want %q", *got, want)
			}
		}
	})
}

func TestIDsOfLinesAndCallsAreTheSameInEveryRelease(t *testing.T) {
	for _, row := range []struct{ got, want string }{
		{lineID("batch_1", 0), "batch_req_d2db2d7e6b0df05ff5db53d95576c781"},
		{lineID("batch_1", 1<<40), "batch_req_f1f89bd5135d2d2c00f2dafd7b04f562"},
		{idempotencyKey("batch_1", 0, 0), "fanout-d605d97f42d09751f927a8b1d0f0545a"},
		{idempotencyKey("batch_1", 0, 1), "fanout-61d11bca0e033e8a46c5bc6eb932adf6"},
	} {
		if row.got != row.want {
			t.Errorf("%s, want %s", row.got, row.want)
		}
	}
}

func TestIDsOfDifferentLinesAndCallsDiffer(t *testing.T) {
	seen := map[string]string{}
	note := func(id, of string) {
		_, digest, _ := strings.Cut(id, "-")
		if digest == "" {
			digest = strings.TrimPrefix(id, "batch_req_")
		}
		if other, twice := seen[digest]; twice {
			t.Errorf("%s has the id of %s", of, other)
		}
		seen[digest] = of
	}
	for _, job := range []JobID{"j", "j/call", "k"} {
		for _, offset := range []int64{0, 1, 256, 1 << 32} {
			of := string(job) + "@" + string(rune('a'+len(seen)))
			note(lineID(job, offset), "line "+of)
		}
	}
	for _, burial := range []int{0, 1, 256} {
		for _, offset := range []int64{1, 256} {
			note(idempotencyKey("k", offset, burial), "call")
		}
	}
	first, firstKey := lineID("j", 7), idempotencyKey("j", 7, 1)
	if again, key := lineID("j", 7), idempotencyKey("j", 7, 1); again != first || key != firstKey {
		t.Error("ids change")
	}
}

// alike are messages that differ in numbers, ids and quoted text only.
var alike = [][]string{
	{
		"Rate limit reached for gpt-4o in organization org-1 on tokens per min: Limit 30000, Used 29871.",
		"Rate limit reached for gpt-4o in organization org-2 on tokens per min: Limit 90000, Used 7.",
	},
	{
		`The value "blue" is not one of "red"`,
		`The value "" is not one of "a longer text with spaces, and 'quotes' in it"`,
	},
	{"no field 'a' here", "no field 'b c' here"},
	{"request 123e4567-e89b-12d3-a456-426614174000 failed", "request ffffffff-0000-12d3-a456-426614174000 failed"},
	{"see req_011CSHoEeqs5C35K2UUqR7Fy", "see req_0abc"},
	{"answer chatcmpl-AbC_1", "answer chatcmpl-9"},
	{"trace 0af7651916cd43dd8448eb211c80319c", "trace DEADBEEF"},
	{"two\nlines\t and  spaces", " two lines and spaces "},
	{"no whole answer within 120s", "no whole answer within 30s"},
	{"bad byte \xff", "bad byte "},
	{strings.Repeat("long ", 40) + "a", strings.Repeat("long ", 200) + "b"},
}

func TestNormaliseMakesAlikeWhatIsAlike(t *testing.T) {
	seen := map[string]string{}
	for _, group := range alike {
		first := normalise(group[0])
		for _, message := range group[1:] {
			if got := normalise(message); got != first {
				t.Errorf("%.60q and %.60q become %q and %q", group[0], message, first, got)
			}
		}
		if other, twice := seen[first]; twice {
			t.Errorf("%.60q and %.60q both become %q", group[0], other, first)
		}
		seen[first] = group[0]
	}
}

func TestNormaliseSeesQuotedTextBehindAnApostrophe(t *testing.T) {
	for _, group := range [][]string{
		{"can't find 'abc'", "can't find 'xyz'"},
		{"the model's field 'a' isn't known", "the model's field 'b' isn't known"},
	} {
		if x, y := normalise(group[0]), normalise(group[1]); x != y {
			t.Errorf("%q and %q become %q and %q", group[0], group[1], x, y)
		}
	}
}

func TestNormaliseKeepsWordsAndCutsTheEnd(t *testing.T) {
	for message, want := range map[string]string{
		"":                               "",
		"not found":                      "not found",
		"added and faded":                "added and faded", // letters of hex, and no id
		"error 17 of 20":                 "error … of …",
		`say "x" and 'y'`:                "say … and …",
		strings.Repeat("é", 80):          strings.Repeat("é", 80),
		strings.Repeat("é", 81):          strings.Repeat("é", 80) + "…",
		strings.Repeat("x", 499) + "é":   strings.Repeat("x", 80) + "…",
		strings.Repeat(" ", 600) + "end": "",
	} {
		if got := normalise(message); got != want {
			t.Errorf("%.40q becomes %q, want %q", message, got, want)
		}
	}
}

func TestNormalisedMessagesAreShortAndCleanWhateverCame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		message := rapid.String().Draw(t, "text") + string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"))
		got := normalise(message)
		if len([]rune(got)) > 81 || strings.ContainsAny(got, "0123456789\n\t") || got != strings.ToValidUTF8(got, "") {
			t.Fatalf("%q becomes %q", message, got)
		}
	})
}
