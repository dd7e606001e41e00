package awsjobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Limits of S3.
const (
	minPart   = 5 << 20            // but for the last part of an upload
	maxPart   = 5 << 30            // of a part that is copied
	maxObject = 50_000_000_000_000 // of any object
)

const (
	copyWidth = 8      // requests at a time, when objects are made of others
	tempName  = "tmp/" // helpers on the way to an object of very many parts
)

// Concat makes an object of others. S3 copies what it can; objects below its least part size travel through here, with
// at most maxThrough bytes in memory. One object alone is copied as a part too, not by CopyObject: there a condition on
// the source and one on the name fail alike, and servers are known that ignore the second.
func (f *Files) Concat(ctx context.Context, name string, parts []jobs.FileRef) (jobs.FileInfo, error) {
	err := jobs.CheckName(name)
	for _, part := range parts {
		err = errors.Join(err, jobs.CheckName(part.Name))
	}
	var info jobs.FileInfo
	if err == nil {
		info, err = f.concat(ctx, name, parts)
	}
	if err != nil {
		return jobs.FileInfo{}, fmt.Errorf("concatenate %d objects as %s: %w", len(parts), name, err)
	}
	return info, nil
}

// Copy makes an object of another, as Concat does: of the version that from names, or else of the one that is there now.
// ErrChanged and ErrNotFound speak of from, ErrExists of the copy. The name of from may be one that Files itself would
// refuse, since others upload as they like.
func (f *Files) Copy(ctx context.Context, from jobs.FileRef, to string) (jobs.FileInfo, error) {
	err := jobs.CheckName(to)
	if from.Name == "" {
		err = errors.Join(err, jobs.CheckName(from.Name))
	}
	var info jobs.FileInfo
	if err == nil {
		info, err = f.concat(ctx, to, []jobs.FileRef{from})
	}
	if err != nil {
		return jobs.FileInfo{}, fmt.Errorf("copy %s to %s: %w", from.Name, to, err)
	}
	return info, nil
}

func (f *Files) concat(ctx context.Context, name string, refs []jobs.FileRef) (jobs.FileInfo, error) {
	sources := make([]jobs.FileInfo, len(refs)) // of one version each, from here on
	err := each(ctx, len(refs), func(ctx context.Context, i int) (err error) {
		sources[i], _, err = f.head(ctx, refs[i])
		return err
	})
	if err != nil {
		return jobs.FileInfo{}, err
	}
	return f.build(ctx, name, sources)
}

// build makes an object of others, by as few requests as it takes.
func (f *Files) build(ctx context.Context, name string, sources []jobs.FileInfo) (jobs.FileInfo, error) {
	sizes, total := make([]int64, len(sources)), int64(0)
	for i, s := range sources {
		sizes[i] = s.Bytes
		total += s.Bytes
	}
	if total > maxObject {
		return jobs.FileInfo{}, jobs.Errorf(jobs.CodeLimit, "%d bytes are more than an object can have, %d", total, int64(maxObject))
	}
	plan := planParts(sizes)
	switch {
	case len(plan) > f.maxParts:
		return f.buildTree(ctx, name, sources, plan)
	case len(plan) > 1, total >= minPart && plan[0].copied():
		return f.buildUpload(ctx, name, sources, plan)
	}
	var body []byte // of an object that is small
	for _, p := range plan {
		var err error
		if body, err = f.fetch(ctx, sources, p, nil); err != nil {
			return jobs.FileInfo{}, err
		}
	}
	return f.put(ctx, name, f.newID(), body)
}

// source names an object to copy from.
func (f *Files) source(name string) *string {
	escaped := strings.NewReplacer("+", "%20", "%2F", "/").Replace(url.QueryEscape(name))
	return aws.String(f.bucket + "/" + escaped)
}

// buildTree makes an object of more parts than an upload has: helpers of as many as it has first, then the object of
// those.
func (f *Files) buildTree(ctx context.Context, name string, sources []jobs.FileInfo, plan []part) (info jobs.FileInfo, err error) {
	var helpers []jobs.FileInfo
	folder := tempName + f.newID()
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dropTime)
		defer cancel()
		for _, h := range helpers {
			_ = f.Delete(ctx, h.Name) // a rule of the bucket removes what is left
		}
	}()
	for parts := range slices.Chunk(plan, f.maxParts) {
		h, err := f.buildUpload(ctx, fmt.Sprintf("%s/%d", folder, len(helpers)), sources, parts)
		if err != nil {
			return jobs.FileInfo{}, err
		}
		helpers = append(helpers, h)
	}
	return f.build(ctx, name, helpers)
}

func (f *Files) buildUpload(ctx context.Context, name string, sources []jobs.FileInfo, plan []part) (jobs.FileInfo, error) {
	u, err := f.begin(ctx, name, f.newID(), joinedSum)
	if err != nil {
		return jobs.FileInfo{}, err
	}
	parts, err := u.fill(ctx, sources, plan)
	if err == nil {
		var total int64
		for _, p := range plan {
			total += p.bytes()
		}
		var info jobs.FileInfo
		if info, err = u.complete(ctx, parts, total); err == nil {
			return info, nil
		}
	}
	return jobs.FileInfo{}, errors.Join(err, u.abort(ctx))
}

// fill makes the parts: first what S3 copies, some at a time, then the others, one at a time.
func (u *upload) fill(ctx context.Context, sources []jobs.FileInfo, plan []part) ([]types.CompletedPart, error) {
	parts := make([]types.CompletedPart, len(plan))
	err := each(ctx, len(plan), func(ctx context.Context, i int) (err error) {
		if p := plan[i]; p.copied() {
			parts[i], err = u.copy(ctx, i+1, sources[p[0].source], p[0])
		}
		return err
	})
	var body []byte
	for i, p := range plan {
		if err == nil && !p.copied() {
			if body, err = u.files.fetch(ctx, sources, p, body); err == nil {
				parts[i], err = u.send(ctx, i+1, body)
			}
		}
	}
	return parts, err
}

// fetch reads the spans of a part into one buffer, some at a time.
func (f *Files) fetch(ctx context.Context, sources []jobs.FileInfo, p part, buf []byte) ([]byte, error) {
	body := slices.Grow(buf[:0], int(p.bytes()))[:p.bytes()]
	starts, at := make([]int64, len(p)), int64(0)
	for i, s := range p {
		starts[i] = at
		at += s.bytes
	}
	err := each(ctx, len(p), func(ctx context.Context, i int) error {
		from := sources[p[i].source].FileRef
		r, err := f.open(ctx, from, p[i].from, p[i].bytes)
		if err != nil {
			return err
		}
		defer r.Close()
		if _, err := io.ReadFull(r, body[starts[i]:][:p[i].bytes]); err != nil {
			return fmt.Errorf("read %s: %w", from.Name, err)
		}
		return nil
	})
	return body, err
}

// each does n things, a few at a time, and ends with the first that goes wrong.
func each(parent context.Context, n int, do func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	var next atomic.Int64
	var working sync.WaitGroup
	var first error
	var fail sync.Once // the others fail because of it
	for range min(n, copyWidth) {
		working.Go(func() {
			for i := next.Add(1) - 1; i < int64(n) && ctx.Err() == nil; i = next.Add(1) - 1 {
				if err := do(ctx, int(i)); err != nil {
					fail.Do(func() { first = err })
					cancel()
				}
			}
		})
	}
	working.Wait()
	if first != nil {
		return first
	}
	return parent.Err()
}

// part is what becomes one part of an upload: one span, which S3 copies, or several, whose bytes travel through here.
type part []span

// span is a range of a source.
type span struct {
	source      int
	from, bytes int64
}

func (p part) copied() bool { return len(p) == 1 }

func (p part) bytes() (n int64) {
	for _, s := range p {
		n += s.bytes
	}
	return n
}

// maxThrough is more than any part has whose bytes travel through here.
const maxThrough = 3 * minPart

// planParts cuts what sources of these sizes are, one after the other, into parts that S3 takes: at least minPart but for
// the last, at most maxPart. Sources below minPart go together until they are one part; what is left of a run of them joins
// the run's last part. A run that is less than one part altogether takes what it lacks from the front of the source after
// it, or all of that if less than a part were left. So what travels is the small sources, and for each run less than
// 2 minPart of its neighbour.
func planParts(sizes []int64) []part {
	var plan []part
	var run part      // small sources that are no part yet
	joins := false    // the last of plan is of the same run
	flush := func() { // run becomes a part, or joins one
		if joins {
			plan[len(plan)-1] = append(plan[len(plan)-1], run...)
		} else if len(run) > 0 {
			plan = append(plan, run)
		}
		run = nil
	}
	for i, size := range sizes {
		switch {
		case size == 0:
		case size < minPart:
			if run = append(run, span{i, 0, size}); run.bytes() >= minPart {
				plan, run, joins = append(plan, run), nil, true
			}
		default:
			var taken int64
			if lack := minPart - run.bytes(); len(run) > 0 && !joins {
				if taken = lack; size-lack < minPart {
					taken = size
				}
				run = append(run, span{i, 0, taken})
			}
			flush()
			plan, joins = append(plan, cutParts(i, taken, size)...), false
		}
	}
	flush()
	return plan
}

// cutParts makes parts of equal length of the rest of a source.
func cutParts(source int, from, size int64) (parts []part) {
	n := (size - from + maxPart - 1) / maxPart
	for i := range n {
		to := from + (size-from)/(n-i)
		parts = append(parts, part{{source, from, to - from}})
		from = to
	}
	return parts
}
