package jobs

import (
	"errors"
	"fmt"
)

// Sentinel errors of the ports. A driver wraps them; callers test with errors.Is.
var (
	ErrNotFound = errors.New("not found")
	ErrConflict = errors.New("somebody saved it since it was read")
	ErrExists   = errors.New("already exists")
	ErrChanged  = errors.New("changed since it was first seen")
	ErrNewer    = errors.New("written by a newer version of fanout")
)

// Code sorts errors by what the reader can do about them. Each edge (HTTP status, exit code, retry) is one table over it.
type Code string

// The codes. An error without one is internal.
const (
	CodeInvalid  Code = "invalid"   // what was given cannot work; say what and where
	CodeNotFound Code = "not_found" // unknown here, or somebody else's
	CodeConflict Code = "conflict"  // somebody was faster, or the state does not allow it
	CodeLimit    Code = "limit"     // too big, too many, too fast
	CodeUpstream Code = "upstream"  // the upstream would not or could not
	CodeDenied   Code = "denied"    // no or wrong credential
	CodeInternal Code = "internal"  // ours; the log has the chain
)

// Error is an error for the next person: what happened, what kind it is, and what to try.
type Error struct {
	Code Code
	Hint string // what to try, a sentence without "try"; may be empty
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap gives the chain to errors.Is and errors.As.
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error of a code; the format is fmt.Errorf's.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Err: fmt.Errorf(format, args...)}
}

// WithHint says what to try.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// CodeOf returns the code of an error; sentinels of the ports have theirs, anything unknown is internal.
func CodeOf(err error) Code {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.Code
	case errors.Is(err, ErrNotFound):
		return CodeNotFound
	case errors.Is(err, ErrConflict), errors.Is(err, ErrExists):
		return CodeConflict
	case errors.Is(err, ErrChanged):
		return CodeInvalid
	default:
		return CodeInternal
	}
}
