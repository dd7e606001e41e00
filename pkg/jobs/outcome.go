package jobs

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// Output and error lines, exactly as OpenAI writes them:
//
//	{"id":…,"custom_id":…,"response":{"status_code":…,"request_id":…,"body":…},"error":null}   answered, or failed with an HTTP answer
//	{"id":…,"custom_id":…,"response":null,"error":{"code":…,"message":…}}                       failed without one

// Codes of items that failed without an HTTP answer, beside those of violations and of faults.
const (
	ItemCancelled   = "batch_cancelled"
	ItemExpired     = "batch_expired"
	ItemWorkerCrash = "worker_crash"
)

// lineID is the id of an output line: derived from the job and the offset of the input line, so that equal runs give
// equal bytes.
func lineID(job JobID, offset int64) string {
	return "batch_req_" + digestHex(string(job), offset, 0)
}

// requestID is that of an answer whose upstream gave it none: it follows from the line's.
func requestID(lineID string) string { return "req_" + strings.TrimPrefix(lineID, "batch_req_") }

// idempotencyKey is the same for every call of an item, until a redrive asks anew.
func idempotencyKey(job JobID, offset int64, burial int) string {
	return "fanout-" + digestHex(string(job)+"/call", offset, int64(burial))
}

func digestHex(name string, a, b int64) string {
	buf := make([]byte, 0, 96)
	buf = append(buf, name...)
	buf = append(buf, 0)
	buf = binary.BigEndian.AppendUint64(buf, uint64(a))
	buf = binary.BigEndian.AppendUint64(buf, uint64(b))
	sum := sha256.Sum256(buf)
	return hex.EncodeToString(sum[:16])
}

// appendLine starts a line; customID is the raw JSON string of the input, or nil where none could be read.
func appendLine(dst []byte, id string, customID []byte) []byte {
	dst = append(dst, `{"id":"`...)
	dst = append(dst, id...)
	dst = append(dst, `","custom_id":`...)
	if customID == nil {
		return append(dst, `""`...)
	}
	return append(dst, customID...)
}

// appendAnswer writes the whole line of an answered item, without newline.
func appendAnswer(dst []byte, id string, customID []byte, a *Answer) []byte {
	dst = appendLine(dst, id, customID)
	return appendResponse(dst, a.Status, a.RequestID, a.Body)
}

func appendResponse(dst []byte, status int, requestID string, body []byte) []byte {
	dst = append(dst, `,"response":{"status_code":`...)
	dst = strconv.AppendInt(dst, int64(status), 10)
	dst = append(dst, `,"request_id":`...)
	if requestID == "" {
		dst = append(dst, "null"...)
	} else {
		dst = appendQuoted(dst, requestID)
	}
	dst = append(dst, `,"body":`...)
	dst = append(dst, body...)
	return append(dst, `},"error":null}`...)
}

// appendFault writes the whole line of an item that failed with this fault. An HTTP answer is shown as it came; one that
// was no JSON is told in the envelope that clients expect.
func appendFault(dst []byte, id string, customID []byte, f *Fault) []byte {
	if f.Status == 0 || f.Cause != CauseStatus {
		return appendError(dst, id, customID, f.Code, f.Message)
	}
	body := f.Body
	if body == nil {
		body = append(body, `{"error":{"message":`...)
		body = appendQuoted(body, f.Message)
		body = append(body, `,"type":"upstream_error","param":null,"code":`...)
		body = appendQuoted(body, f.Code)
		body = append(body, `}}`...)
	}
	dst = appendLine(dst, id, customID)
	return appendResponse(dst, f.Status, f.RequestID, body)
}

// appendError writes the whole line of an item that failed without an HTTP answer.
func appendError(dst []byte, id string, customID []byte, code, message string) []byte {
	dst = appendLine(dst, id, customID)
	dst = append(dst, `,"response":null,"error":{"code":`...)
	dst = appendQuoted(dst, code)
	dst = append(dst, `,"message":`...)
	dst = appendQuoted(dst, message)
	return append(dst, `}}`...)
}

// appendQuoted writes a JSON string; what is no UTF-8 is replaced.
func appendQuoted(dst []byte, s string) []byte {
	dst, err := jsontext.AppendQuote(dst, strings.ToValidUTF8(s, "\uFFFD"))
	if err != nil {
		panic(err) // cannot be: it is valid UTF-8 now
	}
	return dst
}

// volatile are the parts of an error message that differ between items of one kind. A function that starts has no time for
// it: it is compiled for the first error.
var volatile = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`\b[0-9]+(?:[.:][0-9]+)+\b|"[^"]{0,200}"|\B'[^']{0,200}'\B|\b[0-9a-fA-F]{8,}[0-9a-fA-F-]*\b|\b(?:req|chatcmpl|batch)[-_][0-9A-Za-z_-]+\b|[0-9]+`)
})

// normalise makes alike what is alike: numbers, ids and quoted text are cut out of an error message, and its end.
func normalise(message string) string {
	const most = 80
	if len(message) > 500 {
		message = message[:500]
	}
	message = volatile().ReplaceAllString(strings.ToValidUTF8(message, ""), "…")
	message = strings.Join(strings.Fields(message), " ")
	if r := []rune(message); len(r) > most {
		return string(r[:most]) + "…"
	}
	return message
}
