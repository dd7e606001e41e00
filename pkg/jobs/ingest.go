package jobs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Ingest advances splits and jobs up to dispatch: scan, check, dispatch.
type Ingest struct {
	visitor
	opt IngestOptions
}

// IngestOptions are the knobs of ingest. Zero values are the defaults named.
type IngestOptions struct {
	CheckBytes int64 // memory for looking for duplicate ids; 64 MiB
}

// NewIngest makes an ingest.
func NewIngest(p Ports, opt IngestOptions) *Ingest {
	in := &Ingest{opt: opt}
	in.visitor = visitor{
		Ports: p,
		queue: QueueIngest,
		split: map[Step]func(context.Context, *Job, *Split) error{StepScan: in.scan, StepDispatch: in.dispatch},
		job:   map[Step]func(context.Context, *Job, Survey) error{StepCheck: in.check, StepDispatch: in.dispatchAll},
	}
	return in
}

// Handle visits what the messages name.
func (in *Ingest) Handle(ctx context.Context, messages []Message) []Failure {
	var failures []Failure
	for _, d := range messages {
		b, err := DecodeMessage(d.Body)
		switch {
		case err == nil && b.Advance != nil:
			err = in.advance(ctx, d, b.Advance)
		case err == nil:
			err = buryUnreadable(ctx, in.Ports, d, Errorf(CodeInvalid, "decode message: ingest takes advances only"))
		default:
			err = buryUnreadable(ctx, in.Ports, d, err)
		}
		if err != nil {
			failures = append(failures, Failure{d.ID, err})
		}
	}
	return failures
}

// Submit opens a job and sends everybody to look at it. A job of this id that exists already is returned as it is, and
// sent for again: so submitting twice is submitting once.
func Submit(ctx context.Context, p Ports, j Job) (Job, error) {
	j.V, j.Revision, j.Rules = SchemaVersion, 0, RulesVersion
	if j.Splits() > MaxJobSplits {
		return j, Errorf(CodeLimit, "submit job %s: its input needs %d splits; at most %d are allowed", j.ID, j.Splits(), MaxJobSplits)
	}
	j.Created = p.Now()
	if !j.Deadline.IsZero() {
		j.Window = j.Deadline.Sub(j.Created)
	}
	j.moveTo(PhaseValidating, j.Created)
	err := p.saveJob(ctx, &j)
	if errors.Is(err, ErrConflict) {
		j, err = p.Ledger.Job(ctx, j.ID)
	}
	if err != nil {
		return j, fmt.Errorf("submit job %s: %w", j.ID, err)
	}
	if j.Phase != PhaseValidating {
		return j, nil
	}
	if err := advanceAll(ctx, &p, &j, QueueIngest); err != nil {
		return j, fmt.Errorf("submit job %s: %w", j.ID, err)
	}
	return j, nil
}

// scan validates and cuts a split. The first writer wins; all write the same.
func (in *Ingest) scan(ctx context.Context, j *Job, s *Split) error {
	scanned, err := scanToFiles(ctx, in.Files, j, s.N)
	if errors.Is(err, ErrChanged) {
		return writeStop(ctx, &in.Ports, j.ID, inputModified(err))
	}
	if err != nil {
		return err
	}
	s.Scanned, s.Tries = &scanned, s.Tries.done(StepScan)
	if err := in.Ledger.SaveSplit(ctx, s); err != nil {
		return fmt.Errorf("save it: %w", err)
	}
	return send(ctx, in.Queue, QueueIngest, encodeMessage(AdvanceMessage{SchemaVersion, j.ID, WholeJob}))
}

func inputModified(err error) Stop {
	return Stop{As: PhaseFailed, Code: "input_modified", Reason: "the input was changed while the job was running: " + err.Error()}
}

// check looks for ids that stand in more than one line, over all splits, and gives the verdict.
func (in *Ingest) check(ctx context.Context, j *Job, all Survey) error {
	found, err := checkToFiles(ctx, in.Files, in.Ledger, j, in.opt.CheckBytes)
	if err != nil {
		return err
	}
	now := in.Now()
	j.Checked, j.Tries = found.checked(), j.Tries.done(StepCheck)
	j.noteFold(all, now)
	if stop := found.stop(); stop != nil {
		stop.At = now
		j.Stop = stop
		j.moveTo(PhaseFinalizing, now)
		j.moveTo(PhaseFailed, now)
		return in.saveJob(ctx, j)
	}
	j.moveTo(PhaseInProgress, now)
	if err := in.saveJob(ctx, j); err != nil {
		return fmt.Errorf("save it: %w", err)
	}
	return nil // the next step is to send everybody to dispatch
}

// dispatchAgain is after how long everybody is sent to dispatch once more.
const dispatchAgain = time.Minute

// dispatchAll sends everybody to the splits that are not dispatched. It is a step of its own, so that it is done again
// when it was interrupted; but not at once: each scan has sent somebody to look at the job, and who comes after the check
// would send everybody again.
func (in *Ingest) dispatchAll(ctx context.Context, j *Job, _ Survey) error {
	now := in.Now()
	if now.Sub(j.SentAt) < dispatchAgain {
		return errDone
	}
	var bodies [][]byte
	for s, err := range in.Ledger.Splits(ctx, j.ID) {
		if err != nil {
			return fmt.Errorf("read its splits: %w", err)
		}
		if !s.Dispatched {
			bodies = append(bodies, encodeMessage(AdvanceMessage{SchemaVersion, j.ID, s.N}))
		}
	}
	if err := send(ctx, in.Queue, QueueIngest, bodies...); err != nil {
		return err
	}
	j.SentAt = now
	if err := in.saveJob(ctx, j); err != nil && !errors.Is(err, ErrConflict) {
		return fmt.Errorf("save it: %w", err)
	}
	return errDone
}

// dispatch sends a split's chunk messages. The records are born by their first claim.
func (in *Ingest) dispatch(ctx context.Context, j *Job, s *Split) error {
	messages, err := in.messagesOf(ctx, j, s)
	if err != nil {
		return err
	}
	if err := sendChunks(ctx, in.Queue, messages); err != nil {
		return err
	}
	s.Dispatched = true
	if err := in.Ledger.SaveSplit(ctx, s); err != nil {
		return fmt.Errorf("save it: %w", err)
	}
	return nil // the next step is aggregate's, which is told of it: a split without chunks is settled already
}

// messagesOf makes the messages of a split's chunks, by offset.
func (p *Ports) messagesOf(ctx context.Context, j *Job, s *Split) (map[int64]*ChunkMessage, error) {
	cuts, err := readCuts(ctx, p.Files, s.Scanned.Cuts)
	if err != nil {
		return nil, err
	}
	of, err := readVerdict(ctx, p.Files, j, s.N)
	if err != nil {
		return nil, err
	}
	messages := make(map[int64]*ChunkMessage, len(cuts.Chunks))
	for i := range cuts.Chunks {
		cut := &cuts.Chunks[i]
		messages[cut.Offset] = chunkMessage(j, s, cut, of)
	}
	return messages, nil
}

// sendChunks sends chunk messages in the order of the input.
func sendChunks(ctx context.Context, q Queue, messages map[int64]*ChunkMessage) error {
	const most = 1000 // at once: a queue on disk takes them in one transaction
	offsets := slices.Sorted(maps.Keys(messages))
	for batch := range slices.Chunk(offsets, most) {
		bodies := make([][]byte, len(batch))
		for i, offset := range batch {
			bodies[i] = encodeMessage(messages[offset])
		}
		if err := send(ctx, q, QueueWork, bodies...); err != nil {
			return err
		}
	}
	return nil
}
