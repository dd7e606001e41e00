package upstreamtest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Server is an upstream. The zero value answers everything fairly. Its fields are set before it serves.
type Server struct {
	// Key, if set, is the bearer token without which a request is answered 401.
	Key string
	// OnCall, if set, is told of each call before it is answered; a test can wait for its signal. It may be called by many
	// goroutines at once.
	OnCall func(Call)
	// Exit is what [[exit]] does; nil = os.Exit(1).
	Exit func()

	mu       sync.Mutex
	weather  weather
	total    int
	byText   map[string]int
	byKey    map[string]int
	inFlight int
	widest   int
	written  atomic.Int64
}

// Call is one request, as it came.
type Call struct {
	Path   string // with its query
	Model  string
	Text   string // of the last user message
	Key    string // Idempotency-Key
	Header http.Header
	Nth    int // how often this request has come, this time included
}

// Start serves s until the test ends, and returns its base URL, without /v1.
func (s *Server) Start(tb testing.TB) string {
	tb.Helper()
	h := httptest.NewServer(s)
	tb.Cleanup(func() {
		h.CloseClientConnections() // else a hanging call would hang the test
		h.Close()
	})
	return h.URL
}

// SetWeather makes the words (as between double brackets) the weather of every request that asks for none; "" is fair.
func (s *Server) SetWeather(words string) error {
	w, err := parse(words)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.weather = w
	return nil
}

// Calls is how many calls came, however they were answered.
func (s *Server) Calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}

// CallsOf is how many calls came whose last user message has this text.
func (s *Server) CallsOf(text string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byText[text]
}

// CallsByKey is how many calls came with each Idempotency-Key.
func (s *Server) CallsByKey() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts := make(map[string]int, len(s.byKey))
	for key, n := range s.byKey {
		counts[key] = n
	}
	return counts
}

// Widest is the most calls that were in flight at once.
func (s *Server) Widest() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.widest
}

// Written is how many bytes [[huge]] answers have got rid of.
func (s *Server) Written() int64 { return s.written.Load() }

// ServeHTTP answers one call.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client has left
	}
	call := readCall(r, body)
	sky := s.enter(&call)
	defer s.leave()
	if s.OnCall != nil {
		s.OnCall(call)
	}
	w.Header().Set("X-Request-Id", "req_"+call.digest()[:16])
	switch words, asked := find(string(body)); {
	case s.Key != "" && r.Header.Get("Authorization") != "Bearer "+s.Key:
		writeError(w, http.StatusUnauthorized, "invalid_api_key", "the API key is wrong")
		return
	case !strings.HasSuffix(r.URL.Path, "/chat/completions"):
		http.NotFound(w, r)
		return
	case asked:
		if sky, err = parse(words); err != nil {
			writeError(w, http.StatusBadRequest, "bad_weather", err.Error())
			return
		}
	}
	if sky.times > 0 && call.Nth > sky.times {
		sky = weather{}
	}
	s.answer(w, r, call, sky)
}

// enter counts a call and returns the weather that holds for all.
func (s *Server) enter(c *Call) weather {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byText == nil {
		s.byText, s.byKey = map[string]int{}, map[string]int{}
	}
	s.total++
	s.byText[c.Text]++
	c.Nth = s.byText[c.Text]
	if c.Key != "" {
		s.byKey[c.Key]++
		c.Nth = s.byKey[c.Key]
	}
	s.inFlight++
	s.widest = max(s.widest, s.inFlight)
	return s.weather
}

func (s *Server) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inFlight--
}

func readCall(r *http.Request, body []byte) Call {
	var request struct {
		Model    string `json:"model"`
		Messages []struct {
			Role    string `json:"role"`
			Content any    `json:"content"`
		} `json:"messages"`
	}
	_ = json.Unmarshal(body, &request) // what cannot be read is a call without text
	c := Call{Path: r.URL.RequestURI(), Model: request.Model, Key: r.Header.Get("Idempotency-Key"), Header: r.Header}
	for _, m := range request.Messages {
		if m.Role == "user" {
			c.Text = contentText(m.Content)
		}
	}
	return c
}

func contentText(content any) string {
	switch content := content.(type) {
	case string:
		return content
	case []any:
		var texts []string
		for _, part := range content {
			if part, ok := part.(map[string]any); ok {
				text, _ := part["text"].(string)
				texts = append(texts, text)
			}
		}
		return strings.Join(texts, "\n")
	default:
		return ""
	}
}

func (c *Call) digest() string {
	sum := sha256.Sum256([]byte(c.Model + "\n" + c.Text))
	return hex.EncodeToString(sum[:])
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request, c Call, sky weather) {
	if sky.delay > 0 {
		select {
		case <-time.After(sky.delay):
		case <-r.Context().Done():
			return
		}
	}
	if sky.retryAfter != "" {
		w.Header().Set("Retry-After", sky.retryAfter)
	}
	if sky.retryAfterMs != "" {
		w.Header().Set("Retry-After-Ms", sky.retryAfterMs)
	}
	if sky.location != "" {
		w.Header().Set("Location", sky.location)
	}
	if sky.status != 0 {
		refuse(w, sky)
		return
	}
	s.misbehave(w, r, c, sky)
}

func refuse(w http.ResponseWriter, sky weather) {
	if sky.bare {
		http.Error(w, "no API here", sky.status)
		return
	}
	code := sky.code
	if code == "" {
		code = "status_" + strconv.Itoa(sky.status)
	}
	writeError(w, sky.status, code, fmt.Sprintf("this request asked for status %d", sky.status))
}

func writeError(w http.ResponseWriter, status int, code, message string) {
	body, err := json.Marshal(map[string]any{"error": map[string]any{
		"message": message, "type": "test_error", "param": nil, "code": code,
	}})
	if err != nil {
		panic(err) // strings always encode
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

func (s *Server) exit() {
	if s.Exit != nil {
		s.Exit()
		return
	}
	os.Exit(1)
}
