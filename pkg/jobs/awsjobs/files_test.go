package awsjobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/go-cmp/cmp"

	"github.com/fanout-inference/fanout/internal/awstest"
	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/jobstest"
)

func TestFiles(t *testing.T) {
	jobstest.TestFiles(t, func(t *testing.T) jobs.Files { return onServer(t) })
}

// The fake bucket stands for a server where requests are counted, or go wrong, so it has to be one.
func TestFilesOfTheFakeBucket(t *testing.T) {
	jobstest.TestFiles(t, func(*testing.T) jobs.Files { return (&fakeBucket{page: 7}).files() })
}

func onServer(t *testing.T) *Files {
	c := awstest.S3(t)
	return NewFiles(s3.New(c.Options(), asConfigured), awstest.Bucket(t, c))
}

// numbered is n bytes, at most 32 MiB, that say where they are.
func numbered(n int) string { return allNumbered()[:n] }

var allNumbered = sync.OnceValue(func() string {
	var b strings.Builder
	for b.Len() < 32<<20 {
		b.WriteString(strconv.Itoa(1e9 + b.Len())[1:])
		b.WriteByte('\n')
	}
	return b.String()
})

func write(ctx context.Context, f *Files, name, content string) (jobs.FileInfo, error) {
	w, err := f.Create(ctx, name)
	if err != nil {
		return jobs.FileInfo{}, err
	}
	for rest := content; len(rest) > 0; {
		n, err := w.Write([]byte(rest[:min(len(rest), 1<<20)]))
		if err != nil {
			return jobs.FileInfo{}, errors.Join(err, w.Abort())
		}
		rest = rest[n:]
	}
	return w.Commit(ctx)
}

func mustWrite(t *testing.T, f *Files, name, content string) jobs.FileRef {
	t.Helper()
	info, err := write(t.Context(), f, name, content)
	if err != nil {
		t.Fatal(err)
	}
	return info.FileRef
}

func read(ctx context.Context, f *Files, ref jobs.FileRef, offset, length int64) (string, error) {
	r, err := f.Read(ctx, ref, offset, length)
	if err != nil {
		return "", err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	return string(b), err
}

// forget makes a bucket count from here.
func (b *fakeBucket) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.asked)
	b.headers = nil
}

// Each size of object, whole and in ranges, on a real server: what fits one request, what takes parts, and what is a part
// exactly.
func TestLargeObjectsComeBackAsTheyWereWritten(t *testing.T) {
	f := onServer(t)
	for _, size := range []int{writePart - 1, writePart, writePart + 1, 2 * writePart, 2*writePart + 4321} {
		name, want := fmt.Sprintf("large/%d", size), numbered(size)
		info, err := write(t.Context(), f, name, want)
		if err != nil {
			t.Fatal(err)
		}
		if stat, err := f.Stat(t.Context(), name); err != nil || stat.FileRef != info.FileRef || stat.Bytes != int64(size) || info.Bytes != int64(size) {
			t.Errorf("stat of %s: %+v, %v; commit said %+v", name, stat, err, info)
		}
		if got, err := read(t.Context(), f, info.FileRef, 0, -1); err != nil || got != want {
			t.Errorf("%s came back with %d bytes, %v", name, len(got), err)
		}
		if got, err := read(t.Context(), f, info.FileRef, int64(size)-700, 500); err != nil || got != want[size-700:size-200] {
			t.Errorf("a range of %s is %q, %v", name, got, err)
		}
		if _, err := write(t.Context(), f, name, want); !errors.Is(err, jobs.ErrExists) {
			t.Errorf("%s written again: %v, want ErrExists", name, err)
		}
	}
}

func TestAWriterAbortsItsUpload(t *testing.T) {
	b := &fakeBucket{}
	f := b.files()
	ctx, cancel := context.WithCancel(t.Context())
	w, err := f.Create(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, numbered(writePart+1)); err != nil {
		t.Fatal(err)
	}
	if len(b.uploads) != 1 {
		t.Fatalf("%d uploads, want 1 on its way", len(b.uploads))
	}
	cancel() // it is removed all the same
	if err := w.Abort(); err != nil {
		t.Error(err)
	}
	if len(b.uploads) != 0 || len(b.objects) != 0 {
		t.Errorf("left %d uploads and %d objects", len(b.uploads), len(b.objects))
	}
}

type weather = func(op string, nth int) *fault

// on makes one kind of request go wrong, the nth times that are given, or always.
func on(op string, f fault, nth ...int) weather {
	return func(asked string, n int) *fault {
		if asked == op && (len(nth) == 0 || slices.Contains(nth, n)) {
			return &f
		}
		return nil
	}
}

// either is the first of two that has something to say.
func either(a, b weather) weather {
	return func(op string, n int) *fault {
		if f := a(op, n); f != nil {
			return f
		}
		return b(op, n)
	}
}

func TestCommitInBadWeather(t *testing.T) {
	const small, large = 100, 2*writePart + 1
	for _, c := range []struct {
		name  string
		size  int
		fault func(b *fakeBucket, stop func()) weather
		err   error  // wanted
		says  string // in the error
	}{
		{"SmallTwiceSlow", small, always(on("PutObject", fault{code: "SlowDown"}, 1, 2)), nil, ""},
		{"SmallAnswerLost", small, always(on("PutObject", fault{lost: true}, 1)), nil, ""},
		{"SmallAnswerLostAndNothingAfter", small, always(either(on("PutObject", fault{lost: true}, 1), on("PutObject", fault{unsent: true}))), nil, ""},
		{"SmallNeverArrives", small, always(on("PutObject", fault{unsent: true})), errBroken, "write fake/new"},
		{"SmallConflictOnce", small, always(on("PutObject", fault{code: "ConditionalRequestConflict"}, 1)), nil, ""},
		{"SmallConflictAlways", small, always(on("PutObject", fault{code: "ConditionalRequestConflict"})), errAny, "ConditionalRequestConflict"},
		{"SmallConflictWithAnother", small, func(b *fakeBucket, _ func()) weather {
			return on("PutObject", fault{code: "ConditionalRequestConflict", meanwhile: b.another("new")})
		}, jobs.ErrExists, "fake/new"},
		{"SmallTaken", small, func(b *fakeBucket, _ func()) weather {
			return on("PutObject", fault{meanwhile: b.another("new")})
		}, jobs.ErrExists, "write fake/new: already exists"},
		{"SmallTakenAndDeletedSince", small, always(on("PutObject", fault{code: "PreconditionFailed"})), jobs.ErrExists, ""},
		{"SmallTakenByWhomIsUnknown", small, always(either(on("PutObject", fault{lost: true}, 1), on("HeadObject", fault{code: "SlowDown"}))), errAny, "find out who took the name"},
		{"SmallDenied", small, always(on("PutObject", fault{code: "AccessDenied"})), errDenied, "write fake/new: s3:PutObject is not allowed"},
		{"SmallWrongKey", small, always(on("PutObject", fault{code: "SignatureDoesNotMatch"})), errDenied, "write fake/new: "},
		{"SmallNoBucket", small, always(on("PutObject", fault{code: "NoSuchBucket"})), errInvalid, "no such bucket"},
		{"SmallStopped", small, stopped("PutObject", 1), context.Canceled, ""},
		{"LargeTwiceSlow", large, always(on("UploadPart", fault{code: "SlowDown"}, 1, 2, 4)), nil, ""},
		{"LargePartAnswerLost", large, always(on("UploadPart", fault{lost: true}, 2)), nil, ""},
		{"LargeAnswerLost", large, always(on("CompleteMultipartUpload", fault{lost: true}, 1)), nil, ""},
		{"LargeAnswersLost", large, always(either(on("CompleteMultipartUpload", fault{lost: true}, 1), on("CompleteMultipartUpload", fault{unsent: true}))), nil, ""},
		{"LargeConflictOnce", large, always(on("CompleteMultipartUpload", fault{code: "ConditionalRequestConflict"}, 1)), nil, ""},
		{"LargeConflictAlways", large, always(on("CompleteMultipartUpload", fault{code: "ConditionalRequestConflict"})), errAny, "ConditionalRequestConflict"},
		{"LargeTaken", large, func(b *fakeBucket, _ func()) weather {
			return on("CompleteMultipartUpload", fault{meanwhile: b.another("new")})
		}, jobs.ErrExists, "fake/new"},
		{"LargeCannotBegin", large, always(on("CreateMultipartUpload", fault{code: "AccessDenied"})), errDenied, "s3:PutObject"},
		{"LargeFirstPartFails", large, always(on("UploadPart", fault{code: "InternalError"}, 1, 2, 3)), errAny, "send part 1: write fake/new"},
		{"LargeLastPartFails", large, always(on("UploadPart", fault{code: "InternalError"}, 3, 4, 5)), errAny, "send part 3: write fake/new"},
		{"LargeStoppedOnTheWay", large, stopped("UploadPart", 2), context.Canceled, ""},
		{"LargeStoppedAtTheEnd", large, stopped("CompleteMultipartUpload", 1), context.Canceled, ""},
		{"LargeUploadRemoved", large, always(on("CompleteMultipartUpload", fault{code: "NoSuchUpload"})), errAny, "NoSuchUpload"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			b := &fakeBucket{}
			f := b.files()
			b.fault = c.fault(b, stop)
			want := numbered(c.size)
			info, err := write(ctx, f, "new", want)
			wantError(t, err, c.err, c.says)
			b.fault = nil
			if len(b.uploads) > 0 {
				t.Errorf("left %d uploads", len(b.uploads))
			}
			if c.err != nil {
				return
			}
			if got, err := read(t.Context(), f, info.FileRef, 0, -1); err != nil || got != want || info.Bytes != int64(c.size) {
				t.Errorf("%d bytes are there (%v), commit said %+v", len(got), err, info)
			}
		})
	}
}

// Kinds of errors that have no value of their own.
var (
	errAny     = errors.New("none of the port's words")
	errDenied  = errors.New("code denied")
	errInvalid = errors.New("code invalid")
)

func wantError(t *testing.T, got, want error, says string) {
	t.Helper()
	ok := errors.Is(got, want)
	switch {
	case errors.Is(want, errAny):
		ok = got != nil && jobs.CodeOf(got) == jobs.CodeInternal
	case errors.Is(want, errDenied):
		ok = jobs.CodeOf(got) == jobs.CodeDenied
	case errors.Is(want, errInvalid):
		ok = jobs.CodeOf(got) == jobs.CodeInvalid && !errors.Is(got, jobs.ErrChanged)
	}
	if !ok || want != nil && !strings.Contains(got.Error(), says) {
		t.Fatalf("error: %v\nwant %v, saying %q", got, want, says)
	}
}

func always(f weather) func(*fakeBucket, func()) weather {
	return func(*fakeBucket, func()) weather { return f }
}

// stopped ends the caller's context in the middle of a request.
func stopped(op string, nth int) func(*fakeBucket, func()) weather {
	return func(_ *fakeBucket, stop func()) weather {
		return on(op, fault{meanwhile: stop}, nth)
	}
}

// another puts an object of somebody else under a name, once.
func (b *fakeBucket) another(name string) func() {
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.objects[name] = newObject([]byte("somebody else's"), nil)
	}
}

// gone deletes an object.
func (b *fakeBucket) gone(name string) func() {
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.objects, name)
	}
}

func TestReadInBadWeather(t *testing.T) {
	const size = 3 << 20
	cut := func(at int) fault { return fault{cut: at, end: errBroken} }
	meanwhile := func(at int, do func()) weather {
		return either(on("GetObject", cut(at), 1), on("GetObject", fault{meanwhile: do}, 2))
	}
	for _, c := range []struct {
		name  string
		fault func(b *fakeBucket, stop func()) weather
		gets  int
		err   error
		says  string
	}{
		{"Calm", always(nil), 1, nil, ""},
		{"BrokenOff", always(on("GetObject", cut(1000), 1)), 2, nil, ""},
		{"BrokenOffAtOnce", always(on("GetObject", cut(0), 1)), 2, nil, ""},
		{"EndedEarly", always(on("GetObject", fault{cut: 5, end: io.EOF}, 1)), 2, nil, ""},
		{"BrokenOffAgainAndAgain", always(on("GetObject", cut(10), 1, 2, 3, 4, 5)), 6, nil, ""},
		{"BrokenOffForEver", always(on("GetObject", cut(10))), 6, errBroken, "read fake/a of ETag"},
		{"EndedEarlyForEver", always(on("GetObject", fault{cut: 10, end: io.EOF})), 6, io.ErrUnexpectedEOF, "broke off 6 times, now at byte 60"},
		{"SlowWhenItGoesOn", always(either(on("GetObject", cut(1), 1), on("GetObject", fault{code: "SlowDown"}, 2, 3))), 4, nil, ""},
		{"ReplacedMeanwhile", func(b *fakeBucket, _ func()) weather { return meanwhile(1000, b.another("a")) }, 2, jobs.ErrChanged, "read fake/a of ETag"},
		{"DeletedMeanwhile", func(b *fakeBucket, _ func()) weather { return meanwhile(1000, b.gone("a")) }, 2, jobs.ErrNotFound, "read fake/a of ETag"},
		{"AnotherVersionThoughAsked", always(either(on("GetObject", cut(1), 1), on("GetObject", fault{set: [2]string{"ETag", `"x"`}}, 2))), 2, jobs.ErrChanged, "of ETag x"},
		{"AnotherRangeThanAsked", always(either(on("GetObject", cut(1), 1), on("GetObject", fault{set: [2]string{"Content-Range", "bytes 0-9/10"}}, 2))), 2, errAny, "begins at byte 0, not 1"},
		{"NotWhatWasStored", always(on("GetObject", fault{set: [2]string{"x-amz-checksum-crc32", "AAAAAA=="}})), 1, errAny, "checksum did not match"},
		{"StoppedMeanwhile", func(_ *fakeBucket, stop func()) weather { return meanwhile(9, stop) }, 2, context.Canceled, ""},
		{"Denied", always(on("GetObject", fault{code: "AccessDenied"})), 1, errDenied, "read fake/a: s3:GetObject is not allowed"},
		{"NoBucket", always(on("GetObject", fault{code: "NoSuchBucket"})), 1, errInvalid, "no such bucket"},
		{"NeverAnswered", always(on("GetObject", fault{unsent: true})), 3, errBroken, "read fake/a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			b := &fakeBucket{}
			f := b.files()
			want := numbered(size)
			mustWrite(t, f, "a", want)
			b.fault = c.fault(b, stop)
			got, err := read(ctx, f, jobs.FileRef{Name: "a"}, 0, -1)
			wantError(t, err, c.err, c.says)
			if !strings.HasPrefix(want, got) && c.name != "NotWhatWasStored" || err == nil && got != want {
				t.Errorf("other bytes came: %.40q", got)
			}
			if b.asked["GetObject"] != c.gets {
				t.Errorf("%d requests, want %d", b.asked["GetObject"], c.gets)
			}
		})
	}
}

// A reader that is slow is cut off often, and goes on as long as each answer brings something.
func TestASlowReaderIsNeverGivenUp(t *testing.T) {
	b := &fakeBucket{}
	f := b.files()
	want := numbered(12 * goodRun)
	ref := mustWrite(t, f, "a", want)
	b.fault = on("GetObject", fault{cut: goodRun, end: errBroken})
	if got, err := read(t.Context(), f, ref, 0, -1); err != nil || got != want {
		t.Errorf("%d bytes came: %v", len(got), err)
	}
	if last := b.headers[len(b.headers)-1]; last.Get("If-Match") != `"`+ref.Version+`"` || last.Get("Range") == "" {
		t.Errorf("the last request had %v", last)
	}
}

func TestDeleteTellsWhatIsLeft(t *testing.T) {
	b := &fakeBucket{}
	f := b.files()
	var names []string
	for i := range 2500 {
		names = append(names, fmt.Sprintf("a/%d", i))
	}
	mustWrite(t, f, "a/2499", "x")
	if err := f.Delete(t.Context(), names...); err != nil || len(b.objects) > 0 || b.asked["DeleteObjects"] != 3 {
		t.Errorf("left %d objects after %d requests: %v", len(b.objects), b.asked["DeleteObjects"], err)
	}
	mustWrite(t, f, "b", "x")
	err := f.Delete(t.Context(), "denied/1", "b")
	wantError(t, err, errDenied, "delete fake/denied/1: s3:DeleteObject is not allowed")
	if len(b.objects) > 0 {
		t.Error("the one refused kept the other")
	}
	var many []string
	for i := range 40 {
		many = append(many, fmt.Sprintf("denied/%d", i))
	}
	wantError(t, f.Delete(t.Context(), many...), errDenied, "and 35 more")
	b.fault = on("DeleteObjects", fault{code: "SlowDown"})
	wantError(t, f.Delete(t.Context(), "x", "y"), errAny, "delete fake/x (and 1 others)")
}

func TestListEndsAtItsFirstError(t *testing.T) {
	b := &fakeBucket{page: 2}
	f := b.files()
	for i := range 5 {
		mustWrite(t, f, fmt.Sprintf("a/%d", i), "x")
	}
	b.objects["a/folder/"] = newObject(nil, nil) // as a console makes it
	b.fault = on("ListObjectsV2", fault{code: "AccessDenied"}, 2)
	var seen []string
	var last error
	for info, err := range f.List(t.Context(), "a/") {
		if last = err; err == nil {
			seen = append(seen, info.Name)
		}
	}
	wantError(t, last, errDenied, "list fake/a/: s3:ListBucket is not allowed")
	if diff := cmp.Diff([]string{"a/0", "a/1"}, seen); diff != "" {
		t.Errorf("before it (-want +got):\n%s", diff)
	}
	b.fault = nil
	seen = nil
	for info, err := range f.List(t.Context(), "a/") {
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, info.Name)
	}
	if len(seen) != 5 {
		t.Errorf("listed %v, want 5 objects and no folder", seen)
	}
}

// What each step costs, in requests.
func TestRequests(t *testing.T) {
	const mib = 1 << 20
	b := &fakeBucket{}
	f := b.files()
	ref := func(name string, size int) jobs.FileRef { return mustWrite(t, f, name, numbered(size)) }
	six := []jobs.FileRef{ref("6/1", 6*mib), ref("6/2", 6*mib), ref("6/3", 6*mib)}
	tiny := []jobs.FileRef{ref("t/1", 10), ref("t/2", 20), ref("t/3", 30)}
	empty := ref("empty", 0)
	concat := func(name string, refs ...jobs.FileRef) func() error {
		return func() error { _, err := f.Concat(t.Context(), name, refs); return err }
	}
	create := func(name string, size int) func() error {
		return func() error { _, err := write(t.Context(), f, name, numbered(size)); return err }
	}
	reading := func(offset, length int64) func() error {
		return func() error { _, err := read(t.Context(), f, six[0], offset, length); return err }
	}
	for _, c := range []struct {
		what string
		do   func() error
		want map[string]int
	}{
		{"create nothing", create("c/0", 0), map[string]int{"PutObject": 1}},
		{"create 8 MiB", create("c/8", 8*mib), map[string]int{"PutObject": 1}},
		{"create 17 MiB", create("c/17", 17*mib), map[string]int{"CreateMultipartUpload": 1, "UploadPart": 3, "CompleteMultipartUpload": 1}},
		{"read all", reading(0, -1), map[string]int{"GetObject": 1}},
		{"read a range", reading(5, 100), map[string]int{"GetObject": 1}},
		{"concat 3 of 6 MiB", concat("j/1", six...), map[string]int{"HeadObject": 3, "CreateMultipartUpload": 1, "UploadPartCopy": 3, "CompleteMultipartUpload": 1}},
		{"concat 1 of 6 MiB", concat("j/2", six[0]), map[string]int{"HeadObject": 1, "CreateMultipartUpload": 1, "UploadPartCopy": 1, "CompleteMultipartUpload": 1}},
		{"concat 3 tiny", concat("j/3", tiny...), map[string]int{"HeadObject": 3, "GetObject": 3, "PutObject": 1}},
		{"concat 1 tiny", concat("j/4", tiny[0]), map[string]int{"HeadObject": 1, "GetObject": 1, "PutObject": 1}},
		{"concat tiny, large", concat("j/5", tiny[0], six[0]), map[string]int{"HeadObject": 2, "GetObject": 2, "PutObject": 1}},
		{"concat large, tiny", concat("j/6", six[0], tiny[0]), map[string]int{"HeadObject": 2, "CreateMultipartUpload": 1, "UploadPartCopy": 2, "CompleteMultipartUpload": 1}},
		{"concat large, tiny, large", concat("j/7", six[0], tiny[0], six[1]),
			map[string]int{"HeadObject": 3, "CreateMultipartUpload": 1, "UploadPartCopy": 1, "GetObject": 2, "UploadPart": 1, "CompleteMultipartUpload": 1}},
		{"concat nothing", concat("j/8"), map[string]int{"PutObject": 1}},
		{"concat empty ones", concat("j/9", empty, empty), map[string]int{"HeadObject": 2, "PutObject": 1}},
		{"stat", func() error { _, err := f.Stat(t.Context(), "empty"); return err }, map[string]int{"HeadObject": 1}},
	} {
		b.forget()
		if err := c.do(); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		if diff := cmp.Diff(c.want, b.asked); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.what, diff)
		}
	}
}

// stream is a server that keeps nothing: it takes parts, and has one object that is endless but for its size. What is
// live in memory is looked at whenever a part has come or a piece of the object was read.
type stream struct {
	size int64
	peak uint64
}

func (s *stream) look() {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	s.peak = max(s.peak, m.HeapAlloc)
}

func (s *stream) Do(r *http.Request) (*http.Response, error) {
	switch operation(r) {
	case "CreateMultipartUpload":
		return reply(r, 200, []byte("<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>")), nil
	case "UploadPart":
		_, err := io.Copy(io.Discard, r.Body)
		s.look()
		return reply(r, 200, nil, "ETag", `"part"`), err
	case "CompleteMultipartUpload":
		return reply(r, 200, []byte(`<CompleteMultipartUploadResult><ETag>"whole"</ETag></CompleteMultipartUploadResult>`)), nil
	}
	from, to := int64(0), s.size
	if asked := r.Header.Get("Range"); asked != "" {
		if _, err := fmt.Sscanf(asked, "bytes=%d-", &from); err != nil {
			return nil, err
		}
	}
	end := io.EOF
	if to-from > 100<<20 {
		end = errBroken
	}
	answer := reply(r, 206, nil, "ETag", `"whole"`, "Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, s.size))
	answer.Body = io.NopCloser(io.MultiReader(io.LimitReader(zeros{}, min(to-from, 100<<20)), broken{end}))
	return answer, nil
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestMemoryIsConstant(t *testing.T) {
	const size, allowed = 256 << 20, 4 << 20
	s := &stream{size: size}
	f := NewFiles(client(s), "fake")
	s.look()
	base := s.peak
	w, err := f.Create(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.CopyBuffer(struct{ io.Writer }{w}, io.LimitReader(zeros{}, size), make([]byte, 64<<10)); n != size || err != nil {
		t.Fatalf("%d bytes written: %v", n, err)
	}
	info, err := w.Commit(t.Context())
	if err != nil || info.Bytes != size {
		t.Fatalf("commit: %+v, %v", info, err)
	}
	wrote := s.peak - base
	if wrote > 2*writePart+allowed {
		t.Errorf("%d bytes in memory while writing %d, want two parts and a little", wrote, size)
	}
	s.peak = 0
	r, err := f.Read(t.Context(), info.FileRef, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	buf := make([]byte, 64<<10)
	var n int64
	for err == nil {
		var got int
		got, err = r.Read(buf)
		if n += int64(got); n%(16<<20) < int64(got) {
			s.look()
		}
	}
	if n != size || !errors.Is(err, io.EOF) {
		t.Fatalf("%d bytes read: %v", n, err)
	}
	if s.peak > base+allowed {
		t.Errorf("%d bytes in memory while reading %d", s.peak-base, size)
	}
	t.Logf("%d MiB: %.1f MiB in memory to write, %.1f to read", size>>20, float64(wrote)/(1<<20), float64(max(s.peak, base)-base)/(1<<20))
}

func TestPartsGrowWithTheObject(t *testing.T) {
	var bytes int64
	for range 10_000 {
		n := partBytes(bytes)
		if n < minPart || n > maxPart || bytes < 10<<30 && n != writePart {
			t.Fatalf("a part of %d bytes after %d", n, bytes)
		}
		bytes += int64(n)
	}
	if bytes < 5<<40 {
		t.Errorf("10,000 parts hold %d bytes, want 5 TiB", bytes)
	}
}
