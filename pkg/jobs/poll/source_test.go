package poll_test

import (
	"testing"
	"testing/synctest"

	"github.com/fanout-inference/fanout/pkg/jobs/poll/polltest"
)

func TestQueueInMemory(t *testing.T) {
	polltest.TestSource(t, func(t *testing.T, claim func(t *testing.T, s polltest.SourceUnderTest)) {
		synctest.Test(t, func(t *testing.T) {
			q := polltest.NewQueue()
			claim(t, polltest.SourceUnderTest{Source: q, Queue: q})
		})
	})
}
