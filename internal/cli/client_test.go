package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/fanout-inference/fanout/pkg/batchapi"
)

// calling runs a command against a server that is a test's.
func calling(t *testing.T, h http.Handler, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	server := httptest.NewServer(h)
	defer server.Close()
	var out, told bytes.Buffer
	code = Main(t.Context(), append(args, "--api", server.URL, "--key", "fanout_x"), strings.NewReader(""), &out, &told)
	return code, out.String(), told.String()
}

func answer(t *testing.T, w http.ResponseWriter, v any) {
	t.Helper()
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		t.Error(err)
	}
}

// TestAListSaysThatItIsNotAll: its first page was taken for all there was.
func TestAListSaysThatItIsNotAll(t *testing.T) {
	const all = 45
	server := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		limit, after := 100, -1
		if s := r.URL.Query().Get("limit"); s != "" {
			limit, _ = strconv.Atoi(s)
		}
		if s := r.URL.Query().Get("after"); s != "" {
			after, _ = strconv.Atoi(s)
		}
		l := batchapi.List[map[string]string]{Object: "list", HasMore: after+1+limit < all}
		for n := after + 1; n < min(all, after+1+limit); n++ {
			id := strconv.Itoa(n)
			l.Data, l.LastID = append(l.Data, map[string]string{"id": id}), &id
		}
		answer(t, w, l)
	})
	for _, c := range []struct {
		args string
		rows int
		more bool
	}{
		{"dlq list", 20, true}, {"dlq list --limit 45", 45, false}, {"dlq list --limit 44 --json", 44, true}, {"dlq list --all", 45, false}, {"dlq list --after 24", 20, false},
		{"dlq list --queue work", 20, true}, {"dlq list --queue work --all", 45, false},
		{"audit", 20, true}, {"file list", 20, true}, {"job list --all", 45, false},
	} {
		code, stdout, stderr := calling(t, server, strings.Fields(c.args)...)
		if rows := strings.Count(stdout, "\n"); code != 0 || rows != c.rows || stderr != map[bool]string{true: "there are more; --all lists them\n"}[c.more] {
			t.Errorf("%s: exit code %d, %d rows, said %q", c.args, code, rows, stderr)
		}
	}
	fullOf := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		answer(t, w, batchapi.List[batchapi.DeadLetter]{Object: "list", Data: make([]batchapi.DeadLetter, mostLetters), HasMore: true})
	})
	if _, _, stderr := calling(t, fullOf, "dlq", "list", "--queue", "work", "--all"); !strings.Contains(stderr, fmt.Sprintf("more than these %d letters", mostLetters)) {
		t.Errorf("of a full queue it says %q", stderr)
	}
}
