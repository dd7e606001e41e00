package awsjobs

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fanout-inference/fanout/internal/awstest"
)

// TestPresignedURLsWorkForAPlainClient: one PUT of an object that is not there, and any number of GETs, until they expire.
func TestPresignedURLsWorkForAPlainClient(t *testing.T) {
	client := awstest.S3(t)
	bucket := awstest.Bucket(t, client)
	direct, files := NewDirect(client, bucket), NewFiles(client, bucket)
	call := func(method, url, body string, headers map[string]string) (int, string, http.Header) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range headers {
			r.Header.Set(name, value)
		}
		out, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer out.Body.Close()
		got, err := io.ReadAll(out.Body)
		if err != nil {
			t.Fatal(err)
		}
		return out.StatusCode, string(got), out.Header
	}
	to, headers, err := direct.PutURL(t.Context(), "files/t/file-a", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if headers["If-None-Match"] != "*" || len(headers) != 1 {
		t.Errorf("it is to be called with %v", headers)
	}
	if status, body, _ := call("PUT", to, "hello", nil); status == http.StatusOK {
		t.Errorf("without its header: %d %s", status, body)
	}
	if status, body, _ := call("PUT", to, "hello", headers); status != http.StatusOK {
		t.Fatalf("the first PUT: %d %s", status, body)
	}
	if status, _, _ := call("PUT", to, "other", headers); status != http.StatusPreconditionFailed {
		t.Errorf("the second PUT: %d", status)
	}
	if info, err := files.Stat(t.Context(), "files/t/file-a"); err != nil || info.Bytes != 5 {
		t.Errorf("it is %+v, %v", info, err)
	}
	from, err := direct.GetURL(t.Context(), "files/t/file-a", `odd "name" ü.jsonl`, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if status, body, header := call("GET", from, "", nil); status != http.StatusOK || body != "hello" || !strings.HasPrefix(header.Get("Content-Disposition"), "attachment") {
		t.Errorf("the GET: %d %q %v", status, body, header)
	}
	if status, body, _ := call("GET", strings.Replace(from, "file-a", "file-b", 1), "", nil); status == http.StatusOK || status == http.StatusNotFound {
		t.Errorf("the GET of another object: %d %s", status, body)
	}
	for _, object := range []string{"", "../x", "/x"} {
		if _, _, err := direct.PutURL(t.Context(), object, time.Minute); err == nil {
			t.Errorf("%q can be put", object)
		}
		if _, err := direct.GetURL(t.Context(), object, "x", time.Minute); err == nil {
			t.Errorf("%q can be got", object)
		}
	}
}
