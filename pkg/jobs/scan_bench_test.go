package jobs

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Texts of the lines: one that is plain, and one with escapes, which jsontext reads.
const (
	plainText   = "What is the capital of France? "
	escapedText = `What is the capital of:\nFrance? `
)

// benchLine is a usual chat request of so many bytes, its end of line included.
func benchLine(n, size int, text string) []byte {
	const form = `{"custom_id":"request-%07d","method":"POST","url":"/v1/chat/completions","body":{"model":"gpt-4o-mini","messages":[{"role":"user","content":"%s"}],"max_tokens":100}}` + "\n"
	empty := len(fmt.Sprintf(form, n, ""))
	text = strings.Repeat(text, size/len(text)+1)[:size-empty]
	if cut, ok := strings.CutSuffix(text, `\`); ok {
		text = cut + "." // not half an escape
	}
	return fmt.Appendf(nil, form, n, text)
}

func benchInput(size, total int, text string) []byte {
	var b bytes.Buffer
	for n := 0; b.Len()+size <= total; n++ {
		b.Write(benchLine(n, size, text))
	}
	return b.Bytes()
}

var benchCases = []struct {
	name string
	size int // of a line
	text string
}{
	{"line=200", 200, plainText},
	{"line=2000", 2000, plainText},
	{"line=200/escapes", 200, escapedText},
	{"line=2000/escapes", 2000, escapedText},
}

func benchScan(tb testing.TB, files *memFiles, size int) {
	s := scanner{files: files, input: FileRef{Name: "in"}, bytes: int64(size), endpoint: "/v1/chat/completions",
		cut: DefaultCut(int64(size)), ids: func(e []idEntry) error {
			_ = files.Delete(context.Background(), "ids") // in memory
			return saveIDs(context.Background(), files, "ids", e)
		}}
	found, err := s.scan(context.Background(), 0)
	if err != nil || found.Violations != 0 {
		tb.Fatalf("scan: %v, %d violations, first %+v", err, found.Violations, found.Kept[:min(len(found.Kept), 1)])
	}
}

func benchValidate(tb testing.TB, input []byte) {
	for line := range bytes.Lines(input) {
		if !jsontext.Value(line).IsValid(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)) {
			tb.Fatal("a line is not valid")
		}
	}
}

// BenchmarkScan scans a split: read, validate, cut, hash, sort and write ids. "ratio" is its speed over that of jsontext
// validation alone, measured in turns with it so that a busy machine slows both. It is to be 0.75 or more.
func BenchmarkScan(b *testing.B) {
	for _, c := range benchCases {
		b.Run(c.name, func(b *testing.B) {
			input := benchInput(c.size, 32<<20, c.text)
			files := newMemFiles()
			files.put("in", input)
			b.SetBytes(int64(len(input)))
			var scan, validate time.Duration
			for b.Loop() {
				start := time.Now()
				benchScan(b, files, len(input))
				scan += time.Since(start)
				b.StopTimer()
				start = time.Now()
				benchValidate(b, input)
				validate += time.Since(start)
				b.StartTimer()
			}
			b.ReportMetric(validate.Seconds()/scan.Seconds(), "ratio")
		})
	}
}

// BenchmarkValidate is the reference: jsontext validation alone.
func BenchmarkValidate(b *testing.B) {
	for _, c := range benchCases {
		b.Run(c.name, func(b *testing.B) {
			input := benchInput(c.size, 32<<20, c.text)
			b.SetBytes(int64(len(input)))
			for b.Loop() {
				benchValidate(b, input)
			}
		})
	}
}
