package jobs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
)

// lineFrame is what may stand around the content of a line: a byte order mark before it and CR LF after it.
const lineFrame = 3 + 2

// mostOfLine is how much of one line is ever read: enough for every line that may share a chunk with others, and to see
// that a line is too long.
func (c Cut) mostOfLine() int64 { return max(c.LineBytes, c.ChunkBytes) + lineFrame + 1 }

// ReadBytes is how many bytes of a chunk are to be read; its CRC is over these. They are all of it, except that a chunk
// of one line, which may be a line of any length, is read only as far as it takes to see that it is too long.
func (c Cut) ReadBytes(lines int, length int64) int64 {
	if lines == 1 {
		return min(length, c.mostOfLine())
	}
	return length
}

// chunkLine is one line of a chunk, stripped as the scan strips it.
type chunkLine struct {
	offset  int64 // in the input
	content []byte
}

// splitLines yields the lines of a chunk by ordinal, blank ones too, but none after the chunk's last item. data is what
// Cut.ReadBytes says of the chunk's bytes.
func splitLines(data []byte, offset int64, lines int) iter.Seq2[int, chunkLine] {
	return func(yield func(int, chunkLine) bool) {
		for ordinal := 0; ordinal < lines && len(data) > 0; ordinal++ {
			end := bytes.IndexByte(data, '\n') + 1
			if end == 0 {
				end = len(data)
			}
			if !yield(ordinal, chunkLine{offset, stripLine(data[:end], offset)}) {
				return
			}
			data, offset = data[end:], offset+int64(end)
		}
	}
}

// stripLine takes the ending off a line, and off the first of a file the byte order mark.
func stripLine(raw []byte, offset int64) []byte {
	if offset == 0 {
		raw = bytes.TrimPrefix(raw, []byte("\ufeff"))
	}
	if n := len(raw); n > 0 && raw[n-1] == '\n' {
		raw = raw[:n-1]
	}
	if n := len(raw); n > 0 && raw[n-1] == '\r' {
		raw = raw[:n-1]
	}
	return raw
}

// isBlankLine tells whether a stripped line is ignored. One over the limit never is, since it was not read whole.
func isBlankLine(line []byte, limit int64) bool { return isBlank(line) && int64(len(line)) <= limit }

// lineReader reads the physical lines of a stream in bounded memory.
type lineReader struct {
	r      io.Reader
	most   int   // bytes of a line that are kept; the rest of a longer one is skipped
	offset int64 // of the next line in the file

	buf        []byte
	start, end int // of what is read and not yet taken
	eof        bool
}

// physicalLine is a line with its ending. raw is cut off after lineReader.most bytes and lives until the next call.
type physicalLine struct {
	raw    []byte
	length int64
}

// lineWindow is how much is read at once: large enough that calls and moves do not matter, small enough for the cache.
const lineWindow = 256 << 10

func newLineReader(r io.Reader, offset, most int64) *lineReader {
	return &lineReader{r: r, offset: offset, most: int(most), buf: make([]byte, lineWindow)}
}

// next returns the next line, or io.EOF.
func (l *lineReader) next() (physicalLine, error) {
	seen := 0 // bytes from start without a line's end
	for {
		if i := bytes.IndexByte(l.buf[l.start+seen:l.end], '\n'); i >= 0 {
			return l.take(seen + i + 1), nil
		}
		seen = l.end - l.start
		switch {
		case seen >= l.most:
			return l.takeLong()
		case l.eof && seen == 0:
			return physicalLine{}, io.EOF
		case l.eof:
			return l.take(seen), nil
		}
		if err := l.fill(); err != nil {
			return physicalLine{}, err
		}
	}
}

func (l *lineReader) take(n int) physicalLine {
	line := physicalLine{raw: l.buf[l.start : l.start+min(n, l.most)], length: int64(n)}
	l.start += n
	l.offset += int64(n)
	return line
}

// takeLong returns the beginning of a line that is longer than its bound, and reads over the rest: that goes into the
// part of the buffer behind the beginning, again and again.
func (l *lineReader) takeLong() (physicalLine, error) {
	l.makeRoom(l.most + lineWindow)
	length := int64(l.end)
	for {
		l.start, l.end = l.most, l.most
		if l.eof {
			break
		}
		if err := l.read(); err != nil {
			return physicalLine{}, err
		}
		if i := bytes.IndexByte(l.buf[l.start:l.end], '\n'); i >= 0 {
			length += int64(i + 1)
			l.start += i + 1
			break
		}
		length += int64(l.end - l.start)
	}
	l.offset += length
	return physicalLine{raw: l.buf[:l.most], length: length}, nil
}

// skip reads over the rest of a line, but not much beyond the given offset.
func (l *lineReader) skip(until int64) error {
	for l.offset < until {
		i := bytes.IndexByte(l.buf[l.start:l.end], '\n')
		if i >= 0 {
			l.take(i + 1)
			return nil
		}
		l.take(l.end - l.start)
		if l.eof {
			return nil
		}
		if err := l.fill(); err != nil {
			return err
		}
	}
	return nil
}

// fill reads more behind what is there, in a buffer that grows with the longest line, up to its bound.
func (l *lineReader) fill() error {
	size := len(l.buf)
	if l.end-l.start > size/2 {
		size = min(2*size, l.most+lineWindow)
	}
	l.makeRoom(size)
	return l.read()
}

// makeRoom moves what is there to the beginning of a buffer of at least the size.
func (l *lineReader) makeRoom(size int) {
	buf := l.buf
	if size > len(buf) {
		buf = make([]byte, size)
	}
	l.start, l.end = 0, copy(buf, l.buf[l.start:l.end])
	l.buf = buf
}

func (l *lineReader) read() error {
	for range 100 {
		n, err := l.r.Read(l.buf[l.end:])
		l.end += n
		l.eof = err == io.EOF
		switch {
		case err != nil && !l.eof:
			return err
		case n > 0 || l.eof:
			return nil
		}
	}
	return io.ErrNoProgress
}

// FirstEndpoint returns the url of the first line that keeps all rules but the one about the url: the endpoint of a job
// that was not told any.
func FirstEndpoint(r io.Reader, lineLimit int64) (string, error) {
	url, first, err := firstEndpoint(r, lineLimit)
	switch {
	case err != nil:
		return "", fmt.Errorf("find the endpoint: %w", err)
	case url == "" && first == nil:
		return "", Errorf(CodeInvalid, "find the endpoint: the input has no requests")
	case url == "":
		return "", Errorf(CodeInvalid, "find the endpoint: no line of the input is a valid request; line %d: %s", first.Line, first.Message)
	default:
		return url, nil
	}
}

// firstEndpoint returns "" if no line is valid, with what is wrong with the first one, if there is any.
func firstEndpoint(r io.Reader, lineLimit int64) (url string, first *Violation, err error) {
	cut := Cut{LineBytes: lineLimit}
	lines, parser := newLineReader(r, 0, cut.mostOfLine()), newLineParser("", lineLimit)
	for n := int64(1); ; n++ {
		offset := lines.offset
		raw, err := lines.next()
		switch {
		case errors.Is(err, io.EOF):
			return "", first, nil
		case err != nil:
			return "", nil, fmt.Errorf("read line %d of the input: %w", n, err)
		}
		content := stripLine(raw.raw, offset)
		if isBlankLine(content, lineLimit) {
			continue
		}
		line, v := parser.parse(content)
		if v == nil {
			return line.URL, nil, nil
		}
		if first == nil {
			first = v
			first.Line = n
		}
	}
}
