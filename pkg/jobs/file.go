package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"
)

// KindFile entries are files: owner = tenant, id = file id.
const KindFile Kind = "file"

// FileKept is how long a file is there, unless its owner wants it shorter. Objects are kept for twice as long, so what is
// read until the last day of a job's longest window is still there.
const FileKept = 30 * 24 * time.Hour

// Purposes of the files that this package makes. They are the wire's.
const (
	PurposeBatch       = "batch"
	PurposeBatchOutput = "batch_output"
)

// File is an input or an output as its owner knows it. Its bytes are the object FileObject(Tenant, ID), written once.
type File struct {
	V        int
	ID       string // "file-…"
	Tenant   string
	Revision int64 `json:"-"`

	Name    string // as its owner calls it; never part of an object's name
	Purpose string
	Bytes   int64
	Created time.Time
	Expires time.Time // gone after this

	Awaited bool      `json:",omitempty"` // its bytes are still to come, straight to the object
	Token   string    `json:",omitempty"` // of Awaited: SHA-256, hex, of what lets somebody bring them here
	Used    bool      `json:",omitempty"` // a job reads it: its object stays when the file is deleted
	Deleted time.Time `json:",omitzero"`
	Job     JobID     `json:",omitempty"` // of an output
}

// FileObject is the name of a file's object.
func FileObject(tenant, id string) string { return "files/" + tenant + "/" + id }

// InputFile is the id of a job's input as a file. An upload that was lost before it became one never will be there.
func (j *Job) InputFile() string {
	if strings.HasPrefix(j.Input.Name, inboxFolder) {
		return path.Base(inputName(j, "upload"))
	}
	return path.Base(j.Input.Name)
}

// FileID is the id of an object that is a file.
func (f FileRef) FileID() string { return path.Base(f.Name) }

// Gone tells whether its owner has it no more.
func (f *File) Gone(now time.Time) bool { return !f.Deleted.IsZero() || !now.Before(f.Expires) }

// ReadFile reads a file of a tenant. ErrNotFound if it never was, or is gone.
func ReadFile(ctx context.Context, p Ports, tenant, id string) (File, error) {
	e, err := p.Registry.Entry(ctx, KindFile, tenant, id)
	var f File
	if err == nil {
		f, err = DecodeFile(e)
	}
	if err == nil && f.Gone(p.Now()) {
		err = ErrNotFound
	}
	if err != nil {
		return File{}, fmt.Errorf("read file %.80q: %w", id, err)
	}
	return f, nil
}

// DecodeFile reads the file of an entry.
func DecodeFile(e Entry) (File, error) {
	var f File
	if err := json.Unmarshal(e.Body, &f); err != nil {
		return f, fmt.Errorf("decode file %s: %w", e.ID, err)
	}
	if f.V > SchemaVersion {
		return f, fmt.Errorf("decode file %s of version %d: %w", e.ID, f.V, ErrNewer)
	}
	f.Revision = e.Revision
	return f, nil
}

// SaveFile stores a file if nobody saved it since it was read, else it is ErrConflict, as with records.
func SaveFile(ctx context.Context, r Registry, f *File) error {
	f.V = SchemaVersion
	body, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("encode file %s: %w", f.ID, err)
	}
	e := Entry{Kind: KindFile, Owner: f.Tenant, ID: f.ID, Revision: f.Revision, Body: body, Created: f.Created, Expires: f.Expires}
	if err := r.SaveEntry(ctx, &e); err != nil {
		return fmt.Errorf("save file %s: %w", f.ID, err)
	}
	f.Revision = e.Revision
	return nil
}

// ChangeFile reads a file, changes it and saves it, again while others are faster. change tells whether there is anything
// to save.
func ChangeFile(ctx context.Context, p Ports, tenant, id string, change func(f *File) (bool, error)) (File, error) {
	var f File
	err := untilSaved(func() (err error) {
		if f, err = ReadFile(ctx, p, tenant, id); err != nil {
			return err
		}
		if save, err := change(&f); err != nil || !save {
			return err
		}
		return SaveFile(ctx, p.Registry, &f)
	})
	return f, err
}

// noteFile makes a file of an object that a step has made. That it is there already means that an earlier try did it.
func (p *Ports) noteFile(ctx context.Context, j *Job, info FileInfo, f File) error {
	f.ID, f.Tenant, f.Bytes = info.FileID(), j.Tenant, info.Bytes
	if f.Created.IsZero() {
		f.Created = p.Now()
	}
	if f.Expires.IsZero() {
		f.Expires = f.Created.Add(FileKept)
	}
	if err := SaveFile(ctx, p.Registry, &f); err != nil && !errors.Is(err, ErrConflict) {
		return err
	}
	return nil
}
