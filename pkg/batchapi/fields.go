package batchapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// fields are the members of a JSON object that somebody sent. The first that is wrong counts, and is named.
type fields struct {
	raw    []byte // as it was sent
	values map[string]jsontext.Value
	err    error
}

// readFields reads a request's JSON object. Members that are not known are refused: one that is misspelt would be lost.
// A request without a body is one without members.
func readFields(r *http.Request, known ...string) (*fields, error) {
	raw, err := readBody(r)
	if err != nil {
		return nil, err
	}
	f := &fields{raw: raw, values: map[string]jsontext.Value{}}
	if len(bytes.TrimSpace(raw)) == 0 {
		return f, nil
	}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/json" && kind != "" {
		return nil, refuse(http.StatusBadRequest, "unsupported_media_type", "Unsupported content type: %.80q. This URL takes application/json.", kind)
	}
	if !utf8.Valid(raw) {
		return nil, refuse(http.StatusBadRequest, "invalid_json", "We could not parse the JSON body of your request: it is not UTF-8.")
	}
	d := jsontext.NewDecoder(bytes.NewReader(raw))
	if d.PeekKind() != '{' {
		return nil, refuse(http.StatusBadRequest, "invalid_json", "We could not parse the JSON body of your request: an object is expected.")
	}
	if err := f.read(d); err != nil {
		return nil, refuse(http.StatusBadRequest, "invalid_json", "We could not parse the JSON body of your request: %s.", syntax(err))
	}
	for name := range f.values {
		if !slices.Contains(known, name) {
			return nil, &failure{status: http.StatusBadRequest, code: "unknown_parameter", param: fmt.Sprintf("%.80s", name),
				message: fmt.Sprintf("Unknown parameter: %.80q.", name)}
		}
	}
	return f, nil
}

func (f *fields) read(d *jsontext.Decoder) error {
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for d.PeekKind() == '"' {
		name, err := d.ReadToken()
		if err != nil {
			return err
		}
		key := name.String()
		value, err := d.ReadValue()
		if err != nil {
			return err
		}
		f.values[key] = value.Clone()
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return errors.Join(err, errors.New("something follows the object"))
	}
	return nil
}

// syntax is what is wrong with JSON, in a few words.
func syntax(err error) string {
	var s *jsontext.SyntacticError
	if errors.As(err, &s) && s.Err != nil {
		return fmt.Sprintf("%.120s at byte %d", s.Err, s.ByteOffset)
	}
	return "it ends early, or something follows the object"
}

func readBody(r *http.Request) ([]byte, error) {
	raw, err := io.ReadAll(r.Body)
	return raw, broken(err)
}

// broken tells a body that did not come whole from what else may be wrong.
func broken(err error) error {
	tooLarge, big := errors.AsType[*http.MaxBytesError](err)
	switch {
	case err == nil:
		return nil
	case big:
		return tooLarge
	default:
		return refuse(http.StatusBadRequest, "incomplete_body", "The request ended before its body was whole.")
	}
}

func (f *fields) wrong(err error) {
	if f.err == nil {
		f.err = err
	}
}

// has tells whether there is a member, and one that is not null.
func (f *fields) has(name string) bool {
	v, ok := f.values[name]
	return ok && v.Kind() != 'n'
}

// text is a string that must be there.
func (f *fields) text(name string) string {
	if !f.has(name) {
		f.wrong(&failure{status: http.StatusBadRequest, code: "missing_required_parameter", param: name, message: fmt.Sprintf("Missing required parameter: '%s'.", name)})
		return ""
	}
	return f.textOr(name, "")
}

func (f *fields) textOr(name, otherwise string) string {
	if !f.has(name) {
		return otherwise
	}
	s, ok := stringOf(f.values[name])
	if !ok {
		f.wrong(wrongType(name, "a string", f.values[name]))
	}
	return s
}

func stringOf(v jsontext.Value) (string, bool) {
	if v.Kind() != '"' {
		return "", false
	}
	var s string
	err := json.Unmarshal(v, &s)
	return s, err == nil
}

func wrongType(param, want string, got jsontext.Value) error {
	kinds := map[jsontext.Kind]string{'"': "a string", '0': "a number", 't': "a boolean", 'f': "a boolean", '{': "an object", '[': "an array", 'n': "null"}
	return &failure{status: http.StatusBadRequest, code: "invalid_type", param: param,
		message: fmt.Sprintf("Invalid type for '%s': expected %s, but got %s instead.", param, want, kinds[got.Kind()])}
}

// integer is a whole number that must be there.
func (f *fields) integer(name string) int64 {
	if !f.has(name) {
		f.text(name) // says that it is missing
		return 0
	}
	var n int64
	if v := f.values[name]; v.Kind() != '0' {
		f.wrong(wrongType(name, "a whole number", v))
	} else if json.Unmarshal(v, &n) != nil {
		f.wrong(invalid(name, "Invalid value for '%s': %.40s is no whole number.", name, v))
	}
	return n
}

// integerFrom is one from least to most.
func (f *fields) integerFrom(name string, least, most int64) int64 {
	n := f.integer(name)
	if f.err == nil && (n < least || n > most) {
		f.wrong(invalid(name, "Invalid value for '%s': it must be from %d to %d.", name, least, most))
	}
	return n
}

// number is a number from least to most that must be there.
func (f *fields) number(name string, least, most float64) float64 {
	if !f.has(name) {
		f.text(name) // says that it is missing
	}
	return f.numberOr(name, 0, least, most)
}

// numberOr is one from least to most.
func (f *fields) numberOr(name string, otherwise, least, most float64) float64 {
	if !f.has(name) {
		return otherwise
	}
	var n float64
	if v := f.values[name]; v.Kind() != '0' || json.Unmarshal(v, &n) != nil {
		f.wrong(wrongType(name, "a number", v))
	} else if n < least || n > most {
		f.wrong(invalid(name, "Invalid value for '%s': it must be from %g to %g.", name, least, most))
	}
	return n
}

// boolOr is true or false.
func (f *fields) boolOr(name string, otherwise bool) bool {
	if !f.has(name) {
		return otherwise
	}
	v := f.values[name]
	if v.Kind() != 't' && v.Kind() != 'f' {
		f.wrong(wrongType(name, "a boolean", v))
	}
	return v.Kind() == 't'
}

// into reads a member that must be there into what has its form.
func (f *fields) into(name string, to any) bool {
	if !f.has(name) {
		f.text(name) // says that it is missing
		return false
	}
	if err := json.Unmarshal(f.values[name], to); err != nil {
		f.wrong(invalid(name, "Invalid type for '%s': it has another form.", name))
		return false
	}
	return true
}

// words is an array of strings.
func (f *fields) words(name string, otherwise []string) []string {
	if !f.has(name) {
		return otherwise
	}
	var all []string
	if v := f.values[name]; v.Kind() != '[' || json.Unmarshal(v, &all) != nil {
		f.wrong(wrongType(name, "an array of strings", v))
	}
	return all
}

// pairs is an object of strings.
func (f *fields) pairs(name string) map[string]string {
	if !f.has(name) {
		return nil
	}
	v := f.values[name]
	if v.Kind() != '{' {
		f.wrong(wrongType(name, "an object", v))
		return nil
	}
	var all map[string]jsontext.Value
	if err := json.Unmarshal(v, &all); err != nil {
		f.wrong(wrongType(name, "an object of strings", v))
		return nil
	}
	pairs := make(map[string]string, len(all))
	for key, value := range all {
		s, ok := stringOf(value)
		if !ok {
			f.wrong(wrongType(fmt.Sprintf("%s.%.64s", name, key), "a string", value))
		}
		pairs[key] = s
	}
	return pairs
}

// object is the members of a member.
func (f *fields) object(name string, known ...string) *fields {
	if !f.has(name) {
		return nil
	}
	v := f.values[name]
	inner := &fields{values: map[string]jsontext.Value{}}
	if v.Kind() != '{' || json.Unmarshal(v, &inner.values) != nil {
		f.wrong(wrongType(name, "an object", v))
		return nil
	}
	for key := range inner.values {
		if !slices.Contains(known, key) {
			f.wrong(&failure{status: http.StatusBadRequest, code: "unknown_parameter", param: fmt.Sprintf("%s.%.80s", name, key),
				message: fmt.Sprintf("Unknown parameter: '%s.%.80s'.", name, key)})
		}
	}
	return inner
}

// durationOr is a duration as Go writes it.
func (f *fields) durationOr(name string, otherwise time.Duration) time.Duration {
	s := f.textOr(name, "")
	if strings.TrimSpace(s) == "" {
		return otherwise
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		f.wrong(invalid(name, "Invalid value for '%s': %.40q is no duration such as 90m or 24h.", name, s))
	}
	return d
}
