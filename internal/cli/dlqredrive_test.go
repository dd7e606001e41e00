package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanout-inference/fanout/pkg/batchapi"
)

// TestARedriveKeepsItsPaceFromCallToCall: at one in a minute each call moves one at once, and says that there is more.
func TestARedriveKeepsItsPaceFromCallToCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := redriving{rate: 1.0 / 60, yes: true}
		began := time.Now()
		for moved := range int64(5) {
			if err := r.pace(t.Context(), began, moved); err != nil {
				t.Fatal(err)
			}
			if took, want := time.Since(began), time.Duration(moved)*time.Minute; took < want || took > want+time.Second {
				t.Errorf("after %d it goes on at %s, want %s", moved, took, want)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := r.pace(ctx, began, 100); !errors.Is(err, context.Canceled) {
			t.Errorf("interrupted it says %v", err)
		}
		r.rate = 0
		if err := r.pace(t.Context(), began, 1e9); err != nil || time.Since(began) > 5*time.Minute {
			t.Errorf("without a rate it waits until %s, %v", time.Since(began), err)
		}
	})
}

// movingTwice is a server whose redrive takes two calls: first of jobs a and b, then of b and c. then answers the second one.
func movingTwice(t *testing.T, then func(w http.ResponseWriter, done batchapi.Redriven)) http.Handler {
	next := "batch_b.0.1"
	pages := map[string]batchapi.Redriven{
		"":   {Chunks: 2, Requests: 2, Batches: 2, Refused: map[string]int64{}, Followed: []batchapi.Followed{{ID: "batch_a.0.0"}, {ID: "batch_b.0.0"}}, Next: &next},
		next: {Chunks: 3, Requests: 3, Batches: 2, Refused: map[string]int64{}, Followed: []batchapi.Followed{{ID: "batch_b.0.1"}, {ID: "batch_b.0.2"}, {ID: "batch_c.0.0"}}},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/follow") {
			answer(t, w, batchapi.FollowedStates{States: []string{"answered"}})
			return
		}
		var q batchapi.RedriveRequest
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			t.Error(err)
		}
		switch {
		case q.Max > 0:
			answer(t, w, batchapi.Redriven{Chunks: 1, Requests: 1, Batches: 1, Followed: []batchapi.Followed{{ID: "batch_c.0.9"}}})
		case q.From == "":
			answer(t, w, pages[""])
		default:
			then(w, pages[q.From])
		}
	})
}

// TestAJobOfSeveralCallsIsCountedOnce: what was told was the most of one call.
func TestAJobOfSeveralCallsIsCountedOnce(t *testing.T) {
	server := movingTwice(t, func(w http.ResponseWriter, done batchapi.Redriven) { answer(t, w, done) })
	for args, says := range map[string]string{
		"dlq redrive":                  "would redrive 5 chunks with 5 open items of 3 jobs\n",
		"dlq redrive --yes":            "redrove 5 chunks with 5 open items of 3 jobs\n",
		"dlq redrive --yes --canary 1": "redrove 6 chunks with 6 open items of 3 jobs\n",
	} {
		if code, stdout, stderr := calling(t, server, strings.Fields(args)...); code != 0 || stdout != says {
			t.Errorf("%s: exit code %d, %q, said %q", args, code, stdout, stderr)
		}
	}
	r := newRedrove(false) // a call that does not name all that it has moved
	if err := r.add(&batchapi.Redriven{Batches: 5, Followed: []batchapi.Followed{{ID: "batch_a.0.0"}, {ID: "batch_b.0.0"}}}); err != nil || r.Batches != 5 {
		t.Errorf("of 5 jobs, two of them named: %d, %v", r.Batches, err)
	}
}

func TestARedriveThatBreaksOffSaysWhatItHasMoved(t *testing.T) {
	server := movingTwice(t, func(w http.ResponseWriter, _ batchapi.Redriven) { http.Error(w, "late", http.StatusGatewayTimeout) })
	code, stdout, stderr := calling(t, server, "dlq", "redrive", "--yes")
	if code != 1 || stdout != "" || !strings.Contains(stderr, "moved 2 chunks before it failed\n") || !strings.Contains(stderr, "it may have been done") || !strings.Contains(stderr, "Try: fanout audit") {
		t.Errorf("exit code %d, %q, said %q", code, stdout, stderr)
	}
}

// TestACanaryIsNoMoreThanCanBeFollowed: it was moved, and only then refused.
func TestACanaryIsNoMoreThanCanBeFollowed(t *testing.T) {
	server := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("%s is called", r.URL) })
	code, _, stderr := calling(t, server, "dlq", "redrive", "--canary", fmt.Sprint(batchapi.MaxFollowed+1), "--yes")
	if code != exitInvalid || !strings.Contains(stderr, "--canary takes at most 1000") {
		t.Errorf("exit code %d, said %q", code, stderr)
	}
}
