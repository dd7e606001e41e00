package upstream

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync"
)

// maxCopied is the largest request body that is copied. A copy goes out with its headers in one write, which any other
// reader of ours would not (net/http flushes the headers first); a larger one costs more to copy than that write.
const maxCopied = 32 << 10

// setBody gives req a body that can be read again, and returns what takes it back. net/http may go on sending after the
// answer is there, in its own goroutine, but b is the caller's again when the call returns.
//
// It is read again only if nothing of the request was written before its connection turned out to be closed.
func setBody(req *http.Request, b []byte) (takeBack func()) {
	req.ContentLength = int64(len(b))
	if len(b) <= maxCopied {
		b = bytes.Clone(b)
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
		req.Body, _ = req.GetBody()
		return func() {}
	}
	l := &loan{b: b}
	req.GetBody = func() (io.ReadCloser, error) { return &loanReader{loan: l}, nil }
	req.Body, _ = req.GetBody()
	return l.end
}

// loan is a body that stays the caller's: once the loan has ended, it can no longer be read.
type loan struct {
	mu    sync.Mutex
	b     []byte
	ended bool
}

var errLoanEnded = errors.New("the call that this body belongs to has returned")

func (l *loan) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b, l.ended = nil, true
}

type loanReader struct {
	*loan
	at int
}

func (r *loanReader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.ended:
		return 0, errLoanEnded
	case r.at == len(r.b):
		return 0, io.EOF
	}
	n := copy(p, r.b[r.at:])
	r.at += n
	return n, nil
}

// Close does nothing: GetBody may be asked for the body again.
func (r *loanReader) Close() error { return nil }
