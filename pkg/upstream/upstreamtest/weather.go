package upstreamtest

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// weather is how one request is treated. The zero value is fair.
type weather struct {
	kind         string // a word of kinds; "" = fair, or of status
	status       int    // not 0: answer with it
	bare, gzip   bool
	times        int // only the first so many calls; 0 = all
	delay        time.Duration
	retryAfter   string
	retryAfterMs string
	code         string
	location     string
}

// kinds are the words that stand for a whole answer.
var kinds = map[string]bool{
	"hang": true, "trickle": true, "reset": true, "drop": true, "cut": true, "huge": true, "html": true, "empty": true,
	"array": true, "broken": true, "latin1": true, "pretty": true, "nousage": true, "exit": true,
}

// find returns what stands between the first double brackets of body.
func find(body string) (string, bool) {
	_, rest, ok := strings.Cut(body, "[[")
	if !ok {
		return "", false
	}
	words, _, ok := strings.Cut(rest, "]]")
	return words, ok
}

func parse(words string) (weather, error) {
	var w weather
	for word := range strings.FieldsSeq(words) {
		if err := w.set(word); err != nil {
			return w, fmt.Errorf("read weather %q: %w", words, err)
		}
	}
	return w, nil
}

func (w *weather) set(word string) (err error) {
	name, value, _ := strings.Cut(word, "=")
	switch name {
	case "status":
		w.status, err = strconv.Atoi(value)
		if err == nil && (w.status < 200 || w.status > 599) {
			err = fmt.Errorf("status %d is not from 200 to 599", w.status)
		}
	case "times":
		w.times, err = strconv.Atoi(value)
	case "delay":
		w.delay, err = time.ParseDuration(value)
	case "retry-after":
		w.retryAfter = value
	case "retry-after-ms":
		w.retryAfterMs = value
	case "code":
		w.code = value
	case "location":
		w.location = value
	case "bare":
		w.bare = true
	case "gzip":
		w.gzip = true
	default:
		if !kinds[word] {
			return fmt.Errorf("%q is no word of it", word)
		}
		w.kind = word
	}
	return err
}
