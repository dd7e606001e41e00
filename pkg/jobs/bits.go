package jobs

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// Bits is a set of line ordinals within a chunk (at most 4,096). The zero value is the empty set. Methods that return
// Bits return a new set; only Set changes its receiver.
type Bits []byte

// AllBits is the set 0 … n-1.
func AllBits(n int) Bits {
	b := make(Bits, (n+7)/8)
	for i := range b {
		b[i] = 0xff
	}
	if n%8 != 0 {
		b[len(b)-1] = 1<<(n%8) - 1
	}
	return b
}

// BitsOf is the set of the given ordinals.
func BitsOf(ordinals ...int) Bits {
	var b Bits
	for _, i := range ordinals {
		b.Set(i)
	}
	return b
}

// Set turns ordinal i on.
func (b *Bits) Set(i int) {
	for len(*b) <= i/8 {
		*b = append(*b, 0)
	}
	(*b)[i/8] |= 1 << (i % 8)
}

// Has tells whether ordinal i is on.
func (b Bits) Has(i int) bool { return i/8 < len(b) && b[i/8]&(1<<(i%8)) != 0 }

// Count is how many are on.
func (b Bits) Count() int {
	n := 0
	for _, x := range b {
		n += bits.OnesCount8(x)
	}
	return n
}

// Empty tells whether none is on.
func (b Bits) Empty() bool { return len(b.trim()) == 0 }

// Or is the union.
func (b Bits) Or(o Bits) Bits {
	if len(o) > len(b) {
		b, o = o, b
	}
	r := bytes.Clone(b)
	for i, x := range o {
		r[i] |= x
	}
	return Bits(r).trim()
}

// Without is what is in b and not in o.
func (b Bits) Without(o Bits) Bits {
	r := bytes.Clone(b)
	for i := range min(len(b), len(o)) {
		r[i] &^= o[i]
	}
	return Bits(r).trim()
}

// And is the intersection.
func (b Bits) And(o Bits) Bits {
	r := make(Bits, min(len(b), len(o)))
	for i := range r {
		r[i] = b[i] & o[i]
	}
	return r.trim()
}

// Equal tells whether both hold the same ordinals.
func (b Bits) Equal(o Bits) bool { return bytes.Equal(b.trim(), o.trim()) }

// Ordinals yields those that are on, rising.
func (b Bits) Ordinals(yield func(int) bool) {
	for i, x := range b {
		for ; x != 0; x &= x - 1 {
			if !yield(i*8 + bits.TrailingZeros8(x)) {
				return
			}
		}
	}
}

func (b Bits) trim() Bits {
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	return b
}

// String writes runs, as an operator would: "0-41,43".
func (b Bits) String() string {
	var s strings.Builder
	from, to := -1, -1
	flush := func() {
		if from < 0 {
			return
		}
		if s.Len() > 0 {
			s.WriteByte(',')
		}
		s.WriteString(strconv.Itoa(from))
		if to > from {
			s.WriteByte('-')
			s.WriteString(strconv.Itoa(to))
		}
	}
	for i := range b.Ordinals {
		if from >= 0 && i == to+1 {
			to = i
			continue
		}
		flush()
		from, to = i, i
	}
	flush()
	return s.String()
}

// MarshalText writes runs, or "=" and base64 where that is shorter.
func (b Bits) MarshalText() ([]byte, error) {
	runs := b.String()
	if raw := b.trim(); base64.RawStdEncoding.EncodedLen(len(raw))+1 < len(runs) {
		return []byte("=" + base64.RawStdEncoding.EncodeToString(raw)), nil
	}
	return []byte(runs), nil
}

// UnmarshalText reads what MarshalText wrote; ordinals above the line limit of a chunk are refused.
func (b *Bits) UnmarshalText(text []byte) error {
	*b = nil
	s := string(text)
	if s == "" {
		return nil
	}
	if enc, ok := strings.CutPrefix(s, "="); ok {
		raw, err := base64.RawStdEncoding.DecodeString(enc)
		if err != nil || len(raw) > MaxChunkLines/8 {
			return fmt.Errorf("read bits %.20q: not base64 of at most %d bits", s, MaxChunkLines)
		}
		*b = Bits(raw).trim()
		return nil
	}
	for run := range strings.SplitSeq(s, ",") {
		lo, hi, isRun := strings.Cut(run, "-")
		if !isRun {
			hi = lo
		}
		from, err1 := strconv.Atoi(lo)
		to, err2 := strconv.Atoi(hi)
		if err1 != nil || err2 != nil || from < 0 || to < from || to >= MaxChunkLines {
			return fmt.Errorf("read bits %.20q: %.20q is not a run of ordinals below %d", s, run, MaxChunkLines)
		}
		for i := from; i <= to; i++ {
			b.Set(i)
		}
	}
	return nil
}
