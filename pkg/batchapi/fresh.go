package batchapi

import (
	"sync"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// fresh keeps what was just read, so that many who look at the same batches cost hardly more than one.
type fresh struct {
	life time.Duration // 0 = nothing is kept

	mu    sync.Mutex
	known map[string]freshBatch // by id
	saves uint64                // how many jobs were saved so far
}

type freshBatch struct {
	seen
	until time.Time
}

const maxFresh = 1000 // batches

// get returns what is known of a batch, and a mark for put.
func (f *fresh) get(id string, now time.Time) (s seen, mark uint64, ok bool) {
	if f.life <= 0 {
		return seen{}, 0, false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	b, ok := f.known[id]
	return b.seen, f.saves, ok && now.Before(b.until)
}

// put keeps what was read, unless a job was saved since the mark: it may be of before that.
func (f *fresh) put(id string, s seen, now time.Time, mark uint64) {
	if f.life <= 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.saves != mark {
		return
	}
	if len(f.known) >= maxFresh || f.known == nil {
		f.known = map[string]freshBatch{}
	}
	f.known[id] = freshBatch{s, now.Add(f.life)}
}

// JobSaved is to be told of each job that is saved, where Options.Fresh is set: what it was is forgotten.
func (h *Handler) JobSaved(j jobs.Job) {
	h.fresh.mu.Lock()
	defer h.fresh.mu.Unlock()
	h.fresh.saves++
	delete(h.fresh.known, string(j.ID))
}
