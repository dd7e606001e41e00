package jobs

import (
	"encoding/json"
	"fmt"
)

// A record is kept by a driver as JSON beside its keys and its revision.
type record interface{ Job | Split | Chunk }

// EncodeRecord writes a record without its revision, which the driver keeps in a field of its own.
func EncodeRecord[R record](r *R) ([]byte, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", *r, err)
	}
	return b, nil
}

// DecodeRecord reads a record and gives it the revision that the driver kept. What a newer fanout wrote is ErrNewer.
func DecodeRecord[R record](body []byte, revision int64) (R, error) {
	var r R
	if err := json.Unmarshal(body, &r); err != nil {
		return r, fmt.Errorf("decode %T: %w", r, err)
	}
	var v int
	switch r := any(&r).(type) {
	case *Job:
		v, r.Revision = r.V, revision
	case *Split:
		v, r.Revision = r.V, revision
	case *Chunk:
		v, r.Revision = r.V, revision
	}
	if v > SchemaVersion {
		return r, fmt.Errorf("decode %T of version %d: %w", r, v, ErrNewer)
	}
	return r, nil
}
