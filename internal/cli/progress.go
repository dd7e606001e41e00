package cli

import (
	"fmt"
	"io"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cheggaaa/pb/v3"
)

// Progress shows how a job comes along: one live line on a terminal, elsewhere a plain line now and then. Add and InFlight
// never block and may be called by many goroutines at once, as the worker does.
type Progress struct {
	out   io.Writer
	width func() int    // columns of the terminal that out is; nil = it is none
	every time.Duration // between two lines, or two drawings of the live one

	total, answered, failed, inFlight atomic.Int64

	mu   sync.Mutex // one writer to out
	bar  *pb.ProgressBar
	pace pace

	stop, stopped chan struct{}
}

const (
	drawEvery = 200 * time.Millisecond // a live line that the eye takes for moving
	lineEvery = 10 * time.Second       // rare enough for a CI log of a long job
)

// newProgress makes a Progress that writes to stderr. Nothing is shown before Start.
func newProgress(stderr io.Writer) *Progress {
	p := &Progress{out: stderr, every: lineEvery}
	if f, ok := stderr.(*os.File); ok && isTerminal(f) {
		p.width, p.every = func() int { return columns(f) }, drawEvery
	}
	return p
}

// Start begins to show, with the items of the job and those that earlier runs have answered and failed. It starts a
// goroutine that Stop ends; both are called by one goroutine, the command's.
func (p *Progress) Start(total, answered, failed int64) {
	p.total.Store(total)
	p.answered.Add(answered)
	p.failed.Add(failed)

	p.mu.Lock()
	defer p.mu.Unlock()
	p.pace = pace{at: time.Now(), done: p.done()}
	if p.width != nil {
		p.bar = newBar(p.out)
		p.show()
	}
	p.stop, p.stopped = make(chan struct{}), make(chan struct{})
	go p.run(p.stop, p.stopped)
}

// Add counts items that have their outcome.
func (p *Progress) Add(answered, failed int64) {
	p.answered.Add(answered)
	p.failed.Add(failed)
}

// InFlight counts calls: +1 when one starts, -1 when it ends.
func (p *Progress) InFlight(change int64) { p.inFlight.Add(change) }

// Note prints a line of its own, such as why a job is paused.
func (p *Progress) Note(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		fmt.Fprint(p.out, "\r\x1b[K") // the live line makes room and is drawn again below
	}
	fmt.Fprintln(p.out, oneLine(line))
	if p.bar != nil {
		p.show()
	}
}

// Stop ends the showing, with a last look at the live line. It may be called before Start and more than once.
func (p *Progress) Stop() {
	if p.stop == nil {
		return
	}
	close(p.stop)
	<-p.stopped
	p.stop = nil

	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		p.show()
		fmt.Fprintln(p.out)
		p.bar = nil
	}
}

func (p *Progress) run(stop <-chan struct{}, stopped chan<- struct{}) {
	defer close(stopped)
	tick := time.NewTicker(p.every)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			p.mu.Lock()
			p.pace.look(time.Now(), p.done())
			p.show()
			p.mu.Unlock()
		}
	}
}

func (p *Progress) done() int64 { return p.answered.Load() + p.failed.Load() }

// show draws the live line, or prints a plain one. The caller holds mu.
func (p *Progress) show() {
	done, total, rate := p.done(), p.total.Load(), p.pace.rate()
	state := fmt.Sprintf("%s items/s, %d failed, %d in flight%s",
		rateText(rate), p.failed.Load(), p.inFlight.Load(), leftText(total-done, rate))
	if p.bar == nil {
		fmt.Fprintf(p.out, "%d/%d items, %s\n", done, total, state)
		return
	}
	p.bar.SetWidth(p.width()).SetTotal(total).SetCurrent(done).Set("state", state).Write()
}

// newBar makes a bar that is drawn only when it is told to, so that it and the notes have one writer.
func newBar(out io.Writer) *pb.ProgressBar {
	const line pb.ProgressBarTemplate = `{{counters . "%s/%s"}} {{bar . }} {{string . "state"}}`
	bar := line.New(0).SetWriter(out)
	bar.Set(pb.Static, true).Set(pb.Terminal, true).Set(pb.ReturnSymbol, "\r").Set(pb.Color, false)
	return bar.Start()
}

func rateText(perSecond float64) string {
	if perSecond < 10 {
		return fmt.Sprintf("%.1f", perSecond)
	}
	return fmt.Sprintf("%.0f", perSecond)
}

// leftText is how long the rest will take at this rate; nothing while that cannot be told.
func leftText(items int64, rate float64) string {
	if items <= 0 {
		return ""
	}
	seconds := float64(items) / rate
	if rate <= 0 || seconds > (365*24*time.Hour).Seconds() {
		return ""
	}
	return ", ETA " + time.Duration(seconds*float64(time.Second)).Round(time.Second).String()
}

// pace is the rate of late: an average in which what happened t ago weighs exp(-t/paceMemory). While it is young it is the
// plain average, so that it does not climb from zero.
type pace struct {
	at            time.Time
	done          int64
	items, weight float64
}

const paceMemory = 30 * time.Second

func (p *pace) look(now time.Time, done int64) {
	passed := now.Sub(p.at)
	if passed <= 0 {
		return
	}
	keep := math.Exp(-passed.Seconds() / paceMemory.Seconds())
	p.items = p.items*keep + float64(done-p.done)
	p.weight = p.weight*keep + passed.Seconds()
	p.at, p.done = now, done
}

// rate is items per second.
func (p *pace) rate() float64 {
	if p.weight == 0 {
		return 0
	}
	return p.items / p.weight
}
