package batchapi

import (
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strconv"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Limits of a form.
const (
	maxFormParts = 16
	maxFormValue = 4 << 10 // bytes of a field that is no file
)

// form reads a multipart form part by part, so that a file of any size goes through in constant memory. Its fields may come
// in any order.
type form struct {
	parts  *multipart.Reader
	values map[string]string
	names  map[string]bool
}

func newForm(r *http.Request) (*form, error) {
	parts, err := r.MultipartReader()
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "invalid_form", "We could not parse your request: multipart/form-data with a boundary is expected.")
	}
	return &form{parts: parts, values: map[string]string{}, names: map[string]bool{}}, nil
}

// each calls take with the part that has the name; the others are values. A form that breaks off, or repeats a field, is
// refused.
func (f *form) each(name string, take func(p *multipart.Part) error) error {
	for range maxFormParts {
		p, err := f.parts.NextPart()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return formError(err)
		}
		field := p.FormName()
		if f.names[field] {
			return invalid(field, "The field %.40q comes twice.", field)
		}
		f.names[field] = true
		if field == name {
			if err := take(p); err != nil {
				return formError(err)
			}
			continue
		}
		value, err := io.ReadAll(io.LimitReader(p, maxFormValue+1))
		switch {
		case err != nil:
			return formError(err)
		case len(value) > maxFormValue:
			return invalid(field, "The field %.40q has more than %d bytes.", field, maxFormValue)
		}
		f.values[field] = string(value)
	}
	return refuse(http.StatusBadRequest, "invalid_form", "The form has more than %d fields.", maxFormParts)
}

// formError tells a form that is none, or broke off, from what else may be wrong.
func formError(err error) error {
	var p textproto.ProtocolError
	switch {
	case errors.As(err, &p), errors.Is(err, multipart.ErrMessageTooLarge):
		return refuse(http.StatusBadRequest, "invalid_form", "We could not parse your request: a part of the form has a malformed header.")
	case jobs.CodeOf(err) != jobs.CodeInternal:
		return err
	}
	if _, ours := errors.AsType[*failure](err); ours {
		return err
	}
	if _, ours := errors.AsType[*storeError](err); ours {
		return err
	}
	return broken(err)
}

// storeError is what the store said while a form was read.
type storeError struct{ error }

func (e *storeError) Unwrap() error { return e.error }

// only refuses fields that are not known.
func (f *form) only(known ...string) error {
	for name := range f.values {
		ok := false
		for _, k := range known {
			ok = ok || k == name
		}
		if !ok {
			return &failure{status: http.StatusBadRequest, code: "unknown_parameter", param: fmt.Sprintf("%.80s", name), message: fmt.Sprintf("Unknown parameter: %.80q.", name)}
		}
	}
	return nil
}

// takeForm takes the form of POST /v1/files: the file becomes the object, unless something is wrong with the form.
func (h *Handler) takeForm(r *http.Request, object string) (said described, info jobs.FileInfo, err error) {
	f, err := newForm(r)
	if err != nil {
		return said, info, err
	}
	out, err := h.ports.Files.Create(r.Context(), object)
	if err != nil {
		return said, info, fmt.Errorf("create a file: %w", err)
	}
	defer out.Abort()
	err = f.each("file", func(p *multipart.Part) error {
		said.name = p.FileName()
		in := &source{r: p}
		if _, err := io.CopyBuffer(out, in, make([]byte, 256<<10)); err != nil && in.err == nil {
			return &storeError{fmt.Errorf("write a file: %w", err)}
		}
		return in.err
	})
	if err == nil {
		err = f.only("purpose", "expires_after[anchor]", "expires_after[seconds]")
	}
	if err != nil {
		return said, info, err
	}
	if !f.names["file"] {
		return said, info, &failure{status: http.StatusBadRequest, code: "missing_required_parameter", param: "file", message: "Missing required parameter: 'file'."}
	}
	said.purpose = f.values["purpose"]
	if said.life, err = f.expiresAfter(); err != nil {
		return said, info, err
	}
	if err := said.check(); err != nil {
		return said, info, err
	}
	if info, err = out.Commit(r.Context()); err != nil {
		return said, info, fmt.Errorf("commit a file: %w", err)
	}
	return said, info, nil
}

// expiresAfter reads {anchor, seconds}, which rides in forms with brackets.
func (f *form) expiresAfter() (time.Duration, error) {
	anchor, given := f.values["expires_after[anchor]"]
	text, counted := f.values["expires_after[seconds]"]
	if !given && !counted {
		return 0, nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, invalid("expires_after.seconds", "Invalid 'expires_after.seconds': %.20q is no whole number.", text)
	}
	return lifeOf("expires_after", anchor, seconds)
}
