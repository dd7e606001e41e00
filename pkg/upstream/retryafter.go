package upstream

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxRetryAfter is the longest wait that an answer can ask for.
const maxRetryAfter = time.Hour

// retryAfter is how long the answer asks to wait: retry-after-ms, else Retry-After in seconds (also fractions) or as a
// date. What is no wait (negative, past, not a number) is 0.
func retryAfter(h http.Header, now time.Time) time.Duration {
	if d := wait(h.Get("Retry-After-Ms"), time.Millisecond); d > 0 {
		return d
	}
	after := h.Get("Retry-After")
	if d := wait(after, time.Second); d > 0 {
		return d
	}
	at, err := http.ParseTime(after)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}

func wait(s string, unit time.Duration) time.Duration {
	s = strings.TrimSpace(s)
	if strings.Trim(s, "0123456789.") != "" { // ParseFloat takes 1e9, 0x1p4, inf and nan too
		return 0
	}
	n, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return 0
	}
	if n >= float64(maxRetryAfter/unit) {
		return maxRetryAfter
	}
	return time.Duration(n * float64(unit))
}
