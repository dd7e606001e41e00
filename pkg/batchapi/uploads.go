package batchapi

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Uploads are files that come in parts. Each part is an object under uploads/<tenant>/<upload>/, until the upload is
// completed or cancelled.
const (
	kindUpload jobs.Kind = "upload" // owner = tenant, id = upload id
	kindPart   jobs.Kind = "part"   // owner = upload id, id = part id

	uploadLife   = time.Hour // as OpenAI has it
	maxParts     = 1000
	maxPartBytes = 64 << 20
)

// uploadRecord is what is kept of an upload.
type uploadRecord struct {
	V             int
	ID, Tenant    string
	Name, Purpose string
	Bytes         int64
	Life          time.Duration // of the file that it becomes
	Created       time.Time
	Ended         string   `json:",omitempty"` // completed or cancelled
	File          string   `json:",omitempty"` // that it became
	Parts         []string `json:",omitempty"` // of which it was made
	revision      int64
}

type partRecord struct {
	V       int
	Bytes   int64
	Created time.Time
}

func (u *uploadRecord) status(now time.Time) string {
	switch {
	case u.Ended != "":
		return u.Ended
	case !now.Before(u.Created.Add(uploadLife)):
		return "expired"
	default:
		return "pending"
	}
}

func (u *uploadRecord) wire(now time.Time) Upload {
	return Upload{ID: u.ID, Object: "upload", Bytes: u.Bytes, CreatedAt: u.Created.Unix(), ExpiresAt: u.Created.Add(uploadLife).Unix(),
		Filename: u.Name, Purpose: u.Purpose, Status: u.status(now)}
}

// object is where a part is.
func (u *uploadRecord) object(part string) string {
	return "uploads/" + u.Tenant + "/" + u.ID + "/" + part
}

func (h *Handler) saveUpload(ctx context.Context, u *uploadRecord) error {
	u.V = jobs.SchemaVersion
	body, err := json.Marshal(u)
	if err != nil {
		return fmt.Errorf("encode upload %s: %w", u.ID, err)
	}
	e := jobs.Entry{Kind: kindUpload, Owner: u.Tenant, ID: u.ID, Revision: u.revision, Body: body, Expires: u.Created.Add(jobs.FileKept)}
	if err := h.ports.Registry.SaveEntry(ctx, &e); err != nil {
		return fmt.Errorf("save upload %s: %w", u.ID, err)
	}
	u.revision = e.Revision
	return nil
}

// upload finds an upload of the caller's.
func (h *Handler) upload(ctx context.Context, c Caller, id string) (uploadRecord, error) {
	var u uploadRecord
	if !plainID(id, "upload_") {
		return u, notFound("Upload", id)
	}
	e, err := h.ports.Registry.Entry(ctx, kindUpload, c.Tenant, id)
	if err != nil {
		return u, absent(err, "Upload", id)
	}
	if err := json.Unmarshal(e.Body, &u); err != nil {
		return u, fmt.Errorf("decode upload %s: %w", id, err)
	}
	u.revision = e.Revision
	return u, nil
}

func (u *uploadRecord) pending(now time.Time) error {
	if status := u.status(now); status != "pending" {
		return refuse(http.StatusBadRequest, "upload_not_pending", "This upload is %s.", status)
	}
	return nil
}

func (h *Handler) createUpload(w http.ResponseWriter, r *http.Request, c Caller) error {
	f, err := readFields(r, "bytes", "filename", "mime_type", "purpose", "expires_after")
	if err != nil {
		return err
	}
	u := uploadRecord{ID: newID(&h.ports, "upload_"), Tenant: c.Tenant, Bytes: f.integer("bytes"), Created: h.ports.Now()}
	said := described{name: f.text("filename"), purpose: f.text("purpose"), life: f.expiresAfter("expires_after")}
	f.text("mime_type")
	if f.err != nil {
		return f.err
	}
	if err := said.check(); err != nil {
		return err
	}
	if u.Bytes < 1 || u.Bytes > h.opt.MaxFileBytes {
		return invalid("bytes", "Invalid 'bytes': %d is not between 1 and %d.", u.Bytes, h.opt.MaxFileBytes)
	}
	u.Name, u.Purpose, u.Life = said.name, said.purpose, said.life
	if err := h.saveUpload(r.Context(), &u); err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, u.wire(h.ports.Now()))
	return nil
}

func (h *Handler) addPart(w http.ResponseWriter, r *http.Request, c Caller) error {
	u, err := h.upload(r.Context(), c, r.PathValue("id"))
	if err == nil {
		err = u.pending(h.ports.Now())
	}
	if err != nil {
		return err
	}
	form, err := newForm(r)
	if err != nil {
		return err
	}
	id := newID(&h.ports, "part_")
	part := partRecord{V: jobs.SchemaVersion, Created: h.ports.Now()}
	err = form.each("data", func(p *multipart.Part) error {
		info, err := h.write(r.Context(), u.object(id), http.MaxBytesReader(w, io.NopCloser(p), maxPartBytes))
		part.Bytes = info.Bytes
		if err != nil && jobs.CodeOf(err) == jobs.CodeInternal {
			if _, theirs := errors.AsType[*http.MaxBytesError](err); !theirs {
				if _, ours := errors.AsType[*failure](err); !ours {
					return &storeError{err}
				}
			}
		}
		return err
	})
	if err == nil {
		err = form.only()
	}
	if err == nil && !form.names["data"] {
		err = &failure{status: http.StatusBadRequest, code: "missing_required_parameter", param: "data", message: "Missing required parameter: 'data'."}
	}
	if err != nil {
		return err
	}
	body, err := json.Marshal(part)
	if err != nil {
		return err
	}
	e := jobs.Entry{Kind: kindPart, Owner: u.ID, ID: id, Body: body, Expires: u.Created.Add(jobs.FileKept)}
	if err := h.ports.Registry.SaveEntry(r.Context(), &e); err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, UploadPart{ID: id, Object: "upload.part", CreatedAt: part.Created.Unix(), UploadID: u.ID})
	return nil
}

// completeUpload makes a file of the parts, in the order given. Completing twice, with the same parts, is completing once.
func (h *Handler) completeUpload(w http.ResponseWriter, r *http.Request, c Caller) error {
	u, err := h.upload(r.Context(), c, r.PathValue("id"))
	if err != nil {
		return err
	}
	f, err := readFields(r, "part_ids", "md5")
	if err != nil {
		return err
	}
	ids, sum := f.words("part_ids", nil), strings.ToLower(f.textOr("md5", ""))
	switch {
	case f.err != nil:
		return f.err
	case len(ids) == 0:
		return &failure{status: http.StatusBadRequest, code: "missing_required_parameter", param: "part_ids", message: "Missing required parameter: 'part_ids'."}
	case len(ids) > maxParts:
		return invalid("part_ids", "Invalid 'part_ids': %d parts; an upload has at most %d.", len(ids), maxParts)
	}
	if u.Ended != "completed" || strings.Join(u.Parts, " ") != strings.Join(ids, " ") {
		if err := u.pending(h.ports.Now()); err != nil {
			return err
		}
		if err := h.assemble(r.Context(), &u, ids, sum); err != nil {
			return err
		}
	}
	file, err := jobs.ReadFile(r.Context(), h.ports, u.Tenant, u.File)
	if err != nil {
		return absent(err, "File", u.File)
	}
	out, wire := u.wire(h.ports.Now()), wireFile(&file)
	out.File = &wire
	writeJSON(w, http.StatusOK, out)
	return nil
}

// assemble makes the file. Whoever dies on the way leaves an upload that can be completed again.
func (h *Handler) assemble(ctx context.Context, u *uploadRecord, ids []string, sum string) error {
	var parts []jobs.FileRef
	var bytes int64
	seen := map[string]bool{}
	for _, id := range ids {
		e, err := h.ports.Registry.Entry(ctx, kindPart, u.ID, id)
		if errors.Is(err, jobs.ErrNotFound) || !plainID(id, "part_") || seen[id] {
			return invalid("part_ids", "Invalid 'part_ids': '%.80s' is no part of this upload, or comes twice.", id)
		}
		var part partRecord
		if err == nil {
			err = json.Unmarshal(e.Body, &part)
		}
		if err != nil {
			return fmt.Errorf("read part %s: %w", id, err)
		}
		seen[id] = true
		bytes += part.Bytes
		if part.Bytes > 0 {
			parts = append(parts, jobs.FileRef{Name: u.object(id)})
		}
	}
	if bytes != u.Bytes {
		return invalid("part_ids", "The parts have %d bytes, but the upload was declared with %d.", bytes, u.Bytes)
	}
	now := h.ports.Now()
	file := jobs.File{ID: "file-" + hashKey(u.ID + " " + strings.Join(ids, " "))[:24], Tenant: u.Tenant, Name: u.Name, Purpose: u.Purpose, Bytes: bytes, Created: now, Expires: now.Add(u.Life)}
	if err := h.joinParts(ctx, u, jobs.FileObject(u.Tenant, file.ID), parts, sum); err != nil {
		return err
	}
	if err := jobs.SaveFile(ctx, h.ports.Registry, &file); err != nil && !errors.Is(err, jobs.ErrConflict) {
		return err
	}
	u.Ended, u.File, u.Parts = "completed", file.ID, ids
	if err := h.saveUpload(ctx, u); err != nil {
		return err
	}
	return h.dropParts(ctx, u)
}

// joinParts makes the object, unless an earlier try did: it may have taken the parts with it.
func (h *Handler) joinParts(ctx context.Context, u *uploadRecord, object string, parts []jobs.FileRef, sum string) error {
	_, err := h.ports.Files.Stat(ctx, object)
	if err == nil {
		return nil
	}
	if !errors.Is(err, jobs.ErrNotFound) {
		return fmt.Errorf("look for the file of upload %s: %w", u.ID, err)
	}
	if err := h.compareMD5(ctx, parts, sum); err != nil {
		return err
	}
	if _, err := h.ports.Files.Concat(ctx, object, parts); err != nil && !errors.Is(err, jobs.ErrExists) {
		return fmt.Errorf("join the parts of upload %s: %w", u.ID, err)
	}
	return nil
}

// compareMD5 reads the parts if the client said what they must come to.
func (h *Handler) compareMD5(ctx context.Context, parts []jobs.FileRef, sum string) error {
	if sum == "" {
		return nil
	}
	digest := md5.New() // what the API asks for; it guards against accidents only
	for _, p := range parts {
		body, err := h.ports.Files.Read(ctx, p, 0, -1)
		if err != nil {
			return fmt.Errorf("read a part: %w", err)
		}
		_, err = io.Copy(digest, body)
		if err = errors.Join(err, body.Close()); err != nil {
			return fmt.Errorf("read a part: %w", err)
		}
	}
	if got := hex.EncodeToString(digest.Sum(nil)); got != sum {
		return invalid("md5", "The parts have the MD5 %s, not '%.40s'.", got, sum)
	}
	return nil
}

// dropParts removes the parts of an upload that has ended.
func (h *Handler) dropParts(ctx context.Context, u *uploadRecord) error {
	for e, err := range h.ports.Registry.Entries(ctx, kindPart, u.ID) {
		if err == nil {
			err = h.ports.Files.Delete(ctx, u.object(e.ID))
		}
		if err == nil {
			err = h.ports.Registry.DropEntry(ctx, e)
		}
		if err != nil {
			return fmt.Errorf("remove the parts of upload %s: %w", u.ID, err)
		}
	}
	return nil
}

func (h *Handler) cancelUpload(w http.ResponseWriter, r *http.Request, c Caller) error {
	u, err := h.upload(r.Context(), c, r.PathValue("id"))
	if err != nil {
		return err
	}
	if u.Ended != "cancelled" {
		if err := u.pending(h.ports.Now()); err != nil {
			return err
		}
		u.Ended = "cancelled"
		if err := h.saveUpload(r.Context(), &u); err != nil {
			return err
		}
	}
	if err := h.dropParts(r.Context(), &u); err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, u.wire(h.ports.Now()))
	return nil
}
