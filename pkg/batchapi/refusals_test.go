package batchapi

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// pairs are so many members of an object of strings.
func pairsOf(n, key, value int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf(`"%0*d":"%s"`, key, i, strings.Repeat("v", value)))
	}
	return "{" + strings.Join(all, ",") + "}"
}

// TestEachWrongFieldGetsASentenceThatNamesIt is the table of what is wrong with a create, and what it gets.
func TestEachWrongFieldGetsASentenceThatNamesIt(t *testing.T) {
	a := newAPI(t, Options{Burst: 10_000})
	f := a.upload(lines(1)).ID
	other, kind := formOf(map[string]string{"purpose": "user_data"}, "x", "y")
	wrongPurpose := as[File](t, a.call("POST", "/v1/files", other, "Content-Type", kind), "OpenAIFile").ID
	whole := func(member, value string) string {
		members := map[string]string{"input_file_id": fmt.Sprintf("%q", f), "endpoint": `"/v1/chat/completions"`, "completion_window": `"24h"`}
		if value == "" {
			delete(members, member)
		} else {
			members[member] = value
		}
		var all []string
		for k, v := range members {
			all = append(all, fmt.Sprintf("%q:%s", k, v))
		}
		return "{" + strings.Join(all, ",") + "}"
	}
	for _, c := range []struct{ body, param, says string }{
		{whole("input_file_id", ""), "input_file_id", "Missing required parameter: 'input_file_id'."},
		{whole("input_file_id", "null"), "input_file_id", "Missing required parameter: 'input_file_id'."},
		{whole("input_file_id", "7"), "input_file_id", "expected a string, but got a number"},
		{whole("input_file_id", `""`), "input_file_id", "no such File object"},
		{whole("input_file_id", `"../../x"`), "input_file_id", "no such File object: ../../x"},
		{whole("input_file_id", `"file-none"`), "input_file_id", "no such File object: file-none"},
		{whole("input_file_id", fmt.Sprintf("%q", wrongPurpose)), "input_file_id", "has the purpose 'user_data', not 'batch'"},
		{whole("endpoint", ""), "endpoint", "Missing required parameter: 'endpoint'."},
		{whole("endpoint", `["/v1/embeddings"]`), "endpoint", "expected a string, but got an array"},
		{whole("endpoint", `"/v1/everything"`), "endpoint", "Invalid value: '/v1/everything'. Supported values are: ['/v1/responses', "},
		{whole("completion_window", ""), "completion_window", "Missing required parameter: 'completion_window'."},
		{whole("completion_window", `"soon"`), "completion_window", "Invalid value: 'soon'. Supported values are '24h' and every duration from 1m to 336h."},
		{whole("completion_window", `"59s"`), "completion_window", "Invalid value: '59s'"},
		{whole("completion_window", `"337h"`), "completion_window", "Invalid value: '337h'"},
		{whole("completion_window", `"-24h"`), "completion_window", "Invalid value: '-24h'"},
		{whole("completion_window", `86400`), "completion_window", "expected a string, but got a number"},
		{whole("metadata", `"x"`), "metadata", "expected an object, but got a string"},
		{whole("metadata", `{"a":1}`), "metadata.a", "expected a string, but got a number"},
		{whole("metadata", `{"a":null}`), "metadata.a", "expected a string, but got null"},
		{whole("metadata", pairsOf(17, 3, 1)), "metadata", "Expected at most 16, but got 17 instead."},
		{whole("metadata", pairsOf(1, 65, 1)), "metadata", "a key takes 1 to 64 characters"},
		{whole("metadata", pairsOf(1, 1, 513)), "metadata.0", "a value takes at most 512 characters"},
		{whole("metadata", `{"fanout_tempo":"1"}`), "metadata.fanout_tempo", "there is no such option; the options are fanout_on_invalid, "},
		{whole("metadata", `{"fanout_on_invalid":"ignore"}`), "metadata.fanout_on_invalid", "'ignore' is not fail, which is the default, or skip"},
		{whole("metadata", `{"fanout_chunk_items":"0"}`), "metadata.fanout_chunk_items", "'0' is not a whole number from 1 to 4096"},
		{whole("metadata", `{"fanout_chunk_items":"1e3"}`), "metadata.fanout_chunk_items", "is not a whole number"},
		{whole("metadata", `{"fanout_max_attempts":"101"}`), "metadata.fanout_max_attempts", "'101' is not a whole number from 1 to 100"},
		{whole("metadata", `{"fanout_tolerated_failure_pct":"101"}`), "metadata.fanout_tolerated_failure_pct", "'101' is not a number from 0 to 100"},
		{whole("metadata", `{"fanout_tolerated_failure_pct":"NaN"}`), "metadata.fanout_tolerated_failure_pct", "'NaN' is not a number"},
		{whole("output_expires_after", `"1h"`), "output_expires_after", "expected an object, but got a string"},
		{whole("output_expires_after", `{}`), "output_expires_after.anchor", "Missing required parameter"},
		{whole("output_expires_after", `{"anchor":"created_at"}`), "output_expires_after.seconds", "Missing required parameter"},
		{whole("output_expires_after", `{"anchor":"now","seconds":3600}`), "output_expires_after.anchor", "'now' is not 'created_at'"},
		{whole("output_expires_after", `{"anchor":"created_at","seconds":3599}`), "output_expires_after.seconds", "3599 is not between 3600 and 2592000"},
		{whole("output_expires_after", `{"anchor":"created_at","seconds":2592001}`), "output_expires_after.seconds", "2592001 is not between"},
		{whole("output_expires_after", `{"anchor":"created_at","seconds":"3600"}`), "output_expires_after.seconds", "expected a whole number, but got a string"},
		{whole("output_expires_after", `{"anchor":"created_at","seconds":3600,"x":1}`), "output_expires_after.x", "Unknown parameter"},
		{whole("windows", `"24h"`), "windows", `Unknown parameter: "windows".`},
		{`{"a":1,"a":2}`, "", "could not parse the JSON body"},
		{`[]`, "", "an object is expected"},
		{`"x"`, "", "an object is expected"},
		{`{`, "", "could not parse the JSON body"},
		{`{} {}`, "", "could not parse the JSON body"},
		{"{\"a\":\"\xff\"}", "", "it is not UTF-8"},
		{strings.Repeat(`{"a":`, 20_000), "", "could not parse the JSON body"},
		{"", "input_file_id", "Missing required parameter"},
	} {
		r := a.post("/v1/batches", c.body)
		conform(t, "ErrorResponse", r.body)
		var e ErrorBody
		decode(t, r.body, &e)
		param := ""
		if e.Error.Param != nil {
			param = *e.Error.Param
		}
		if r.status != 400 || param != c.param || !strings.Contains(e.Error.Message, c.says) || r.header.Get("X-Should-Retry") != "false" || e.Error.Type != "invalid_request_error" {
			t.Errorf("%.200s\n got %d %s\nwant %s: %s", c.body, r.status, r.body, c.param, c.says)
		}
		if dry := a.post("/v1/batches?dry_run=true", c.body); dry.status != 400 {
			t.Errorf("a dry run of %.200s: %d", c.body, dry.status)
		}
	}
	if l := as[List[Batch]](t, a.get("/v1/batches"), ""); len(l.Data) > 0 {
		t.Errorf("some of it was made: %v", l.Data)
	}
	for _, good := range []string{
		whole("completion_window", `"1m"`), whole("completion_window", `"336h"`), whole("completion_window", `"90m"`), whole("metadata", "null"), whole("metadata", pairsOf(16, 64, 512)),
		whole("output_expires_after", `{"anchor":"created_at","seconds":2592000}`), whole("endpoint", `"/v1/embeddings"`), whole("output_expires_after", "null"),
	} {
		as[Batch](t, a.post("/v1/batches", good), "Batch")
	}
	huge := a.post("/v1/batches", whole("metadata", fmt.Sprintf(`{"a":"%s"}`, strings.Repeat("x", 2<<20))))
	if huge.status != 413 {
		t.Errorf("2 MiB of metadata: %d %s", huge.status, huge.body)
	}
}

func TestEachWrongFormGetsASentence(t *testing.T) {
	a := newAPI(t, Options{Burst: 10_000})
	const kind = "multipart/form-data; boundary=b"
	field := func(name, value string) string {
		return fmt.Sprintf("--b\r\nContent-Disposition: form-data; name=%q\r\n\r\n%s\r\n", name, value)
	}
	file := "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x.jsonl\"\r\n\r\nx\r\n"
	purpose, end := field("purpose", "batch"), "--b--\r\n"
	for _, c := range []struct{ what, kind, body, says string }{
		{"no form", "application/json", "{}", "multipart/form-data with a boundary is expected"},
		{"no boundary", "multipart/form-data", file, "multipart/form-data with a boundary is expected"},
		{"another boundary", kind, "--c\r\n\r\n--c--\r\n", "Missing required parameter: 'file'."},
		{"an end that is missing", kind, purpose + file, "ended before its body was whole"},
		{"a header that is none", kind, "--b\r\nfile\r\n\r\nx\r\n" + end, "malformed header"},
		{"no file", kind, purpose + end, "Missing required parameter: 'file'."},
		{"no purpose", kind, file + end, "Missing required parameter: 'purpose'."},
		{"an unknown purpose", kind, file + field("purpose", "fun") + end, "'fun' is not one of ['assistants', "},
		{"two files", kind, purpose + file + file + end, `The field "file" comes twice.`},
		{"two purposes", kind, purpose + purpose + file + end, `The field "purpose" comes twice.`},
		{"an unknown field", kind, purpose + file + field("colour", "red") + end, `Unknown parameter: "colour".`},
		{"a large field", kind, file + field("purpose", strings.Repeat("x", 5000)) + end, "has more than 4096 bytes"},
		{"many fields", kind, manyFields(field) + file + end, "more than 16 fields"},
		{"an anchor that is none", kind, purpose + file + field("expires_after[anchor]", "x") + field("expires_after[seconds]", "3600") + end, "'x' is not 'created_at'"},
		{"seconds that are none", kind, purpose + file + field("expires_after[anchor]", "created_at") + field("expires_after[seconds]", "1h") + end, `"1h" is no whole number`},
		{"few seconds", kind, purpose + file + field("expires_after[anchor]", "created_at") + field("expires_after[seconds]", "1") + end, "1 is not between 3600"},
		{"a file without a name", kind, purpose + field("file", "x") + end, "Invalid file name"},
		{"a long name", kind, purpose + strings.Replace(file, "x.jsonl", strings.Repeat("n", 256), 1) + end, "Invalid file name"},
	} {
		r := a.call("POST", "/v1/files", strings.NewReader(c.body), "Content-Type", c.kind)
		conform(t, "ErrorResponse", r.body)
		if r.status != 400 || !strings.Contains(unescape(t, r.body), c.says) {
			t.Errorf("%s: %d %s, want %s", c.what, r.status, r.body, c.says)
		}
	}
	if l := as[List[File]](t, a.get("/v1/files"), ""); len(l.Data) > 0 {
		t.Errorf("some of it was kept: %v", l.Data)
	}
	for info, err := range a.ports.Files.List(t.Context(), "files/") {
		t.Errorf("bytes were kept: %v %v", info, err)
	}
	as[File](t, a.call("POST", "/v1/files", strings.NewReader(file+purpose+end), "Content-Type", kind), "OpenAIFile") // in any order
}

func manyFields(field func(name, value string) string) string {
	var b strings.Builder
	for i := range 20 {
		b.WriteString(field(fmt.Sprintf("f%d", i), "x"))
	}
	return b.String()
}

func unescape(t *testing.T, body []byte) string {
	t.Helper()
	var e ErrorBody
	decode(t, body, &e)
	return e.Error.Message
}

func TestEachWrongQueryGetsASentence(t *testing.T) {
	a := newAPI(t, Options{})
	b := a.create(a.upload(lines(1)).ID, "").ID
	for path, says := range map[string]string{
		"/v1/batches?limit=0":                          "from 1 to 100",
		"/v1/batches?limit=101":                        "from 1 to 100",
		"/v1/batches?limit=x":                          "is not a whole number",
		"/v1/files?limit=10001":                        "from 1 to 10000",
		"/v1/files?order=up":                           "neither 'asc' nor 'desc'",
		"/v1/files?after=" + strings.Repeat("x", 200):  "there is no object",
		"/v1/batches/" + b + "?wait=x":                 "is no duration",
		"/v1/batches/" + b + "?wait=-1s":               "is no duration",
		"/v1/batches/" + b + "/results?after=x":        "is no place in the results",
		"/v1/batches/" + b + "/results?after=0.0.4097": "is no place in the results",
		"/v1/batches/" + b + "/results?status=x":       "neither 'completed' nor 'failed'",
		"/v1/batches/" + b + "/results?include=output": "is not 'input'",
		"/v1/batches/" + b + "/results?limit=10001":    "from 1 to 10000",
		"/v1/batches/" + b + "/events":                 "does not stream",
	} {
		r := a.get(path)
		if r.status != 400 || !strings.Contains(unescape(t, r.body), says) {
			t.Errorf("%.100s: %d %s, want %s", path, r.status, r.body, says)
		}
	}
	for path, status := range map[string]int{"/": 404, "/v1": 404, "/v1/": 404, "/v1/batches/" + b + "/": 404, "/v1/batches/batch_none": 404, "/v2/files": 404, "/v1/models/none": 404} {
		r := a.get(path)
		conform(t, "ErrorResponse", r.body)
		if r.status != status {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
	}
	if r := a.call("PUT", "/v1/batches", nil); r.status != 405 || r.header.Get("Allow") == "" {
		t.Errorf("PUT /v1/batches: %d %v", r.status, r.header)
	}
}

// FuzzCreateBody: whatever is sent, the answer is one of those that the wire has, and the server stands.
func FuzzCreateBody(f *testing.F) {
	f.Add(`{"input_file_id":"file-x","endpoint":"/v1/embeddings","completion_window":"24h","metadata":{"a":"b"},"output_expires_after":{"anchor":"created_at","seconds":3600}}`)
	f.Add(`{"metadata":{"a":{}},"metadata":1}`)
	f.Add("\xef\xbb\xbf{}")
	h := New(jobs.Ports{}, Options{OpenTenant: someTenant})
	f.Fuzz(func(t *testing.T, body string) {
		r := httptest.NewRequest("POST", "/v1/batches", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		a, err := readAsked(r)
		if err == nil {
			if a.input == "" && !strings.Contains(body, `""`) || a.job.Window < time.Minute {
				t.Errorf("%q is taken for %+v", body, a)
			}
			return
		}
		if got := h.describe(r, err); got.status != 400 && got.status != 413 {
			t.Errorf("%q: %d %s", body, got.status, got.message)
		}
	})
}
