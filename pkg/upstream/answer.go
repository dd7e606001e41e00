package upstream

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// lenient lets through what JSON allows and I-JSON does not: duplicate names and lone surrogates (Python's json.dumps
// writes them). It lets raw invalid UTF-8 through as well, so that is looked for beside it.
var lenient = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// maxKept is the largest buffer that is kept for the next call; a rare huge answer must not stay in memory for ever.
const maxKept = 1 << 20

// reader reads answers with memory that is used again. What it returns is only its own until the next use, so callers
// clone what they hand on.
type reader struct {
	buf   bytes.Buffer
	limit io.LimitedReader
	src   bytes.Buffer
	dec   jsontext.Decoder
}

var readers = sync.Pool{New: func() any { return new(reader) }}

func (r *reader) free() {
	if r.buf.Cap() <= maxKept {
		readers.Put(r)
	}
}

var errTooLarge = errors.New("longer than the limit")

// read reads all of body. More than limit bytes are errTooLarge, found without reading on.
func (r *reader) read(body io.Reader, limit int64) ([]byte, error) {
	r.buf.Reset()
	r.limit = io.LimitedReader{R: body, N: limit + 1}
	_, err := r.buf.ReadFrom(&r.limit)
	r.limit.R = nil
	switch {
	case err != nil:
		return r.buf.Bytes(), err
	case int64(r.buf.Len()) > limit:
		return nil, errTooLarge
	default:
		return r.buf.Bytes(), nil
	}
}

var (
	errNoObject = errors.New("not a JSON object")
	errNotUTF8  = errors.New("not UTF-8")
)

// check tells whether b is one JSON object and nothing else, and returns the usage that stands at its top, in one walk.
func (r *reader) check(b []byte) (jobs.Usage, error) {
	if !utf8.Valid(b) {
		return jobs.Usage{}, errNotUTF8
	}
	r.src = *bytes.NewBuffer(b)
	r.dec.Reset(&r.src, lenient)
	var u jobs.Usage
	if r.dec.PeekKind() != '{' {
		if err := r.dec.SkipValue(); err != nil {
			return u, err
		}
		return u, errNoObject
	}
	err := members(&r.dec, func(name string) error {
		if name != "usage" || r.dec.PeekKind() != '{' {
			return r.dec.SkipValue()
		}
		return readUsage(&r.dec, &u)
	})
	if err != nil {
		return u, err
	}
	if _, err := r.dec.ReadToken(); !errors.Is(err, io.EOF) {
		return u, errors.New("more than one JSON value")
	}
	if u.Total == 0 {
		u.Total = u.Input + u.Output
	}
	return u, nil
}

// members reads an object; each must read the value of the name that it is given. An escaped name is given as it is
// written, since no name that is looked for needs an escape.
func members(d *jsontext.Decoder, each func(name string) error) error {
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for d.PeekKind() != '}' {
		quoted, err := d.ReadValue()
		if err != nil {
			return err
		}
		if err := each(known(quoted)); err != nil {
			return err
		}
	}
	_, err := d.ReadToken()
	return err
}

// known returns a name that matters as a constant, so that an answer's many other names cost no memory.
func known(quoted []byte) string {
	switch string(quoted) {
	case `"usage"`:
		return "usage"
	case `"prompt_tokens"`, `"input_tokens"`:
		return "input"
	case `"completion_tokens"`, `"output_tokens"`:
		return "output"
	case `"total_tokens"`:
		return "total"
	case `"prompt_tokens_details"`, `"input_tokens_details"`:
		return "input_details"
	case `"completion_tokens_details"`, `"output_tokens_details"`:
		return "output_details"
	case `"cached_tokens"`:
		return "cached"
	case `"reasoning_tokens"`:
		return "reasoning"
	default:
		return ""
	}
}

// readUsage reads a usage object, by the names of chat completions or of responses. Whatever is missing or odd stays 0;
// where both names are there the larger one counts.
func readUsage(d *jsontext.Decoder, u *jobs.Usage) error {
	return members(d, func(name string) error {
		switch name {
		case "input":
			return readCount(d, &u.Input)
		case "output":
			return readCount(d, &u.Output)
		case "total":
			return readCount(d, &u.Total)
		case "input_details":
			return readDetail(d, "cached", &u.Cached)
		case "output_details":
			return readDetail(d, "reasoning", &u.Reasoning)
		default:
			return d.SkipValue()
		}
	})
}

func readDetail(d *jsontext.Decoder, wanted string, n *int64) error {
	if d.PeekKind() != '{' {
		return d.SkipValue()
	}
	return members(d, func(name string) error {
		if name != wanted {
			return d.SkipValue()
		}
		return readCount(d, n)
	})
}

// maxDigits is how many digits a count may have: more than any bill, and far from an overflow when a job adds them up.
const maxDigits = 15

// readCount raises n to the value, if that is a whole number.
func readCount(d *jsontext.Decoder, n *int64) error {
	v, err := d.ReadValue()
	if err != nil {
		return err
	}
	if len(v) > maxDigits {
		return nil
	}
	var count int64
	for _, c := range v {
		if c < '0' || c > '9' {
			return nil
		}
		count = count*10 + int64(c-'0')
	}
	*n = max(*n, count)
	return nil
}

// oneLine returns a copy of b, which is valid JSON, on one line. Strings and numbers stay as they were written; spaces
// are touched only where there are line breaks among them.
func oneLine(b []byte) ([]byte, error) {
	b = bytes.Trim(b, " \t\r\n")
	if bytes.IndexByte(b, '\n') < 0 && bytes.IndexByte(b, '\r') < 0 {
		return bytes.Clone(b), nil
	}
	return jsontext.AppendFormat(make([]byte, 0, len(b)), b, lenient, jsontext.PreserveRawStrings(true))
}
