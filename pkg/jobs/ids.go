package jobs

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// idEntry is the custom_id of one line, as a keyed hash. 128 bits under a key that nobody outside knows: ids with equal
// hashes are taken to be equal (at a thousand million ids the odds of one mistake are 1 in 10^21), and the hashes of
// different ids are spread evenly, whoever chose the ids.
type idEntry struct {
	hi, lo uint64
	line   uint32 // within the split, from 0
}

func compareIDs(a, b idEntry) int {
	switch {
	case a.hi != b.hi:
		return cmp.Compare(a.hi, b.hi)
	case a.lo != b.lo:
		return cmp.Compare(a.lo, b.lo)
	default:
		return cmp.Compare(a.line, b.line)
	}
}

// maxRunIDs bounds the ids that a scan holds: 24 MiB of them.
const maxRunIDs = 1 << 20

// An ids object is a sorted run of entries: idMagic, how many entries there are by the first byte of their hash (256
// numbers of 32 bits), and the entries (hash of 128 bits, line of 32), all big endian. So the entries of a range of
// hashes are found without reading the others.
const (
	idMagic       = "fanout-ids-v1\n\x00\x00"
	idBuckets     = 256
	idHeaderBytes = len(idMagic) + 4*idBuckets
	idEntryBytes  = 8 + 8 + 4
)

func bucketOf(hi uint64) int { return int(hi >> 56) }

// sortIDs sorts by hash and line. Hashes are spread evenly, so two rounds of moving each entry to where its next byte says
// leave little to compare: three times as fast as comparing from the start.
func sortIDs(entries []idEntry) { sortIDsBy(entries, 56) }

func sortIDsBy(entries []idEntry, shift int) {
	const few = 128
	if len(entries) < few || shift < 0 {
		slices.SortFunc(entries, compareIDs)
		return
	}
	var next, ends [256]int // of the part of each byte: where its next entry goes, and where it ends
	for i := range entries {
		ends[byte(entries[i].hi>>shift)]++
	}
	for b := 1; b < len(ends); b++ {
		next[b] = ends[b-1]
		ends[b] += ends[b-1]
	}
	start := 0
	for b, end := range ends {
		for next[b] < end {
			e := entries[next[b]]
			for home := int(byte(e.hi >> shift)); home != b; home = int(byte(e.hi >> shift)) {
				entries[next[home]], e = e, entries[next[home]]
				next[home]++
			}
			entries[next[b]] = e
			next[b]++
		}
		if end-start > 1 {
			sortIDsBy(entries[start:end], shift-8)
		}
		start = end
	}
}

// saveIDs writes a sorted run. That the object is there already means that an earlier try at the same scan wrote it.
func saveIDs(ctx context.Context, files Files, name string, entries []idEntry) error {
	w, err := files.Create(ctx, name)
	if err != nil {
		return fmt.Errorf("create ids %s: %w", name, err)
	}
	defer w.Abort()
	if err := writeIDs(w, entries); err != nil {
		return fmt.Errorf("write ids %s: %w", name, err)
	}
	if _, err := w.Commit(ctx); err != nil && !errors.Is(err, ErrExists) {
		return fmt.Errorf("commit ids %s: %w", name, err)
	}
	return nil
}

func writeIDs(w io.Writer, entries []idEntry) error {
	var counts [idBuckets]uint32
	for _, e := range entries {
		counts[bucketOf(e.hi)]++
	}
	header := make([]byte, 0, idHeaderBytes)
	header = append(header, idMagic...)
	for _, n := range counts {
		header = binary.BigEndian.AppendUint32(header, n)
	}
	out := bufio.NewWriterSize(w, 64<<10)
	if _, err := out.Write(header); err != nil {
		return err
	}
	for _, e := range entries {
		b := out.AvailableBuffer()
		b = binary.BigEndian.AppendUint64(b, e.hi)
		b = binary.BigEndian.AppendUint64(b, e.lo)
		b = binary.BigEndian.AppendUint32(b, e.line)
		if _, err := out.Write(b); err != nil {
			return err
		}
	}
	return out.Flush()
}

// idRun points at an ids object and remembers how far it was read.
type idRun struct {
	split int
	file  FileRef

	counts  [idBuckets]uint32
	at      int64 // entries before this one were read
	through int64 // entries before this one are in buckets below bucket
	bucket  int
}

// readHeader reads the counts of a run.
func (r *idRun) readHeader(ctx context.Context, files Files) error {
	body, err := files.Read(ctx, r.file, 0, int64(idHeaderBytes))
	if err != nil {
		return fmt.Errorf("open ids %s: %w", r.file.Name, err)
	}
	defer body.Close()
	header := make([]byte, idHeaderBytes)
	if _, err := io.ReadFull(body, header); err != nil {
		return fmt.Errorf("read the header of ids %s: %w", r.file.Name, err)
	}
	if string(header[:len(idMagic)]) != idMagic {
		return fmt.Errorf("read the header of ids %s: it is no ids object of this version", r.file.Name)
	}
	var all int64
	for b := range r.counts {
		r.counts[b] = binary.BigEndian.Uint32(header[len(idMagic)+4*b:])
		all += int64(r.counts[b])
	}
	if all > maxRunIDs {
		return fmt.Errorf("read the header of ids %s: it has %d entries, more than a run holds", r.file.Name, all)
	}
	return nil
}

// read yields the entries that were not read yet, up to a hash and no further than the end of its bucket.
func (r *idRun) read(ctx context.Context, files Files, in *bufio.Reader, last uint64, yield func(idEntry) error) error {
	for ; r.bucket <= bucketOf(last); r.bucket++ {
		r.through += int64(r.counts[r.bucket])
	}
	if r.at == r.through {
		return nil
	}
	body, err := files.Read(ctx, r.file, int64(idHeaderBytes)+r.at*idEntryBytes, (r.through-r.at)*idEntryBytes)
	if err != nil {
		return fmt.Errorf("open ids %s at entry %d: %w", r.file.Name, r.at, err)
	}
	defer body.Close()
	in.Reset(body)
	for ; r.at < r.through; r.at++ {
		b, err := in.Peek(idEntryBytes)
		if err != nil {
			return fmt.Errorf("read entry %d of ids %s: %w", r.at, r.file.Name, err)
		}
		e := idEntry{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint32(b[16:])}
		if e.hi > last {
			return nil
		}
		if _, err := in.Discard(idEntryBytes); err != nil {
			return fmt.Errorf("read entry %d of ids %s: %w", r.at, r.file.Name, err)
		}
		if err := yield(e); err != nil {
			return err
		}
	}
	return nil
}
