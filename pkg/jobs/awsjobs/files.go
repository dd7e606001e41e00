package awsjobs

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Files keeps objects in one S3 bucket. The Version of a FileRef is the object's ETag, without its quotes, as S3's
// notifications have it. Objects that are made of others may need helpers for a while, under "tmp/"; what a crash leaves
// there, and uploads that it left half made, are for rules of the bucket to remove.
//
// Requests are retried by the client, as it was made. What comes back after that names what was tried, bucket and key, and
// the permission if one is missing.
type Files struct {
	client *s3.Client
	bucket string

	newID    func() string
	maxParts int // of one multipart upload
}

var _ jobs.Files = (*Files)(nil)

// NewFiles keeps objects in a bucket that is there.
func NewFiles(client *s3.Client, bucket string) *Files {
	return &Files{client: client, bucket: bucket, newID: crand.Text, maxParts: 10_000}
}

// Stat describes an object.
func (f *Files) Stat(ctx context.Context, name string) (jobs.FileInfo, error) {
	if err := jobs.CheckName(name); err != nil {
		return jobs.FileInfo{}, fmt.Errorf("look at %s: %w", name, err)
	}
	info, _, err := f.head(ctx, jobs.FileRef{Name: name})
	return info, err
}

// head describes an object and says who wrote it.
func (f *Files) head(ctx context.Context, ref jobs.FileRef) (info jobs.FileInfo, writer string, err error) {
	out, err := f.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &f.bucket, Key: &ref.Name, IfMatch: ifMatch(ref.Version)})
	if err != nil {
		return jobs.FileInfo{}, "", f.explain(looking, ref, err)
	}
	info = jobs.FileInfo{FileRef: jobs.FileRef{Name: ref.Name, Version: version(out.ETag)}, Bytes: aws.ToInt64(out.ContentLength)}
	if out.LastModified != nil {
		info.At = out.LastModified.UTC()
	}
	return info, out.Metadata[writerKey], nil
}

// Read opens a range of an object. A body that breaks off goes on where it was, with the same version or not at all.
func (f *Files) Read(ctx context.Context, ref jobs.FileRef, offset, length int64) (io.ReadCloser, error) {
	if offset < 0 {
		return nil, jobs.Errorf(jobs.CodeInvalid, "read %s: offset %d is negative", ref.Name, offset)
	}
	if err := jobs.CheckName(ref.Name); err != nil {
		return nil, fmt.Errorf("read %s: %w", ref.Name, err)
	}
	return f.open(ctx, ref, offset, length)
}

func (f *Files) open(ctx context.Context, ref jobs.FileRef, offset, length int64) (io.ReadCloser, error) {
	if length == 0 { // no range header says that
		if _, _, err := f.head(ctx, ref); err != nil {
			return nil, err
		}
		return http.NoBody, nil
	}
	r := &reader{files: f, ctx: ctx, ref: ref, next: offset, mark: offset, end: math.MaxInt64}
	if length > 0 && length < math.MaxInt64-offset {
		r.end = offset + length
	}
	err := r.open()
	if status, _ := answer(err); status == http.StatusRequestedRangeNotSatisfiable {
		return http.NoBody, nil // it begins past the end
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// A reader gives up after maxBreaks answers that break off one after the other, each before it brought goodRun bytes. A
// reader that is slow, because what it feeds is, may be cut off any number of times.
const (
	maxBreaks = 5
	goodRun   = 1 << 20
)

// reader reads a range, from as many answers as it takes.
type reader struct {
	files     *Files
	ctx       context.Context // of Read
	ref       jobs.FileRef    // with the version of the first answer
	next, end int64           // what is still to come
	body      io.ReadCloser   // nil after one broke off
	mark      int64           // where body began
	breaks    int             // in a row
	err       error
}

// open asks for what is still to come.
func (r *reader) open() error {
	in := &s3.GetObjectInput{Bucket: &r.files.bucket, Key: &r.ref.Name, IfMatch: ifMatch(r.ref.Version)}
	switch {
	case r.end < math.MaxInt64:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-%d", r.next, r.end-1))
	case r.next > 0:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-", r.next))
	}
	// A range has no checksum; the log need not say so each time.
	out, err := r.files.client.GetObject(r.ctx, in, func(o *s3.Options) { o.DisableLogOutputChecksumValidationSkipped = true })
	if err != nil {
		return r.files.explain(reading, r.ref, err)
	}
	from, end, err := extent(out)
	got := version(out.ETag)
	switch {
	case err != nil:
	case from != r.next:
		err = fmt.Errorf("the answer begins at byte %d, not %d", from, r.next)
	case r.ref.Version != "" && got != r.ref.Version:
		err = fmt.Errorf("%w: the answer is of ETag %s", jobs.ErrChanged, got)
	}
	if err != nil {
		return errors.Join(r.files.explain(reading, r.ref, err), out.Body.Close())
	}
	r.ref.Version, r.end = got, min(r.end, end)
	r.body, r.mark = out.Body, r.next
	return nil
}

// extent is the range that an answer holds.
func extent(out *s3.GetObjectOutput) (from, end int64, err error) {
	if out.ContentRange == nil {
		if out.ContentLength == nil {
			return 0, 0, errors.New("the answer does not say how long it is")
		}
		return 0, *out.ContentLength, nil
	}
	var last int64
	if _, err := fmt.Sscanf(*out.ContentRange, "bytes %d-%d/", &from, &last); err != nil {
		return 0, 0, fmt.Errorf("the answer has the range %q: %w", *out.ContentRange, err)
	}
	return from, last + 1, nil
}

func (r *reader) Read(p []byte) (int, error) {
	if r.err == nil && r.body == nil {
		r.err = r.open()
	}
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.body.Read(p)
	r.next += int64(n)
	switch {
	case err == nil:
	case r.next < r.end:
		r.err = r.breakOff(err)
	case errors.Is(err, io.EOF):
		r.err = io.EOF
	default: // all of it came, but it is not what was stored
		r.err = r.files.explain(reading, r.ref, err)
	}
	return n, r.err
}

// breakOff makes the next Read open a new answer, or says why it does not.
func (r *reader) breakOff(cause error) error {
	_ = r.body.Close() // it is broken
	r.body = nil
	if err := r.ctx.Err(); err != nil {
		return r.files.explain(reading, r.ref, err)
	}
	if r.next-r.mark >= goodRun {
		r.breaks = 0
	}
	r.breaks++
	if r.breaks > maxBreaks {
		return r.files.explain(reading, r.ref, fmt.Errorf("the answer broke off %d times, now at byte %d: %w", r.breaks, r.next, unexpected(cause)))
	}
	return nil
}

// unexpected keeps a caller from taking a broken answer for the end.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (r *reader) Close() error {
	r.err = errEnded
	if r.body == nil {
		return nil
	}
	return r.body.Close()
}

// errEnded refuses the use of what was closed, committed or aborted.
var errEnded = errors.New("it has ended")

// List yields the objects whose names begin with prefix, by name, bytewise. It has one page in memory. What is made or
// deleted meanwhile may or may not be seen. Keys that are no names, such as a console's "folders", are left out.
func (f *Files) List(ctx context.Context, prefix string) iter.Seq2[jobs.FileInfo, error] {
	return func(yield func(jobs.FileInfo, error) bool) {
		folder := prefix[:strings.LastIndexByte(prefix, '/')+1]
		if folder != "" && jobs.CheckName(strings.TrimSuffix(folder, "/")) != nil {
			return // no object has such a name
		}
		pages := s3.NewListObjectsV2Paginator(f.client, &s3.ListObjectsV2Input{
			Bucket: &f.bucket, Prefix: &prefix,
			EncodingType: types.EncodingTypeUrl, // XML cannot say every key
		})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				yield(jobs.FileInfo{}, f.explain(listing, jobs.FileRef{Name: prefix}, err))
				return
			}
			for _, o := range page.Contents {
				name, err := url.QueryUnescape(aws.ToString(o.Key))
				if err == nil && jobs.CheckName(name) != nil {
					continue
				}
				if !yield(listed(name, o), err) || err != nil {
					return
				}
			}
		}
	}
}

func listed(name string, o types.Object) jobs.FileInfo {
	return jobs.FileInfo{
		FileRef: jobs.FileRef{Name: name, Version: version(o.ETag)},
		Bytes:   aws.ToInt64(o.Size), At: aws.ToTime(o.LastModified).UTC(),
	}
}

// maxDelete is how many objects one request deletes.
const maxDelete = 1000

// Delete removes objects. Absent names are fine. If some could not be removed, the error names them, or the first few of
// many; the others are gone.
func (f *Files) Delete(ctx context.Context, names ...string) error {
	for _, name := range names {
		if err := jobs.CheckName(name); err != nil {
			return fmt.Errorf("delete %s: %w", name, err)
		}
	}
	var failed []error
	for batch := range slices.Chunk(names, maxDelete) {
		errs, err := f.deleteBatch(ctx, batch)
		if failed = append(failed, errs...); err != nil {
			failed = append(failed, err)
			break
		}
	}
	const told = 5
	if more := len(failed) - told; more > 0 {
		failed = append(failed[:told], fmt.Errorf("and %d more", more))
	}
	return errors.Join(failed...)
}

// deleteBatch returns what went wrong with single objects, and what went wrong with all.
func (f *Files) deleteBatch(ctx context.Context, names []string) ([]error, error) {
	keys := make([]types.ObjectIdentifier, len(names))
	for i := range names {
		keys[i].Key = &names[i]
	}
	out, err := f.client.DeleteObjects(ctx, &s3.DeleteObjectsInput{
		Bucket: &f.bucket, Delete: &types.Delete{Objects: keys, Quiet: aws.Bool(true)},
	})
	if err != nil {
		return nil, f.explain(deleting, jobs.FileRef{Name: fmt.Sprintf("%s (and %d others)", names[0], len(names)-1)}, err)
	}
	var failed []error
	for _, e := range out.Errors {
		if code := aws.ToString(e.Code); code != "NoSuchKey" {
			err := &smithy.GenericAPIError{Code: code, Message: aws.ToString(e.Message)}
			failed = append(failed, f.explain(deleting, jobs.FileRef{Name: aws.ToString(e.Key)}, err))
		}
	}
	return failed, nil
}

// version is an ETag as a FileRef has it.
func version(etag *string) string { return strings.Trim(aws.ToString(etag), `"`) }

// ifMatch is a version as a condition has it.
func ifMatch(version string) *string {
	if version == "" {
		return nil
	}
	return aws.String(`"` + version + `"`)
}

// action is what was tried, and the permission that it takes.
type action struct{ verb, needs string }

var (
	looking  = action{"look at", "s3:GetObject"}
	reading  = action{"read", "s3:GetObject"}
	writing  = action{"write", "s3:PutObject"}
	copying  = action{"copy", "s3:GetObject for it or s3:PutObject for the copy"}
	listing  = action{"list", "s3:ListBucket"}
	deleting = action{"delete", "s3:DeleteObject"}
	aborting = action{"abort the upload of", "s3:AbortMultipartUpload"}
)

// explain says of an error what was tried, with the port's words for what S3 answered.
func (f *Files) explain(a action, ref jobs.FileRef, err error) error {
	what := fmt.Sprintf("%s %s/%s", a.verb, f.bucket, ref.Name)
	if ref.Version != "" {
		what += " of ETag " + ref.Version
	}
	status, code := answer(err)
	switch {
	case code == "NoSuchBucket":
		return jobs.Errorf(jobs.CodeInvalid, "%s: there is no such bucket: %w", what, err)
	case code == "NoSuchUpload":
	case status == http.StatusNotFound:
		return fmt.Errorf("%s: %w: %w", what, jobs.ErrNotFound, err)
	case status == http.StatusPreconditionFailed:
		return fmt.Errorf("%s: %w: %w", what, jobs.ErrChanged, err)
	case code == "AccessDenied", code == "Forbidden": // a HEAD has no body to say more
		return jobs.Errorf(jobs.CodeDenied, "%s: %s is not allowed: %w", what, a.needs, err).
			WithHint("allow %s on bucket %s; without s3:ListBucket, S3 calls absent objects forbidden too", a.needs, f.bucket)
	case status == http.StatusForbidden:
		return jobs.Errorf(jobs.CodeDenied, "%s: %w", what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// answer is the HTTP status and the code of an error of S3; 0 and "" if there was no answer.
func answer(err error) (status int, code string) {
	var response *smithyhttp.ResponseError
	if errors.As(err, &response) {
		status = response.HTTPStatusCode()
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		code = api.ErrorCode()
	}
	return status, code
}
