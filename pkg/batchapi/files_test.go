package batchapi

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

func TestFileContentComesWholeOrInRanges(t *testing.T) {
	a := newAPI(t, Options{})
	f := a.upload("0123456789")
	path := "/v1/files/" + f.ID + "/content"
	for _, c := range []struct {
		ask, want string
		status    int
		says      string // Content-Range
	}{
		{"", "0123456789", 200, ""},
		{"bytes=0-0", "0", 206, "bytes 0-0/10"},
		{"bytes=3-5", "345", 206, "bytes 3-5/10"},
		{"bytes=7-", "789", 206, "bytes 7-9/10"},
		{"bytes=7-99", "789", 206, "bytes 7-9/10"},
		{"bytes=-3", "789", 206, "bytes 7-9/10"},
		{"bytes=-99", "0123456789", 206, "bytes 0-9/10"},
		{"bytes=10-", "", 416, "bytes */10"},
		{"bytes=-0", "", 416, "bytes */10"},
		{"bytes=5-3", "0123456789", 200, ""},
		{"bytes=a-b", "0123456789", 200, ""},
		{"bytes=0-1,3-4", "0123456789", 200, ""},
		{"lines=1-2", "0123456789", 200, ""},
	} {
		r := a.get(path, "Range", c.ask)
		if r.status != c.status || r.header.Get("Content-Range") != c.says || c.status < 400 && string(r.body) != c.want {
			t.Errorf("%q: %d %q %s", c.ask, r.status, r.header.Get("Content-Range"), r.body)
		}
	}
	if r := a.call("HEAD", path, nil); r.status != 200 || r.header.Get("Content-Length") != "10" {
		t.Errorf("HEAD: %d %v", r.status, r.header)
	}
}

func TestNamesOfFilesLeadNowhere(t *testing.T) {
	a := newAPI(t, Options{})
	for _, name := range []string{"../../../etc/passwd", `..\..\x`, "/etc/passwd", "a/b", "x\r\nSet-Cookie: a=b", `a"b`, "ü.jsonl", strings.Repeat("n", 255)} {
		r := a.post("/v1/files?presign=true", fmt.Sprintf(`{"filename":%q,"purpose":"batch"}`, name))
		f := as[File](t, r, "OpenAIFile")
		if f.Filename != name || !plainID(f.ID, "file-") {
			t.Errorf("%q became %+v", name, f)
		}
		put := a.call("PUT", strings.TrimPrefix(f.Upload.URL, a.server.URL), strings.NewReader("x"))
		if put.status != 200 {
			t.Errorf("bring %q: %d %s", name, put.status, put.body)
		}
		if r := a.get("/v1/files/" + f.ID + "/content"); r.status != 200 || r.header.Get("Set-Cookie") != "" {
			t.Errorf("%q: %d %v", name, r.status, r.header)
		}
	}
	for _, id := range []string{"..", "%2e%2e%2f%2e%2e", "file-..%2fx", "file-" + strings.Repeat("a", 300), "file-A", "file-", "batch_x", "file-a%00b"} {
		for _, path := range []string{"/v1/files/" + id, "/v1/files/" + id + "/content"} {
			if r := a.get(path); r.status != 404 && r.status != 307 && r.status != 301 {
				t.Errorf("%s: %d %s", path, r.status, r.body)
			}
		}
	}
}

func TestDeletedFileIsHiddenFromItsOwnerAndNotFromItsBatch(t *testing.T) {
	a := newAPI(t, Options{PollEvery: 5 * time.Millisecond})
	used, unused := a.upload(lines(3)), a.upload(lines(3))
	b := a.create(used.ID, "")
	for _, f := range []File{used, unused} {
		if d := as[Deleted](t, a.call("DELETE", "/v1/files/"+f.ID, nil), "DeleteFileResponse"); !d.Deleted || d.ID != f.ID {
			t.Errorf("deleted: %+v", d)
		}
		for _, r := range []reply{a.get("/v1/files/" + f.ID), a.get("/v1/files/" + f.ID + "/content"), a.call("DELETE", "/v1/files/"+f.ID, nil)} {
			if r.status != 404 {
				t.Errorf("after its deletion: %d %s", r.status, r.body)
			}
		}
	}
	if l := as[List[File]](t, a.get("/v1/files"), "ListFilesResponse"); len(l.Data) > 0 {
		t.Errorf("listed: %v", l.Data)
	}
	if r := a.post("/v1/batches", createBody(used.ID, "")); r.status != 400 {
		t.Errorf("a batch of a deleted file: %d", r.status)
	}
	if _, err := a.ports.Files.Stat(t.Context(), jobs.FileObject(someTenant, unused.ID)); jobs.CodeOf(err) != jobs.CodeNotFound {
		t.Errorf("the bytes of a deleted file that nobody needs: %v", err)
	}
	a.work()
	if b := a.ended(b.ID); b.Status != "completed" || b.RequestCounts.Completed != 3 {
		t.Errorf("the batch of a deleted file: %+v", b)
	}
}

func TestFileIsGoneWhenItsTimeIsOver(t *testing.T) {
	a := newAPI(t, Options{})
	now := time.Now()
	a.ports.Now = func() time.Time { return now }
	server := httptest.NewServer(New(a.ports, Options{OpenTenant: someTenant}))
	defer server.Close()
	a.server = server
	body, kind := formOf(map[string]string{"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}, "x", "y")
	f := as[File](t, a.call("POST", "/v1/files", body, "Content-Type", kind), "OpenAIFile")
	if f.ExpiresAt-f.CreatedAt != 3600 {
		t.Errorf("it expires after %d s", f.ExpiresAt-f.CreatedAt)
	}
	now = now.Add(time.Hour)
	if r := a.get("/v1/files/" + f.ID); r.status != 404 {
		t.Errorf("after that time: %d", r.status)
	}
	if l := as[List[File]](t, a.get("/v1/files"), ""); len(l.Data) > 0 {
		t.Errorf("listed: %v", l.Data)
	}
}

func TestPresignedFileIsBroughtOnceByWhoHasItsURL(t *testing.T) {
	a := newAPI(t, Options{})
	f := as[File](t, a.post("/v1/files?presign=true", `{"filename":"big.jsonl","purpose":"batch"}`), "OpenAIFile")
	if f.Status != "uploaded" || f.Upload == nil || f.Upload.Method != "PUT" {
		t.Fatalf("made: %+v", f)
	}
	for _, r := range []reply{a.get("/v1/files/" + f.ID + "/content"), a.post("/v1/batches", createBody(f.ID, ""))} {
		if r.status != 400 {
			t.Errorf("before its bytes are there: %d %s", r.status, r.body)
		}
	}
	proxied := as[File](t, a.post("/v1/files?presign=true", `{"filename":"big.jsonl","purpose":"batch"}`, "X-Forwarded-Proto", "https"), "")
	if !strings.HasPrefix(proxied.Upload.URL, "https://") {
		t.Errorf("behind a proxy with TLS it goes to %s", proxied.Upload.URL)
	}
	to := strings.TrimPrefix(f.Upload.URL, a.server.URL)
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	for _, wrong := range []string{u.Path, u.Path + "?tenant=other&token=" + q.Get("token"), u.Path + "?tenant=" + q.Get("tenant") + "&token=x", u.Path + "?tenant=..&token=" + q.Get("token")} {
		if r := a.call("PUT", wrong, strings.NewReader("x")); r.status != 404 {
			t.Errorf("PUT %s: %d %s", wrong, r.status, r.body)
		}
	}
	if r := a.call("PUT", to, strings.NewReader(lines(2))); r.status != 200 {
		t.Fatalf("PUT: %d %s", r.status, r.body)
	}
	if r := a.call("PUT", to, strings.NewReader("again")); r.status != 404 && r.status != 400 {
		t.Errorf("PUT again: %d %s", r.status, r.body)
	}
	if f := as[File](t, a.get("/v1/files/"+f.ID), "OpenAIFile"); f.Status != "processed" || f.Bytes != int64(len(lines(2))) {
		t.Errorf("then: %+v", f)
	}
	a.create(f.ID, "")
	if strings.Contains(a.log.String(), q.Get("token")) {
		t.Error("the log has a token")
	}
}

// direct leads past the server, to where a test writes by itself.
type direct struct{}

func (direct) PutURL(_ context.Context, object string, _ time.Duration) (string, map[string]string, error) {
	return "https://bucket.example/" + object + "?put", map[string]string{"If-None-Match": "*"}, nil
}

func (direct) GetURL(_ context.Context, object, filename string, _ time.Duration) (string, error) {
	return "https://bucket.example/" + object + "?get=" + url.QueryEscape(filename), nil
}

func TestLargeFilesGoPastAFrontDoorThatIsTooSmall(t *testing.T) {
	a := newAPI(t, Options{Direct: direct{}, MaxInline: 4})
	f := as[File](t, a.post("/v1/files?presign=true", `{"filename":"big.jsonl","purpose":"batch"}`), "OpenAIFile")
	object := jobs.FileObject(someTenant, f.ID)
	if f.Upload.URL != "https://bucket.example/"+object+"?put" || f.Upload.Headers["If-None-Match"] != "*" {
		t.Errorf("it is to be brought to %+v", f.Upload)
	}
	w, err := a.ports.Files.Create(t.Context(), object)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, lines(1)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if f := as[File](t, a.get("/v1/files/"+f.ID), "OpenAIFile"); f.Status != "processed" || f.Bytes != int64(len(lines(1))) {
		t.Errorf("then it is %+v", f)
	}
	r := a.get("/v1/files/" + f.ID + "/content")
	if r.status != 302 || r.header.Get("Location") != "https://bucket.example/"+object+"?get=big.jsonl" {
		t.Errorf("its content: %d %v", r.status, r.header)
	}
	if r := a.get("/v1/files/" + a.upload("1234").ID + "/content"); r.status != 200 || string(r.body) != "1234" {
		t.Errorf("a small one: %d %s", r.status, r.body)
	}
}

// TestAPageIsToldWhereTheBytesAreInsteadOfBeingLedThere: its policy keeps it from following a redirect to another host.
func TestAPageIsToldWhereTheBytesAreInsteadOfBeingLedThere(t *testing.T) {
	kept, past := newAPI(t, Options{}), newAPI(t, Options{Direct: direct{}, MaxInline: 4})
	for _, c := range []struct {
		what    string
		of      *api
		content string
		past    bool
	}{{"a server that keeps files", kept, "12345", false}, {"a small one", past, "1234", false}, {"a large one", past, "12345", true}} {
		id := c.of.upload(c.content).ID
		r := c.of.get("/v1/files/" + id + "/content?redirect=false")
		want := `{"object":"file.content_url","url":null}`
		if c.past {
			want = `{"object":"file.content_url","url":"https://bucket.example/` + jobs.FileObject(someTenant, id) + `?get=input.jsonl"}`
		}
		if r.status != 200 || strings.TrimSpace(string(r.body)) != want || r.header.Get("Cache-Control") != "no-store" || r.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %v %s, want %s", c.what, r.status, r.header, r.body, want)
		}
		if r := c.of.get("/v1/files/" + id + "/content?redirect=true"); (r.status == 302) != c.past || !c.past && string(r.body) != c.content {
			t.Errorf("%s, with a redirect: %d %s", c.what, r.status, r.body)
		}
		if r := c.of.get("/v1/files/" + id + "/content?redirect=maybe"); r.status != 400 {
			t.Errorf("%s, maybe: %d %s", c.what, r.status, r.body)
		}
	}
	if r := past.get("/v1/files/file-none/content?redirect=false"); r.status != 404 {
		t.Errorf("one that is not there: %d %s", r.status, r.body)
	}
}

func (a *api) part(upload, content string) reply {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	part, _ := w.CreateFormFile("data", "data")
	_, _ = io.WriteString(part, content)
	_ = w.Close()
	return a.call("POST", "/v1/uploads/"+upload+"/parts", &b, "Content-Type", w.FormDataContentType())
}

func TestUploadInParts(t *testing.T) {
	a := newAPI(t, Options{PollEvery: 5 * time.Millisecond})
	a.work()
	content := lines(4)
	half := len(content) / 2
	begin := func(bytes int) Upload {
		return as[Upload](t, a.post("/v1/uploads", fmt.Sprintf(`{"bytes":%d,"filename":"in.jsonl","mime_type":"text/jsonl","purpose":"batch"}`, bytes)), "Upload")
	}
	u := begin(len(content))
	second := as[UploadPart](t, a.part(u.ID, content[half:]), "UploadPart")
	first := as[UploadPart](t, a.part(u.ID, content[:half]), "UploadPart")
	sum := md5.Sum([]byte(content))
	complete := fmt.Sprintf(`{"part_ids":[%q,%q],"md5":%q}`, first.ID, second.ID, hex.EncodeToString(sum[:]))
	for what, wrong := range map[string]string{
		"a missing part":   fmt.Sprintf(`{"part_ids":[%q]}`, first.ID),
		"a part twice":     fmt.Sprintf(`{"part_ids":[%q,%q]}`, first.ID, first.ID),
		"an unknown part":  fmt.Sprintf(`{"part_ids":[%q,"part_x"]}`, first.ID),
		"another digest":   fmt.Sprintf(`{"part_ids":[%q,%q],"md5":"00"}`, first.ID, second.ID),
		"no part":          `{"part_ids":[]}`,
		"no list of parts": `{"part_ids":"x"}`,
	} {
		if r := a.post("/v1/uploads/"+u.ID+"/complete", wrong); r.status != 400 {
			t.Errorf("complete with %s: %d %s", what, r.status, r.body)
		}
	}
	var file string
	for range 2 { // completing again is completing once
		done := as[Upload](t, a.post("/v1/uploads/"+u.ID+"/complete", complete), "Upload")
		if done.Status != "completed" || done.File == nil || done.File.Bytes != int64(len(content)) || file != "" && file != done.File.ID {
			t.Fatalf("completed: %+v", done)
		}
		file = done.File.ID
	}
	if got := a.get("/v1/files/" + file + "/content"); string(got.body) != content {
		t.Errorf("the file is %q", got.body)
	}
	if b := a.ended(a.create(file, "").ID); b.RequestCounts.Completed != 4 {
		t.Errorf("a batch of it: %+v", b)
	}
	for _, r := range []reply{a.part(u.ID, "x"), a.post("/v1/uploads/"+u.ID+"/cancel", "")} {
		if r.status != 400 {
			t.Errorf("after its end: %d %s", r.status, r.body)
		}
	}
	c := begin(1)
	as[UploadPart](t, a.part(c.ID, "x"), "UploadPart")
	for range 2 {
		if u := as[Upload](t, a.post("/v1/uploads/"+c.ID+"/cancel", ""), "Upload"); u.Status != "cancelled" || u.File != nil {
			t.Errorf("cancelled: %+v", u)
		}
	}
	for info, err := range a.ports.Files.List(t.Context(), "uploads/") {
		t.Errorf("a part is left: %v %v", info, err)
	}
}

func TestUploadThatBreaksOffLeavesNothing(t *testing.T) {
	a := newAPI(t, Options{})
	u, err := url.Parse(a.server.URL)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST /v1/files HTTP/1.1\r\nHost: %s\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 100000\r\n\r\n--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\nsome of it", u.Host)
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(answer), " 400 ") || !strings.Contains(string(answer), "incomplete_body") {
		t.Errorf("it is answered %s", answer)
	}
	if l := as[List[File]](t, a.get("/v1/files"), ""); len(l.Data) > 0 {
		t.Errorf("there is %v", l.Data)
	}
	for info, err := range a.ports.Files.List(t.Context(), "files/") {
		t.Errorf("there is %v %v", info, err)
	}
}

func TestClientThatStallsIsDropped(t *testing.T) {
	a := newAPI(t, Options{Stall: 20 * time.Millisecond})
	u, err := url.Parse(a.server.URL)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v1/files HTTP/1.1\r\nHost: %s\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 100000\r\n\r\n--b\r\n", u.Host)
	answer, _ := io.ReadAll(conn) // ends when the server drops it
	if !strings.Contains(string(answer), " 400 ") {
		t.Errorf("it is answered %q", answer)
	}
}

func TestFileOverTheLimitIsRefused(t *testing.T) {
	a := newAPI(t, Options{MaxFileBytes: 1000})
	body, kind := formOf(map[string]string{"purpose": "batch"}, "x", strings.Repeat("x", 3<<20))
	r := a.call("POST", "/v1/files", body, "Content-Type", kind)
	if r.status != http.StatusRequestEntityTooLarge {
		t.Errorf("%d %s", r.status, r.body)
	}
}
