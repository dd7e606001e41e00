package jobs

import (
	"context"
	"slices"
	"sync"
)

// room is how much claimed work a process holds at once. The next chunk is let in when fewer items are open than calls may
// be in flight, so that claims wait in the queue and not in the process; and while the bytes held fit.
type room struct {
	items int   // let the next in below so many open items
	bytes int64 // hold at most so many bytes of input, but always at least one chunk

	mu        sync.Mutex
	open      int
	held      int64
	seats     int
	alone     bool
	waiting   []*seatRequest // first come, first served
	roomAgain []chan struct{}
}

// seat is a chunk's place in the room.
type seat struct {
	room  *room
	open  int
	bytes int64
	alone bool
}

type seatRequest struct {
	seat    *seat
	granted chan struct{}
}

// take waits for a place for a chunk of so many items and bytes; alone waits until nothing else is held, and keeps
// everything else out. It gives up when ctx ends or drain closes.
func (r *room) take(ctx context.Context, drain <-chan struct{}, items int, bytes int64, alone bool) (*seat, error) {
	select {
	case <-ctx.Done():
		return nil, errDraining
	case <-drain:
		return nil, errDraining
	default: // chance does not decide for who comes too late
	}
	req := &seatRequest{seat: &seat{room: r, open: items, bytes: bytes, alone: alone}, granted: make(chan struct{})}
	r.mu.Lock()
	r.waiting = append(r.waiting, req)
	r.serve()
	r.mu.Unlock()
	select {
	case <-req.granted:
		return req.seat, nil
	case <-ctx.Done():
	case <-drain:
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.Index(r.waiting, req); i >= 0 {
		r.waiting = slices.Delete(r.waiting, i, i+1)
		r.serve()
	} else { // it was granted meanwhile
		r.leave(req.seat)
	}
	return nil, errDraining
}

// ready waits until a chunk would be let in.
func (r *room) ready(ctx context.Context) error {
	r.mu.Lock()
	if len(r.waiting) == 0 && r.fits(0, false) {
		r.mu.Unlock()
		return nil
	}
	again := make(chan struct{})
	r.roomAgain = append(r.roomAgain, again)
	r.mu.Unlock()
	select {
	case <-again:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *room) fits(bytes int64, alone bool) bool {
	if r.seats == 0 {
		return true
	}
	return !alone && !r.alone && r.open < r.items && r.held+bytes <= r.bytes
}

func (r *room) serve() {
	for len(r.waiting) > 0 && r.fits(r.waiting[0].seat.bytes, r.waiting[0].seat.alone) {
		s := r.waiting[0].seat
		r.open, r.held, r.seats, r.alone = r.open+s.open, r.held+s.bytes, r.seats+1, s.alone
		close(r.waiting[0].granted)
		r.waiting = slices.Delete(r.waiting, 0, 1)
	}
	if len(r.waiting) == 0 && r.fits(0, false) {
		for _, again := range r.roomAgain {
			close(again)
		}
		r.roomAgain = nil
	}
}

// shrink says how many of the chunk's items are still open.
func (s *seat) shrink(open int) {
	s.room.mu.Lock()
	defer s.room.mu.Unlock()
	s.room.open -= s.open - open
	s.open = open
	s.room.serve()
}

// leave gives the place back; a nil seat has none.
func (s *seat) leave() {
	if s == nil {
		return
	}
	s.room.mu.Lock()
	defer s.room.mu.Unlock()
	s.room.leave(s)
}

func (r *room) leave(s *seat) {
	r.open, r.held, r.seats = r.open-s.open, r.held-s.bytes, r.seats-1
	if s.alone {
		r.alone = false
	}
	s.open, s.bytes = 0, 0
	r.serve()
}
