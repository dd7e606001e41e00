package jobs

import (
	"encoding/json"
	"fmt"
	"time"
)

// ChunkMessage says where a chunk is. It carries references, never payload, and is about 200 bytes.
type ChunkMessage struct {
	V      int    `json:"v"`
	Job    JobID  `json:"job"`
	Tenant string `json:"tenant,omitempty"` // of the job, so that a queue can be fair to others
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

// UploadMessage says that an object came into the inbox. One upload is one job, however often it is told.
type UploadMessage struct {
	V         int     `json:"v"`
	Upload    FileRef `json:"upload"`              // of the version that was uploaded, always
	Bucket    string  `json:"bucket,omitempty"`    // where it is, for the job's id alone
	Sequencer string  `json:"sequencer,omitempty"` // tells uploads of the same bytes under the same name apart
	Bytes     int64   `json:"bytes,omitempty"`     // as the teller saw it
}

// PingMessage goes through every queue, once around: a function that nobody calls for two weeks falls asleep, and who
// hears of no ping knows that something is broken.
type PingMessage struct {
	V    int       `json:"v"`
	Ping bool      `json:"ping"`
	Sent time.Time `json:"sent,omitzero"` // zero = when the first queue took it
}

// Body is a decoded message: one of its fields is set.
type Body struct {
	Chunk   *ChunkMessage
	Advance *AdvanceMessage
	Tick    *TickMessage
	Upload  *UploadMessage
	Ping    *PingMessage

	Notice    *NoticeMessage
	Delivered *DeliveredMessage
}

// encodeMessage writes one of the messages; they always encode.
func encodeMessage(m any) []byte {
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

// TickBody is the body of the message that makes the sweep run. Whoever drives the aggregate queue sends it on a schedule.
func TickBody() []byte { return encodeMessage(TickMessage{V: SchemaVersion, Sweep: true}) }

// PingBody is the body of the message that goes through every queue, sent to ingest on a schedule. Something that cannot
// tell the time may leave that out.
func PingBody(sent time.Time) []byte {
	return encodeMessage(PingMessage{V: SchemaVersion, Ping: true, Sent: sent.UTC()})
}

// UploadBody is the body of the message that tells ingest of an upload.
func UploadBody(m UploadMessage) []byte {
	m.V = SchemaVersion
	return encodeMessage(m)
}

// Limits of what others tell, so that a record made of it has its size. S3 has no longer names.
const (
	maxUploadName = 1024
	maxUploadMark = 256 // of a version, a bucket and a sequencer
)

func (m *UploadMessage) check() error {
	switch f := m.Upload; {
	case f.Name == "" || f.Version == "":
		return Errorf(CodeInvalid, "decode message: an upload without name or version")
	case len(f.Name) > maxUploadName:
		return Errorf(CodeInvalid, "decode message: an upload whose name has more than %d bytes", maxUploadName)
	case len(f.Version) > maxUploadMark || len(m.Bucket) > maxUploadMark || len(m.Sequencer) > maxUploadMark:
		return Errorf(CodeInvalid, "decode message: an upload whose version, bucket or sequencer has more than %d bytes", maxUploadMark)
	case m.Bytes < 0:
		return Errorf(CodeInvalid, "decode message: an upload of %d bytes", m.Bytes)
	default:
		return nil
	}
}

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
		Advance   *JobID    `json:"advance"`
		Sweep     bool      `json:"sweep"`
		Ping      bool      `json:"ping"`
		Sent      time.Time `json:"sent"`
		Upload    *FileRef  `json:"upload"`
		Bucket    string    `json:"bucket"`
		Sequencer string    `json:"sequencer"`
		Bytes     int64     `json:"bytes"`
		Notice    *string   `json:"notice"`
		Delivered *string   `json:"delivered"`
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
	case raw.Ping:
		if sent := raw.Sent.UTC(); !writable(sent) {
			return Body{}, Errorf(CodeInvalid, "decode message: a ping of the year %d", sent.Year())
		}
		return Body{Ping: &PingMessage{V: c.V, Ping: true, Sent: raw.Sent.UTC()}}, nil
	case raw.Upload != nil:
		m := UploadMessage{V: c.V, Upload: *raw.Upload, Bucket: raw.Bucket, Sequencer: raw.Sequencer, Bytes: raw.Bytes}
		if err := m.check(); err != nil {
			return Body{}, err
		}
		return Body{Upload: &m}, nil
	case raw.Notice != nil:
		return decodeNotice(body)
	case raw.Delivered != nil:
		return decodeDelivered(body)
	case raw.Advance != nil && *raw.Advance != "":
		if c.Split < WholeJob || c.Split >= MaxJobSplits {
			return Body{}, Errorf(CodeInvalid, "decode message: split %d is out of range", c.Split)
		}
		return Body{Advance: &AdvanceMessage{V: c.V, Job: *raw.Advance, Split: c.Split}}, nil
	case c.Job == "" || c.Split < 0 || c.Split >= MaxJobSplits || c.Offset < 0 || c.Length < 1 ||
		c.Lines < 1 || c.Lines > MaxChunkLines || c.Line < 1 || c.Burial < 0:
		return Body{}, Errorf(CodeInvalid, "decode message: neither a chunk, an advance, an upload, a notice, a report of one, a ping nor a tick")
	default:
		return Body{Chunk: &c}, nil
	}
}
