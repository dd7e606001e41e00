package jobs

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// lobby is a room and those who came to it, by name. It is for use in a bubble.
type lobby struct {
	*room
	t     *testing.T
	drain chan struct{}

	mu    sync.Mutex
	seats map[string]*seat
	order []string // of those who were let in
	gone  []string // who went away without a place
}

func newLobby(t *testing.T, items int, bytes int64) *lobby {
	return &lobby{room: &room{items: items, bytes: bytes}, t: t, drain: make(chan struct{}), seats: map[string]*seat{}}
}

// comes asks for a place and waits until it has one or cannot get one for now.
func (l *lobby) comes(name string, items int, bytes int64, alone bool) context.CancelFunc {
	ctx, cancel := context.WithCancel(l.t.Context())
	go func() {
		s, err := l.take(ctx, l.drain, items, bytes, alone)
		l.mu.Lock()
		defer l.mu.Unlock()
		if err != nil {
			if !errors.Is(err, errDraining) || s != nil {
				l.t.Errorf("%s gets %v, %v", name, s, err)
			}
			l.gone = append(l.gone, name)
			return
		}
		l.seats[name] = s
		l.order = append(l.order, name)
	}()
	synctest.Wait()
	return cancel
}

func (l *lobby) leaves(name string) {
	l.seats[name].leave()
	synctest.Wait()
}

func (l *lobby) want(names ...string) {
	l.t.Helper()
	if !slices.Equal(l.order, names) {
		l.t.Fatalf("let in: %v, want %v", l.order, names)
	}
}

func TestRoomLetsInBelowSoManyOpenItems(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLobby(t, 10, 1000)
		l.comes("a", 50, 1, false) // the first comes in, whatever its size
		l.comes("b", 50, 1, false)
		l.want("a")
		l.seats["a"].shrink(10)
		synctest.Wait()
		l.want("a")
		l.seats["a"].shrink(9)
		synctest.Wait()
		l.want("a", "b")
		l.comes("c", 1, 1, false)
		l.leaves("b")
		l.want("a", "b", "c")
	})
}

func TestRoomHoldsAtMostSoManyBytesButAlwaysOneChunk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLobby(t, 100, 10)
		l.comes("huge", 1, 99, false)
		l.comes("a", 1, 6, false)
		l.want("huge")
		l.leaves("huge")
		l.want("huge", "a")
		l.comes("b", 1, 4, false) // to the last byte
		l.want("huge", "a", "b")
		l.comes("c", 1, 1, false)
		l.want("huge", "a", "b")
		l.leaves("a")
		l.want("huge", "a", "b", "c")
	})
}

func TestChunkThatIsToRunAloneIsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLobby(t, 100, 100)
		l.comes("a", 1, 1, false)
		l.comes("b", 1, 1, false)
		l.comes("alone", 1, 1, true)
		l.comes("c", 1, 1, false)
		l.comes("alone too", 1, 1, true)
		l.leaves("a")
		l.want("a", "b")
		l.leaves("b")
		l.want("a", "b", "alone")
		l.seats["alone"].shrink(0)
		synctest.Wait()
		l.want("a", "b", "alone")
		l.leaves("alone")
		l.want("a", "b", "alone", "c")
		l.leaves("c")
		l.want("a", "b", "alone", "c", "alone too")
		l.leaves("alone too")
		l.comes("d", 1, 1, false)
		l.comes("e", 1, 1, false)
		l.want("a", "b", "alone", "c", "alone too", "d", "e")
	})
}

func TestRoomIsFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLobby(t, 100, 10)
		l.comes("a", 1, 8, false)
		l.comes("large", 1, 9, false)
		l.comes("small", 1, 2, false) // would fit, and waits behind the large one
		l.want("a")
		l.leaves("a")
		l.want("a", "large")
		l.leaves("large")
		l.want("a", "large", "small")
	})
}

func TestWhoGoesAwayWhileWaitingTakesNothingAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLobby(t, 10, 10)
		l.comes("a", 1, 1, false)
		cancel := l.comes("alone", 1, 1, true)
		l.comes("b", 2, 2, false)
		l.want("a")
		cancel()
		synctest.Wait()
		l.want("a", "b") // who waited behind is let in
		l.leaves("a")
		l.leaves("b")
		if l.open != 0 || l.held != 0 || l.room.seats != 0 || l.alone || len(l.waiting) != 0 {
			t.Errorf("an empty room has %d open items, %d bytes, %d seats, %d waiting", l.open, l.held, l.room.seats, len(l.waiting))
		}
	})
}

func TestDrainSendsAwayAllWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLobby(t, 1, 10)
		l.comes("a", 1, 1, false)
		l.comes("b", 1, 1, false)
		l.comes("c", 1, 1, false)
		close(l.drain)
		synctest.Wait()
		slices.Sort(l.gone)
		if want := []string{"b", "c"}; !slices.Equal(l.gone, want) {
			t.Errorf("went away: %v, want %v", l.gone, want)
		}
		l.leaves("a")
		if l.open != 0 || l.held != 0 || l.room.seats != 0 {
			t.Errorf("an empty room has %d open items, %d bytes, %d seats", l.open, l.held, l.room.seats)
		}
	})
}

func TestRoomDecidesAlikeForOneWhoComesTooLate(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	let := 0
	const times = 64
	for range times {
		r := room{items: 1, bytes: 1}
		if s, err := r.take(ended, nil, 1, 1, false); err == nil {
			let++
			s.leave()
		}
		if r.open != 0 || r.held != 0 || r.seats != 0 || len(r.waiting) != 0 {
			t.Fatalf("the room keeps %d open items, %d bytes, %d seats, %d waiting", r.open, r.held, r.seats, len(r.waiting))
		}
	}
	if let != 0 && let != times {
		t.Errorf("with room and an ended context, %d of %d were let in: chance decides", let, times)
	}
}

func TestReadyWaitsUntilAChunkWouldBeLetIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLobby(t, 10, 10)
		told := 0
		asks := func() {
			go func() {
				if err := l.ready(t.Context()); err == nil {
					told++
				}
			}()
			synctest.Wait()
		}
		asks()
		if told != 1 {
			t.Fatal("an empty room is not ready")
		}
		l.comes("a", 10, 1, false)
		l.comes("b", 10, 1, false)
		asks()
		l.seats["a"].shrink(0)
		synctest.Wait()
		if told != 1 {
			t.Error("ready, although whoever waited has taken the place")
		}
		l.seats["b"].shrink(9)
		synctest.Wait()
		if told != 2 {
			t.Error("not ready, although there is room")
		}
		l.comes("c", 10, 1, false)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.ready(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("ready of an ended context: %v", err)
		}
	})
}

func TestLeavingWithoutASeatIsFine(t *testing.T) {
	var s *seat
	s.leave()
}

func TestRoomKeepsItsBoundsInACrowd(t *testing.T) {
	const items, bytes = 20, 50
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			r := &room{items: items, bytes: bytes}
			check := func() { // what holds whenever nobody is at it
				r.mu.Lock()
				defer r.mu.Unlock()
				if r.held > bytes && r.seats > 1 || r.alone && r.seats > 1 || r.open < 0 || r.held < 0 || r.seats < 0 {
					t.Errorf("seed %d: %d seats, %d bytes, %d open items, alone %t", seed, r.seats, r.held, r.open, r.alone)
				}
				if len(r.waiting) > 0 && r.fits(r.waiting[0].seat.bytes, r.waiting[0].seat.alone) {
					t.Errorf("seed %d: one waits beside a free place", seed)
				}
			}
			var crowd sync.WaitGroup
			for n := range uint64(40) {
				crowd.Go(func() {
					random := rand.New(rand.NewPCG(seed, n))
					pause := func() { time.Sleep(time.Duration(random.IntN(1000)) * time.Millisecond) }
					pause()
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.IntN(5000))*time.Millisecond)
					defer cancel()
					open := 1 + random.IntN(30)
					s, err := r.take(ctx, nil, open, random.Int64N(60), random.IntN(8) == 0)
					check()
					if err != nil {
						return
					}
					for open > 0 {
						pause()
						open -= min(open, 1+random.IntN(10))
						s.shrink(open)
						check()
					}
					s.leave()
					check()
				})
			}
			crowd.Wait()
			if r.open != 0 || r.held != 0 || r.seats != 0 || r.alone || len(r.waiting) != 0 {
				t.Errorf("seed %d: an empty room has %d open items, %d bytes, %d seats, %d waiting", seed, r.open, r.held, r.seats, len(r.waiting))
			}
		})
	}
}
