package jobs

import (
	"context"
	"errors"
	"hash/crc32"
	"io"
	"strconv"
	"sync/atomic"
	"testing"
)

// countedReads counts what has begun to be read.
type countedReads struct {
	*memFiles
	begun atomic.Int64
	fails int64 // the read that fails, from 1
}

func (f *countedReads) Read(ctx context.Context, ref FileRef, offset, length int64) (io.ReadCloser, error) {
	if f.begun.Add(1); offset == f.fails {
		return nil, errors.New("the disk is gone")
	}
	return f.memFiles.Read(ctx, ref, offset, length)
}

func TestChunksAreReadAheadAndUsedInOrder(t *testing.T) {
	const chunks = 3 * readsAhead
	var input []byte
	var all []*ChunkMessage
	for n := range chunks {
		line := []byte(strconv.Itoa(n) + "\n")
		all = append(all, &ChunkMessage{Offset: int64(len(input)), Length: int64(len(line)), Line: int64(n + 1), Lines: 1, CRC: crc32.Checksum(line, castagnoli)})
		input = append(input, line...)
	}
	for _, fails := range []int64{-1, all[20].Offset} {
		files := &countedReads{memFiles: newMemFiles(), fails: fails}
		files.objects["input"] = input
		j := &Job{Input: FileRef{Name: "input"}, InputBytes: int64(len(input)), Cut: DefaultCut(int64(len(input)))}
		used := 0
		err := readAhead(t.Context(), files, j, all, func(n int, data []byte) error {
			if n != used || string(data) != strconv.Itoa(n)+"\n" {
				t.Errorf("use %d is of chunk %d, %q", used, n, data)
			}
			used++
			if begun := int(files.begun.Load()); begun > n+readsAhead {
				t.Errorf("%d reads have begun when chunk %d is used", begun, n)
			}
			return nil
		})
		if fails < 0 && (err != nil || used != chunks) || fails >= 0 && (err == nil || used != 20) {
			t.Errorf("%d chunks were used, %v", used, err)
		}
		if err := readAhead(t.Context(), files, j, all, func(int, []byte) error { return io.ErrShortWrite }); !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("what uses them fails: %v", err)
		}
	}
}
