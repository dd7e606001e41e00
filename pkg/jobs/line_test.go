package jobs

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

const chatURL = "/v1/chat/completions"

// request is a valid line with one of its members replaced; "-" leaves it out.
func request(member, value string) string {
	fields := [][2]string{{"custom_id", `"a"`}, {"method", `"POST"`}, {"url", `"/v1/chat/completions"`}, {"body", `{"model":"m"}`}}
	var parts []string
	for _, f := range fields {
		if f[0] == member {
			f[1] = value
		}
		if f[1] != "-" {
			parts = append(parts, fmt.Sprintf("%q:%s", f[0], f[1]))
		}
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// nasty are lines that break the rules, or look as if they did.
var nasty = []struct {
	name, line  string
	code, param string // "" = the line is valid
	message     string // part of it
	id          string // the custom_id of the Line; "" = none
}{
	{"plain", request("", ""), "", "", "", `"a"`},
	{"spaces everywhere", " { \"custom_id\" : \"a\" , \"method\":\t\"POST\",\"url\":\"/v1/chat/completions\" ,\"body\" : { \"model\" : \"m\" } } ", "", "", "", `"a"`},
	{"other keys are let be", strings.Replace(request("", ""), "{", `{"priority":[1,{}],`, 1), "", "", "", `"a"`},
	{"escaped slashes", request("url", `"\/v1\/chat\/completions"`), "", "", "", `"a"`},
	{"escaped key", strings.Replace(request("", ""), `"body"`, `"\u0062ody"`, 1), "", "", "", `"a"`},
	{"lone surrogate in the body", request("body", `{"model":"m","input":"\ud83d"}`), "", "", "", `"a"`},
	{"lone surrogate in the id", request("custom_id", `"\udc00x"`), "", "", "", `"\udc00x"`},
	{"key twice in the body", request("body", `{"x":1,"x":2,"model":"n","model":"m"}`), "", "", "", `"a"`},
	{"stream false", request("body", `{"model":"m","stream":false}`), "", "", "", `"a"`},
	{"stream deeper", request("body", `{"model":"m","x":{"stream":true}}`), "", "", "", `"a"`},
	{"numbers of all kinds", request("body", `{"model":"m","x":[0,-0,1.5,-1e+9,2E5,0.25e-3]}`), "", "", "", `"a"`},
	{"other scripts", request("body", `{"model":"m","input":"Grüße, 世界 🌍"}`), "", "", "", `"a"`},
	{"id of 512 characters", request("custom_id", `"`+strings.Repeat("é", 512)+`"`), "", "", "", `"` + strings.Repeat("é", 512) + `"`},
	{"escapes of one letter", request("body", `{"model":"m","x":"\"\\\/\b\f\n\r\t","y":"\\"}`), "", "", "", `"a"`},
	{"escaped quote at the end", request("body", `{"model":"m\"}`), ViolationJSON, "", "ends too early", `"a"`},
	{"deep nesting", request("body", `{"model":"m","x":`+strings.Repeat("[", 500)+strings.Repeat("]", 500)+`}`), "", "", "", `"a"`},

	{"not JSON", `hello`, ViolationJSON, "", "not valid JSON at column 1: invalid character 'h'", ""},
	{"cut off", `{"custom_id":"a","method":"PO`, ViolationJSON, "", "the line ends too early", `"a"`},
	{"comma at the end", `{"custom_id":"a",}`, ViolationJSON, "", "column 17", `"a"`},
	{"column counts characters", `{"custom_id":"ééé" x}`, ViolationJSON, "", "column 20", `"ééé"`},
	{"leading zero", request("body", `{"model":"m","x":01}`), ViolationJSON, "", "not valid JSON", `"a"`},
	{"dot without digits", request("body", `{"model":"m","x":1.}`), ViolationJSON, "", "not valid JSON", `"a"`},
	{"bad literal", request("body", `{"model":"m","x":trux}`), ViolationJSON, "", "not valid JSON", `"a"`},
	{"bad escape", request("body", `{"model":"m","x":"\x"}`), ViolationJSON, "", "not valid JSON", `"a"`},
	{"raw tab in a string", request("body", "{\"model\":\"m\",\"x\":\"a\tb\"}"), ViolationJSON, "", "not valid JSON", `"a"`},
	{"NUL in a string", request("body", "{\"model\":\"m\x00\"}"), ViolationJSON, "", "NUL byte", `"a"`},
	{"NUL after the object", request("", "") + "\x00", ViolationJSON, "", "NUL byte", `"a"`},
	{"only NUL", "\x00\x00", ViolationJSON, "", "column 1: there is a NUL byte", ""},
	{"invalid UTF-8", request("body", "{\"model\":\"\xff\"}"), ViolationJSON, "", "not valid UTF-8 at column 80 (byte 0xff)", `"a"`},
	{"surrogate in UTF-8", request("body", "{\"model\":\"\xed\xa0\x80\"}"), ViolationJSON, "", "not valid UTF-8", `"a"`},
	{"invalid UTF-8 in the id", request("custom_id", "\"\xc3\""), ViolationJSON, "", "not valid UTF-8", ""},
	{"UTF-16", "\xff\xfe{\x00", ViolationJSON, "", "looks like UTF-16", ""},
	{"BOM inside of the file", "\ufeff" + request("", ""), ViolationJSON, "", "column 1", ""},
	{"array", `[` + request("", "") + `]`, ViolationJSON, "", "an array, not a JSON object", ""},
	{"number", `17`, ViolationJSON, "", "a number, not a JSON object", ""},
	{"two objects", request("", "") + request("", ""), ViolationJSON, "", "goes on after its JSON object", `"a"`},
	{"key twice", `{"custom_id":"a","custom_id":"b"}`, ViolationJSON, "", `the key "custom_id" appears twice`, `"a"`},
	{"key twice, once escaped", strings.Replace(request("", ""), "{", `{"\u0075rl":1,`, 1), ViolationJSON, "", "appears twice", `"a"`},
	{"other key twice", strings.Replace(request("", ""), "{", `{"x":1,"x":1,`, 1), ViolationJSON, "", "appears twice", ""},
	{"too long", `{"custom_id":"a","x":"` + strings.Repeat("x", testLineLimit) + `"}`, ViolationLong, "", "longer than the limit of 2000 bytes", ""},

	{"no id", request("custom_id", "-"), ViolationRequest, "custom_id", "missing", ""},
	{"empty object", `{}`, ViolationRequest, "custom_id", "missing", ""},
	{"id is a number", request("custom_id", "7"), ViolationRequest, "custom_id", "must be a string, not a number", ""},
	{"id is null", request("custom_id", "null"), ViolationRequest, "custom_id", "not null", ""},
	{"empty id", request("custom_id", `""`), ViolationRequest, "custom_id", "empty", ""},
	{"id of 513 characters", request("custom_id", `"`+strings.Repeat("é", 513)+`"`), ViolationRequest, "custom_id", "has 513 characters", ""},
	{"no method", request("method", "-"), ViolationRequest, "method", `must be "POST"`, `"a"`},
	{"other method", request("method", `"GET"`), ViolationRequest, "method", `not "GET"`, `"a"`},
	{"method is true", request("method", `true`), ViolationRequest, "method", `not a boolean`, `"a"`},
	{"no url", request("url", "-"), ViolationURL, "url", "url is missing", `"a"`},
	{"other url", request("url", `"/v1/embeddings"`), ViolationURL, "url", `"/v1/chat/completions", the endpoint of the job, not "/v1/embeddings"`, `"a"`},
	{"long url is cut off", request("url", `"/v1/`+strings.Repeat("é", 60)+`"`), ViolationURL, "url", strings.Repeat("é", 36) + `"…`, `"a"`},
	{"url is an array", request("url", `[]`), ViolationURL, "url", `not an array`, `"a"`},
	{"no body", request("body", "-"), ViolationRequest, "body", "missing", `"a"`},
	{"body is a string", request("body", `"{}"`), ViolationRequest, "body", "not a string", `"a"`},
	{"stream", request("body", `{"model":"m","stream":true}`), ViolationRequest, "body.stream", "not streamed", `"a"`},
	{"stream, then not", request("body", `{"model":"m","stream":true,"stream":false}`), ViolationRequest, "body.stream", "", `"a"`},
	{"escaped stream", request("body", `{"model":"m","str\u0065am":true}`), ViolationRequest, "body.stream", "", `"a"`},
	{"no model", request("body", `{}`), ViolationRequest, "body.model", "missing", `"a"`},
	{"model is an object", request("body", `{"model":{}}`), ViolationRequest, "body.model", "not an object", `"a"`},
	{"empty model", request("body", `{"model":""}`), ViolationRequest, "body.model", "empty", `"a"`},
	{"model name without end", request("body", `{"model":"`+strings.Repeat("m", 257)+`"}`), ViolationRequest, "body.model", "more than 256 characters", `"a"`},
}

const testLineLimit = 2000

func TestParseNamesTheFirstViolation(t *testing.T) {
	p := newLineParser(chatURL, testLineLimit)
	for _, tt := range nasty {
		t.Run(tt.name, func(t *testing.T) {
			l, v := p.parse([]byte(tt.line))
			if v == nil {
				v = &Violation{}
			}
			if v.Code != tt.code || v.Param != tt.param || !strings.Contains(v.Message, tt.message) {
				t.Errorf("violation %+v, want code %q, param %q, message with %q", *v, tt.code, tt.param, tt.message)
			}
			if string(l.CustomID) != tt.id {
				t.Errorf("custom_id %s, want %s", l.CustomID, tt.id)
			}
			if tt.code == "" && (l.Model != "m" || l.URL != chatURL || len(l.Body) == 0) {
				t.Errorf("line %+v lacks a part", l)
			}
			if len(v.Message) > 300 || !utf8.ValidString(v.Message) {
				t.Errorf("message is too long or not UTF-8: %q", v.Message)
			}
		})
	}
}

func TestParseReturnsPartsAsTheyCame(t *testing.T) {
	body := `{ "model" : "m\u0061", "x":1.0e2 , "y":"\ud800"}`
	line := []byte(` {"body": ` + body + ` ,"url":"/v1/chat/completions","method":"POST","custom_id":"\u0061"}`)
	l, v := newLineParser(chatURL, 1000).parse(line)
	if v != nil {
		t.Fatal(v)
	}
	if string(l.Body) != body || string(l.CustomID) != `"\u0061"` || l.Model != "ma" || string(l.id) != "a" {
		t.Errorf("body %s, custom_id %s (%s), model %s", l.Body, l.CustomID, l.id, l.Model)
	}
}

func TestIDsThatDifferInLoneSurrogatesOnlyAreDifferent(t *testing.T) {
	raws := []string{`"\ud800"`, `"\ud801"`, `"\udc00"`, `"\ufffd"`, `"\ud800\udc00"`, `"\udc00\ud800"`, `"\n\ud800"`, `"\\\ud800"`, `"a\ud800é"`}
	seen := map[string]string{}
	for _, raw := range raws {
		id := string(appendUnquoted(nil, []byte(raw)))
		if other, ok := seen[id]; ok {
			t.Errorf("%s and %s are the same id", raw, other)
		}
		seen[id] = raw
	}
	if a, b := appendUnquoted(nil, []byte(`"\ud800\u00e9"`)), appendUnquoted(nil, []byte(`"\uD800é"`)); !bytes.Equal(a, b) {
		t.Errorf("the same id in two spellings: %x, %x", a, b)
	}
}

func TestModerationsChooseTheirModel(t *testing.T) {
	line := strings.Replace(request("body", `{"input":"x"}`), chatURL, "/v1/moderations", 1)
	if l, v := newLineParser("/v1/moderations", 1000).parse([]byte(line)); v != nil || l.Model != "" {
		t.Errorf("model %q, violation %+v", l.Model, v)
	}
}

func TestQuickWayKnowsUsualLines(t *testing.T) {
	for _, size := range []int{200, 2000} {
		var m members
		if line := bytes.TrimSpace(benchLine(1, size, plainText)); !newLineParser("", 1).quick(line, &m) {
			t.Errorf("a line of %d bytes takes the slow way", size)
		}
	}
}

func TestFirstEndpointPassesOverBadLines(t *testing.T) {
	in := "\ufeff\r\n" + request("method", `"GET"`) + "\r\n" + request("url", `"\/v1\/x"`) + "\n"
	url, err := FirstEndpoint(strings.NewReader(in), 1000)
	if err != nil || url != "/v1/x" {
		t.Errorf("url %q, error %v", url, err)
	}
}

func TestFirstEndpointSaysWhyThereIsNone(t *testing.T) {
	for in, want := range map[string]string{
		"":                              "the input has no requests",
		"\n \n":                         "the input has no requests",
		"\n" + request("method", "1"):   "line 2: method must be",
		strings.Repeat("x", 1000):       "line 1: the line is longer",
		request("url", `""`) + "\nnull": "line 1: url must be the path",
	} {
		_, err := FirstEndpoint(strings.NewReader(in), 500)
		var e *Error
		if !errors.As(err, &e) || e.Code != CodeInvalid || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

func TestSpecialBytesFindsTheFirst(t *testing.T) {
	for c := range 256 {
		for at := range 8 {
			s := []byte(`"plain text"`)[1:9]
			s[at] = byte(c)
			end := quickString(append([]byte{'"'}, append(s, `tail"`...)...), 0, false)
			want := 14
			switch {
			case c == '"':
				want = at + 2
			case c < ' ' || c == '\\' || c >= 0x80:
				want = -1
			}
			if end != want {
				t.Fatalf("byte 0x%02x at %d: string ends at %d, want %d", c, at, end, want)
			}
		}
	}
}

// FuzzParse holds the quick way to the slow one, and both to the reference.
func FuzzParse(f *testing.F) {
	for _, tt := range nasty {
		f.Add([]byte(tt.line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		p := newLineParser(chatURL, testLineLimit)
		var quick, slow members
		if p.quick(line, &quick) {
			v := p.slow(line, &slow)
			if v != nil || !utf8.Valid(line) {
				t.Fatalf("the quick way accepts what the slow one does not: %+v", v)
			}
			if d := cmp.Diff(slow, quick, cmp.AllowUnexported(members{})); d != "" {
				t.Fatalf("the ways differ (-slow +quick):\n%s", d)
			}
		}
		if bytes.IndexByte(line, '\n') >= 0 || bytes.HasPrefix(line, []byte("\ufeff")) || bytes.HasSuffix(line, []byte("\r")) {
			return // the reference would read another line
		}
		want := refLines(line, chatURL, testLineLimit)
		if len(want) == 0 || want[0].blank {
			return
		}
		got := refLine{}
		l, v := p.parse(line)
		if v != nil {
			got.code, got.param = v.Code, v.Param
		}
		if l.CustomID != nil {
			got.id, _ = refString(l.CustomID)
		}
		if got.code != want[0].code || got.param != want[0].param || got.id != want[0].id {
			t.Fatalf("got %q %q, id %q; want %q %q, id %q", got.code, got.param, got.id, want[0].code, want[0].param, want[0].id)
		}
	})
}
