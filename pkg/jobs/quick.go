package jobs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// The quick way reads by hand what most lines are made of: objects, arrays, strings of ASCII and plain numbers. Other
// strings, those with \u in them, and odd numbers it gives to jsontext one by one. Next to nothing is read twice, and texts
// are read eight bytes at a time, so a scan keeps up with jsontext's validation alone; finding the members in a second pass
// after that would take half as long again. It never refuses a line: it answers false at the first thing that it does not
// know, and then the slow way has the word. What it accepts the slow way accepts with the same members; FuzzParse holds it
// to that.

// Levels of the objects of a line.
const (
	levelLine  = 0
	levelBody  = 1
	levelQuick = 64 // values this deep are left to jsontext, so that the stack stays small
)

// quick reads a line into m, or tells that it cannot.
func (p *lineParser) quick(line []byte, m *members) bool {
	start := firstByte(line)
	if byteAt(line, start) != '{' {
		return false
	}
	end := p.quickObject(line, start, m, levelLine)
	return end >= 0 && isBlank(line[end:])
}

// quickObject reads the object that starts at i and returns its end, or -1.
func (p *lineParser) quickObject(line []byte, i int, m *members, level int) int {
	i = skipSpace(line, i+1)
	if byteAt(line, i) == '}' {
		return i + 1
	}
	for {
		nameEnd := quickString(line, i, false)
		if nameEnd < 0 {
			return -1
		}
		name := line[i+1 : nameEnd-1]
		if i = skipSpace(line, nameEnd); byteAt(line, i) != ':' {
			return -1
		}
		start := skipSpace(line, i+1)
		if level == levelLine && string(name) == "body" && byteAt(line, start) == '{' {
			i = p.quickObject(line, start, m, levelBody)
		} else {
			i = p.quickValue(line, start, max(level, levelBody)+1)
		}
		if i < 0 || level <= levelBody && !m.quickNote(name, line[start:i], level == levelBody) {
			return -1
		}
		switch i = skipSpace(line, i); byteAt(line, i) {
		case ',':
			i = skipSpace(line, i+1)
		case '}':
			return i + 1
		default:
			return -1
		}
	}
}

// quickNote is note, but keys of the line itself that are unknown or come twice are left to the slow way.
func (m *members) quickNote(name, value []byte, body bool) bool {
	if !body {
		switch string(name) {
		case "custom_id":
			if m.customID != nil {
				return false
			}
		case "method":
			if m.method != nil {
				return false
			}
		case "url":
			if m.url != nil {
				return false
			}
		case "body":
			if m.body != nil {
				return false
			}
		}
	}
	return m.note(name, value, body)
}

// quickArray reads the array that starts at i and returns its end, or -1.
func (p *lineParser) quickArray(line []byte, i int, level int) int {
	i = skipSpace(line, i+1)
	if byteAt(line, i) == ']' {
		return i + 1
	}
	for {
		if i = p.quickValue(line, i, level+1); i < 0 {
			return -1
		}
		switch i = skipSpace(line, i); byteAt(line, i) {
		case ',':
			i = skipSpace(line, i+1)
		case ']':
			return i + 1
		default:
			return -1
		}
	}
}

// quickValue returns the end of the value that starts at i, or -1. Objects in it have the level.
func (p *lineParser) quickValue(line []byte, i int, level int) int {
	end := -1
	switch c := byteAt(line, i); {
	case c == '"':
		end = quickString(line, i, true)
	case c == '{' && level < levelQuick:
		return p.quickObject(line, i, nil, level)
	case c == '[' && level < levelQuick:
		return p.quickArray(line, i, level)
	case c == 't' || c == 'f' || c == 'n':
		return quickLiteral(line, i)
	case c >= '0' && c <= '9':
		end = quickNumber(line, i)
	}
	if end >= 0 || i >= len(line) {
		return end
	}
	p.decode(line[i:])
	if _, err := p.decoder.ReadValue(); err != nil {
		return -1
	}
	end = i + int(p.decoder.InputOffset())
	if !utf8.Valid(line[i:end]) { // nothing else on this way is other than ASCII
		return -1
	}
	return end
}

func quickLiteral(line []byte, i int) int {
	for _, literal := range [...]string{"true", "false", "null"} {
		if n := len(literal); i+n <= len(line) && string(line[i:i+n]) == literal {
			return i + n
		}
	}
	return -1
}

// quickString returns the end of a string of ASCII that starts at i, or -1. Escapes of one letter may be in it if allowed;
// those of four digits may be halves of a surrogate pair, which is jsontext's business.
func quickString(line []byte, i int, escapes bool) int {
	if byteAt(line, i) != '"' {
		return -1
	}
	for i++; i < len(line); {
		if i+8 <= len(line) {
			special := specialBytes(binary.LittleEndian.Uint64(line[i:]))
			if special == 0 {
				i += 8
				continue
			}
			i += bits.TrailingZeros64(special) / 8
		}
		switch c := line[i]; {
		case c == '"':
			return i + 1
		case c == '\\' && escapes && isEscape(byteAt(line, i+1)):
			i += 2
		case c == '\\', c < ' ', c >= utf8.RuneSelf:
			return -1
		default:
			i++
		}
	}
	return -1
}

// isEscape tells whether a backslash and c are one character.
func isEscape(c byte) bool {
	switch c {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return true
	default:
		return false
	}
}

// specialBytes looks at eight bytes at once. The lowest bit of its result that is on is the top bit of the first byte that
// cannot stand for itself in a string, or ends it; 0 if all eight can. Subtracting makes a borrow of each such byte, and
// so sets its top bit; what a borrow does to the bytes above does not matter, since they come later in the line.
func specialBytes(x uint64) uint64 {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	quote := (x ^ ones*'"') - ones
	escape := (x ^ ones*'\\') - ones
	control := x - ones*' '
	return (x | quote | escape | control) & tops
}

// quickNumber returns the end of a number without sign and exponent that starts at i, or -1.
func quickNumber(line []byte, i int) int {
	if line[i] == '0' {
		i++
	} else {
		i = skipDigits(line, i)
	}
	if byteAt(line, i) == '.' {
		fraction := i + 1
		if i = skipDigits(line, fraction); i == fraction {
			return -1
		}
	}
	switch byteAt(line, i) {
	case 'e', 'E':
		return -1
	default:
		return i
	}
}

func skipDigits(line []byte, i int) int {
	for i < len(line) && line[i] >= '0' && line[i] <= '9' {
		i++
	}
	return i
}

// byteAt is line[i], or 0 past the end: a byte that no JSON has outside of strings.
func byteAt(line []byte, i int) byte {
	if uint(i) < uint(len(line)) {
		return line[i]
	}
	return 0
}

func skipSpace(line []byte, i int) int {
	for i < len(line) && isSpace(line[i]) {
		i++
	}
	return i
}

func firstByte(b []byte) int { return skipSpace(b, 0) }

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// isBlank tells whether b is nothing but JSON whitespace.
func isBlank(b []byte) bool { return firstByte(b) == len(b) }

// unquote returns what a valid JSON string says, with U+FFFD for lone surrogates; false if raw is no string. It aliases
// raw if there is nothing to unescape.
func unquote(raw []byte) ([]byte, bool) {
	if len(raw) < 2 || raw[0] != '"' {
		return nil, false
	}
	if s := raw[1 : len(raw)-1]; bytes.IndexByte(s, '\\') < 0 {
		return s, true
	}
	s, _ := jsontext.AppendUnquote(nil, raw) // complains of lone surrogates only
	return s, true
}

// appendUnquoted unescapes a valid JSON string so that different strings stay different: lone surrogates are written in
// the generalised UTF-8 that the standard would refuse, where AppendUnquote makes all of them U+FFFD.
func appendUnquoted(dst, raw []byte) []byte {
	start := len(dst)
	s, err := jsontext.AppendUnquote(dst, raw)
	if err == nil {
		return s
	}
	dst = s[:start]
	for raw = raw[1 : len(raw)-1]; len(raw) > 0; {
		n := 1
		switch {
		case raw[0] != '\\':
			dst = append(dst, raw[0])
		case raw[1] != 'u':
			n = 2
			dst, _ = jsontext.AppendUnquote(dst, []byte{'"', '\\', raw[1], '"'})
		default:
			n = 6
			r := escapedUnit(raw)
			if pair := utf16.DecodeRune(r, escapedUnit(raw[n:])); pair != utf8.RuneError {
				r, n = pair, 12
			}
			if utf16.IsSurrogate(r) {
				dst = append(dst, 0xe0|byte(r>>12), 0x80|byte(r>>6)&0x3f, 0x80|byte(r)&0x3f)
			} else {
				dst = utf8.AppendRune(dst, r)
			}
		}
		raw = raw[n:]
	}
	return dst
}

// escapedUnit is the UTF-16 unit of the \uXXXX that b begins with, or -1.
func escapedUnit(b []byte) rune {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return -1
	}
	u, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return rune(u)
}

// charsOf counts the characters of a string: raw as it came, s as appendUnquoted left it. A lone surrogate is one.
func charsOf(raw, s []byte) int {
	if !utf8.Valid(s) {
		s, _ = unquote(raw)
	}
	return utf8.RuneCount(s)
}

// kindOf names what a raw JSON value is.
func kindOf(raw []byte) string {
	switch raw[0] {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	default:
		return "a number"
	}
}

// excerpt quotes the beginning of a raw JSON value. An input may hold secrets, so no message shows more than this.
func excerpt(raw []byte) string {
	const chars = 40
	s, ok := unquote(raw)
	if !ok {
		return kindOf(raw)
	}
	if len(s) > chars && utf8.RuneCount(s) > chars {
		return fmt.Sprintf("%q…", string([]rune(string(s[:min(len(s), utf8.UTFMax*chars)]))[:chars]))
	}
	return fmt.Sprintf("%q", s)
}
