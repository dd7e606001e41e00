package batchapi

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// moved notes the rates of moves; what else is done to dead letters it leaves to others.
type moved struct {
	jobs.DeadLetters
	rates []int
}

func (m *moved) Move(_ context.Context, _ jobs.QueueName, perSecond int) error {
	m.rates = append(m.rates, perSecond)
	return nil
}

// TestAMoveIsNeverFasterThanItWasAskedFor: a rate below 1 was cut to 0, which is as fast as it goes.
func TestAMoveIsNeverFasterThanItWasAskedFor(t *testing.T) {
	a := newAPI(t, Options{})
	operator := a.with(a.newKey("ops", time.Time{}, ScopeOperate))
	letters := &moved{DeadLetters: a.local.Queue}
	a.handler.inspector = jobs.NewInspector(a.ports, letters)
	const path = "/fanout/v1/queues/work/move"
	for body, says := range map[string]string{
		`{"rate":0.5}`: "0.5 is no whole number", `{"rate":0}`: "from 1 to 500", `{"rate":-1}`: "from 1 to 500", `{"rate":501}`: "from 1 to 500", `{"rate":"1"}`: "expected a whole number",
	} {
		r := operator.post(path, body)
		if r.status != 400 || !strings.Contains(unescape(t, r.body), says) || !strings.Contains(string(r.body), `"param":"rate"`) {
			t.Errorf("%s: %d %s, want %s", body, r.status, r.body, says)
		}
	}
	for _, body := range []string{"", "{}", `{"rate":null}`, `{"rate":1}`, `{"rate":500}`} {
		as[QueueState](t, operator.post(path, body), "")
	}
	if got := fmt.Sprint(letters.rates); got != "[0 0 0 1 500]" {
		t.Errorf("it moved at %s a second", got)
	}
}

// fullOf has that many letters.
type fullOf struct {
	jobs.DeadLetters
	letters int
}

func (f fullOf) Peek(context.Context, jobs.QueueName) iter.Seq2[jobs.Letter, error] {
	return func(yield func(jobs.Letter, error) bool) {
		for n := range f.letters {
			if !yield(jobs.Letter{ID: fmt.Sprint("letter-", n), Body: []byte("not one of ours")}, nil) {
				return
			}
		}
	}
}

// TestLettersHaveNoCursor: they were given one, which was then not heeded, so that whoever followed it saw the same for ever.
func TestLettersHaveNoCursor(t *testing.T) {
	a := newAPI(t, Options{})
	operator := a.with(a.newKey("ops", time.Time{}, ScopeOperate))
	a.handler.inspector = jobs.NewInspector(a.ports, fullOf{a.local.Queue, 3})
	const path = "/fanout/v1/queues/work/letters"
	for limit, more := range map[int]bool{2: true, 3: false, 1000: false} {
		l := as[List[DeadLetter]](t, operator.get(fmt.Sprintf("%s?limit=%d", path, limit)), "")
		if len(l.Data) != min(limit, 3) || l.HasMore != more || l.LastID != nil || l.FirstID != nil {
			t.Errorf("of 3, at most %d: %+v", limit, l)
		}
	}
	for query, says := range map[string]string{"?after=letter-1": "have no order", "?limit=0": "from 1 to 1000", "?limit=1001": "from 1 to 1000"} {
		if r := operator.get(path + query); r.status != 400 || !strings.Contains(unescape(t, r.body), says) {
			t.Errorf("%s: %d %s", query, r.status, r.body)
		}
	}
}
