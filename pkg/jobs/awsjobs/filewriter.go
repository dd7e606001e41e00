package awsjobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

const (
	writePart = 8 << 20          // the first parts of an object that is written
	writerKey = "fanout-writer"  // metadata: who made the object
	dropTime  = 10 * time.Second // for dropping what was half made, also if the caller has no time left
)

// Checksums of objects that are made of parts. Both are of the whole object, not of its parts' checksums, so that the
// client can hold what it reads against them. Servers are known that take the checksum of a source for that of a range of
// it if the upload asks for the same kind: so objects that are made of others ask for the other kind.
const (
	writtenSum = types.ChecksumAlgorithmCrc32     // what the client puts on single requests unless told otherwise
	joinedSum  = types.ChecksumAlgorithmCrc64nvme // what S3 takes unless told otherwise
)

// partBytes is how long the next part of an object is, after so many bytes. Parts grow so that 10,000 hold 5 TiB. A writer
// has two of them in memory: 16 MiB up to 10 GiB, and 1.6 ‰ of what was written beyond. Whole MiB, so that few need a new
// buffer.
func partBytes(sent int64) int { return int(min(max(writePart, (sent/1280+1<<20-1)>>20<<20), maxPart)) }

// fileWriter makes one object: one request for a small one, else parts, of which one is on its way while the next is
// filled. It is for one goroutine.
type fileWriter struct {
	files  *Files
	ctx    context.Context // of Create: parts are sent under it
	cancel context.CancelFunc
	name   string
	writer string // says in the object's metadata that it is ours

	buf, spare []byte
	upload     *upload // nil while the object is small
	sending    chan sent
	parts      []types.CompletedPart
	bytes      int64 // handed to the upload
	err        error // why it has ended
}

// sent is a part that was sent, with its buffer.
type sent struct {
	part types.CompletedPart
	buf  []byte
	err  error
}

// Create begins an object that nobody sees before Commit. Large ones are sent on the way, until ctx ends.
func (f *Files) Create(ctx context.Context, name string) (jobs.FileWriter, error) {
	if err := errors.Join(jobs.CheckName(name), ctx.Err()); err != nil {
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	return &fileWriter{files: f, ctx: ctx, name: name, writer: f.newID()}, nil
}

func (w *fileWriter) Write(p []byte) (int, error) {
	written := 0
	for w.err == nil && len(p) > 0 {
		limit := partBytes(w.bytes)
		if len(w.buf) >= limit {
			if err := w.flush(); err != nil {
				w.err = errors.Join(err, w.drop())
			}
			continue
		}
		n := min(len(p), limit-len(w.buf))
		if need := len(w.buf) + n; need > cap(w.buf) {
			size := limit
			if w.upload == nil { // it may stay small
				size = min(limit, max(need, 2*cap(w.buf)))
			}
			w.buf = append(make([]byte, 0, size), w.buf...)
		}
		w.buf = append(w.buf, p[:n]...)
		p = p[n:]
		written += n
	}
	if len(p) > 0 {
		return written, fmt.Errorf("write %s: %w", w.name, w.err)
	}
	return written, nil
}

// flush sends the buffer as the next part, after the one before it has arrived.
func (w *fileWriter) flush() error {
	if err := w.join(); err != nil {
		return err
	}
	if w.upload == nil {
		u, err := w.files.begin(w.ctx, w.name, w.writer, writtenSum)
		if err != nil {
			return err
		}
		w.upload = u
		w.ctx, w.cancel = context.WithCancel(w.ctx)
	}
	n, buf, arrived := len(w.parts)+1, w.buf, make(chan sent, 1)
	w.buf, w.spare, w.sending = w.spare, nil, arrived
	w.bytes += int64(len(buf))
	go func() { // ends with the request; join waits for it, drop cancels it
		part, err := w.upload.send(w.ctx, n, buf)
		arrived <- sent{part, buf[:0], err}
	}()
	return nil
}

// join waits for the part that is on its way.
func (w *fileWriter) join() error {
	if w.sending == nil {
		return nil
	}
	s := <-w.sending
	w.sending, w.spare = nil, s.buf
	if s.err == nil {
		w.parts = append(w.parts, s.part)
	}
	return s.err
}

// Commit makes the object visible. Whatever it returns, the writer has ended. An object that is there already counts as
// this one if this writer made it: the answer to a request may have been lost.
func (w *fileWriter) Commit(ctx context.Context) (jobs.FileInfo, error) {
	if w.err != nil {
		return jobs.FileInfo{}, fmt.Errorf("commit %s: %w", w.name, w.err)
	}
	info, err := w.commit(ctx)
	w.err = errEnded
	if err != nil {
		return jobs.FileInfo{}, fmt.Errorf("commit %s: %w", w.name, errors.Join(err, w.drop()))
	}
	w.release()
	return info, nil
}

func (w *fileWriter) commit(ctx context.Context) (jobs.FileInfo, error) {
	if err := ctx.Err(); err != nil {
		return jobs.FileInfo{}, err
	}
	if w.upload == nil {
		return w.files.put(ctx, w.name, w.writer, w.buf)
	}
	defer context.AfterFunc(ctx, w.cancel)()
	err := w.flush()
	if err == nil {
		err = w.join()
	}
	if err != nil {
		return jobs.FileInfo{}, errors.Join(ctx.Err(), err)
	}
	return w.upload.complete(ctx, w.parts, w.bytes)
}

// Abort drops the object, also when the context of Create has ended. After Commit it does nothing.
func (w *fileWriter) Abort() error {
	if w.err != nil {
		return nil //nolint:nilerr // what ended it was told, and is dropped
	}
	w.err = errEnded
	return w.drop()
}

// drop removes what was sent. No part is on its way when it returns.
func (w *fileWriter) drop() error {
	defer w.release()
	if w.upload == nil {
		return nil
	}
	w.cancel()
	_ = w.join() // it was cancelled
	return w.upload.abort(w.ctx)
}

func (w *fileWriter) release() {
	if w.cancel != nil {
		w.cancel()
	}
	w.buf, w.spare = nil, nil
}

// put writes a small object.
func (f *Files) put(ctx context.Context, name, writer string, body []byte) (jobs.FileInfo, error) {
	out, err := f.client.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &f.bucket, Key: &name, Body: bytes.NewReader(body), IfNoneMatch: aws.String("*"), Metadata: mark(writer),
	}, retryConflicts)
	if err != nil {
		return f.settle(ctx, name, writer, err)
	}
	return made(name, out.ETag, int64(len(body)), out.ResultMetadata), nil
}

// mark is the metadata that tells a writer's object from another's of the same name.
func mark(writer string) map[string]string { return map[string]string{writerKey: writer} }

// made describes an object that was just made: it is as old as the answer.
func made(name string, etag *string, size int64, answer middleware.Metadata) jobs.FileInfo {
	at, _ := awsmiddleware.GetServerTime(answer)
	return jobs.FileInfo{FileRef: jobs.FileRef{Name: name, Version: version(etag)}, Bytes: size, At: at.UTC()}
}

// retryConflicts is for writes that take a name if it is free: S3 refuses some of those that race, instead of choosing.
func retryConflicts(o *s3.Options) {
	o.Retryer = retry.AddWithErrorCodes(o.Retryer, "ConditionalRequestConflict", "OperationAborted")
}

// settle says what became of a write that takes a name if it is free, and that went wrong. The client may have sent it
// more than once, and an earlier one may have arrived: then the object has our mark.
func (f *Files) settle(ctx context.Context, name, writer string, cause error) (jobs.FileInfo, error) {
	status, code := answer(cause)
	taken := status == http.StatusPreconditionFailed
	open := status < 400 || status >= 500 || status == http.StatusConflict || code == "NoSuchUpload"
	if ctx.Err() != nil || !taken && !open {
		return jobs.FileInfo{}, f.explain(writing, jobs.FileRef{Name: name}, cause)
	}
	info, by, err := f.head(ctx, jobs.FileRef{Name: name})
	switch {
	case err == nil && by == writer:
		return info, nil
	case err == nil, taken && errors.Is(err, jobs.ErrNotFound): // in the second case it was deleted since
		return jobs.FileInfo{}, fmt.Errorf("write %s/%s: %w: %w", f.bucket, name, jobs.ErrExists, cause)
	case taken:
		return jobs.FileInfo{}, fmt.Errorf("find out who took the name: %w", err)
	case errors.Is(err, jobs.ErrNotFound):
		err = nil
	}
	return jobs.FileInfo{}, errors.Join(f.explain(writing, jobs.FileRef{Name: name}, cause), err)
}

// upload is an object that is made of parts. Nobody sees it before it is complete.
type upload struct {
	files        *Files
	name, writer string
	sum          types.ChecksumAlgorithm
	id           *string
}

func (f *Files) begin(ctx context.Context, name, writer string, sum types.ChecksumAlgorithm) (*upload, error) {
	out, err := f.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
		Bucket: &f.bucket, Key: &name, Metadata: mark(writer),
		ChecksumAlgorithm: sum, ChecksumType: types.ChecksumTypeFullObject,
	})
	if err != nil {
		return nil, f.explain(writing, jobs.FileRef{Name: name}, err)
	}
	return &upload{files: f, name: name, writer: writer, sum: sum, id: out.UploadId}, nil
}

// send makes part n, from 1, of bytes.
func (u *upload) send(ctx context.Context, n int, body []byte) (types.CompletedPart, error) {
	number := aws.Int32(int32(n))
	out, err := u.files.client.UploadPart(ctx, &s3.UploadPartInput{
		Bucket: &u.files.bucket, Key: &u.name, UploadId: u.id, PartNumber: number,
		Body: bytes.NewReader(body), ChecksumAlgorithm: u.sum,
	})
	if err != nil {
		return types.CompletedPart{}, fmt.Errorf("send part %d: %w", n, u.files.explain(writing, jobs.FileRef{Name: u.name}, err))
	}
	return types.CompletedPart{PartNumber: number, ETag: out.ETag, ChecksumCRC32: out.ChecksumCRC32, ChecksumCRC64NVME: out.ChecksumCRC64NVME}, nil
}

// copy makes part n, from 1, of a range of an object.
func (u *upload) copy(ctx context.Context, n int, from jobs.FileInfo, s span) (types.CompletedPart, error) {
	in := &s3.UploadPartCopyInput{
		Bucket: &u.files.bucket, Key: &u.name, UploadId: u.id, PartNumber: aws.Int32(int32(n)),
		CopySource: u.files.source(from.Name), CopySourceIfMatch: ifMatch(from.Version),
	}
	if s.bytes < from.Bytes {
		in.CopySourceRange = aws.String(fmt.Sprintf("bytes=%d-%d", s.from, s.from+s.bytes-1))
	}
	out, err := u.files.client.UploadPartCopy(ctx, in)
	if err != nil {
		return types.CompletedPart{}, fmt.Errorf("make part %d of %s: %w", n, u.name, u.files.explain(copying, from.FileRef, err))
	}
	return types.CompletedPart{PartNumber: in.PartNumber, ETag: out.CopyPartResult.ETag, ChecksumCRC64NVME: out.CopyPartResult.ChecksumCRC64NVME}, nil
}

func (u *upload) complete(ctx context.Context, parts []types.CompletedPart, size int64) (jobs.FileInfo, error) {
	out, err := u.files.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: &u.files.bucket, Key: &u.name, UploadId: u.id, IfNoneMatch: aws.String("*"),
		MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
	}, retryConflicts)
	if err != nil {
		return u.files.settle(ctx, u.name, u.writer, err)
	}
	return made(u.name, out.ETag, size, out.ResultMetadata), nil
}

// abort drops the parts, also when ctx has ended. That it is complete, or gone, is fine.
func (u *upload) abort(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dropTime)
	defer cancel()
	_, err := u.files.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &u.files.bucket, Key: &u.name, UploadId: u.id})
	if _, code := answer(err); err == nil || code == "NoSuchUpload" {
		return nil
	}
	return u.files.explain(aborting, jobs.FileRef{Name: u.name}, err)
}
