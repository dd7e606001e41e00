package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Ingest opens the jobs of uploads, and advances splits and jobs up to dispatch: scan, check, dispatch.
type Ingest struct {
	visitor
	opt IngestOptions
}

// IngestOptions are the knobs of ingest. Zero values are the defaults named.
type IngestOptions struct {
	CheckBytes int64 // memory for looking for duplicate ids; 64 MiB
	Upload     UploadOptions
}

// NewIngest makes an ingest.
func NewIngest(p Ports, opt IngestOptions) *Ingest {
	up := &opt.Upload
	up.OnInvalid, up.Window = cmp.Or(up.OnInvalid, InvalidSkips), cmp.Or(up.Window, 24*time.Hour)
	up.Expand.Bytes, up.Expand.Ratio = cmp.Or(up.Expand.Bytes, 50e9), cmp.Or(up.Expand.Ratio, 200)
	in := &Ingest{opt: opt}
	in.visitor = visitor{
		Ports: p,
		queue: QueueIngest,
		split: map[Step]func(context.Context, *Job, *Split) error{StepScan: in.scan, StepDispatch: in.dispatch},
		job:   map[Step]func(context.Context, *Job, Survey) error{StepCheck: in.check, StepDispatch: in.dispatchAll},
	}
	return in
}

// Handle visits what the messages name, takes in what was uploaded, and passes pings on.
func (in *Ingest) Handle(ctx context.Context, messages []Message) []Failure {
	var failures []Failure
	s := newShare(ctx, in.Now())
	for _, d := range messages {
		b, err := DecodeMessage(d.Body)
		switch {
		case err == nil && b.Advance != nil:
			err = in.advance(ctx, d, b.Advance)
		case err == nil && b.Upload != nil:
			err = in.upload(ctx, d, b.Upload, s)
		case err == nil && b.Ping != nil:
			err = in.passPing(ctx, d, b.Ping, QueueIngest, QueueWork)
		case err == nil:
			err = buryUnreadable(ctx, in.Ports, d, Errorf(CodeInvalid, "decode message: ingest takes advances, uploads and pings only"))
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
	if j.Splits() > MaxJobSplits {
		return j, Errorf(CodeLimit, "submit job %s: its input needs %d splits; at most %d are allowed", j.ID, j.Splits(), MaxJobSplits)
	}
	j.opened(p.Now())
	err := p.saveJob(ctx, &j)
	if errors.Is(err, ErrConflict) {
		j, err = p.Ledger.Job(ctx, j.ID)
	}
	if err != nil {
		return j, fmt.Errorf("submit job %s: %w", j.ID, err)
	}
	return j, sendIfNew(ctx, &p, &j)
}

// opened makes a job of what was asked for. Its deadline follows from its window, if it has none.
func (j *Job) opened(now time.Time) {
	j.V, j.Revision, j.Rules, j.Created = SchemaVersion, 0, RulesVersion, now
	switch {
	case !j.Deadline.IsZero():
		j.Window = j.Deadline.Sub(now)
	case j.Window > 0:
		j.Deadline = now.Add(j.Window)
	}
	j.moveTo(PhaseValidating, now)
}

// Resubmit sends everybody to look at a job that was submitted before, unless they have looked already.
func Resubmit(ctx context.Context, p Ports, j *Job) error { return sendIfNew(ctx, &p, j) }

// sendIfNew sends everybody to look at a job that is still validating: who opened it may have died before that.
func sendIfNew(ctx context.Context, p *Ports, j *Job) error {
	if j.Phase != PhaseValidating {
		return nil
	}
	if err := advanceAll(ctx, p, j, QueueIngest); err != nil {
		return fmt.Errorf("submit job %s: %w", j.ID, err)
	}
	return nil
}

// openFailed opens a job that has failed: within one save, so nobody ever sees it run. If it was opened meanwhile by another,
// that one stands.
func openFailed(ctx context.Context, p *Ports, j *Job, stop Stop) error {
	now := p.Now()
	j.opened(now)
	stop.As, stop.At = PhaseFailed, now
	j.Stop = &stop
	j.moveTo(PhaseFinalizing, now)
	j.moveTo(PhaseFailed, now)
	err := p.saveJob(ctx, j)
	if err == nil {
		err = nudge(ctx, *p, j.ID, WholeJob) // it has ended: that is to be told
	}
	if err != nil && !errors.Is(err, ErrConflict) {
		return fmt.Errorf("open job %s as failed: %w", j.ID, err)
	}
	return nil
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
	return Stop{As: PhaseFailed, Code: stopInputModified, Reason: "the input was changed while the job was running: " + err.Error()}
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
