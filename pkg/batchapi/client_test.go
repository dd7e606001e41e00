package batchapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// hasty is a client that repeats at once, against a server that counts what comes.
func hasty(t *testing.T, answer http.HandlerFunc) (c *Client, came *atomic.Int64) {
	t.Helper()
	came = new(atomic.Int64)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		came.Add(1)
		answer(w, r)
	}))
	t.Cleanup(server.Close)
	c, err := NewClient(server.URL, "fanout_x")
	if err != nil {
		t.Fatal(err)
	}
	hurry(c)
	return c, came
}

func hurry(c *Client) {
	for _, by := range []*retryablehttp.Client{c.http, c.sure} {
		by.RetryWaitMin, by.RetryWaitMax = time.Nanosecond, time.Nanosecond
	}
}

// TestWhatActsIsNotDoneAgainWhenItsAnswerIsLost: a redrive of at most ten chunks that was sent again moved twenty.
func TestWhatActsIsNotDoneAgainWhenItsAnswerIsLost(t *testing.T) {
	acts := map[string]func(ctx context.Context, c *Client, dry bool) error{
		"redrive dead chunks": func(ctx context.Context, c *Client, dry bool) error {
			_, err := c.Redrive(ctx, RedriveRequest{DryRun: dry})
			return err
		},
		"purge dead chunks": func(ctx context.Context, c *Client, dry bool) error {
			_, err := c.PurgeDead(ctx, DeadSelection{}, dry)
			return err
		},
		"purge the dead letters of queue work": func(ctx context.Context, c *Client, dry bool) error {
			_, err := c.PurgeLetters(ctx, "work", false, dry)
			return err
		},
		"retry job batch_x": func(ctx context.Context, c *Client, dry bool) error {
			_, err := c.RetryJob(ctx, "batch_x", RetryRequest{DryRun: dry})
			return err
		},
		"move the dead letters of queue work": func(ctx context.Context, c *Client, _ bool) error {
			_, err := c.MoveLetters(ctx, "work", 0)
			return err
		},
	}
	losses := map[string]http.HandlerFunc{
		"a front door that gave up": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "late", http.StatusGatewayTimeout) },
		"a fault of the server": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Should-Retry", "true")
			writeJSON(w, http.StatusInternalServerError, ErrorBody{ErrorDetail{Message: "it broke"}})
		},
		"a connection that broke": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"half an answer": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, `{"object":`)
		},
	}
	for loss, answer := range losses {
		for what, act := range acts {
			c, came := hasty(t, answer)
			err := act(t.Context(), c, false)
			e, ok := errors.AsType[*jobs.Error](err)
			if came.Load() != 1 || !ok || !strings.HasPrefix(e.Error(), what+": it may have been done") || !strings.Contains(e.Hint, "fanout audit") || e.Code != jobs.CodeUpstream {
				t.Errorf("%s, %s: came %d times, %v", loss, what, came.Load(), err)
			}
		}
	}
	for what, act := range acts { // what is only counted may be counted again
		if strings.HasPrefix(what, "move") {
			continue
		}
		once := atomic.Bool{}
		c, came := hasty(t, func(w http.ResponseWriter, _ *http.Request) {
			if !once.Swap(true) {
				http.Error(w, "late", http.StatusGatewayTimeout)
				return
			}
			_, _ = io.WriteString(w, "{}")
		})
		if err := act(t.Context(), c, true); err != nil || came.Load() != 2 {
			t.Errorf("a dry run, %s: came %d times, %v", what, came.Load(), err)
		}
	}
}

func TestWhatCertainlyWasNotDoneIsDoneAgain(t *testing.T) {
	once := atomic.Bool{}
	c, came := hasty(t, func(w http.ResponseWriter, _ *http.Request) {
		if !once.Swap(true) {
			http.Error(w, "too often", http.StatusTooManyRequests)
			return
		}
		_, _ = io.WriteString(w, `{"chunks":3}`)
	})
	if done, err := c.Redrive(t.Context(), RedriveRequest{}); err != nil || done.Chunks != 3 || came.Load() != 2 {
		t.Errorf("one that was sent away: came %d times, %+v, %v", came.Load(), done, err)
	}
	nobody := httptest.NewServer(http.NotFoundHandler())
	nobody.Close()
	c, err := NewClient(nobody.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	hurry(c)
	if _, err := c.Redrive(t.Context(), RedriveRequest{}); jobs.CodeOf(err) != jobs.CodeUpstream || strings.Contains(err.Error(), "may have been done") {
		t.Errorf("where nobody is: %v", err)
	}
	c, came = hasty(t, func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusConflict, ErrorBody{ErrorDetail{Message: "not now"}})
	})
	if _, err := c.MoveLetters(t.Context(), "work", 1); err == nil || err.Error() != "not now" || came.Load() != 1 {
		t.Errorf("one that was refused: came %d times, %v", came.Load(), err)
	}
}

// TestManyAreFollowedInTurns: a server takes so many at once, and refused the rest after they had been moved.
func TestManyAreFollowedInTurns(t *testing.T) {
	a := newAPI(t, Options{})
	c, err := NewClient(a.server.URL, *a.newKey("ops", time.Time{}, ScopeOperate).Secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, MaxFollowed, 2*MaxFollowed + 1} {
		all := make([]Followed, n)
		for i := range all {
			all[i].ID = fmt.Sprintf("batch_x.0.%d", i)
		}
		if s, err := c.Follow(t.Context(), all); err != nil || len(s.States) != n {
			t.Errorf("of %d: %d, %v", n, len(s.States), err)
		}
	}
}
