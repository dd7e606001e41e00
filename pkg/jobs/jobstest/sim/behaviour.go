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
	Crash          Behaviour = "a process died"
	LostResponse   Behaviour = "a call happened and said that it failed"
	LostCAS        Behaviour = "a compare-and-swap was lost"
	Redelivery     Behaviour = "a message was delivered again while it was handled"
	LostMessage    Behaviour = "a message was lost"
	Purge          Behaviour = "a queue was purged"
	ClaimAgain     Behaviour = "a chunk was claimed again after its owner died"
	Adoption       Behaviour = "a part was adopted by another attempt"
	LateSave       Behaviour = "a save by who had lost the claim"
	Checkpoint     Behaviour = "a part was saved before the attempt ended"
	Deferral       Behaviour = "a chunk was deferred"
	Accusation     Behaviour = "an item was accused"
	Burial         Behaviour = "a chunk was buried"
	RedriveAfter   Behaviour = "a chunk was redriven after its job had completed"
	Parking        Behaviour = "a chunk was parked"
	Isolation      Behaviour = "a chunk ran alone"
	CrashOutcome   Behaviour = "an item was blamed for crashes"
	Cancelled      Behaviour = "a job was cancelled"
	Expired        Behaviour = "a job expired"
	Completed      Behaviour = "a job completed"
	SecondFiles    Behaviour = "files of a second generation were published"
	StopAfterClaim Behaviour = "the second look found the job stopped"
)

var behaviours = []Behaviour{Crash, LostResponse, LostCAS, Redelivery, LostMessage, Purge, ClaimAgain, Adoption, LateSave, Checkpoint,
	Deferral, Accusation, Burial, RedriveAfter, Parking, Isolation, CrashOutcome, Cancelled, Expired, Completed, SecondFiles, StopAfterClaim}

func (w *World) saw(b Behaviour) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen[b]++
}

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
