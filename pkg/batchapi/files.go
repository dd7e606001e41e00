package batchapi

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// purposes are those that a file may be uploaded for. Only batch files are of use here; the others are kept as they are.
var purposes = []string{"assistants", jobs.PurposeBatch, "fine-tune", "vision", "user_data", "evals"}

// Limits of what is said of a file.
const (
	maxFilename    = 255 // bytes
	leastFileLife  = time.Hour
	mostFileLife   = jobs.FileKept
	uploadURLLife  = time.Hour
	contentURLLife = time.Hour
)

func wireFile(f *jobs.File) File {
	w := File{ID: f.ID, Object: "file", Bytes: f.Bytes, CreatedAt: f.Created.Unix(), ExpiresAt: f.Expires.Unix(), Filename: f.Name, Purpose: f.Purpose, Status: "processed"}
	if f.Awaited {
		w.Status = "uploaded"
	}
	return w
}

func newID(p *jobs.Ports, prefix string) string { return prefix + strings.ToLower(p.NewID()) }

// plainID tells whether an id that somebody sent can be one of ours: it becomes a part of keys and of objects' names.
func plainID(id, prefix string) bool {
	rest, ok := strings.CutPrefix(id, prefix)
	return ok && plainWord(rest, 1, 64)
}

// described is what a client says of a file that it brings.
type described struct {
	name, purpose string
	life          time.Duration
}

// check refuses what no file can have. param says where the name came from.
func (d *described) check() error {
	switch {
	case d.purpose == "":
		return &failure{status: http.StatusBadRequest, code: "missing_required_parameter", param: "purpose", message: "Missing required parameter: 'purpose'."}
	case !slices.Contains(purposes, d.purpose):
		return invalid("purpose", "'%.40s' is not one of %s - 'purpose'", d.purpose, quoted(purposes))
	case d.life != 0 && (d.life < leastFileLife || d.life > mostFileLife):
		return invalid("expires_after.seconds", "Invalid 'expires_after.seconds': it must be between %d and %d.", int64(leastFileLife.Seconds()), int64(mostFileLife.Seconds()))
	case d.name == "" || len(d.name) > maxFilename || !utf8.ValidString(d.name):
		return invalid("filename", "Invalid file name: it takes 1 to %d bytes of UTF-8.", maxFilename)
	}
	if d.life == 0 {
		d.life = jobs.FileKept
	}
	return nil
}

func quoted(words []string) string { return "['" + strings.Join(words, "', '") + "']" }

// expiresAfter reads {anchor, seconds}, which rides in JSON as an object.
func (f *fields) expiresAfter(name string) time.Duration {
	inner := f.object(name, "anchor", "seconds")
	if inner == nil {
		return 0
	}
	anchor, seconds := inner.text("anchor"), inner.integer("seconds")
	if e, ok := errors.AsType[*failure](inner.err); ok {
		inner := *e
		inner.param = name + "." + inner.param
		f.wrong(&inner)
		return 0
	}
	d, err := lifeOf(name, anchor, seconds)
	if err != nil {
		f.wrong(err)
	}
	return d
}

func lifeOf(name, anchor string, seconds int64) (time.Duration, error) {
	switch {
	case anchor != "created_at":
		return 0, invalid(name+".anchor", "Invalid '%s.anchor': '%.40s' is not 'created_at'.", name, anchor)
	case seconds < int64(leastFileLife.Seconds()) || seconds > int64(mostFileLife.Seconds()):
		return 0, invalid(name+".seconds", "Invalid '%s.seconds': %d is not between %d and %d.", name, seconds, int64(leastFileLife.Seconds()), int64(mostFileLife.Seconds()))
	}
	return time.Duration(seconds) * time.Second, nil
}

// createFile takes a file as a form, or with ?presign=true says where to bring it.
func (h *Handler) createFile(w http.ResponseWriter, r *http.Request, c Caller) error {
	presign, err := flag(r, "presign")
	if err != nil {
		return err
	}
	if presign {
		return h.presignFile(w, r, c)
	}
	f := jobs.File{ID: newID(&h.ports, "file-"), Tenant: c.Tenant}
	said, info, err := h.takeForm(r, jobs.FileObject(c.Tenant, f.ID))
	if err != nil {
		return err
	}
	f.Name, f.Purpose, f.Bytes = said.name, said.purpose, info.Bytes
	f.Created = h.ports.Now()
	f.Expires = f.Created.Add(said.life)
	if err := jobs.SaveFile(r.Context(), h.ports.Registry, &f); err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, wireFile(&f))
	return nil
}

// flag reads a query parameter that is true or false.
func flag(r *http.Request, name string) (bool, error) { return flagOr(r, name, false) }

func flagOr(r *http.Request, name string, otherwise bool) (bool, error) {
	switch s := r.URL.Query().Get(name); s {
	case "":
		return otherwise, nil
	case "false", "0":
		return false, nil
	case "true", "1":
		return true, nil
	default:
		return false, invalid(name, "Invalid '%s': %.20q is neither true nor false.", name, s)
	}
}

// presignFile makes a file whose bytes are brought straight to its object, or, where there is no way past this server, to a
// URL of this server.
func (h *Handler) presignFile(w http.ResponseWriter, r *http.Request, c Caller) error {
	in, err := readFields(r, "filename", "purpose", "expires_after")
	if err != nil {
		return err
	}
	said := described{name: in.text("filename"), purpose: in.text("purpose"), life: in.expiresAfter("expires_after")}
	if in.err != nil {
		return in.err
	}
	if err := said.check(); err != nil {
		return err
	}
	now := h.ports.Now()
	f := jobs.File{ID: newID(&h.ports, "file-"), Tenant: c.Tenant, Name: said.name, Purpose: said.purpose, Created: now, Expires: now.Add(said.life), Awaited: true}
	to := &FileUpload{Method: http.MethodPut, Headers: map[string]string{}, ExpiresAt: now.Add(uploadURLLife).Unix()}
	if h.opt.Direct != nil {
		if to.URL, to.Headers, err = h.opt.Direct.PutURL(r.Context(), jobs.FileObject(f.Tenant, f.ID), uploadURLLife); err != nil {
			return fmt.Errorf("make a URL for file %s: %w", f.ID, err)
		}
	} else {
		token := strings.ToLower(rand.Text())
		f.Token = hashKey(token)
		to.URL = baseURL(r) + "/v1/files/" + f.ID + "/content?" + url.Values{"tenant": {f.Tenant}, "token": {token}}.Encode()
	}
	if err := jobs.SaveFile(r.Context(), h.ports.Registry, &f); err != nil {
		return err
	}
	wire := wireFile(&f)
	wire.Upload = to
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusOK, wire)
	return nil
}

// baseURL is how this server was called: behind a proxy that says so, by HTTPS. Whoever lies about that is led astray alone.
func baseURL(r *http.Request) string {
	scheme := "http"
	if r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https" {
		scheme = "https"
	}
	return scheme + "://" + r.Host
}

// bringFile takes the bytes of a file that was presigned here. Its token lets in, once, for an hour.
func (h *Handler) bringFile(w http.ResponseWriter, r *http.Request, _ Caller) error {
	id, q := r.PathValue("id"), r.URL.Query()
	tenant, token := q.Get("tenant"), q.Get("token")
	if !plainID(id, "file-") || !jobs.PlainTenant(tenant) {
		return notFound("File", id)
	}
	f, err := jobs.ReadFile(r.Context(), h.ports, tenant, id)
	if err != nil {
		return absent(err, "File", id)
	}
	switch {
	case subtle.ConstantTimeCompare([]byte(hashKey(token)), []byte(f.Token)) != 1:
		return notFound("File", id)
	case !f.Awaited:
		return refuse(http.StatusBadRequest, "file_is_there", "The bytes of this file were brought already.")
	case h.ports.Now().After(f.Created.Add(uploadURLLife)):
		return refuse(http.StatusBadRequest, "url_expired", "This URL has expired; ask for another.")
	}
	info, err := h.write(r.Context(), jobs.FileObject(tenant, id), r.Body)
	if errors.Is(err, jobs.ErrExists) {
		return refuse(http.StatusBadRequest, "file_is_there", "The bytes of this file were brought already.")
	}
	if err != nil {
		return err
	}
	f, err = h.arrived(r.Context(), &f, info.Bytes)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, wireFile(&f))
	return nil
}

// arrived notes that the bytes of a file are there.
func (h *Handler) arrived(ctx context.Context, f *jobs.File, bytes int64) (jobs.File, error) {
	return jobs.ChangeFile(ctx, h.ports, f.Tenant, f.ID, func(f *jobs.File) (bool, error) {
		news := f.Awaited
		f.Awaited, f.Token, f.Bytes = false, "", bytes
		return news, nil
	})
}

// write makes an object of what a client sends.
func (h *Handler) write(ctx context.Context, object string, from io.Reader) (jobs.FileInfo, error) {
	out, err := h.ports.Files.Create(ctx, object)
	if err != nil {
		return jobs.FileInfo{}, fmt.Errorf("create a file: %w", err)
	}
	defer out.Abort()
	in := &source{r: from}
	if _, err := io.CopyBuffer(out, in, make([]byte, 256<<10)); err != nil {
		if in.err != nil {
			return jobs.FileInfo{}, broken(in.err)
		}
		return jobs.FileInfo{}, fmt.Errorf("write a file: %w", err)
	}
	info, err := out.Commit(ctx)
	if err != nil {
		return info, fmt.Errorf("commit a file: %w", err)
	}
	return info, nil
}

// source tells what the client did wrong from what the store did.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// file finds a file of the caller's. One whose bytes were awaited is looked for.
func (h *Handler) file(ctx context.Context, c Caller, id string) (jobs.File, error) {
	if !plainID(id, "file-") {
		return jobs.File{}, notFound("File", id)
	}
	f, err := jobs.ReadFile(ctx, h.ports, c.Tenant, id)
	if err != nil {
		return f, absent(err, "File", id)
	}
	if !f.Awaited {
		return f, nil
	}
	info, err := h.ports.Files.Stat(ctx, jobs.FileObject(f.Tenant, f.ID))
	switch {
	case errors.Is(err, jobs.ErrNotFound):
		return f, nil
	case err != nil:
		return f, err
	}
	return h.arrived(ctx, &f, info.Bytes)
}

func (h *Handler) getFile(w http.ResponseWriter, r *http.Request, c Caller) error {
	f, err := h.file(r.Context(), c, r.PathValue("id"))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, wireFile(&f))
	return nil
}

// deleteFile hides a file. Its object goes with it unless a job reads it.
func (h *Handler) deleteFile(w http.ResponseWriter, r *http.Request, c Caller) error {
	id := r.PathValue("id")
	if !plainID(id, "file-") {
		return notFound("File", id)
	}
	f, err := jobs.ChangeFile(r.Context(), h.ports, c.Tenant, id, func(f *jobs.File) (bool, error) {
		f.Deleted = h.ports.Now()
		return true, nil
	})
	if err != nil {
		return absent(err, "File", id)
	}
	if !f.Used {
		if err := h.ports.Files.Delete(r.Context(), jobs.FileObject(f.Tenant, f.ID)); err != nil {
			return fmt.Errorf("delete file %s: %w", f.ID, err)
		}
	}
	writeJSON(w, http.StatusOK, Deleted{ID: f.ID, Object: "file", Deleted: true})
	return nil
}

const maxFilesPage = 10_000

func (h *Handler) listFiles(w http.ResponseWriter, r *http.Request, c Caller) error {
	page, err := pageOf(r, maxFilesPage, maxFilesPage)
	if err != nil {
		return err
	}
	q, purpose := r.URL.Query(), r.URL.Query().Get("purpose")
	order := q.Get("order")
	if order != "" && order != "asc" && order != "desc" {
		return invalid("order", "Invalid 'order': %.20q is neither 'asc' nor 'desc'.", order)
	}
	found := []File{}
	now := h.ports.Now()
	for e, err := range h.ports.Registry.Listed(r.Context(), jobs.EntryQuery{Kind: jobs.KindFile, Owner: c.Tenant, Oldest: order == "asc", After: page.after}) {
		if err != nil {
			return unknownCursor(err, page.after)
		}
		f, err := jobs.DecodeFile(e)
		if err != nil {
			return err
		}
		if f.Gone(now) || purpose != "" && f.Purpose != purpose {
			continue
		}
		if found = append(found, wireFile(&f)); len(found) > page.limit {
			break
		}
	}
	writeJSON(w, http.StatusOK, newList(found, page.limit, func(f File) string { return f.ID }))
	return nil
}

// page is what part of a list is asked for.
type page struct {
	after string
	limit int
}

func pageOf(r *http.Request, otherwise, most int) (page, error) {
	q := r.URL.Query()
	p := page{after: q.Get("after"), limit: otherwise}
	if s := q.Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > most {
			return p, invalid("limit", "Invalid 'limit': %.20q is not a whole number from 1 to %d.", s, most)
		}
		p.limit = n
	}
	if len(p.after) > 128 {
		return p, unknownCursor(jobs.ErrNotFound, p.after)
	}
	return p, nil
}

// unknownCursor makes a sentence of a cursor that is not there, whoever's it may be.
func unknownCursor(err error, after string) error {
	if errors.Is(err, jobs.ErrNotFound) {
		return invalid("after", "Invalid 'after': there is no object with id '%.80s'.", after)
	}
	return err
}

// readFile gives the bytes of a file, or the range that is asked for. With ?redirect=false it says where they are instead, for
// whoever may not follow a redirect to another host, such as a web page.
func (h *Handler) readFile(w http.ResponseWriter, r *http.Request, c Caller) error {
	redirect, err := flagOr(r, "redirect", true)
	if err != nil {
		return err
	}
	f, err := h.file(r.Context(), c, r.PathValue("id"))
	if err != nil {
		return err
	}
	if f.Awaited {
		return refuse(http.StatusBadRequest, "file_is_awaited", "The bytes of this file have not been brought yet.")
	}
	object := jobs.FileObject(f.Tenant, f.ID)
	var elsewhere string
	if h.opt.Direct != nil && h.opt.MaxInline > 0 && f.Bytes > h.opt.MaxInline {
		if elsewhere, err = h.opt.Direct.GetURL(r.Context(), object, f.Name, contentURLLife); err != nil {
			return fmt.Errorf("make a URL for file %s: %w", f.ID, err)
		}
	}
	if !redirect || elsewhere != "" {
		w.Header().Set("Cache-Control", "no-store")
	}
	switch {
	case !redirect:
		writeJSON(w, http.StatusOK, ContentURL{"file.content_url", optional(elsewhere)})
		return nil
	case elsewhere != "":
		http.Redirect(w, r, elsewhere, http.StatusFound)
		return nil
	}
	from, length, partial, err := rangeOf(r, f.Bytes)
	if err != nil {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", f.Bytes))
		return err
	}
	body, err := h.ports.Files.Read(r.Context(), jobs.FileRef{Name: object}, from, length)
	if err != nil {
		return absent(err, "File", f.ID) // its time is over
	}
	defer body.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": f.Name}))
	w.Header().Set("Content-Length", strconv.FormatInt(length, 10))
	w.Header().Set("Accept-Ranges", "bytes")
	status := http.StatusOK
	if partial {
		status = http.StatusPartialContent
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, from+length-1, f.Bytes))
	}
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return nil
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{w}, body, make([]byte, 256<<10))
	if err == nil && n < length {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("send file %s: %w", f.ID, err)
	}
	return nil
}

// rangeOf reads the Range header: one range of bytes. What is no such range counts as not sent, as HTTP has it.
func rangeOf(r *http.Request, size int64) (from, length int64, partial bool, err error) {
	spec, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes=")
	first, last, dash := strings.Cut(spec, "-")
	if !ok || !dash || strings.Contains(spec, ",") || r.Header.Get("If-Range") != "" {
		return 0, size, false, nil
	}
	unsatisfiable := refuse(http.StatusRequestedRangeNotSatisfiable, "invalid_range", "The file has %d bytes; the range lies outside.", size)
	begin, beginOK := wholeNumber(first, 0)
	end, endOK := wholeNumber(last, size-1)
	switch {
	case !beginOK || !endOK || first == "" && last == "" || first != "" && last != "" && end < begin:
		return 0, size, false, nil
	case first == "": // the last so many bytes
		n := min(end, size)
		if n == 0 {
			return 0, 0, false, unsatisfiable
		}
		return size - n, n, true, nil
	case begin >= size:
		return 0, 0, false, unsatisfiable
	}
	return begin, min(end, size-1) - begin + 1, true, nil
}

// wholeNumber reads a number that is not below 0, which may be left out.
func wholeNumber(s string, otherwise int64) (n int64, ok bool) {
	if s == "" {
		return otherwise, true
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n >= 0
}
