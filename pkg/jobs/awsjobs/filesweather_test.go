package awsjobs

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

const (
	weatherSmall = 100
	weatherLarge = 2*minPart + 100
)

// filesStep is one use of Files: what it makes, and what its error says of each request that it takes.
type filesStep struct {
	name string
	do   func(ctx context.Context, f *Files) error
	out  int               // bytes of the object "out"; -1 = none is made
	asks map[string]string // by operation
}

func filesSteps() []filesStep {
	large, small := jobs.FileRef{Name: "p/large"}, jobs.FileRef{Name: "p/small"}
	wrote := func(n int) func(context.Context, *Files) error {
		return func(ctx context.Context, f *Files) error { _, err := write(ctx, f, "out", numbered(n)); return err }
	}
	copied := func(from jobs.FileRef) func(context.Context, *Files) error {
		return func(ctx context.Context, f *Files) error { _, err := f.Copy(ctx, from, "out"); return err }
	}
	return []filesStep{
		{"Stat", func(ctx context.Context, f *Files) error { _, err := f.Stat(ctx, small.Name); return err }, -1,
			map[string]string{"HeadObject": "look at fake/p/small"}},
		{"Read", func(ctx context.Context, f *Files) error { _, err := read(ctx, f, large, 5, -1); return err }, -1,
			map[string]string{"GetObject": "read fake/p/large"}},
		{"List", func(ctx context.Context, f *Files) (last error) {
			for _, err := range f.List(ctx, "p/") {
				last = err
			}
			return last
		}, -1, map[string]string{"ListObjectsV2": "list fake/p/"}},
		{"Delete", func(ctx context.Context, f *Files) error { return f.Delete(ctx, "p/small", "absent") }, -1,
			map[string]string{"DeleteObjects": "delete fake/p/small (and 1 others)"}},
		{"CreateSmall", wrote(weatherSmall), weatherSmall, map[string]string{"PutObject": "commit out: write fake/out"}},
		{"CreateLarge", wrote(weatherLarge), weatherLarge, map[string]string{
			"CreateMultipartUpload": "write fake/out", "UploadPart": "write fake/out", "CompleteMultipartUpload": "commit out: write fake/out"}},
		{"CopySmall", copied(small), weatherSmall, map[string]string{
			"HeadObject": "look at fake/p/small", "GetObject": "read fake/p/small of ETag", "PutObject": "copy p/small to out: write fake/out"}},
		{"CopyLarge", copied(large), weatherLarge, map[string]string{
			"HeadObject": "look at fake/p/large", "CreateMultipartUpload": "write fake/out", "UploadPartCopy": "copy fake/p/large of ETag",
			"CompleteMultipartUpload": "copy p/large to out: write fake/out"}},
		{"Concat", func(ctx context.Context, f *Files) error {
			_, err := f.Concat(ctx, "out", []jobs.FileRef{small, large, small})
			return err
		}, 2*weatherSmall + weatherLarge, map[string]string{
			"HeadObject": "look at fake/p/", "CreateMultipartUpload": "write fake/out", "UploadPartCopy": "copy fake/p/",
			"GetObject": "read fake/p/", "UploadPart": "send part 1: write fake/out", "CompleteMultipartUpload": "write fake/out"}},
	}
}

// Each request of each step goes wrong in each way. What the client's three tries cannot mend comes back as an error that
// says what was tried on which object; nothing is half visible or left on its way, and afterwards it can be done again.
func TestWeatherAtEachCallOfFiles(t *testing.T) {
	large, small := newObject([]byte(numbered(weatherLarge)), nil), newObject([]byte(numbered(weatherSmall)), nil)
	for _, w := range []struct {
		name  string
		fault fault
		nth   []int    // none = always
		err   error    // wanted
		only  []string // operations
	}{
		{"Throttled", fault{code: "SlowDown"}, []int{1, 2}, nil, nil},
		{"AnswerLost", fault{lost: true}, []int{1}, nil, nil},
		{"LateErrorOnce", fault{code: "InternalError", late: true}, []int{1}, nil, []string{"UploadPartCopy", "CompleteMultipartUpload"}},
		{"AlwaysThrottled", fault{code: "SlowDown"}, nil, errAny, nil},
		{"AlwaysInternalError", fault{code: "InternalError"}, nil, errAny, nil},
		{"LateErrorAlways", fault{code: "InternalError", late: true}, nil, errAny, []string{"UploadPartCopy", "CompleteMultipartUpload"}},
		{"NeverArrives", fault{unsent: true}, nil, errBroken, nil},
		{"NeverAnswered", fault{hangs: true}, nil, context.DeadlineExceeded, nil},
	} {
		for _, step := range filesSteps() {
			for op, says := range step.asks {
				if w.only != nil && !strings.Contains(strings.Join(w.only, " "), op) {
					continue
				}
				t.Run(w.name+"/"+step.name+"/"+op, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						b := &fakeBucket{}
						f := b.files()
						b.objects["p/large"], b.objects["p/small"] = large, small
						b.fault = on(op, w.fault, w.nth...)
						ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
						defer cancel()
						wantError(t, step.do(ctx, f), w.err, says)
						b.fault = nil
						if w.err != nil {
							if len(b.uploads) > 0 || b.objects["out"].etag != "" || b.objects["p/small"].etag == "" {
								t.Errorf("left %d uploads and %d objects", len(b.uploads), len(b.objects))
							}
							if err := step.do(t.Context(), f); err != nil {
								t.Errorf("again: %v", err)
							}
						}
						if n := len(b.objects["out"].body); step.out >= 0 && n != step.out {
							t.Errorf("the object has %d bytes, want %d", n, step.out)
						}
					})
				})
			}
		}
	}
}

// What cannot even be aborted is told, beside what went wrong first, and within bounded time.
func TestAnUploadThatCannotBeAbortedIsTold(t *testing.T) {
	for name, f := range map[string]fault{"Throttled": {code: "SlowDown"}, "NeverAnswered": {hangs: true}, "Denied": {code: "AccessDenied"}} {
		for _, step := range filesSteps() {
			if step.asks["CompleteMultipartUpload"] == "" {
				continue
			}
			t.Run(name+"/"+step.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := &fakeBucket{}
					files := b.files()
					b.objects["p/large"], b.objects["p/small"] = newObject([]byte(numbered(weatherLarge)), nil), newObject([]byte("x"), nil)
					b.fault = either(on("CompleteMultipartUpload", fault{code: "InternalError"}), on("AbortMultipartUpload", f))
					began := time.Now()
					err := step.do(t.Context(), files)
					for _, says := range []string{"write fake/out: ", "InternalError", "abort the upload of fake/out"} {
						if err == nil || !strings.Contains(err.Error(), says) {
							t.Errorf("error: %v\nwant it to say %q", err, says)
						}
					}
					if took := time.Since(began); took > dropTime {
						t.Errorf("it took %s", took)
					}
				})
			})
		}
	}
}

// A reader's context may end while it waits for bytes; what it then says is no end of the object.
func TestAReaderThatIsStoppedSaysWhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBucket{}
		f := b.files()
		ref := mustWrite(t, f, "a", numbered(1000))
		b.fault = either(on("GetObject", fault{cut: 10, end: errBroken}, 1), on("GetObject", fault{hangs: true}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		r, err := f.Read(ctx, ref, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if string(got) != numbered(10) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "read fake/a of ETag "+ref.Version) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		for range 2 {
			if n, again := r.Read(make([]byte, 5)); n > 0 || !errors.Is(again, context.DeadlineExceeded) {
				t.Errorf("and then %d bytes, %v", n, again)
			}
		}
	})
}
