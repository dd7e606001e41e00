package jobs

import (
	"fmt"
	"testing"
	"time"
)

func TestOfVeryManyUpstreamsThoseAreListedThatMatter(t *testing.T) {
	registry := newMemRegistry()
	now := time.Unix(10_000, 0)
	for n := range mostUpstreams + 50 {
		rec := gateRecord{V: 1, ToldAt: now}
		switch {
		case n >= mostUpstreams+40:
			rec.Pause = &Pause{Reason: PauseOperator}
		case n >= mostUpstreams+20:
			rec.FailingSince = now
		}
		if _, err := saveGate(t.Context(), registry, GateID{"upstream", fmt.Sprintf("model-%04d", n)}, rec, 0, now); err != nil {
			t.Fatal(err)
		}
	}
	all, err := NewInspector(Ports{Registry: registry}, nil).Upstreams(t.Context())
	if err != nil || len(all) != mostUpstreams {
		t.Fatalf("%d are listed, %v", len(all), err)
	}
	held, failing := 0, 0
	for _, s := range all {
		if s.Pause != nil {
			held++
		} else if !s.FailingSince.IsZero() {
			failing++
		}
	}
	if held != 10 || failing != 20 {
		t.Errorf("%d of 10 that are held are listed, and %d of 20 that fail", held, failing)
	}
}
