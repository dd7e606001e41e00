package jobs

import (
	"encoding/json"
	"fmt"
)

// ChunkMessage says where a chunk is. It carries references, never payload, and is about 200 bytes.
type ChunkMessage struct {
	V      int    `json:"v"`
	Job    JobID  `json:"job"`
	Split  int    `json:"split"`
	Offset int64  `json:"offset"`
	Length int64  `json:"length"`
	Line   int64  `json:"line"`  // number of its first line in the input, from 1
	Lines  int    `json:"lines"` // physical lines
	CRC    uint32 `json:"crc"`   // CRC-32C of its bytes
	Blank  Bits   `json:"blank,omitempty"`
	Skip   Bits   `json:"skip,omitempty"`   // lines that fail without a call
	Burial int    `json:"burial,omitempty"` // the burial number that the sender knew
}

// ID is the chunk's name.
func (m *ChunkMessage) ID() ChunkID { return ChunkID{m.Job, m.Split, m.Offset} }

// AdvanceMessage says where to look, never what to do: Next derives the step from the records.
type AdvanceMessage struct {
	V     int   `json:"v"`
	Job   JobID `json:"advance"`
	Split int   `json:"split"` // WholeJob for the job itself
}

// WholeJob in place of a split number means the job itself.
const WholeJob = -1

// TickMessage makes the sweep run.
type TickMessage struct {
	V     int  `json:"v"`
	Sweep bool `json:"sweep"`
}

// Body is a decoded message: one of its fields is set.
type Body struct {
	Chunk   *ChunkMessage
	Advance *AdvanceMessage
	Tick    *TickMessage
}

// encodeMessage writes one of the three messages; they always encode.
func encodeMessage(m any) []byte {
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

// TickBody is the body of the message that makes the sweep run. Whoever drives the aggregate queue sends it on a schedule.
func TickBody() []byte { return encodeMessage(TickMessage{V: SchemaVersion, Sweep: true}) }

// DecodeMessage reads a message body. What cannot be read, or breaks a limit, is CodeInvalid and will never do better;
// ErrNewer is for a newer reader.
func DecodeMessage(body []byte) (Body, error) {
	var head struct {
		V int `json:"v"`
	}
	if err := json.Unmarshal(body, &head); err == nil && head.V > SchemaVersion { // whatever else is in it
		return Body{}, fmt.Errorf("decode message of version %d: %w", head.V, ErrNewer)
	}
	var raw struct {
		ChunkMessage
		Advance *JobID `json:"advance"`
		Sweep   bool   `json:"sweep"`
	}
	if err := json.Unmarshal(body, &raw); err != nil {
		return Body{}, Errorf(CodeInvalid, "decode message: %w", err)
	}
	c := raw.ChunkMessage
	switch {
	case c.V < 1:
		return Body{}, Errorf(CodeInvalid, "decode message: no version")
	case raw.Sweep:
		return Body{Tick: &TickMessage{V: c.V, Sweep: true}}, nil
	case raw.Advance != nil && *raw.Advance != "":
		if c.Split < WholeJob || c.Split >= MaxJobSplits {
			return Body{}, Errorf(CodeInvalid, "decode message: split %d is out of range", c.Split)
		}
		return Body{Advance: &AdvanceMessage{V: c.V, Job: *raw.Advance, Split: c.Split}}, nil
	case c.Job == "" || c.Split < 0 || c.Split >= MaxJobSplits || c.Offset < 0 || c.Length < 1 ||
		c.Lines < 1 || c.Lines > MaxChunkLines || c.Line < 1 || c.Burial < 0:
		return Body{}, Errorf(CodeInvalid, "decode message: neither a chunk, an advance nor a tick")
	default:
		return Body{Chunk: &c}, nil
	}
}
