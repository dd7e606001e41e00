package upstream

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestRetryAfterIsReadInEveryForm(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		ms, after string
		want      time.Duration
	}{
		{"", "", 0},
		{"", "1", time.Second},
		{"", " 20 ", 20 * time.Second},
		{"", "0.25", 250 * time.Millisecond},
		{"", ".5", 500 * time.Millisecond},
		{"", "2.", 2 * time.Second},
		{"1500", "", 1500 * time.Millisecond},
		{"0.5", "", 500 * time.Microsecond},
		{"1500", "9", 1500 * time.Millisecond},
		{"0", "9", 9 * time.Second},
		{"soon", "9", 9 * time.Second},
		{"-1", "", 0},
		{"", "0", 0},
		{"", "-5", 0},
		{"", "+5", 0},
		{"", "3600", time.Hour},
		{"", "3601", time.Hour},
		{"99999999", "", time.Hour},
		{"", "1795435200", time.Hour}, // a Unix time, or somebody's joke
		{"", strings.Repeat("9", 400), 0},
		{"", "1e3", 0},
		{"", "0x10", 0},
		{"", "1_000", 0},
		{"", "inf", 0},
		{"", "NaN", 0},
		{"", "1.2.3", 0},
		{"", ".", 0},
		{"", "in a while", 0},
		{"", "Mon, 23 Nov 2026 12:00:30 GMT", 30 * time.Second},
		{"", "Monday, 23-Nov-26 12:00:30 GMT", 30 * time.Second},
		{"", "Mon Nov 23 12:00:30 2026", 30 * time.Second},
		{"", "Mon, 23 Nov 2026 11:59:30 GMT", 0},
		{"", "Tue, 24 Nov 2026 12:00:00 GMT", time.Hour},
		{"", "Fri, 31 Dec 9999 23:59:59 GMT", time.Hour},
		{"", "Mon, 23 Nov 2026 12:00:30 CET", 0},
	}
	for _, tt := range tests {
		h := http.Header{}
		if tt.ms != "" {
			h.Set("retry-after-ms", tt.ms)
		}
		if tt.after != "" {
			h.Set("Retry-After", tt.after)
		}
		if got := retryAfter(h, now); got != tt.want {
			t.Errorf("retry-after-ms %q, Retry-After %.40q: got %s, want %s", tt.ms, tt.after, got, tt.want)
		}
	}
}

func TestRetryAfterStaysInItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.OneOf(rapid.String(), rapid.StringMatching(`[-+0-9.eExX_ ]{0,30}`)).Draw(t, "value")
		for _, name := range []string{"Retry-After", "Retry-After-Ms"} {
			if got := retryAfter(http.Header{name: {value}}, time.Unix(0, 0)); got < 0 || got > maxRetryAfter {
				t.Fatalf("%s %q: %s", name, value, got)
			}
		}
	})
}
