package jobs

import (
	"bytes"
	"encoding/json"
	"hash/crc32"
	"math"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// This file is the scan as one would write it without a care for speed or memory: the whole input at once, encoding/json,
// no stream, no splits. It says what is right; messages are left out.

// refLine is one physical line of an input.
type refLine struct {
	offset, length int64
	content        []byte
	blank          bool
	id             string // as UTF-16 units, so that lone surrogates stay apart; "" = not readable
	model          string
	code, param    string // of its violation; "" = none
}

func refLines(input []byte, endpoint string, limit int64) []refLine {
	var lines []refLine
	var offset int64
	for raw := range bytes.Lines(input) {
		l := refLine{offset: offset, length: int64(len(raw)), content: raw}
		if offset == 0 {
			l.content = bytes.TrimPrefix(l.content, []byte("\xef\xbb\xbf"))
		}
		l.content = bytes.TrimSuffix(bytes.TrimSuffix(l.content, []byte("\n")), []byte("\r"))
		long := int64(len(l.content)) > limit
		l.blank = !long && len(bytes.Trim(l.content, " \t\r")) == 0
		switch {
		case long:
			l.code = ViolationLong
		case !l.blank:
			l.judge(endpoint)
		}
		lines = append(lines, l)
		offset += int64(len(raw))
	}
	return lines
}

func (l *refLine) judge(endpoint string) {
	fields, whole := refMembers(l.content)
	broken := !json.Valid(l.content) || !utf8.Valid(l.content) || !whole
	id, idOK := refString(fields["custom_id"])
	if n := refChars(id); idOK && utf8.Valid(fields["custom_id"]) && n >= 1 && n <= 512 {
		l.id = id
	}
	method, _ := refString(fields["method"])
	url, _ := refString(fields["url"])
	var stream bool
	var model json.RawMessage
	body := fields["body"]
	if !broken && len(body) > 0 && body[0] == '{' {
		d := json.NewDecoder(bytes.NewReader(body))
		_, _ = d.Token() // its brace; what is wrong shows below
		for d.More() {
			name, value := refMember(d)
			stream = stream || name == "stream" && string(value) == "true"
			if name == "model" {
				model = value
			}
		}
	}
	modelName, modelOK := refString(model)
	switch {
	case broken:
		l.code = ViolationJSON
	case l.id == "":
		l.code, l.param = ViolationRequest, "custom_id"
	case method != "POST":
		l.code, l.param = ViolationRequest, "method"
	case url != endpoint:
		l.code, l.param = ViolationURL, "url"
	case len(body) == 0 || body[0] != '{':
		l.code, l.param = ViolationRequest, "body"
	case stream:
		l.code, l.param = ViolationRequest, "body.stream"
	case model == nil && endpoint == "/v1/moderations":
	case !modelOK || modelName == "" || refChars(modelName) > maxModelChars:
		l.code, l.param = ViolationRequest, "body.model"
	default:
		_ = json.Unmarshal(model, &l.model) // it is a string: it was read as one above
	}
}

// refMembers reads the top level of a line up to its first error; whole = there was none, nor a key twice.
func refMembers(content []byte) (fields map[string]json.RawMessage, whole bool) {
	fields = map[string]json.RawMessage{}
	d := json.NewDecoder(bytes.NewReader(content))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return fields, false
	}
	for d.More() {
		before := d.InputOffset()
		if _, err := d.Token(); err != nil {
			return fields, false
		}
		raw := content[before:d.InputOffset()]
		key, ok := refString(raw[max(bytes.IndexByte(raw, '"'), 0):]) // Token's own string is lossy
		if !ok {
			return fields, false
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return fields, false
		}
		if _, twice := fields[key]; twice {
			return fields, false
		}
		fields[key] = value
	}
	return fields, true
}

func refMember(d *json.Decoder) (string, json.RawMessage) {
	name, _ := d.Token()
	var value json.RawMessage
	_ = d.Decode(&value) // the object was decoded whole before
	s, _ := name.(string)
	return s, value
}

// refString reads a JSON string as UTF-16 units, each as a rune of its own.
func refString(raw []byte) (string, bool) {
	if len(raw) < 2 || raw[0] != '"' {
		return "", false
	}
	var units []uint16
	for s := string(raw[1 : len(raw)-1]); s != ""; {
		if s[0] != '\\' {
			r, n := utf8.DecodeRuneInString(s)
			units = utf16.AppendRune(units, r)
			s = s[n:]
			continue
		}
		if s[1] == 'u' {
			u, _ := strconv.ParseUint(s[2:6], 16, 16)
			units = append(units, uint16(u))
			s = s[6:]
			continue
		}
		units = append(units, uint16(map[byte]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}[s[1]]))
		s = s[2:]
	}
	var out strings.Builder
	for _, u := range units {
		if utf16.IsSurrogate(rune(u)) {
			out.WriteRune(0x100000 + rune(u)) // a private character: WriteRune would lose the surrogate
		} else {
			out.WriteRune(rune(u))
		}
	}
	return out.String(), true
}

// refChars counts characters of what refString returned: a surrogate pair is one.
func refChars(s string) int {
	var units []uint16
	for _, r := range s {
		if r >= 0x100000 {
			r -= 0x100000
		}
		units = append(units, uint16(r))
	}
	return len(utf16.Decode(units))
}

// refChunks cuts the lines that start in a split.
func refChunks(input []byte, lines []refLine, cut Cut) []ChunkCut {
	most := max(cut.LineBytes, cut.ChunkBytes) + 6
	var chunks []ChunkCut
	for i := 0; i < len(lines); {
		if lines[i].blank {
			i++
			continue
		}
		c := ChunkCut{Offset: lines[i].offset, Line: int64(i), CRC: math.MaxUint32}
		last := i // the chunk's last item
		next := i // the item that begins the next chunk
		for ; next < len(lines); next++ {
			if lines[next].blank {
				continue
			}
			bytes, count := lines[next].offset-c.Offset, next-i
			full := (count >= cut.ChunkLines || bytes >= cut.ChunkBytes) && bytes >= cut.FloorBytes || count >= MaxChunkLines
			if count > 0 && (full || lines[next].length > most || last == i && bytes > most) {
				break
			}
			last = next
		}
		end := lines[len(lines)-1].offset + lines[len(lines)-1].length
		if next < len(lines) {
			end = lines[next].offset
		}
		c.Length, c.Lines = end-c.Offset, last-i+1
		for o, l := range lines[i : last+1] {
			if l.blank {
				c.Blank.Set(o)
			}
			if l.code != "" {
				c.Bad.Set(o)
			}
		}
		read := c.Length
		if c.Lines == 1 {
			read = min(read, most)
		}
		c.CRC = crc32.Checksum(input[c.Offset:c.Offset+read], crc32.MakeTable(crc32.Castagnoli))
		chunks = append(chunks, c)
		i = next
	}
	return chunks
}

// refDuplicates are the lines, from 0, whose id an earlier one has, with the first that has it.
func refDuplicates(lines []refLine) map[int]int {
	first, losers := map[string]int{}, map[int]int{}
	for i, l := range lines {
		if l.blank || l.id == "" {
			continue
		}
		if w, ok := first[l.id]; ok {
			losers[i] = w
		} else {
			first[l.id] = i
		}
	}
	return losers
}
