package awsjobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Any sizes give parts that S3 takes, in order and without a gap, and few bytes travel.
func TestPlanParts(t *testing.T) {
	size := rapid.OneOf(
		rapid.Int64Range(0, 100),
		rapid.Int64Range(0, 3*minPart),
		rapid.Int64Range(minPart-2, minPart+2),
		rapid.Int64Range(0, 3*maxPart),
		rapid.Int64Range(maxPart-2, maxPart+2),
	)
	rapid.Check(t, func(r *rapid.T) {
		sizes := rapid.SliceOfN(size, 0, 60).Draw(r, "sizes")
		plan := planParts(sizes)
		at := whereIn(sizes)
		var travels int64
		for i, p := range plan {
			for _, s := range p {
				at.take(r, s)
			}
			n := p.bytes()
			switch {
			case n > maxPart, n < minPart && i < len(plan)-1, n == 0:
				r.Fatalf("part %d of %d has %d bytes", i, len(plan), n)
			case p.copied() && n < sizes[p[0].source] && sizes[p[0].source] <= minPart:
				r.Fatalf("part %d is a range of a source of %d bytes, too short for that", i, sizes[p[0].source])
			case !p.copied() && n >= maxThrough:
				r.Fatalf("part %d has %d bytes that travel", i, n)
			case !p.copied():
				travels += n
			}
		}
		at.end(r)
		small, runs, ranges := tally(sizes)
		if most := small + runs*2*minPart; travels > most {
			r.Fatalf("%d bytes travel, want at most %d: %d in small sources, %d runs of them", travels, most, small, runs)
		}
		if most := ranges + int(small/minPart) + int(runs); len(plan) > most {
			r.Fatalf("%d parts, want at most %d", len(plan), most)
		}
	})
}

// tally says of sizes what bounds a plan: the bytes of small sources, the runs that they form, and the parts of the others.
func tally(sizes []int64) (small, runs int64, ranges int) {
	in := false
	for _, n := range sizes {
		switch {
		case n == 0:
		case n < minPart:
			if small += n; !in {
				runs++
			}
			in = true
		default:
			in = false
			ranges += int((n + maxPart - 1) / maxPart)
		}
	}
	return small, runs, ranges
}

// cursor walks through sources, one after the other.
type cursor struct {
	sizes  []int64
	source int
	offset int64
}

func whereIn(sizes []int64) *cursor { return &cursor{sizes: sizes} }

func (c *cursor) skip() {
	for c.source < len(c.sizes) && c.offset == c.sizes[c.source] {
		c.source, c.offset = c.source+1, 0
	}
}

func (c *cursor) take(r *rapid.T, s span) {
	if c.skip(); s.source != c.source || s.from != c.offset || s.bytes <= 0 || s.from+s.bytes > c.sizes[s.source] {
		r.Fatalf("span %+v where source %d goes on at %d", s, c.source, c.offset)
	}
	c.offset += s.bytes
}

func (c *cursor) end(r *rapid.T) {
	if c.skip(); c.source != len(c.sizes) {
		r.Fatalf("source %d is left out from %d", c.source, c.offset)
	}
}

// Pieces of all kinds, on a real server: what is copied whole, copied in a range, and read through here.
func TestConcatOfLargeAndSmall(t *testing.T) {
	f := onServer(t)
	f.maxParts = 3
	const mib = 1 << 20
	content := numbered(32 * mib)
	refs := map[int]jobs.FileRef{}
	for _, n := range []int{0, 7, 3 * mib, minPart, 6 * mib, 12 * mib} {
		refs[n] = mustWrite(t, f, fmt.Sprintf("p/%d +ü", n), content[:n])
	}
	for i, sizes := range [][]int{
		{6 * mib},
		{minPart, 7},
		{7, minPart, 6 * mib},
		{7, 0, 12 * mib, 7},
		{3 * mib, 3 * mib, 7, 6 * mib},
		{6 * mib, 3 * mib, 12 * mib},
		{6 * mib, 6 * mib, 6 * mib, 6 * mib, 7, 6 * mib, 3 * mib, 12 * mib}, // a tree
	} {
		var parts []jobs.FileRef
		var want strings.Builder
		for _, n := range sizes {
			parts = append(parts, refs[n])
			want.WriteString(content[:n])
		}
		info, err := f.Concat(t.Context(), fmt.Sprintf("out/%d", i), parts)
		if err != nil || info.Bytes != int64(want.Len()) {
			t.Errorf("concat of %v: %+v, %v", sizes, info, err)
			continue
		}
		if got, err := read(t.Context(), f, info.FileRef, 0, -1); err != nil || got != want.String() {
			t.Errorf("concat of %v came back with %d bytes, %v", sizes, len(got), err)
		}
		if _, err := f.Concat(t.Context(), info.Name, parts); !errors.Is(err, jobs.ErrExists) {
			t.Errorf("concat of %v again: %v, want ErrExists", sizes, err)
		}
	}
	for info, err := range f.List(t.Context(), tempName) {
		t.Errorf("left %s, %v", info.Name, err)
	}
}

func TestConcatInBadWeather(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		name  string
		fault func(b *fakeBucket, stop func()) weather
		err   error
		says  string
	}{
		{"Calm", always(nil), nil, ""},
		{"TwiceSlow", always(on("UploadPartCopy", fault{code: "SlowDown"}, 1, 2)), nil, ""},
		{"AnswersLost", always(either(on("UploadPartCopy", fault{lost: true}, 1), on("CompleteMultipartUpload", fault{lost: true}, 1))), nil, ""},
		{"ReadBrokenOff", always(on("GetObject", fault{cut: 1, end: errBroken}, 1)), nil, ""},
		{"Replaced", func(b *fakeBucket, _ func()) weather {
			return on("CreateMultipartUpload", fault{meanwhile: b.another("p/large")})
		}, jobs.ErrChanged, " of out: copy fake/p/large of ETag"},
		{"SmallReplaced", func(b *fakeBucket, _ func()) weather {
			return on("CreateMultipartUpload", fault{meanwhile: b.another("p/small")})
		}, jobs.ErrChanged, "read fake/p/small of ETag"},
		{"Deleted", func(b *fakeBucket, _ func()) weather {
			return on("CreateMultipartUpload", fault{meanwhile: b.gone("p/large")})
		}, jobs.ErrNotFound, "copy fake/p/large"},
		{"Taken", func(b *fakeBucket, _ func()) weather {
			return on("CompleteMultipartUpload", fault{meanwhile: b.another("out")})
		}, jobs.ErrExists, "fake/out"},
		{"Denied", always(on("UploadPartCopy", fault{code: "AccessDenied"})), errDenied, "copy fake/p/large of ETag"},
		{"SizesDenied", always(on("HeadObject", fault{code: "AccessDenied"}, 1)), errDenied, "s3:GetObject"},
		{"AlwaysSlow", always(on("UploadPartCopy", fault{code: "SlowDown"})), errAny, "SlowDown"},
		{"Stopped", stopped("UploadPartCopy", 2), context.Canceled, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			b := &fakeBucket{}
			f := b.files()
			large, small := numbered(12*mib), numbered(100)
			parts := []jobs.FileRef{mustWrite(t, f, "p/large", large), mustWrite(t, f, "p/small", small), {Name: "p/large"}}
			clear(b.asked)
			b.fault = c.fault(b, stop)
			info, err := f.Concat(ctx, "out", parts)
			wantError(t, err, c.err, c.says)
			b.fault = nil
			if len(b.uploads) > 0 {
				t.Errorf("left %d uploads", len(b.uploads))
			}
			if c.err != nil {
				return
			}
			if got, err := read(t.Context(), f, info.FileRef, 0, -1); err != nil || got != large+small+large {
				t.Errorf("%d bytes are there: %v", len(got), err)
			}
		})
	}
}

// An upload is replaced or deleted before, during or after its copy: it is copied as it was, or not at all.
func TestCopyOfAnUploadThatChanges(t *testing.T) {
	for _, size := range []int{100, minPart, 2*minPart + 1} {
		for _, c := range []struct {
			name  string
			fault func(b *fakeBucket) weather
			err   error
		}{
			{"Never", func(*fakeBucket) weather { return nil }, nil},
			{"ReplacedBefore", func(b *fakeBucket) weather { b.another("inbox//odd name+/")(); return nil }, jobs.ErrChanged},
			{"DeletedBefore", func(b *fakeBucket) weather { b.gone("inbox//odd name+/")(); return nil }, jobs.ErrNotFound},
			{"ReplacedDuring", func(b *fakeBucket) weather { return during(b.another("inbox//odd name+/")) }, jobs.ErrChanged},
			{"DeletedDuring", func(b *fakeBucket) weather { return during(b.gone("inbox//odd name+/")) }, jobs.ErrNotFound},
			{"ReplacedAfter", func(b *fakeBucket) weather {
				return either(on("PutObject", fault{meanwhile: b.another("inbox//odd name+/")}), on("CompleteMultipartUpload", fault{meanwhile: b.gone("inbox//odd name+/")}))
			}, nil},
		} {
			b := &fakeBucket{}
			f := b.files()
			want := numbered(size)
			b.objects["inbox//odd name+/"] = newObject([]byte(want), nil)
			from := jobs.FileRef{Name: "inbox//odd name+/", Version: strings.Trim(b.objects["inbox//odd name+/"].etag, `"`)}
			b.fault = c.fault(b)
			info, err := f.Copy(t.Context(), from, "files/copy")
			if !errors.Is(err, c.err) {
				t.Errorf("%s, %d bytes: %v, want %v", c.name, size, err, c.err)
				continue
			}
			if err != nil {
				if !strings.Contains(err.Error(), from.Name) || !strings.Contains(err.Error(), from.Version) || b.objects["files/copy"].body != nil {
					t.Errorf("%s: %v, which names object and ETag, and no copy", c.name, err)
				}
				continue
			}
			b.fault = nil
			if got, err := read(t.Context(), f, info.FileRef, 0, -1); err != nil || got != want {
				t.Errorf("%s: %d other bytes, %v", c.name, len(got), err)
			}
		}
	}
}

// during is after the size of the source is known, and before its bytes are asked for.
func during(do func()) weather {
	return either(on("GetObject", fault{meanwhile: do}), on("UploadPartCopy", fault{meanwhile: do}))
}

func TestCopyOnAServer(t *testing.T) {
	f := onServer(t)
	for _, size := range []int{0, 100, minPart + 1} {
		name := fmt.Sprintf("inbox/tenant ü/%d +%%&=.jsonl", size)
		from := mustWrite(t, f, name, numbered(size))
		to := fmt.Sprintf("files/%d", size)
		info, err := f.Copy(t.Context(), from, to)
		if err != nil || info.Name != to || info.Bytes != int64(size) {
			t.Errorf("copy of %d bytes: %+v, %v", size, info, err)
			continue
		}
		if got, err := read(t.Context(), f, info.FileRef, 0, -1); err != nil || got != numbered(size) {
			t.Errorf("copy of %d bytes has %d others, %v", size, len(got), err)
		}
		if _, err := f.Copy(t.Context(), from, to); !errors.Is(err, jobs.ErrExists) {
			t.Errorf("copy of %d bytes again: %v, want ErrExists", size, err)
		}
		from.Version = "0123456789abcdef0123456789abcdef"
		if _, err := f.Copy(t.Context(), from, to+"-b"); !errors.Is(err, jobs.ErrChanged) {
			t.Errorf("copy of another version: %v, want ErrChanged", err)
		}
	}
	if _, err := f.Copy(t.Context(), jobs.FileRef{Name: "absent"}, "files/c"); !errors.Is(err, jobs.ErrNotFound) {
		t.Errorf("copy of an absent object: %v, want ErrNotFound", err)
	}
}

func TestConcatRefusesTooMuch(t *testing.T) {
	f := (&fakeBucket{}).files()
	sources := make([]jobs.FileInfo, 10_001)
	for i := range sources {
		sources[i].Bytes = 5_000_000_000
	}
	if _, err := f.build(t.Context(), "a", sources); jobs.CodeOf(err) != jobs.CodeLimit {
		t.Errorf("an object of 50 TB and more: %v, want code limit", err)
	}
}

// Not everything that is taken from S3 is an object.
func TestARangeOfNothingStillLooks(t *testing.T) {
	f := (&fakeBucket{}).files()
	if _, err := f.Read(t.Context(), jobs.FileRef{Name: "absent"}, 3, 0); !errors.Is(err, jobs.ErrNotFound) {
		t.Errorf("read of an absent object: %v, want ErrNotFound", err)
	}
	ref := mustWrite(t, f, "a", "x")
	r, err := f.Read(t.Context(), ref, 99, 5)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); len(b) > 0 || err != nil {
		t.Errorf("past the end: %q, %v", b, err)
	}
	ref.Version = "other"
	for _, length := range []int64{0, 5} {
		if _, err := f.Read(t.Context(), ref, 99, length); !errors.Is(err, jobs.ErrChanged) {
			t.Errorf("past the end of another version: %v, want ErrChanged", err)
		}
	}
}
