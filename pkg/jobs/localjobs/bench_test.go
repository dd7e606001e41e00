package localjobs

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// benchChunk is a chunk as a worker saves it, of some 800 bytes.
func benchChunk(offset int64) jobs.Chunk {
	return jobs.Chunk{
		V: jobs.SchemaVersion, ID: jobs.ChunkID{Job: "job_0123456789abcdef0123456789abcdef", Offset: offset},
		Length: 200_000, Lines: 100, Attempt: 1, Owner: "0123456789abcdef", Lease: time.Unix(1_770_000_000, 0).UTC(),
		Resolved: jobs.AllBits(100), Parts: []jobs.Part{{Attempt: 1, Mask: jobs.AllBits(100)}},
		Totals: jobs.Totals{Items: 100, Answered: 100, Usage: jobs.Usage{Input: 50_000, Output: 20_000, Total: 70_000}, Seconds: 99.5},
	}
}

// BenchmarkChunk is what a chunk costs the ledger and the queue: receive, claim, save, nudge, ack.
func BenchmarkChunk(b *testing.B) {
	for _, at := range []int{1, 16} {
		b.Run(fmt.Sprintf("AtOnce=%d", at), func(b *testing.B) {
			l := openAt(b, b.TempDir(), Options{})
			body := make([]byte, 200)
			for range b.N {
				if _, err := l.Queue.Send(b.Context(), jobs.QueueWork, body); err != nil {
					b.Fatal(err)
				}
			}
			offsets := make(chan int64, b.N)
			for i := range b.N {
				offsets <- int64(i)
			}
			close(offsets)
			b.ResetTimer()
			var working sync.WaitGroup
			for range at {
				working.Go(func() {
					for offset := range offsets {
						workOnChunk(b, l, offset, body)
					}
				})
			}
			working.Wait()
		})
	}
}

func workOnChunk(b *testing.B, l *Local, offset int64, body []byte) {
	m, err := l.Queue.Receive(b.Context(), jobs.QueueWork, 1, time.Minute)
	if err != nil || len(m) != 1 {
		b.Errorf("receive: %d, %v", len(m), err)
		return
	}
	c := benchChunk(offset)
	for range 2 { // claim, and save
		if err := l.Store.SaveChunk(b.Context(), &c); err != nil {
			b.Error(err)
		}
	}
	if _, err := l.Queue.Send(b.Context(), jobs.QueueAggregate, body); err != nil {
		b.Error(err)
	}
	if err := l.Queue.Ack(b.Context(), m...); err != nil {
		b.Error(err)
	}
}

func BenchmarkQueueOfTen(b *testing.B) {
	q := openAt(b, b.TempDir(), Options{}).Queue
	bodies := make([][]byte, 10)
	for i := range bodies {
		bodies[i] = make([]byte, 200)
	}
	for b.Loop() {
		if _, err := q.Send(b.Context(), jobs.QueueWork, bodies...); err != nil {
			b.Fatal(err)
		}
		m, err := q.Receive(b.Context(), jobs.QueueWork, 10, time.Minute)
		if err != nil || len(m) != 10 {
			b.Fatalf("receive: %d, %v", len(m), err)
		}
		if err := q.Ack(b.Context(), m...); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSaveChunk(b *testing.B) {
	s := openAt(b, b.TempDir(), Options{}).Store
	c := benchChunk(0)
	for b.Loop() {
		if err := s.SaveChunk(b.Context(), &c); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadChunk(b *testing.B) {
	s := openAt(b, b.TempDir(), Options{}).Store
	c := benchChunk(0)
	if err := s.SaveChunk(b.Context(), &c); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		for _, err := range s.Chunks(b.Context(), c.ID.Job, 0, jobs.At(0)) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkCommitFile(b *testing.B) {
	f := openAt(b, b.TempDir(), Options{}).Files
	part := make([]byte, 50_000)
	b.SetBytes(int64(len(part)))
	for i := 0; b.Loop(); i++ {
		w, err := f.Create(b.Context(), fmt.Sprintf("jobs/j/parts/0/%d-1-0", i))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := w.Write(part); err != nil {
			b.Fatal(err)
		}
		if _, err := w.Commit(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
