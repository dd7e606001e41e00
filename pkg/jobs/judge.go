package jobs

import (
	"math"
	"slices"
	"time"
)

// Class is what a failed call says about its item.
type Class string

// The classes.
const (
	ClassFailed  Class = "failed"  // the item's own fault: its outcome, at once
	ClassHeld    Class = "held"    // credential or address: an outcome only if others are answered, else the job's trouble
	ClassWeather Class = "weather" // outside the item: waited out
	ClassSuspect Class = "suspect" // outside or inside, who knows: evidence decides
	ClassAborted Class = "aborted" // we ended the call ourselves
)

// classes is the table of what a failure means; the first row that matches wins.
var classes = []struct {
	match func(f *Fault) bool
	class Class
}{
	{cause(CauseAborted), ClassAborted},
	{cause(CauseTooLarge), ClassFailed},
	{cause(CauseUnreachable), ClassWeather},
	{cause(CauseReset, CauseMalformed, CausePanic, CauseTimeout), ClassSuspect},
	{status(401, 403), ClassHeld},
	{func(f *Fault) bool { return f.Status == 404 && !f.IsObject }, ClassHeld},                  // no API there, or not this one
	{func(f *Fault) bool { return f.Status == 400 && !f.IsObject && f.Body == nil }, ClassHeld}, // no JSON: a proxy spoke, not the API
	{func(f *Fault) bool { return f.Status >= 300 && f.Status < 400 }, ClassHeld},
	{status(408, 409, 425, 429, 503, 529), ClassWeather},
	{func(f *Fault) bool { return f.Status >= 500 && f.RetryAfter > 0 }, ClassWeather},
	{func(f *Fault) bool { return f.Status >= 400 && f.Status < 500 }, ClassFailed},
	{func(*Fault) bool { return true }, ClassSuspect}, // 500, 502, 504 and whatever else
}

func cause(causes ...Cause) func(*Fault) bool {
	return func(f *Fault) bool { return slices.Contains(causes, f.Cause) }
}

func status(statuses ...int) func(*Fault) bool {
	return func(f *Fault) bool { return slices.Contains(statuses, f.Status) }
}

// Class looks the fault up in the table.
func (f *Fault) Class() Class {
	for _, row := range classes {
		if row.match(f) {
			return row.class
		}
	}
	return ClassSuspect
}

// Throttles tells whether the fault asks for fewer calls at once.
func (f *Fault) Throttles() bool {
	return f.Cause == CauseTimeout || f.Status == 429 || f.Status == 503
}

// Evidence is what this process knows of the upstream+model at the time of a failure.
type Evidence struct {
	// AnsweredSince: it answered another item since this one's claim, or since this one's last failure in this attempt.
	AnsweredSince bool
	// OnlyAccused: since its last answer, none but accused items have failed. So it is not the upstream.
	OnlyAccused bool
	// LoneRefusal: a refusal (class held) that is at most the second in a row since the last answer of many.
	LoneRefusal bool
	// FailureOdds: how likely a call of a healthy item fails, between 0 and 1, rather too high than too low; 0 = nothing is
	// known, since nobody was answered.
	FailureOdds float64
}

// Tally is what is known of the item before this failure is counted.
type Tally struct {
	FailedBefore bool // in this attempt or an earlier one
	Passed       bool // since its last failure others were answered, in an earlier attempt
	Tail         bool // it is one of the last few open items of a job that had answers
	Accused      bool
	Calls        int           // counted ones
	Attempt      int           // of the chunk
	Retries      int           // in place, in this attempt
	Room         time.Duration // how long it may still wait in place
	MaxCalls     int           // counted calls that use an item up, at ordinary odds
}

// Action is what follows for the item.
type Action string

// The actions.
const (
	ActSettle   Action = "settle"    // the failure is its outcome
	ActRetry    Action = "retry"     // in place, after Wait
	ActDefer    Action = "defer"     // it stays open for a later attempt; its neighbours go on
	ActDeferAll Action = "defer_all" // the chunk's rest is put off
	ActHold     Action = "hold"      // settled once another is answered, else the job pauses
)

// Verdict is what Judge says.
type Verdict struct {
	Action  Action
	Wait    time.Duration // before a retry, not yet jittered
	Accused bool          // from now on
	Counted bool          // this failure uses up one of the item's calls
	Spent   bool          // none is left: it is not called again
}

// Retries in place.
const (
	MaxRetries    = 2 // of a suspect failure
	firstWait     = 500 * time.Millisecond
	longestWait   = 16 * time.Second
	weatherCounts = 4 // weather is counted against an accused item at every fourth attempt
)

// Judge says what follows from a failed call. It is pure: the whole of blame is in this table and in nothing else.
//
//	class    evidence                    verdict
//	failed   –                           settle
//	held     others answered since, or   settle
//	         a lone refusal among answers
//	held     else                        hold
//	weather  the wait fits               retry after it
//	weather  it does not                 defer the chunk's rest
//	suspect  timeout, or retries used    defer the item
//	suspect  else                        retry
//
// Blame needs evidence: an item is accused when it failed before and fails again although others were answered meanwhile.
// Only an accused item's failures are counted, and they only while others are answered, or none but the accused fail: in
// an outage nobody's are. Counted calls use an item up (see Allowance). Without evidence a failure is weather, whatever it
// looks like; but in the tail of a job nobody is left whose answers could be evidence, so there one failure an attempt counts.
func Judge(f *Fault, e Evidence, t Tally) Verdict {
	v := Verdict{Accused: t.Accused || t.FailedBefore && (e.AnsweredSince || t.Passed)}
	class := f.Class()
	switch class {
	case ClassFailed:
		return Verdict{Action: ActSettle}
	case ClassHeld:
		if e.AnsweredSince || e.LoneRefusal {
			return Verdict{Action: ActSettle}
		}
		return Verdict{Action: ActHold}
	case ClassAborted:
		return Verdict{Action: ActDefer, Accused: t.Accused}
	case ClassWeather:
		v.Counted = v.Accused && e.blames() && t.Attempt%weatherCounts == 0 && t.Retries == 0
		v.Wait = backOff(max(firstWait, f.RetryAfter), t.Retries, max(longestWait, f.RetryAfter))
		v.Action = ActRetry
		if v.Wait > t.Room {
			v.Action = ActDeferAll
		}
	case ClassSuspect:
		v.Counted = v.Accused && e.blames()
		if !v.Counted && t.Tail && t.FailedBefore && t.Retries == 0 {
			v.Counted = true
			e.FailureOdds = math.Pow(e.FailureOdds, 1+MaxRetries) // it stands for all calls of an attempt
		}
		v.Wait = backOff(firstWait, t.Retries, longestWait)
		v.Action = ActRetry
		if f.Cause == CauseTimeout || t.Retries >= MaxRetries || v.Wait > t.Room {
			v.Action = ActDefer
		}
	}
	if v.Counted && t.Calls+1 >= Allowance(t.MaxCalls, e.FailureOdds) {
		v.Spent, v.Action = true, ActDefer
	}
	return v
}

// blames tells whether a failure now can be laid to the item.
func (e Evidence) blames() bool { return e.AnsweredSince || e.OnlyAccused }

// Allowance is how many counted calls use an item up: maxCalls while at most one call in ten of healthy items fails, and
// more when more of them fail, so that the chance to give up a healthy item stays what it was (odds^n = 0.1^maxCalls).
func Allowance(maxCalls int, odds float64) int {
	const ordinary, most = 0.1, 10_000
	switch {
	case odds <= ordinary:
		return maxCalls
	case odds >= 1:
		return max(maxCalls, most)
	default:
		return max(maxCalls, int(min(most, math.Ceil(float64(maxCalls)*math.Log(ordinary)/math.Log(odds)))))
	}
}

// backOff doubles first n times, at most to longest.
func backOff(first time.Duration, n int, longest time.Duration) time.Duration {
	d := first
	for range n {
		if d >= longest {
			break
		}
		d *= 2
	}
	return min(d, longest)
}
