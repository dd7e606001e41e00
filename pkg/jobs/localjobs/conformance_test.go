package localjobs

import (
	"testing"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/jobstest"
)

func TestLedger(t *testing.T) {
	jobstest.TestLedger(t, func(t *testing.T) jobs.Ledger { return openAt(t, t.TempDir(), Options{}).Store })
}

func TestRegistry(t *testing.T) {
	jobstest.TestRegistry(t, func(t *testing.T) jobs.Registry { return openAt(t, t.TempDir(), Options{}).Store })
}

func TestFiles(t *testing.T) {
	jobstest.TestFiles(t, func(t *testing.T) jobs.Files { return openAt(t, t.TempDir(), Options{}).Files })
}

func TestQueue(t *testing.T) {
	jobstest.TestQueue(t, func(t *testing.T) jobstest.QueueUnderTest {
		c := &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
		q := openAt(t, t.TempDir(), Options{Now: c.Now}).Queue
		return jobstest.QueueUnderTest{Transport: q, Pass: c.Pass, Second: time.Second}
	})
}
