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
	err := json.Unmarshal(body, &r)
	if err != nil || version(&r) > SchemaVersion {
		var head struct{ V int }
		if json.Unmarshal(body, &head) == nil && head.V > SchemaVersion { // whatever else is in it
			return r, fmt.Errorf("decode %T of version %d: %w", r, head.V, ErrNewer)
		}
		return r, fmt.Errorf("decode %T: %w", r, err)
	}
	switch r := any(&r).(type) {
	case *Job:
		r.Revision = revision
	case *Split:
		r.Revision = revision
	case *Chunk:
		r.Revision = revision
	}
	return r, nil
}

func version[R record](r *R) int {
	switch r := any(r).(type) {
	case *Job:
		return r.V
	case *Split:
		return r.V
	case *Chunk:
		return r.V
	default:
		return 0
	}
}
