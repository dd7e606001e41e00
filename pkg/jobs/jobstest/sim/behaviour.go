package sim

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Behaviour is something that the simulator must visit for its runs to mean anything.
type Behaviour string

// The behaviours.
const (
	Crash            Behaviour = "a process died"
	CrashBeforeNudge Behaviour = "a process died between a save and what it sends then"
	LostResponse     Behaviour = "a call happened and said that it failed"
	LostCAS          Behaviour = "a compare-and-swap was lost"
	Redelivery       Behaviour = "a message was delivered again while it was handled"
	Batch            Behaviour = "several messages were handled together"
	LostMessage      Behaviour = "a message was lost"
	Purge            Behaviour = "a queue was purged"
	Resent           Behaviour = "the sweep sent everything again from the ledger"
	DoneAgain        Behaviour = "a message came for a chunk that was done"
	ClaimAgain       Behaviour = "a chunk was claimed again after its owner died"
	Adoption         Behaviour = "a part was adopted by another attempt"
	LateSave         Behaviour = "outcomes were saved by who had lost the claim"
	AnsweredTwice    Behaviour = "an item was answered twice"
	Checkpoint       Behaviour = "a part was saved before the attempt ended"
	GivenBack        Behaviour = "an attempt gave its chunk back before its deadline"
	Deferral         Behaviour = "a chunk was deferred"
	Accusation       Behaviour = "an item was accused"
	Burial           Behaviour = "a chunk was buried"
	BurialFinished   Behaviour = "an interrupted burial was finished by another"
	Redriven         Behaviour = "a chunk was redriven while its job ran"
	RedriveAfter     Behaviour = "a chunk was redriven after its job had completed"
	RedriveFinal     Behaviour = "a redrive came while finalize ran"
	RedriveRefused   Behaviour = "a redrive came to a job that takes nothing back"
	Parking          Behaviour = "a chunk was parked"
	OutagePause      Behaviour = "an upstream was paused for an outage"
	Refusals         Behaviour = "a job was paused for its credential"
	Probe            Behaviour = "a chunk was let through a pause as a probe"
	Isolation        Behaviour = "a chunk ran alone"
	CrashOutcome     Behaviour = "an item was blamed for crashes"
	StopBetween      Behaviour = "a chunk was claimed after its job had been stopped"
	InputChanged     Behaviour = "a job failed because its input was changed"
	Cancelled        Behaviour = "a job was cancelled"
	Expired          Behaviour = "a job expired"
	Completed        Behaviour = "a job completed"
	SecondFiles      Behaviour = "files of a second generation were published"
	LateFiles        Behaviour = "outcomes saved after the end of a stopped job were published"
	Told             Behaviour = "the end of a job was told"
	ToldAgain        Behaviour = "the end of a job was told after an attempt that failed"
	NoticeLost       Behaviour = "a notice, or its report, was lost and made up for"
)

var behaviours = []Behaviour{Crash, CrashBeforeNudge, LostResponse, LostCAS, Redelivery, Batch, LostMessage, Purge, Resent, DoneAgain,
	ClaimAgain, Adoption, LateSave, AnsweredTwice, Checkpoint, GivenBack, Deferral, Accusation, Burial, BurialFinished, Redriven,
	RedriveAfter, RedriveFinal, RedriveRefused, Parking, OutagePause, Refusals, Probe, Isolation, CrashOutcome, StopBetween, InputChanged,
	Cancelled, Expired, Completed, SecondFiles, LateFiles, Told, ToldAgain, NoticeLost}

func (w *World) saw(b Behaviour) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen[b]++
}

// Saw tells whether the run showed a behaviour.
func (w *World) Saw(b Behaviour) bool { return w.seen[b] > 0 }

// Coverage counts in how many runs each behaviour was seen.
type Coverage map[Behaviour]int

// Add counts one run.
func (c Coverage) Add(w *World) {
	for b := range maps.Keys(w.seen) {
		c[b]++
	}
}

// Missing are the behaviours that no run showed.
func (c Coverage) Missing() []Behaviour {
	return slices.DeleteFunc(slices.Clone(behaviours), func(b Behaviour) bool { return c[b] > 0 })
}

func (c Coverage) String() string {
	var s strings.Builder
	for _, b := range behaviours {
		fmt.Fprintf(&s, "%8d  %s\n", c[b], b)
	}
	return s.String()
}
