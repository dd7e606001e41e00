package localjobs

import (
	"testing"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// TestOnlyWhatMayBeUndoneSkipsTheWaitForTheDisk looks at how the last commit was made: 2 waits for the disk, 1 does not.
func TestOnlyWhatMayBeUndoneSkipsTheWaitForTheDisk(t *testing.T) {
	l := openAt(t, t.TempDir(), Options{})
	ctx := t.Context()
	var received []jobs.Message
	chunk := benchChunk(0)
	for _, step := range []struct {
		what string
		do   func() error
		want int
	}{
		{"send", func() error { _, err := l.Queue.Send(ctx, jobs.QueueWork, []byte("m")); return err }, 2},
		{"receive", func() (err error) {
			received, err = l.Queue.Receive(ctx, jobs.QueueWork, 1, time.Minute)
			return err
		}, 1},
		{"claim", func() error { return l.Store.SaveChunk(ctx, &chunk) }, 2},
		{"defer", func() error { return l.Queue.Defer(ctx, time.Now(), received...) }, 1},
		{"bury", func() error { return l.Queue.Bury(ctx, received[0], jobs.Burial{}) }, 2},
		{"ack", func() error { return l.Queue.Ack(ctx, received...) }, 1},
		{"save", func() error { return l.Store.SaveChunk(ctx, &chunk) }, 2},
		{"save again", func() error { return l.Store.SaveChunk(ctx, &chunk) }, 2},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		var level int
		if err := l.db.conn.QueryRowContext(ctx, "PRAGMA synchronous").Scan(&level); err != nil {
			t.Fatal(err)
		}
		if level != step.want {
			t.Errorf("%s: synchronous is %d, want %d", step.what, level, step.want)
		}
	}
}

// TestDurableChangeMakesItsWholeTransactionDurable: a lazy change beside it must not take the wait away.
func TestDurableChangeMakesItsWholeTransactionDurable(t *testing.T) {
	l := openAt(t, t.TempDir(), Options{})
	nothing := func() error { return nil }
	for _, batch := range [][]*change{
		{{apply: nothing, lazy: true}, {apply: nothing}},
		{{apply: nothing}, {apply: nothing, lazy: true}},
	} {
		l.db.turn <- struct{}{}
		err := l.db.transact(batch)
		lazy := l.db.lazy
		<-l.db.turn
		if err != nil || lazy {
			t.Errorf("lazy %v, error %v; want a durable commit", lazy, err)
		}
	}
}
