package jobstest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// bury buries so many messages, "0" and up.
func (q queueTest) bury(n int) {
	q.t.Helper()
	for i := range n {
		m := jobs.Message{ID: fmt.Sprint(i), Queue: jobs.QueueWork, Body: []byte(fmt.Sprint(i)), Receives: 1, Sent: time.Now()}
		if err := q.Bury(q.t.Context(), m, jobs.Burial{Number: i + 1, Code: "x"}); err != nil {
			q.t.Fatal(err)
		}
	}
}

// letters are the bodies of the dead letters, sorted.
func (q queueTest) letters() (bodies []string) {
	q.t.Helper()
	for _, l := range all(q.t, q.Peek(q.t.Context(), jobs.QueueWork)) {
		bodies = append(bodies, string(l.Body))
	}
	slices.Sort(bodies)
	return bodies
}

func (q queueTest) wantLetters(what string, want ...string) {
	q.t.Helper()
	if got := q.letters(); !slices.Equal(got, want) {
		q.t.Errorf("%s: the dead letters are %v, want %v", what, got, want)
	}
}

func lettersStayWhereTheyAreLookedAt(t *testing.T, q queueTest) {
	q.bury(23)
	all := q.letters()
	if len(all) != 23 {
		t.Fatalf("%d dead letters, want 23", len(all))
	}
	for _, err := range q.Peek(t.Context(), jobs.QueueWork) {
		if err != nil {
			t.Fatal(err)
		}
		break // and somebody looks away
	}
	q.wantLetters("after a look", all...)
	if d, err := q.Depth(t.Context(), jobs.QueueWork); err != nil || d.Dead != 23 && !q.CoarseDepth {
		t.Errorf("after a look the depth is %+v, %v", d, err)
	}
	q.none("after a look at the dead letters")
}

func discardedLettersAreGone(t *testing.T, q queueTest) {
	q.bury(12)
	var gone []jobs.Letter
	for l, err := range q.Peek(t.Context(), jobs.QueueWork) {
		if err != nil {
			t.Fatal(err)
		}
		if len(l.Body) == 1 && l.Body[0] != '7' {
			if err := q.Discard(t.Context(), jobs.QueueWork, l); err != nil {
				t.Fatal(err)
			}
			gone = append(gone, l)
		}
	}
	q.wantLetters("after a discard", "10", "11", "7")
	if err := q.Discard(t.Context(), jobs.QueueWork, append(gone[:1:1], jobs.Letter{Receipt: "nobody's"})...); err != nil {
		t.Errorf("discard of what is gone: %v", err)
	}
	if err := q.Discard(t.Context(), jobs.QueueWork); err != nil {
		t.Errorf("discard of nothing: %v", err)
	}
	q.wantLetters("after a discard of what is gone", "10", "11", "7")
}

// moved waits until no move is under way, and gives the last.
func (q queueTest) moved() jobs.Move {
	q.t.Helper()
	for {
		all, err := q.Moves(q.t.Context(), jobs.QueueWork)
		if err != nil {
			q.t.Fatal(err)
		}
		if len(all) == 0 {
			return jobs.Move{}
		}
		if all[0].State != jobs.MoveRunning {
			return all[0]
		}
		q.Pass(q.Second)
	}
}

func movedLettersComeBack(t *testing.T, q queueTest) {
	if q.NoMoves {
		t.Skip("left out: this queue does not move dead letters")
	}
	if all, err := q.Moves(t.Context(), jobs.QueueWork); err != nil || len(all) != 0 {
		t.Errorf("moves before the first: %v, %v", all, err)
	}
	if err := q.StopMove(t.Context(), jobs.QueueWork); !errors.Is(err, jobs.ErrNotFound) {
		t.Errorf("stop of no move: %v", err)
	}
	for _, rate := range []int{-1, jobs.MaxMoveRate + 1} {
		if err := q.Move(t.Context(), jobs.QueueWork, rate); jobs.CodeOf(err) != jobs.CodeInvalid {
			t.Errorf("a move of %d a second: %v", rate, err)
		}
	}
	q.bury(13)
	if err := q.Move(t.Context(), jobs.QueueWork, 0); err != nil {
		t.Fatal(err)
	}
	m := q.moved()
	if m.State != jobs.MoveCompleted || m.Moved != 13 || m.Total != 13 || m.Began.IsZero() {
		t.Errorf("the move ended as %+v", m)
	}
	q.wantLetters("after a move")
	var bodies []string
	for _, m := range q.take(jobs.QueueWork, 14, q.long()) {
		bodies = append(bodies, string(m.Body))
	}
	if slices.Sort(bodies); len(slices.Compact(bodies)) != 13 {
		t.Errorf("came back: %v", bodies)
	}
}

func aMoveCanBeStopped(t *testing.T, q queueTest) {
	if q.NoMoves {
		t.Skip("left out: this queue does not move dead letters")
	}
	const buried = 40
	q.bury(buried)
	if err := q.Move(t.Context(), jobs.QueueWork, 1); err != nil {
		t.Fatal(err)
	}
	if err := q.Move(t.Context(), jobs.QueueWork, 0); !errors.Is(err, jobs.ErrConflict) {
		t.Errorf("a second move meanwhile: %v", err)
	}
	if err := q.StopMove(t.Context(), jobs.QueueWork); err != nil {
		t.Fatal(err)
	}
	if m := q.moved(); m.State != jobs.MoveStopped || m.Moved >= buried {
		t.Errorf("the move ended as %+v", m)
	}
	came := len(q.take(jobs.QueueWork, buried, q.long()))
	if left := len(q.letters()); came+left != buried || left == 0 {
		t.Errorf("%d came back and %d are left, want %d in all and some left", came, left, buried)
	}
}
