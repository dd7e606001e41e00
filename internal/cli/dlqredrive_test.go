package cli

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
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
