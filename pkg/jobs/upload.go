package jobs

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"
)

// An object that comes into the inbox, inbox/<tenant>/….jsonl or .jsonl.gz, becomes a job. The names of the job and of its
// input follow from the upload. So whoever is told of it again, at once or after a crash anywhere, finds what an earlier
// try has made, and the same file uploaded anew is a new job.
//
// Strangers may write to the inbox at any time. So the upload is copied first, whole and of the version that was told, and
// all else is read from the copy. The job is opened last; an upload that cannot become one that runs becomes one that has
// failed, so that its owner finds out why.

// UploadOptions are the knobs of uploads. Zero values are the defaults named.
type UploadOptions struct {
	OnInvalid OnInvalid     // what a bad line does; InvalidSkips
	Window    time.Duration // from the opening of the job to its deadline; 24 h
	Expand    ExpandLimits  // of gzip; 50 GB, and 200-fold
}

// DefaultEndpoint is the endpoint of a job none of whose lines is valid: each will say why.
const DefaultEndpoint = "/v1/chat/completions"

const inboxFolder = "inbox/"

// What stops the job of an upload before it runs; besides, ViolationEmpty.
const (
	stopInputGone     = "input_gone"     // deleted before it was copied
	stopInputModified = "input_modified" // overwritten before it was copied, or changed later
	stopInputUnusable = "input_unusable" // damaged, or over a limit
)

// MetadataInboxKey is the name under which the job of an upload has the name of the uploaded object in its metadata.
const MetadataInboxKey = "inbox_key"

// admitAgain is how long an upload waits whose tenant has too many open items.
const admitAgain = 5 * time.Minute

// hopeless is an upload that no job can run on, and why.
type hopeless struct{ code, reason string }

func (h *hopeless) Error() string { return h.reason }

func refuse(code, format string, args ...any) error {
	return &hopeless{code, fmt.Sprintf(format, args...)}
}

// upload opens the job of an upload, unless it is there.
func (in *Ingest) upload(ctx context.Context, d Message, m *UploadMessage, s share) error {
	tenant, err := inboxTenant(m.Upload.Name)
	switch {
	case errors.Is(err, errNoInput):
		in.Log.InfoContext(ctx, "ignored an upload: its name does not end in .jsonl or .jsonl.gz in a folder of the inbox", "object", m.Upload.Name)
		return nil
	case err != nil:
		return buryUnreadable(ctx, in.Ports, d, err)
	}
	id := UploadJob(m)
	switch j, err := in.Ledger.Job(ctx, id); {
	case err == nil:
		return sendIfNew(ctx, &in.Ports, &j)
	case !errors.Is(err, ErrNotFound):
		return fmt.Errorf("read job %s: %w", id, err)
	}
	if err := Admit(ctx, in.Ports, tenant); CodeOf(err) == CodeLimit && d.ID != "" {
		until := in.Now().Add(admitAgain)
		if err := in.Queue.Defer(context.WithoutCancel(ctx), until, d); err != nil {
			return fmt.Errorf("defer a message: %w", err)
		}
		return &Deferred{Until: until, Why: err.Error()}
	} else if err != nil {
		return err
	}
	j := Job{
		ID: id, Tenant: tenant, Input: m.Upload, InputBytes: m.Bytes, Cut: DefaultCut(m.Bytes), OnInvalid: in.opt.Upload.OnInvalid,
		Window: in.opt.Upload.Window, HashKey: hashKey(in.NewID()), Metadata: map[string]string{MetadataInboxKey: m.Upload.Name},
	}
	err = in.takeIn(ctx, &j, m, d, s)
	if no, refused := errors.AsType[*hopeless](err); refused {
		in.Log.WarnContext(ctx, "refused an upload", "job", id, "object", m.Upload.Name, "code", no.code, "reason", no.reason)
		return openFailed(ctx, &in.Ports, &j, Stop{Code: no.code, Reason: no.reason})
	}
	if err == nil {
		j, err = Submit(ctx, in.Ports, j)
	}
	if err != nil {
		return fmt.Errorf("take in %s: %w", m.object(), err)
	}
	in.Log.InfoContext(ctx, "took in an upload", "job", id, "object", m.Upload.Name, "bytes", j.InputBytes)
	return nil
}

// hashKey makes a key of a random id.
func hashKey(id string) [16]byte {
	sum := sha256.Sum256([]byte(id))
	return [16]byte(sum[:])
}

// object is the upload in sentences.
func (m *UploadMessage) object() string {
	if m.Bucket == "" {
		return fmt.Sprintf("%s (ETag %s)", m.Upload.Name, m.Upload.Version)
	}
	return fmt.Sprintf("%s/%s (ETag %s)", m.Bucket, m.Upload.Name, m.Upload.Version)
}

// UploadJob is the job that an upload becomes.
func UploadJob(m *UploadMessage) JobID {
	digest := sha256.New()
	for _, s := range []string{m.Bucket, m.Upload.Name, m.Upload.Version, m.Sequencer} {
		fmt.Fprintf(digest, "%d %s\n", len(s), s)
	}
	return JobID("batch_" + hex.EncodeToString(digest.Sum(nil)[:16]))
}

// errNoInput is an object of the inbox that is no input: a folder, a file on its way.
var errNoInput = errors.New("no input")

// inboxTenant is whose an object of the inbox is.
func inboxTenant(name string) (string, error) {
	rest, inside := strings.CutPrefix(name, inboxFolder)
	if !inside || !strings.HasSuffix(rest, ".jsonl") && !strings.HasSuffix(rest, ".jsonl.gz") {
		return "", errNoInput
	}
	tenant, _, whole := strings.Cut(rest, "/")
	switch {
	case !whole:
		return "", Errorf(CodeInvalid, "open the job of upload %q: it is in no tenant's folder; upload to inbox/<tenant>/", name)
	case !PlainTenant(tenant):
		return "", Errorf(CodeInvalid, "open the job of upload %q: %q is no tenant: it takes 1 to 64 letters, digits, - and _", name, tenant)
	default:
		return tenant, nil
	}
}

// PlainTenant tells whether a word can be a tenant: an element of a path, and a key, as it is.
func PlainTenant(s string) bool {
	other := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	}
	return s != "" && len(s) <= 64 && !strings.ContainsFunc(s, other)
}

// share is how much of the time of an invocation is left when it begins with a message.
type share struct {
	deadline time.Time // zero = no end
	whole    time.Duration
}

func newShare(ctx context.Context, now time.Time) share {
	deadline, bounded := ctx.Deadline()
	if !bounded {
		return share{}
	}
	return share{deadline, deadline.Sub(now)}
}

// most tells whether the greater part is left.
func (s share) most(now time.Time) bool { return s.deadline.Sub(now) > s.whole/2 }

// slowTries is how often an upload is tried that takes longer than an invocation has.
const slowTries = 3

// takeIn makes the upload the input of its job. Where the time ends before that is done, others try; if three could not,
// with most of the time for it alone, and it was no outage of hours, nobody can.
func (in *Ingest) takeIn(ctx context.Context, j *Job, m *UploadMessage, d Message, s share) error {
	if s.deadline.IsZero() {
		return in.makeInput(ctx, j, m)
	}
	fair := s.most(in.Now())
	bounded, cancel := context.WithDeadline(ctx, s.deadline.Add(-saveMargin))
	defer cancel()
	err := in.makeInput(bounded, j, m)
	if err == nil || bounded.Err() == nil || ctx.Err() != nil {
		return err
	}
	if _, refused := errors.AsType[*hopeless](err); refused || !fair || d.Receives < slowTries || in.Now().Sub(d.Sent) < MaxTryTime {
		return err
	}
	return refuse(stopInputUnusable, "%s could not be copied and expanded within the %s that ingest has, in %d tries; upload it without gzip, or in several files",
		m.object(), s.whole.Round(time.Second), d.Receives)
}

// makeInput copies the upload to where jobs read from, expands the copy if it is gzip, and finds the endpoint.
func (in *Ingest) makeInput(ctx context.Context, j *Job, m *UploadMessage) error {
	input, err := in.copyUpload(ctx, m, inputName(j, "upload"))
	if err != nil {
		return err
	}
	if input.Bytes > 0 {
		head, err := readObject(ctx, in.Files, input.FileRef, 0, GzipHead)
		if err != nil {
			return err
		}
		if IsGzip(head) {
			if input, err = in.expandUpload(ctx, m, input.FileRef, inputName(j, "expanded")); err != nil {
				return err
			}
		}
	}
	j.Input, j.InputBytes, j.Cut = input.FileRef, input.Bytes, DefaultCut(input.Bytes)
	name := path.Base(m.Upload.Name)
	if err := in.noteFile(ctx, j, input, File{Name: name, Purpose: PurposeBatch, Used: true}); err != nil {
		return err
	}
	r := &inputReader{ctx: ctx, files: in.Files, input: j.Input, end: j.InputBytes, span: 1 << 20}
	defer r.Close()
	endpoint, first, err := firstEndpoint(r, j.Cut.LineBytes)
	switch {
	case err != nil:
		return fmt.Errorf("find the endpoint: %w", err)
	case endpoint == "" && first == nil:
		return refuse(ViolationEmpty, "%s has no requests", m.object())
	}
	j.Endpoint = cmp.Or(endpoint, DefaultEndpoint)
	return nil
}

// inputName is the name of an object that is made of an upload. It follows from the job.
func inputName(j *Job, kind string) string {
	return FileObject(j.Tenant, "file-"+digestHex(string(j.ID)+"/"+kind, 0, 0)[:24])
}

// copyUpload copies the upload, unless that was done: a big one that took a whole try is not copied again in the next. Only
// if there is no copy does it matter what has become of the upload.
func (in *Ingest) copyUpload(ctx context.Context, m *UploadMessage, to string) (FileInfo, error) {
	info, err := in.Files.Stat(ctx, to)
	if !errors.Is(err, ErrNotFound) {
		return info, err
	}
	info, lost := in.Files.Copy(ctx, m.Upload, to)
	if lost == nil || !errors.Is(lost, ErrExists) && !errors.Is(lost, ErrChanged) && !errors.Is(lost, ErrNotFound) {
		return info, lost
	}
	if info, err = in.Files.Stat(ctx, to); !errors.Is(err, ErrNotFound) { // another was faster
		return info, err
	}
	switch {
	case errors.Is(lost, ErrChanged):
		return info, refuse(stopInputModified, "%s was overwritten before it was copied; what it was overwritten with has a job of its own", m.object())
	case errors.Is(lost, ErrNotFound):
		return info, refuse(stopInputGone, "%s was deleted before it was copied; upload it again", m.object())
	default:
		return info, lost
	}
}

// expandUpload expands the copy of an upload, unless that was done.
func (in *Ingest) expandUpload(ctx context.Context, m *UploadMessage, from FileRef, to string) (FileInfo, error) {
	info, err := in.Files.Stat(ctx, to)
	if !errors.Is(err, ErrNotFound) {
		return info, err
	}
	r, err := in.Files.Read(ctx, from, 0, -1)
	if err != nil {
		return info, fmt.Errorf("open its copy: %w", err)
	}
	defer r.Close()
	w, err := in.Files.Create(ctx, to)
	if err != nil {
		return info, fmt.Errorf("create %s: %w", to, err)
	}
	defer w.Abort()
	_, err = Expand(ctx, w, r, m.object(), in.opt.Upload.Expand)
	wrong, unusable := errors.AsType[*Error](err)
	_, broken := errors.AsType[*CopyError](err)
	switch {
	case unusable && !broken:
		return info, refuse(stopInputUnusable, "%s; %s", wrong, wrong.Hint)
	case err != nil:
		return info, fmt.Errorf("expand its copy: %w", err)
	}
	info, err = w.Commit(ctx)
	if errors.Is(err, ErrExists) {
		info, err = in.Files.Stat(ctx, to)
	}
	return info, err
}
