package sim

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"sync"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// World is one run: a seed, a virtual clock, and everything that happened. All chance is a hash of the seed, the actor and
// how many steps that actor has taken, never a shared generator, so that a seed is a schedule.
type World struct {
	Seed uint64

	plan  *Plan
	began time.Time
	fleet *fleet

	world sync.Mutex // held while the world changes
	witness

	mu      sync.Mutex
	taken   map[int64]bool // virtual instants at which somebody wakes: nobody shares one
	keepLog bool
	log     []string
	seen    map[Behaviour]int
	broken  []string
	met     []int   // by ploy: how many calls it has matched
	pending []Event // that a ploy has set off
}

// Odds are the chances of each misfortune at one port call, in 1/10,000.
type Odds struct {
	FailBefore, FailAfter, CrashBefore, CrashAfter int
	Slow, Freeze                                   int // a call takes seconds; its process stands still for minutes
	Redeliver, LoseAck                             int // of a delivery
	Unsent, LoseAdvance                            int // of a message
}

// fate is what becomes of one port call.
type fate string

const (
	fateWell        fate = ""
	fateFailBefore  fate = "fails"
	fateFailAfter   fate = "happens, but says that it failed"
	fateCrashBefore fate = "is cut off by a crash"
	fateCrashAfter  fate = "happens, and the process dies"
)

var (
	errInjected = errors.New("injected failure")
	errDead     = errors.New("the process is dead")
)

// process is one process of the fleet. When it dies its actors change nothing any more.
type process struct {
	name   string
	cancel context.CancelFunc
	mu     sync.Mutex
	dead   bool
}

func (p *process) isDead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead
}

func (p *process) die() {
	p.mu.Lock()
	p.dead = true
	p.mu.Unlock()
	p.cancel()
}

// actor is one handler call, or the operator. Its steps happen one after the other.
type actor struct {
	name  string
	proc  *process
	steps int
	safe  bool // nothing is injected: the test itself acts
	saved bool // its last step was a save
	hurt  bool // a call of it failed, or took so long that its lease may have ended
	ended bool // its handler has returned; guarded by the world's lock
}

type actorKey struct{}

func withActor(ctx context.Context, a *actor) context.Context {
	return context.WithValue(ctx, actorKey{}, a)
}

func actorOf(ctx context.Context) *actor {
	a, ok := ctx.Value(actorKey{}).(*actor)
	if !ok {
		panic("sim: a port was called by nobody")
	}
	return a
}

func (w *World) hash(parts ...any) uint64 {
	h := fnv.New64a()
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], w.Seed)
	h.Write(b[:])
	fmt.Fprint(h, parts...)
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	x ^= x >> 33
	return x
}

// chance draws once of 10,000.
func chance(h uint64, odds int) bool { return int(h%10_000) < odds }

// sleep lets virtual time pass, to an instant that is nobody else's.
func (w *World) sleep(d time.Duration) {
	w.mu.Lock()
	at := time.Now().Add(d).UnixNano()
	for w.taken[at] {
		at++
	}
	w.taken[at] = true
	w.mu.Unlock()
	time.Sleep(time.Until(time.Unix(0, at)))
}

// yield puts those in order who wake at the same instant, as when one call's end lets several attempts through a gate.
func (w *World) yield(ctx context.Context) {
	a := actorOf(ctx)
	a.steps++
	w.sleep(time.Duration(w.hash(a.name, a.steps) % uint64(time.Millisecond)))
}

// step is one port call: time passes, and then it meets its fate. act changes the world; it is called once at most.
func (w *World) step(ctx context.Context, op string, act func() error) error {
	a := actorOf(ctx)
	a.steps++
	h := w.hash(a.name, a.steps)
	d := 100*time.Microsecond + time.Duration(h%uint64(20*time.Millisecond))
	f, after := fateWell, time.Duration(0)
	if !a.safe {
		slow, wait, ploy := w.ploy(a, op)
		slow += w.slowness(h)
		d, after = d+slow, wait
		a.hurt = a.hurt || slow+wait > 0
		if f = ploy; f == fateWell {
			f = w.plan.Odds.draw(w.hash(a.name, a.steps, "fate"))
		}
	}
	w.sleep(d)
	if a.proc.isDead() {
		return errDead
	}
	var err error
	if f != fateFailBefore && f != fateCrashBefore {
		w.world.Lock()
		err = act()
		w.world.Unlock()
	}
	w.logf("%s: %s → %v %s", a.name, op, err, f)
	if after > 0 {
		w.sleep(after)
	}
	return w.meet(a, op, f, err)
}

// meet is what the caller gets to see.
func (w *World) meet(a *actor, op string, f fate, err error) error {
	wasSaved := a.saved
	a.hurt = a.hurt || f != fateWell || errors.Is(err, jobs.ErrConflict)
	a.saved = err == nil && (f == fateWell || f == fateFailAfter) && strings.HasPrefix(op, "save ")
	switch f {
	case fateCrashBefore, fateCrashAfter:
		if wasSaved && f == fateCrashBefore && strings.HasPrefix(op, "send ") {
			w.saw(CrashBeforeNudge)
		}
		w.kill(a)
		return errDead
	case fateFailBefore, fateFailAfter:
		if f == fateFailAfter && err == nil {
			w.saw(LostResponse)
		}
		return fmt.Errorf("%s: %w", op, errInjected)
	default:
		return err
	}
}

func (o *Odds) draw(roll uint64) fate {
	switch {
	case chance(roll, o.CrashBefore):
		return fateCrashBefore
	case chance(roll>>16, o.FailBefore):
		return fateFailBefore
	case chance(roll>>32, o.CrashAfter):
		return fateCrashAfter
	case chance(roll>>24, o.FailAfter):
		return fateFailAfter
	default:
		return fateWell
	}
}

// slowness is what a call takes longer than it should: less than a lease, or more.
func (w *World) slowness(h uint64) time.Duration {
	switch {
	case chance(h>>8, w.plan.Odds.Slow):
		return time.Duration(h % uint64(90*time.Second))
	case chance(h>>24, w.plan.Odds.Freeze):
		return 2*time.Minute + time.Duration(h%uint64(4*time.Minute))
	default:
		return 0
	}
}

func (w *World) kill(a *actor) {
	if a.proc.isDead() {
		return
	}
	w.logf("process %s dies", a.proc.name)
	w.saw(Crash)
	w.died(a.proc)
	a.proc.die()
}

func (w *World) logf(format string, args ...any) {
	if !w.keepLog {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, fmt.Sprintf("%14s  ", time.Since(w.began).Truncate(time.Microsecond))+fmt.Sprintf(format, args...))
}

// Log is what happened, a line each, if it was kept.
func (w *World) Log() string { return strings.Join(w.log, "\n") + "\n" }

// Broken is what the run has broken, a sentence each.
func (w *World) Broken() []string { return w.broken }

func (w *World) isBroken() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.broken) > 0
}

func (w *World) failf(format string, args ...any) {
	w.logf("BROKEN: "+format, args...)
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.broken) < 20 {
		w.broken = append(w.broken, fmt.Sprintf(format, args...))
	}
}
