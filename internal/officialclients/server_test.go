package officialclients

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// binary is the fanout that is tested, built once.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "fanout-clients-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "fanout")
	out, err := exec.Command("go", "build", "-o", binary, "../../cmd/fanout").CombinedOutput()
	code := 1
	if err != nil {
		fmt.Fprintf(os.Stderr, "build fanout: %v\n%s", err, out)
	} else {
		code = m.Run()
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// server is a running fanout serve.
type server struct {
	url, key string
	lossy    string // the same server, behind a way on which the first answer to each client's create is lost
}

// The requests that clients send, by what the upstream makes of them.
func request(id, content string) string {
	return fmt.Sprintf(`{"custom_id":%q,"method":"POST","url":"/v1/chat/completions","body":{"model":"quick","messages":[{"role":"user","content":%q}]}}`+"\n", id, content)
}

var (
	answeredLines = request("a", "hello") + request("b", "hello") + request("c", "hello")
	refusedLine   = request("r", "refuse")
	slowLines     = request("s", "wait") // it answers when it is no longer asked
)

// upstream answers at once, refuses, or waits.
func upstream(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v1/models" {
		fmt.Fprint(w, `{"object":"list","data":[{"id":"quick","object":"model","created":0,"owned_by":"test"}]}`)
		return
	}
	var body struct {
		Model    string
		Messages []struct{ Content string }
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	switch body.Messages[0].Content {
	case "wait":
		<-r.Context().Done()
	case "refuse":
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error":{"message":"no","type":"invalid_request_error","param":null,"code":"refused"}}`)
	default:
		fmt.Fprintf(w, `{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":%q,"choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}`, body.Model)
	}
}

// start runs fanout serve until the test ends.
func start(t *testing.T) *server {
	t.Helper()
	up := httptest.NewServer(http.HandlerFunc(upstream))
	t.Cleanup(up.Close)
	cmd := exec.Command(binary, "serve", "--addr", "127.0.0.1:0", "--data", filepath.Join(t.TempDir(), "data"), "--upstream", up.URL, "--create-key", "--grace", "1s", "--timeout", "5s",
		"--hook-allow", "127.0.0.0/8", "--hook-plain", "127.0.0.1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("fanout serve: %v", err)
		}
	})
	s := &server{}
	said := bufio.NewScanner(out)
	for s.url == "" || s.key == "" {
		if !said.Scan() {
			t.Fatal("fanout serve ended before it said its URL and its key")
		}
		if url, ok := strings.CutPrefix(said.Text(), "base URL: "); ok {
			s.url = strings.TrimSpace(url)
		}
		if key, ok := strings.CutPrefix(said.Text(), "key:      "); ok {
			s.key = strings.TrimSpace(key)
		}
	}
	go func() { _, _ = io.Copy(io.Discard, out) }() // ends with the process
	return s
}

// operate sends what no official client knows: what operators ask for.
func (s *server) operate(ctx context.Context, method, path, body string, answer any) error {
	r, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(s.url, "/v1")+"/fanout/v1"+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+s.key)
	r.Header.Set("Content-Type", "application/json")
	out, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer out.Body.Close()
	if out.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s", method, path, out.Status)
	}
	return json.NewDecoder(out.Body).Decode(answer)
}

// losing is a way to the server on which the answer to a create is lost, unless the client says that it tries again.
func losing(t *testing.T, to string) string {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	var lost atomic.Int64
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: u.Scheme, Host: u.Host})
			r.Out.Host = u.Host
		},
		ModifyResponse: func(r *http.Response) error {
			again := r.Request.Header.Get("X-Stainless-Retry-Count")
			if r.Request.Method == http.MethodPost && r.Request.URL.Path == "/v1/batches" && (again == "" || again == "0") {
				lost.Add(1)
				return fmt.Errorf("the answer is lost")
			}
			return nil
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	way := httptest.NewServer(proxy)
	t.Cleanup(func() {
		way.Close()
		if lost.Load() == 0 {
			t.Error("no answer was lost: the check of lost answers shows nothing")
		}
	})
	return way.URL + "/v1"
}

// within bounds a check.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	t.Cleanup(cancel)
	return ctx
}
