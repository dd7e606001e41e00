package jobs

import (
	"bufio"
	"context"
	"errors"
	"math"
	"math/bits"
)

// duplicateBudget is the memory that the search for duplicate ids takes, whatever the number of ids.
const duplicateBudget = 64 << 20

// lineRef is a line within its split, from 0.
type lineRef struct {
	split int
	line  uint32
}

// duplicates yields each line whose custom_id an earlier line has too, with the earliest one that has it. The runs are
// those of the whole input, in the order of the input.
//
// It goes through the hashes slice by slice, so that the different ids of a slice fit the budget; within a slice through
// the runs in their order, so that the first to come with a hash is the winner and every later one can be yielded at
// once and forgotten. Memory is bounded by different ids alone: that all ids are equal is the easiest case. Each entry is
// read once, and each run opened at most once a slice. The losers of a slice come run by run, not in the input's order.
func duplicates(ctx context.Context, files Files, runs []idRun, budget int64, yield func(loser, winner lineRef) error) error {
	var totals [idBuckets]int64
	var all int64
	for i := range runs {
		if err := runs[i].readHeader(ctx, files); err != nil {
			return err
		}
		for b, n := range runs[i].counts {
			totals[b] += int64(n)
			all += int64(n)
		}
	}
	most := winnersIn(budget)
	seen := newWinners(min(all, most))
	in := bufio.NewReaderSize(nil, 64<<10)
	for _, last := range sliceIDs(totals, most) {
		seen.reset()
		for i := range runs {
			r := &runs[i]
			err := r.read(ctx, files, in, last, func(e idEntry) error {
				line := lineRef{r.split, e.line}
				winner, ok := seen.winner(e, line)
				switch {
				case !ok:
					return errors.New("find duplicate ids: the hashes are not spread evenly, so the ids objects are damaged")
				case winner != line:
					return yield(line, winner)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// sliceIDs cuts the range of hashes into slices of no more than most entries, and returns the last hash of each. A bucket
// that is too big is cut evenly: if it has that many different ids, they are spread evenly over it; if not, they fit.
func sliceIDs(totals [idBuckets]int64, most int64) []uint64 {
	var slices []uint64
	var sum int64
	for b, n := range totals {
		first := uint64(b) << 56
		if sum > 0 && sum+n > most {
			slices = append(slices, first-1)
			sum = 0
		}
		sum += n
		if parts := uint64((n + most - 1) / most); parts > 1 {
			for i := uint64(1); i < parts; i++ {
				slices = append(slices, first+i*((1<<56)/parts)-1)
			}
			sum = most
		}
	}
	return append(slices, math.MaxUint64)
}

// winners is a hash table from ids to the first line that came with them. Its places are allotted once, within the
// budget; the hashes are even, so that their bits alone say where to look.
type winners struct {
	places []place
	taken  int
}

type place struct {
	hi, lo uint64
	split  uint32 // + 1; 0 = the place is free
	line   uint32
}

const placeBytes = 8 + 8 + 4 + 4

// winnersIn is how many different ids a slice may have so that its table is half full at most.
func winnersIn(budget int64) int64 { return max(budget/placeBytes/2, 1024) }

func newWinners(most int64) *winners { return &winners{places: make([]place, 2*most+1)} }

func (w *winners) reset() {
	clear(w.places)
	w.taken = 0
}

// winner returns the first line that came with this id, which may be this one. False if the table is full.
func (w *winners) winner(e idEntry, line lineRef) (lineRef, bool) {
	size := uint64(len(w.places))
	at, _ := bits.Mul64(e.lo, size)
	for {
		p := &w.places[at]
		switch {
		case p.split == 0 && w.taken == len(w.places)-1:
			return lineRef{}, false
		case p.split == 0:
			*p = place{hi: e.hi, lo: e.lo, split: uint32(line.split) + 1, line: line.line}
			w.taken++
			return line, true
		case p.hi == e.hi && p.lo == e.lo:
			return lineRef{int(p.split) - 1, p.line}, true
		}
		if at++; at == size {
			at = 0
		}
	}
}
