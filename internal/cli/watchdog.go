package cli

import (
	"cmp"
	"fmt"
	"sync"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// What a watchdog waits for, unless its options say otherwise.
const (
	firstAnswerWithin = 30 * time.Second // an upstream that answers nothing at all for so long ends the run
	noticeAfter       = 15 * time.Second // … that stops answering is told after so long
)

// watchdog tells an upstream that never answers from one that went away later: the first ends the run, the second is
// waited for, up to a time.
type watchdog struct {
	opt  runOptions
	note func(line string)

	began   time.Time   // a pause of before is what this run was started to end
	timer   *time.Timer // fires when look is due
	refused chan error  // the upstream refuses every call

	mu       sync.Mutex
	first    time.Time // when the first call started
	early    int       // calls in flight that started within FirstAnswerWithin of the first
	answered int64
	failed   int64
	last     time.Time // of the last answer, or the first call
	why      string    // the last failure since then; "" = none
	told     bool      // that it is being waited for
	paused   time.Time // since when the job was paused, when last told
}

func newWatchdog(o runOptions, note func(string)) *watchdog {
	o.FirstAnswerWithin = cmp.Or(o.FirstAnswerWithin, firstAnswerWithin)
	o.NoticeAfter = cmp.Or(o.NoticeAfter, noticeAfter)
	w := &watchdog{opt: o, note: note, began: time.Now(), timer: time.NewTimer(time.Hour), refused: make(chan error, 1)}
	w.timer.Stop()
	return w
}

func (w *watchdog) callStarted() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if w.first.IsZero() {
		w.first, w.last = now, now
		w.timer.Reset(w.opt.FirstAnswerWithin)
	}
	if now.Sub(w.first) < w.opt.FirstAnswerWithin {
		w.early++
	}
}

func (w *watchdog) callEnded(f *jobs.Fault, took time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if now.Add(-took).Sub(w.first) < w.opt.FirstAnswerWithin && w.early > 0 {
		w.early--
	}
	if f == nil {
		w.spoke(now)
		return
	}
	if f.Class() == jobs.ClassFailed { // it spoke about the item: it is there
		w.spoke(now)
		return
	}
	if f.Cause == jobs.CauseAborted {
		return
	}
	w.failed++
	if w.why == "" && w.answered > 0 {
		w.timer.Reset(w.last.Add(min(w.opt.NoticeAfter, w.opt.GiveUpAfter)).Sub(now))
	}
	w.why = f.Error()
	if w.answered == 0 && w.early == 0 && now.Sub(w.first) >= w.opt.FirstAnswerWithin {
		w.timer.Reset(0)
	}
}

// spoke notes an answer.
func (w *watchdog) spoke(now time.Time) {
	w.answered++
	w.last, w.why = now, ""
	if w.told {
		w.told = false
		w.note(fmt.Sprintf("%s answers again", names(w.opt.Routes)))
	}
}

// look is called when the timer fires. over is why the run is to be given up, with what it has; err ends it at once.
func (w *watchdog) look() (over string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	name := names(w.opt.Routes)
	switch {
	case w.answered == 0 && w.failed > 0 && w.early == 0 && now.Sub(w.first) >= w.opt.FirstAnswerWithin:
		return "", jobs.Errorf(jobs.CodeUpstream, "%s has not answered one call within %s of the first: %s", name, w.opt.FirstAnswerWithin, w.why).
			WithHint("whether it runs and takes calls there; then %s, to go on", w.opt.again())
	case w.answered == 0 || w.why == "":
		return "", nil
	}
	silent := now.Sub(w.last)
	until := w.last.Add(w.opt.GiveUpAfter)
	switch {
	case silent >= w.opt.GiveUpAfter:
		return fmt.Sprintf("%s has not answered for %s: %s", name, w.opt.GiveUpAfter, w.why), nil
	case silent >= w.opt.NoticeAfter && !w.told:
		w.told = true
		w.note(fmt.Sprintf("waiting for %s, which has not answered since %s: %s; giving up at %s (--give-up-after %s)",
			name, w.last.Format(time.TimeOnly), w.why, until.Format(time.TimeOnly), w.opt.GiveUpAfter))
	}
	next := until
	if notice := w.last.Add(w.opt.NoticeAfter); !w.told && notice.Before(next) {
		next = notice
	}
	w.timer.Reset(next.Sub(now))
	return "", nil
}

// jobSaved sees a job that was paused because every call is refused. If nothing was ever answered, waiting mends nothing.
func (w *watchdog) jobSaved(j jobs.Job) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if j.Pause == nil || j.Pause.At.Equal(w.paused) || j.Pause.At.Before(w.began) {
		return
	}
	w.paused = j.Pause.At
	if j.Pause.Reason == jobs.PauseCredential && w.answered == 0 {
		err := jobs.Errorf(jobs.CodeUpstream, "stopped: %s", j.Pause.Message).
			WithHint("the address (--upstream) and the key (--upstream-key-env); then %s, to go on", w.opt.again())
		select {
		case w.refused <- err:
		default: // it was told already
		}
		return
	}
	w.note("paused: " + j.Pause.Message + "; trying again every minute")
}
