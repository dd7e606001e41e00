package jobs

import (
	"context"
	"fmt"
	"hash/crc32"
	"io"
)

// chunkMessage is the message of a chunk as the scan cut it.
func chunkMessage(j *Job, s *Split, cut *ChunkCut, v verdict) *ChunkMessage {
	return &ChunkMessage{
		V: SchemaVersion, Job: j.ID, Tenant: j.Tenant, Split: s.N,
		Offset: cut.Offset, Length: cut.Length, Line: v.firstLine + cut.Line, Lines: cut.Lines, CRC: cut.CRC,
		Blank: cut.Blank, Skip: cut.Bad.Or(v.duplicates[cut.Offset]),
	}
}

// readChunkBytes reads a chunk's lines from the input. Other bytes than those that were scanned are ErrChanged.
func readChunkBytes(ctx context.Context, files Files, j *Job, m *ChunkMessage) ([]byte, error) {
	if m.Length > j.InputBytes-m.Offset { // and so nobody can make us set aside more than there is
		return nil, Errorf(CodeInvalid, "read the input at byte %d: the message asks for %d bytes, the input has %d", m.Offset, m.Length, j.InputBytes)
	}
	n := j.Cut.ReadBytes(m.Lines, m.Length)
	r, err := files.Read(ctx, j.Input, m.Offset, n)
	if err != nil {
		return nil, fmt.Errorf("read the input at byte %d: %w", m.Offset, err)
	}
	defer r.Close()
	data := make([]byte, n)
	if got, err := io.ReadFull(r, data); err != nil {
		if err == io.ErrUnexpectedEOF || err == io.EOF {
			return nil, fmt.Errorf("read the input at byte %d: it ends after %d of %d bytes: %w", m.Offset, got, n, ErrChanged)
		}
		return nil, fmt.Errorf("read the input at byte %d: %w", m.Offset, err)
	}
	if crc32.Checksum(data, castagnoli) != m.CRC {
		return nil, fmt.Errorf("read the input at byte %d: its lines from %d on are not those that were checked: %w", m.Offset, m.Line, ErrChanged)
	}
	return data, nil
}

// readsAhead is how many chunks are read before their turn. A chunk has some MiB at most.
const readsAhead = 8

// readAhead reads the bytes of chunks and hands them on in their order; while one is used the next are being read.
func readAhead(ctx context.Context, files Files, j *Job, chunks []*ChunkMessage, use func(n int, data []byte) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type read struct {
		data []byte
		err  error
	}
	var ahead []chan read
	for n := range chunks {
		for next := n + len(ahead); next < len(chunks) && len(ahead) < readsAhead; next++ {
			done := make(chan read, 1)
			go func() { // ends by itself: its channel has room, and what it waits for ends with ctx
				data, err := readChunkBytes(ctx, files, j, chunks[next])
				done <- read{data, err}
			}()
			ahead = append(ahead, done)
		}
		r := <-ahead[0]
		ahead = ahead[1:]
		if r.err == nil {
			r.err = use(n, r.data)
		}
		if r.err != nil {
			return fmt.Errorf("chunk at %d: %w", chunks[n].Offset, r.err)
		}
	}
	return nil
}
