package jobs

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

// hiccup fails its n-th read, and goes on after that.
type hiccup struct {
	r  io.Reader
	at int
}

var errHiccup = errors.New("hiccup")

func (h *hiccup) Read(p []byte) (int, error) {
	if h.at--; h.at == 0 {
		return 0, errHiccup
	}
	return h.r.Read(p)
}

// A reader whose first error passes made gzip come out as if it were plain.
func TestExpandNeverTakesGzipForPlain(t *testing.T) {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := io.WriteString(w, "plain"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	limits := ExpandLimits{Bytes: 1000, Ratio: 1000}
	failed := 0
	for at := range packed.Len() {
		var out bytes.Buffer
		r := &hiccup{iotest.OneByteReader(bytes.NewReader(packed.Bytes())), at}
		n, err := Expand(t.Context(), &out, r, "in", limits)
		said, copying := errors.AsType[*CopyError](err)
		switch {
		case err == nil && n == 5 && out.String() == "plain":
		case copying && !said.Writing && errors.Is(err, errHiccup):
			failed++
		default:
			t.Errorf("read %d fails: %d bytes, %q, %v", at, n, out.String(), err)
		}
	}
	if failed < packed.Len()-2 {
		t.Errorf("%d of %d failures were told", failed, packed.Len()-1)
	}
}
