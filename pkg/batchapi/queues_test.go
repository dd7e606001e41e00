package batchapi

import (
	"context"
	"fmt"
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
