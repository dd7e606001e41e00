package upstreamtest

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// hugeBytes is the length of a huge answer.
const hugeBytes = 100 << 20

// trickleEvery is how often a trickling answer goes on.
const trickleEvery = 10 * time.Millisecond

// misbehave answers in the kind of sky, fairly if it is of none.
func (s *Server) misbehave(w http.ResponseWriter, r *http.Request, c Call, sky weather) {
	switch sky.kind {
	case "exit":
		s.exit()
	case "hang":
		<-r.Context().Done()
	case "trickle":
		trickle(w, r)
	case "reset":
		hangUp(w, true)
	case "drop":
		hangUp(w, false)
	case "cut":
		body := fair(c, true)
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body[:len(body)/2])
		panic(http.ErrAbortHandler)
	case "huge":
		s.huge(w, sky.gzip)
	case "html":
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, "<!doctype html><title>Please sign in</title>")
	case "empty":
		w.WriteHeader(http.StatusOK)
	case "array":
		writeJSON(w, []byte("[1]"), sky.gzip)
	case "broken":
		writeJSON(w, []byte(`{"id": }`), sky.gzip)
	case "latin1":
		writeJSON(w, []byte("{\"id\":\"caf\xe9\"}"), sky.gzip)
	case "pretty":
		var lines bytes.Buffer
		if err := json.Indent(&lines, fair(c, true), "", "  "); err != nil {
			panic(err) // fair answers are JSON
		}
		lines.WriteString("\r\n")
		writeJSON(w, lines.Bytes(), sky.gzip)
	default:
		writeJSON(w, fair(c, sky.kind != "nousage"), sky.gzip)
	}
}

// fair is the answer to a call that asks for nothing special. It repeats the text, and counts its words.
func fair(c Call, withUsage bool) []byte {
	answer := map[string]any{
		"id": "chatcmpl-" + c.digest()[:24], "object": "chat.completion", "created": 0, "model": c.Model,
		"choices": []any{map[string]any{
			"index": 0, "finish_reason": "stop", "message": map[string]any{"role": "assistant", "content": c.Text},
		}},
	}
	if withUsage {
		words := len(strings.Fields(c.Text))
		answer["usage"] = map[string]any{"prompt_tokens": words, "completion_tokens": words, "total_tokens": 2 * words}
	}
	body, err := json.Marshal(answer)
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	return body
}

func writeJSON(w http.ResponseWriter, body []byte, compressed bool) {
	w.Header().Set("Content-Type", "application/json")
	if !compressed {
		_, _ = w.Write(body)
		return
	}
	w.Header().Set("Content-Encoding", "gzip")
	z := gzip.NewWriter(w)
	_, _ = z.Write(body)
	_ = z.Close()
}

func trickle(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	tick := time.NewTicker(trickleEvery)
	defer tick.Stop()
	for {
		if _, err := io.WriteString(w, " "); err != nil {
			return
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
}

// hangUp ends the connection before any byte of an answer: by a reset, or as if it had been idle for too long.
func hangUp(w http.ResponseWriter, reset bool) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // HTTP/2: its stream is reset
	}
	if tcp, ok := conn.(*net.TCPConn); ok && reset {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// huge writes a JSON object that is longer than any limit, until it is done or the client has had enough.
func (s *Server) huge(w http.ResponseWriter, compressed bool) {
	w.Header().Set("Content-Type", "application/json")
	out := io.Writer(w)
	if compressed {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		defer z.Close()
		out = z
	}
	_, _ = io.WriteString(out, `{"text":"`)
	block := bytes.Repeat([]byte("a"), 64<<10)
	for range hugeBytes / len(block) {
		n, err := out.Write(block)
		s.written.Add(int64(n))
		if err != nil {
			return
		}
	}
	_, _ = io.WriteString(out, `"}`)
}

// Constant answers every request with the same answer of about 1 KB, and does as little else as it can: for benchmarks.
func Constant() http.Handler {
	body := fair(Call{Model: "constant", Text: strings.Repeat("All happy families are alike. ", 28)}, true)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		h := w.Header()
		h["Content-Type"] = []string{"application/json"}
		h["Content-Length"] = []string{strconv.Itoa(len(body))}
		_, _ = w.Write(body)
	})
}
