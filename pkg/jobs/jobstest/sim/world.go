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
	Odds Odds

	began     time.Time
	world     sync.Mutex // held while the world changes
	plan      *Plan
	ledger    *ledger
	phase     jobs.Phase
	ended     bool
	claims    map[string]jobs.Bits // by actor: what was resolved when it claimed
	owners    map[string]string    // by actor: under which name it claimed
	completed bool

	mu    sync.Mutex
	taken map[int64]bool // virtual instants at which somebody wakes: nobody shares one
	log   []string
	seen  map[Behaviour]int
	fail  []string
}

// Odds are the chances of each misfortune at one port call, in 1/10,000.
type Odds struct {
	FailBefore, FailAfter, CrashBefore, CrashAfter int
	Slow                                           int // a call takes seconds
	Redeliver, LoseAck                             int // of a delivery
	Unsent, LoseAdvance                            int // of a message
}

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

// actor is one handler call, or one call of an item within it. Its steps happen one after the other.
type actor struct {
	name  string
	proc  *process
	steps int
	safe  bool // nothing is injected: the test itself acts
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

// step is one port call: time passes, and then it happens, or fails, or happens and says that it failed, or kills the
// process before or after. act changes the world; it is called once at most.
func (w *World) step(ctx context.Context, op string, act func() error) error {
	a := actorOf(ctx)
	a.steps++
	h := w.hash(a.name, a.steps)
	d := 100*time.Microsecond + time.Duration(h%uint64(20*time.Millisecond))
	if !a.safe && chance(h>>8, w.Odds.Slow) {
		d += time.Duration(h % uint64(90*time.Second))
	}
	w.sleep(d)
	if a.proc != nil && a.proc.isDead() {
		return errDead
	}
	happens := act
	act = func() error {
		w.world.Lock()
		defer w.world.Unlock()
		return happens()
	}
	if a.safe {
		err := act()
		w.logf("%s: %s → %v", a.name, op, err)
		return err
	}
	switch roll := w.hash(a.name, a.steps, "fate"); {
	case chance(roll, w.Odds.CrashBefore):
		w.kill(a, op, "before")
		return errDead
	case chance(roll>>16, w.Odds.FailBefore):
		w.logf("%s: %s fails", a.name, op)
		return fmt.Errorf("%s: %w", op, errInjected)
	case chance(roll>>32, w.Odds.CrashAfter):
		err := act()
		w.logf("%s: %s → %v", a.name, op, err)
		w.kill(a, op, "after")
		return errDead
	case chance(roll>>24, w.Odds.FailAfter):
		err := act()
		w.logf("%s: %s → %v, but says that it failed", a.name, op, err)
		if err == nil {
			w.saw(LostResponse)
		}
		return fmt.Errorf("%s: %w", op, errInjected)
	}
	err := act()
	w.logf("%s: %s → %v", a.name, op, err)
	return err
}

func (w *World) kill(a *actor, op, when string) {
	w.logf("%s: process %s dies %s %s", a.name, a.proc.name, when, op)
	w.saw(Crash)
	a.proc.die()
}

func (w *World) logf(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, fmt.Sprintf("%12s  ", time.Since(w.began).Truncate(time.Microsecond))+fmt.Sprintf(format, args...))
}

// Log is what happened, a line each.
func (w *World) Log() string { return strings.Join(w.log, "\n") + "\n" }

func (w *World) failf(format string, args ...any) {
	w.logf("BROKEN: "+format, args...)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fail = append(w.fail, fmt.Sprintf(format, args...))
}
