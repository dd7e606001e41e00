package cli

import (
	"testing"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// TestAPauseOfAnEarlierRunEndsNone: a run is started again with the right key, and a job that is folded before its pause is
// lifted is saved with it once more.
func TestAPauseOfAnEarlierRunEndsNone(t *testing.T) {
	w := newWatchdog(runOptions{}, func(string) {})
	w.jobSaved(jobs.Job{Pause: &jobs.Pause{Reason: jobs.PauseCredential, At: w.began.Add(-time.Second)}})
	select {
	case err := <-w.refused:
		t.Error(err)
	default:
	}
	w.jobSaved(jobs.Job{Pause: &jobs.Pause{Reason: jobs.PauseCredential, At: w.began.Add(time.Second)}})
	select {
	case err := <-w.refused:
		t.Log(err)
	default:
		t.Error("a pause of this run does not end it")
	}
}
