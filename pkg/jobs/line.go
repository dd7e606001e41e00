package jobs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Codes of violations. They are the wire's.
const (
	ViolationJSON      = "invalid_json_line"
	ViolationDuplicate = "duplicate_custom_id"
	ViolationURL       = "url_mismatch"
	ViolationEmpty     = "empty_file"
	ViolationLong      = "line_too_long"
	ViolationTasks     = "too_many_tasks"
	ViolationRequest   = "invalid_request" // Param says which field
)

// RulesVersion is the version of the input rules in this file. A job keeps the one it was scanned with.
const RulesVersion = 1

const (
	maxCustomIDChars = 512
	maxModelChars    = 256 // a model names a gate in the registry: 256 characters fit any store's key
)

// Violation is a breach of the input rules. A line has at most one: the first, in the order of the rules.
type Violation struct {
	Code    string `json:"code"`
	Line    int64  `json:"line,omitempty"` // physical line of the input, from 1; 0 = the file as a whole
	Message string `json:"message"`        // a sentence without the line number; quotes a short excerpt at most
	Param   string `json:"param,omitempty"`
}

// Line is one request as it came. CustomID and Body alias the line that was parsed.
type Line struct {
	CustomID []byte // the raw JSON string, quotes included; nil = none that is readable
	URL      string
	Model    string // "" where the endpoint lets it be absent
	Body     []byte // the raw JSON object

	id []byte // CustomID unquoted: ids are the same if and only if these bytes are. Lives until the next parse
}

// lineParser checks lines against the input rules. Lines that look as usual take the quick way (quick.go); all others,
// and so everything that is reported, take the slow one below. Not for concurrent use.
type lineParser struct {
	endpoint string // the url that every line must have; "" = any
	limit    int64  // bytes of a line without its ending

	rest    bytes.Buffer // what decoder reads from; a bytes.Buffer is read in place
	decoder *jsontext.Decoder
	names   map[string]struct{} // top-level keys of the line, on the slow way
	id      []byte              // scratch for ids with escapes
	model   string              // of the last line: most lines have the same, so it is allocated once
}

// The body goes upstream as it came, so keys may repeat in it; those of the line itself are checked by hand. Lone
// surrogate escapes must pass (Python's json.dumps writes them), so the line's UTF-8 is checked by hand as well.
var lenient = []jsontext.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)}

func newLineParser(endpoint string, limit int64) *lineParser {
	p := &lineParser{endpoint: endpoint, limit: limit, names: map[string]struct{}{}}
	p.decoder = jsontext.NewDecoder(&p.rest, lenient...)
	return p
}

// decode makes the decoder read b from its start.
func (p *lineParser) decode(b []byte) {
	p.rest = *bytes.NewBuffer(b)
	p.decoder.Reset(&p.rest, lenient...)
}

// members are the parts of a line that the rules look at: raw JSON values, nil where absent.
type members struct {
	customID, method, url, body []byte

	model   []byte // of the body; the last one counts, as in most parsers
	streams bool   // the body has "stream": true
}

// parse checks one line, stripped of its ending and byte order mark. With a violation the Line still carries its CustomID
// if that is readable. The violation's Line is left to the caller.
func (p *lineParser) parse(line []byte) (Line, *Violation) {
	if int64(len(line)) > p.limit {
		return Line{}, &Violation{Code: ViolationLong, Message: fmt.Sprintf("the line is longer than the limit of %d bytes", p.limit)}
	}
	var m members
	if p.quick(line, &m) {
		return p.judge(&m)
	}
	m = members{}
	v := p.slow(line, &m)
	if !utf8.Valid(line) {
		v = invalidUTF8(line)
	}
	if v != nil {
		return p.bad(&m, v)
	}
	return p.judge(&m)
}

// bad is the Line of a line that is no JSON object: nothing but its id counts.
func (p *lineParser) bad(m *members, v *Violation) (Line, *Violation) {
	var l Line
	p.readID(&l, m.customID)
	return l, v
}

// judge applies the rules to a line that is a JSON object. The first breach wins.
func (p *lineParser) judge(m *members) (Line, *Violation) {
	var l Line
	if v := p.readID(&l, m.customID); v != nil {
		return l, v
	}
	switch method, ok := unquote(m.method); {
	case m.method == nil:
		return l, invalidRequest("method", `method is missing; it must be "POST"`)
	case !ok || string(method) != "POST":
		return l, invalidRequest("method", `method must be "POST", not %s`, excerpt(m.method))
	}
	if v := p.readURL(&l, m.url); v != nil {
		return l, v
	}
	switch {
	case m.body == nil:
		return l, invalidRequest("body", "body is missing; it must be a JSON object, the request for %s", l.URL)
	case m.body[0] != '{':
		return l, invalidRequest("body", "body must be a JSON object, not %s", kindOf(m.body))
	case m.streams:
		return l, invalidRequest("body.stream", "body.stream must not be true; answers of a batch are not streamed")
	}
	if v := p.readModel(&l, m.model); v != nil {
		return l, v
	}
	l.Body = m.body
	return l, nil
}

func (p *lineParser) readID(l *Line, raw []byte) *Violation {
	switch {
	case raw == nil:
		return invalidRequest("custom_id", "custom_id is missing; each line needs one of its own")
	case raw[0] != '"':
		return invalidRequest("custom_id", "custom_id must be a string, not %s", kindOf(raw))
	case !utf8.Valid(raw): // the line was refused for it; here it only means that the id is not readable
		return invalidRequest("custom_id", "custom_id is not valid UTF-8")
	}
	id := raw[1 : len(raw)-1]
	if bytes.IndexByte(id, '\\') >= 0 {
		p.id = appendUnquoted(p.id[:0], raw)
		id = p.id
	}
	switch {
	case len(id) == 0:
		return invalidRequest("custom_id", "custom_id must not be empty")
	case len(id) > maxCustomIDChars && charsOf(raw, id) > maxCustomIDChars:
		return invalidRequest("custom_id", "custom_id has %d characters; at most %d are allowed", charsOf(raw, id), maxCustomIDChars)
	}
	l.CustomID, l.id = raw, id
	return nil
}

func (p *lineParser) readURL(l *Line, raw []byte) *Violation {
	url, ok := unquote(raw)
	switch {
	case ok && p.endpoint != "" && string(url) == p.endpoint:
		l.URL = p.endpoint
		return nil
	case ok && p.endpoint == "" && len(url) > 0:
		l.URL = string(url)
		return nil
	}
	want := `the path of an endpoint, such as "/v1/chat/completions"`
	if p.endpoint != "" {
		want = fmt.Sprintf("%q, the endpoint of the job", p.endpoint)
	}
	v := &Violation{Code: ViolationURL, Param: "url"}
	if raw == nil {
		v.Message = fmt.Sprintf("url is missing; it must be %s", want)
	} else {
		v.Message = fmt.Sprintf("url must be %s, not %s", want, excerpt(raw))
	}
	return v
}

// modelOptional are the endpoints that choose a model by themselves.
var modelOptional = map[string]bool{"/v1/moderations": true}

func (p *lineParser) readModel(l *Line, raw []byte) *Violation {
	model, ok := unquote(raw)
	switch {
	case raw == nil && modelOptional[l.URL]:
		return nil
	case raw == nil:
		return invalidRequest("body.model", "body.model is missing; name the model that is to answer")
	case !ok:
		return invalidRequest("body.model", "body.model must be a string, not %s", kindOf(raw))
	case len(model) == 0:
		return invalidRequest("body.model", "body.model must not be empty; name the model that is to answer")
	case len(model) > maxModelChars && utf8.RuneCount(model) > maxModelChars:
		return invalidRequest("body.model", "body.model has more than %d characters", maxModelChars)
	case string(model) != p.model:
		p.model = string(model)
	}
	l.Model = p.model
	return nil
}

// slow reads a line token by token up to the first thing that is wrong with it; m holds what came before.
func (p *lineParser) slow(line []byte, m *members) *Violation {
	p.decode(line)
	d := p.decoder
	switch kind := d.PeekKind(); kind {
	case '{':
	case 0:
		_, err := d.ReadToken()
		return syntaxViolation(line, err)
	default:
		return notJSON("the line is %s, not a JSON object", kindOf(line[firstByte(line):]))
	}
	if v := p.slowObject(line, m, false); v != nil {
		return v
	}
	if end := int(d.InputOffset()); !isBlank(line[end:]) {
		at := end + firstByte(line[end:])
		if line[at] == 0 {
			return syntaxViolation(line, &jsontext.SyntacticError{ByteOffset: int64(at)})
		}
		return notJSON("the line goes on after its JSON object at column %d; each request needs a line of its own", column(line, at))
	}
	return nil
}

// slowObject reads the line's object, or its body's.
func (p *lineParser) slowObject(line []byte, m *members, body bool) *Violation {
	d := p.decoder
	if _, err := d.ReadToken(); err != nil {
		return syntaxViolation(line, err)
	}
	if !body {
		clear(p.names)
	}
	for d.PeekKind() != '}' {
		raw, err := d.ReadValue()
		if err != nil {
			return syntaxViolation(line, err)
		}
		name := appendUnquoted(nil, raw)
		if !body {
			if _, twice := p.names[string(name)]; twice {
				return notJSON("the key %s appears twice in the line", excerpt(raw))
			}
			p.names[string(name)] = struct{}{}
		}
		if !body && string(name) == "body" && d.PeekKind() == '{' {
			start := int(d.InputOffset())
			start += bytes.IndexByte(line[start:], '{')
			if v := p.slowObject(line, m, true); v != nil {
				return v
			}
			m.body = line[start:d.InputOffset()]
			continue
		}
		value, err := d.ReadValue()
		if err != nil {
			return syntaxViolation(line, err)
		}
		end := int(d.InputOffset())
		m.note(name, line[end-len(value):end], body)
	}
	if _, err := d.ReadToken(); err != nil {
		return syntaxViolation(line, err)
	}
	return nil
}

// note keeps a member that the rules look at, and tells whether it is one.
func (m *members) note(name, value []byte, body bool) bool {
	if body {
		switch string(name) {
		case "model":
			m.model = value
		case "stream":
			m.streams = m.streams || string(value) == "true"
		}
		return true
	}
	switch string(name) {
	case "custom_id":
		m.customID = value
	case "method":
		m.method = value
	case "url":
		m.url = value
	case "body":
		m.body = value
	default:
		return false
	}
	return true
}

func invalidRequest(param, format string, args ...any) *Violation {
	return &Violation{Code: ViolationRequest, Param: param, Message: fmt.Sprintf(format, args...)}
}

func notJSON(format string, args ...any) *Violation {
	return &Violation{Code: ViolationJSON, Message: fmt.Sprintf(format, args...)}
}

func invalidUTF8(line []byte) *Violation {
	at := 0
	for at < len(line) {
		r, n := utf8.DecodeRune(line[at:])
		if r == utf8.RuneError && n == 1 {
			break
		}
		at += n
	}
	hint := ""
	if b := line[at:]; at == 0 && (bytes.HasPrefix(b, []byte{0xff, 0xfe}) || bytes.HasPrefix(b, []byte{0xfe, 0xff})) {
		hint = "; it looks like UTF-16, save the file as UTF-8"
	}
	return notJSON("the line is not valid UTF-8 at column %d (byte 0x%02x)%s", column(line, at), line[at], hint)
}

// syntaxViolation says where a line stops being JSON, in words of the person who wrote it.
func syntaxViolation(line []byte, err error) *Violation {
	at, why := len(line), "the line ends too early"
	var syntax *jsontext.SyntacticError
	if errors.As(err, &syntax) {
		at = min(int(syntax.ByteOffset), len(line))
		if syntax.Err != nil && !errors.Is(syntax.Err, io.ErrUnexpectedEOF) {
			why = strings.TrimPrefix(syntax.Err.Error(), "jsontext: ")
		}
	}
	if at < len(line) && line[at] == 0 {
		why = "there is a NUL byte"
	}
	return notJSON("the line is not valid JSON at column %d: %s", column(line, at), why)
}

// column is the character that begins at byte at, from 1.
func column(line []byte, at int) int { return utf8.RuneCount(line[:at]) + 1 }
