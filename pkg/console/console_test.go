package console_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/fanout-inference/fanout/pkg/console"
)

func get(method, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	console.Handler().ServeHTTP(w, r)
	return w
}

func TestEachFileIsServedAsWhatItIsUnderAStrictPolicy(t *testing.T) {
	for path, kind := range map[string]string{
		"/console/": "text/html", "/console/index.html": "text/html", "/console/console.css": "text/css", "/console/main.js": "text/javascript",
		"/console/icon.svg": "image/svg+xml", "/console/vendor/uPlot.esm.js": "text/javascript", "/console/vendor/uPlot.min.css": "text/css", "/console/vendor/LICENSE": "text/plain",
	} {
		w := get("GET", path)
		h := w.Header()
		if w.Code != http.StatusOK || !strings.HasPrefix(h.Get("Content-Type"), kind) || w.Body.Len() == 0 {
			t.Errorf("%s: %d, %q, %d bytes", path, w.Code, h.Get("Content-Type"), w.Body.Len())
		}
		csp := "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
		for name, want := range map[string]string{"Content-Security-Policy": csp, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"} {
			if got := h.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", path, name, got, want)
			}
		}
		if again := get("GET", path, "If-None-Match", h.Get("ETag")); h.Get("ETag") == "" || again.Code != http.StatusNotModified {
			t.Errorf("%s: with its ETag %s it is %d", path, h.Get("ETag"), again.Code)
		}
		if head := get("HEAD", path); head.Code != http.StatusOK || head.Body.Len() != 0 {
			t.Errorf("HEAD %s: %d with %d bytes", path, head.Code, head.Body.Len())
		}
	}
}

func TestThereIsNothingElse(t *testing.T) {
	for _, path := range []string{"/console/none.js", "/console/../console.go", "/console/static/main.js", "/console/vendor/", "/console/vendor", "/", "/consoles/", "/console//"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.Path = path
		w := httptest.NewRecorder()
		console.Handler().ServeHTTP(w, r)
		if w.Code != http.StatusNotFound || w.Header().Get("Content-Security-Policy") == "" {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS"} {
		if w := get(method, "/console/"); w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d", method, w.Code)
		}
	}
	if w := get("GET", "/console"); w.Code != http.StatusMovedPermanently || w.Header().Get("Location") != "/console/" {
		t.Errorf("/console: %d to %q", w.Code, w.Header().Get("Location"))
	}
}

// TestPagesAreBuiltFromNodesOnly: no text can become markup or code, so nobody has to remember to escape it.
func TestPagesAreBuiltFromNodesOnly(t *testing.T) {
	rules := map[string]*regexp.Regexp{
		"makes markup of text":                regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|setHTML|srcdoc`),
		"makes code of text":                  regexp.MustCompile(`\beval\b|new Function|\bimport\(|javascript:|set(Timeout|Interval)\(\s*['"` + "`" + `]`),
		"sets a style that the policy blocks": regexp.MustCompile(`setAttribute\(\s*['"]style['"]|[{,] *style:`),
		"leaves its origin":                   regexp.MustCompile(`https?://`),
		"keeps more than a tab does":          regexp.MustCompile(`localStorage|document\.cookie|indexedDB`),
	}
	harmless := "http://www.w3.org/2000/svg" // a name, not an address
	files, err := filepath.Glob("static/*.*")
	if err != nil || len(files) < 12 {
		t.Fatalf("found %v, %v", files, err)
	}
	for _, name := range files {
		body, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for n, line := range strings.Split(strings.ReplaceAll(string(body), harmless, ""), "\n") {
			for what, rule := range rules {
				if rule.MatchString(line) {
					t.Errorf("%s:%d %s: %s", name, n+1, what, line)
				}
			}
			if filepath.Ext(name) == ".html" && regexp.MustCompile(`<style|\sstyle=|\son\w+=|<script[^>]*>[^<]`).MatchString(line) {
				t.Errorf("%s:%d has script or style in it: %s", name, n+1, line)
			}
		}
	}
}
