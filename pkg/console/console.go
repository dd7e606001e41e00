// Package console is the operators' web console: static files that call the API from the browser.
package console

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed static
var static embed.FS

// prefix is where the files are served. What they ask the API for begins with a slash, so both are of one origin.
const prefix = "/console/"

// policy lets in nothing but our own files, and lets the page reach nothing but its own server: what a stranger has got onto
// a page as a custom id or an error could neither run nor send anything away.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// contentTypes are all that is served. A file of another kind is not.
var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
	".md":   "text/plain; charset=utf-8",
	"":      "text/plain; charset=utf-8", // a licence
}

type file struct {
	body              []byte
	contentType, etag string
}

// Handler serves the console under /console/. It needs no key: there is nothing in it but its own code.
func Handler() http.Handler {
	files, err := load()
	if err != nil {
		panic("read the embedded console: " + err.Error()) // they are part of the program
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "The console is only read.", http.StatusMethodNotAllowed)
			return
		}
		name, ok := strings.CutPrefix(r.URL.Path, prefix)
		if !ok && r.URL.Path+"/" == prefix {
			http.Redirect(w, r, prefix, http.StatusMovedPermanently)
			return
		}
		if name == "" {
			name = "index.html"
		}
		f, found := files[name]
		if !ok || !found {
			http.Error(w, "There is no such file.", http.StatusNotFound)
			return
		}
		h.Set("Content-Type", f.contentType)
		h.Set("Cache-Control", "no-cache") // it is asked for each time, and sent when it has changed
		h.Set("ETag", f.etag)
		http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(f.body))
	})
}

// Beside serves the console beside an API.
func Beside(api http.Handler) http.Handler {
	mux, pages := http.NewServeMux(), Handler()
	mux.Handle("/", api)
	mux.Handle("/console", pages)
	mux.Handle(prefix, pages)
	return mux
}

func load() (map[string]file, error) {
	files := map[string]file{}
	err := fs.WalkDir(static, "static", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		kind, ok := contentTypes[path.Ext(name)]
		if !ok {
			return nil
		}
		body, err := static.ReadFile(name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(body)
		files[strings.TrimPrefix(name, "static/")] = file{body, kind, `"` + hex.EncodeToString(sum[:12]) + `"`}
		return nil
	})
	return files, err
}
