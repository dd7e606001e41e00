package cli

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestOffATerminalProgressIsALineEveryTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := newProgress(&out)
		p.Start(300, 0, 0)
		p.InFlight(+1)
		p.InFlight(+1)
		p.Add(98, 2)

		pass(9 * time.Second)
		p.mu.Lock()
		if out.Len() > 0 {
			t.Errorf("after 9 s it already said %q", out.String())
		}
		p.mu.Unlock()
		pass(2 * time.Second)
		p.InFlight(-1)
		p.Add(200, 0)
		pass(10 * time.Second)
		p.Stop()
		pass(time.Minute)

		want := "100/300 items, 10 items/s, 2 failed, 2 in flight, ETA 20s\n" +
			"300/300 items, 16 items/s, 2 failed, 1 in flight\n"
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestItemsOfEarlierRunsCountAsDoneButNotAsFast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := newProgress(&out)
		p.Start(1000, 890, 10)
		p.Add(10, 0)
		pass(lineEvery)
		p.Stop()
		if want := "910/1000 items, 1.0 items/s, 10 failed, 0 in flight, ETA 1m30s\n"; out.String() != want {
			t.Errorf("got %q, want %q", out.String(), want)
		}
	})
}

func TestETAIsLeftOutWhileNothingMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := newProgress(&out)
		p.Start(10, 0, 0)
		pass(lineEvery)
		p.Stop()
		if want := "0/10 items, 0.0 items/s, 0 failed, 0 in flight\n"; out.String() != want {
			t.Errorf("got %q, want %q", out.String(), want)
		}
	})
}

func TestOnATerminalProgressIsOneLineThatNotesGoAbove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := &Progress{out: &out, width: func() int { return 100 }, every: drawEvery}
		p.Start(300, 0, 0)
		p.Add(150, 1)
		p.Note("gpt-x is paused: \x1b[31mit is down")
		pass(drawEvery)
		p.Stop()

		if got := strings.Count(out.String(), "\n"); got != 2 {
			t.Errorf("%d lines in %q, want the note and the bar", got, out.String())
		}
		lines := strings.Split(out.String(), "\n")
		if _, note, ok := strings.Cut(lines[0], "\r\x1b[K"); !ok || note != "gpt-x is paused:  [31mit is down" {
			t.Errorf("the note does not stand on a wiped line, without control characters: %q", lines[0])
		}
		last := lines[1][strings.LastIndex(lines[1], "\r")+1:]
		for _, want := range []string{"151/300", "755 items/s", "1 failed", "0 in flight", "ETA 0s"} {
			if !strings.Contains(last, want) {
				t.Errorf("the last line does not say %q: %q", want, last)
			}
		}
	})
}

func TestNoteNeedsNoStart(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out)
	p.Note("checking the input")
	p.Stop()
	p.Stop()
	if out.String() != "checking the input\n" {
		t.Errorf("got %q", out.String())
	}
}

func TestManyMayCountAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := newProgress(&out)
		p.Start(8000, 0, 0)
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 1000 {
					p.InFlight(+1)
					p.Add(1, 0)
					p.InFlight(-1)
				}
			})
		}
		all.Wait()
		pass(lineEvery)
		p.Stop()
		if want := "8000/8000 items, 800 items/s, 0 failed, 0 in flight\n"; out.String() != want {
			t.Errorf("got %q, want %q", out.String(), want)
		}
	})
}

// pass lets that much of the bubble's time go by, and what is due in it happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
