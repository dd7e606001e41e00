package jobs

import "encoding/hex"

// Generation is a digest of the facts that a fold, a piece or a file was made from: of a split, (offset, resolved, dead,
// burial) of its chunks; of a job, the generations of its splits. Leases and renewals leave it alone (rule 2).
type Generation [16]byte

// IsZero tells whether there is none yet.
func (g Generation) IsZero() bool { return g == Generation{} }

func (g Generation) String() string { return hex.EncodeToString(g[:]) }

// MarshalText writes hex; none is empty.
func (g Generation) MarshalText() ([]byte, error) {
	if g.IsZero() {
		return nil, nil
	}
	return []byte(g.String()), nil
}

// UnmarshalText reads hex.
func (g *Generation) UnmarshalText(text []byte) error {
	*g = Generation{}
	if len(text) == 0 {
		return nil
	}
	if len(text) != 2*len(g) {
		return Errorf(CodeInvalid, "read generation %.40q: not %d hex digits", text, 2*len(g))
	}
	_, err := hex.Decode(g[:], text)
	return err
}
