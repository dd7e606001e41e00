package jobs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/tidwall/sjson"
)

// Child is a job of failed items of another.
type Child struct {
	ID    JobID
	Codes []string   // of the errors that these items had failed with; none = of all
	Of    Generation // of the files in which they had failed
	At    time.Time  // when it was linked, which is before it is made
}

// childMade is how long after it is linked a child may still be made: who links it makes it next, or not at all.
const childMade = 5 * time.Minute

// mostChildren are linked to a job.
const mostChildren = 32

// RetryQuery is which failed items of a job are asked for again, and how.
type RetryQuery struct {
	Job    JobID
	Codes  []string          // of their errors; none = all that were called, or were to be
	Set    map[string]string // paths in a request such as body.max_tokens → JSON
	DryRun bool              // nothing is made, only counted
}

// Retried is what a retry asks for again.
type Retried struct {
	Items  int64
	ByCode map[string]int64
	Job    Job // the child; zero after a dry run
}

// settable is a path that a retry may change: a member of the body, and no character that means anything else. A number is a
// place in a list, which is made as long as that.
var settable = regexp.MustCompile(`^body(\.([0-9]{1,3}|[0-9]{0,63}[A-Za-z_-][A-Za-z0-9_-]{0,63})){1,8}$`)

func (q *RetryQuery) check() error {
	for path, value := range q.Set {
		switch {
		case !settable.MatchString(path):
			return Errorf(CodeInvalid, "%.80q cannot be set: it is a path in the body of a request, such as body.max_tokens", path)
		case path == "body.stream":
			return Errorf(CodeInvalid, "body.stream cannot be set: answers of a batch are whole")
		case !lenientJSON(value):
			return Errorf(CodeInvalid, "%s cannot be set to %.80q: that is no JSON (a text needs quotes)", path, value)
		}
	}
	return nil
}

// Retry makes a job of the failed items of one that has ended, as its files have them: those with certain errors, with their
// requests changed. It is linked to its parent, and until it has ended these items cannot be redriven. Lines that broke the
// rules of the input are never among them. ctx bounds how long it may take: it reads the input of chunks with such items.
func (i *Inspector) Retry(ctx context.Context, q RetryQuery, by string) (Retried, error) {
	done, err := i.retry(ctx, q, by)
	if err != nil {
		return done, fmt.Errorf("retry job %s: %w", q.Job, err)
	}
	return done, nil
}

func (i *Inspector) retry(ctx context.Context, q RetryQuery, by string) (Retried, error) {
	r := retrying{ports: &i.ports, q: q, done: Retried{ByCode: map[string]int64{}}}
	if err := q.check(); err != nil {
		return r.done, err
	}
	parent, err := i.ports.Ledger.Job(ctx, q.Job)
	if err != nil {
		return r.done, err
	}
	if err := r.mayRetry(ctx, &parent); err != nil {
		return r.done, err
	}
	if q.DryRun {
		return r.done, r.walk(ctx, &parent, func([]byte) error { return nil })
	}
	id := i.ports.NewID()
	file := "file-" + strings.ToLower(id)
	info, err := r.write(ctx, &parent, FileObject(parent.Tenant, file))
	if err != nil {
		return r.done, err
	}
	if r.done.Items == 0 {
		return r.done, errors.Join(i.ports.Files.Delete(ctx, info.Name), Errorf(CodeInvalid, "it has no failed items like that"))
	}
	child := Child{ID: JobID("batch_" + strings.ToLower(id)), Codes: q.Codes, Of: parent.Outputs.Of, At: i.ports.Now()}
	if err := r.link(ctx, &parent, child); err != nil {
		return r.done, errors.Join(err, i.ports.Files.Delete(context.WithoutCancel(ctx), info.Name))
	}
	if err := i.ports.noteFile(ctx, &parent, info, File{Name: "retry-of-" + string(parent.ID) + ".jsonl", Purpose: PurposeBatch, Used: true}); err != nil {
		return r.done, err
	}
	r.done.Job, err = Submit(ctx, i.ports, childOf(&parent, child.ID, info, i.ports.NewID()))
	if err == nil {
		why := strings.Join(q.Codes, ", ")
		if len(q.Set) > 0 { // to what it does not say: a value may be a part of a request, and this is kept for longer than those
			why += " with others of " + strings.Join(slices.Sorted(maps.Keys(q.Set)), ", ")
		}
		err = Audit(ctx, i.ports, AuditRecord{By: by, What: "job.retry", Tenant: parent.Tenant, Of: string(parent.ID), Count: r.done.Items, Why: strings.TrimSpace(why)})
	}
	return r.done, err
}

func childOf(parent *Job, id JobID, info FileInfo, key string) Job {
	cut := DefaultCut(info.Bytes)
	cut.ChunkLines, cut.LineBytes = parent.Cut.ChunkLines, max(cut.LineBytes, parent.Cut.LineBytes)
	return Job{
		ID: id, Tenant: parent.Tenant, Parent: parent.ID, Input: info.FileRef, InputBytes: info.Bytes, Endpoint: parent.Endpoint, Cut: cut, OnInvalid: InvalidFails,
		MaxCalls: parent.MaxCalls, Tolerated: parent.Tolerated, MaxCost: parent.MaxCost, KeepOutput: parent.KeepOutput, Window: parent.Window,
		HashKey: hashKey(key), Metadata: parent.Metadata,
	}
}

// link notes the child in its parent, before it is there: who redrives, or retries too, sees it from then on.
func (r *retrying) link(ctx context.Context, parent *Job, child Child) error {
	return untilSaved(func() error {
		j, err := r.ports.Ledger.Job(ctx, parent.ID)
		if err != nil {
			return err
		}
		if !j.Phase.Ended() || j.Outputs == nil || j.Outputs.Of != child.Of {
			return Errorf(CodeConflict, "it was redriven meanwhile, and its failed items may be others; try again")
		}
		if err := r.mayRetry(ctx, &j); err != nil {
			return err
		}
		j.Children = append(slices.Clone(j.Children), child)
		return r.ports.saveJob(ctx, &j)
	})
}

// retrying is one call of Retry.
type retrying struct {
	ports *Ports
	q     RetryQuery
	done  Retried
}

func (r *retrying) mayRetry(ctx context.Context, j *Job) error {
	switch {
	case !j.Phase.Ended():
		return Errorf(CodeConflict, "it is %s: only failed items of a job that has ended can be retried", j.Phase).WithHint("wait for its end, or redrive its dead chunks (fanout dlq redrive --job %s)", j.ID)
	case j.Outputs == nil:
		return Errorf(CodeConflict, "it is %s, and has no results", j.Phase)
	case len(j.Children) >= mostChildren:
		return Errorf(CodeLimit, "it has %d retries already", len(j.Children))
	}
	for _, c := range j.Children {
		if !overlaps(c.Codes, r.q.Codes) {
			continue
		}
		state, err := r.ports.childState(ctx, c)
		switch {
		case err != nil:
			return err
		case state == childOpen:
			return Errorf(CodeConflict, "items of these are retried by job %s, which has not ended", c.ID).WithHint("wait for its end, or cancel it")
		case state == childEnded && c.Of == j.Outputs.Of:
			return Errorf(CodeConflict, "these items were retried by job %s already", c.ID).WithHint("retry what failed there: fanout job retry %s", c.ID)
		}
	}
	return nil
}

// childState is how a child stands to the items that it was made of.
type childState int

const (
	childOpen  childState = iota // it asks for them, or is about to
	childEnded                   // it has asked for them
	childNone                    // it never did: it was not made, or has failed before any call
)

func (p *Ports) childState(ctx context.Context, c Child) (childState, error) {
	j, err := p.Ledger.Job(ctx, c.ID)
	switch {
	case errors.Is(err, ErrNotFound) && p.Now().Before(c.At.Add(childMade)):
		return childOpen, nil
	case errors.Is(err, ErrNotFound) || err == nil && j.Phase == PhaseFailed:
		return childNone, nil
	case err != nil:
		return childOpen, fmt.Errorf("read job %s: %w", c.ID, err)
	case j.Phase.Ended():
		return childEnded, nil
	default:
		return childOpen, nil
	}
}

// overlaps tells whether two choices of codes have one in common; none is all.
func overlaps(a, b []string) bool {
	return len(a) == 0 || len(b) == 0 || slices.ContainsFunc(a, func(code string) bool { return slices.Contains(b, code) })
}

func (r *retrying) write(ctx context.Context, j *Job, name string) (FileInfo, error) {
	w, err := r.ports.Files.Create(ctx, name)
	if err != nil {
		return FileInfo{}, err
	}
	buffered := bufio.NewWriterSize(w, 1<<20)
	err = r.walk(ctx, j, func(line []byte) error {
		if _, err := buffered.Write(line); err != nil {
			return err
		}
		return buffered.WriteByte('\n')
	})
	if err == nil {
		err = buffered.Flush()
	}
	if err != nil {
		return FileInfo{}, errors.Join(err, w.Abort())
	}
	return w.Commit(ctx)
}

// walk goes through the failed items that are meant, in the order of the input.
func (r *retrying) walk(ctx context.Context, j *Job, each func(line []byte) error) error {
	for n := range j.Splits() {
		s, err := r.ports.Ledger.Split(ctx, j.ID, n)
		if errors.Is(err, ErrNotFound) || err == nil && s.Scanned == nil {
			continue
		}
		if err == nil {
			err = r.split(ctx, j, &s, each)
		}
		if err != nil {
			return fmt.Errorf("split %d: %w", n, err)
		}
	}
	return nil
}

func (r *retrying) split(ctx context.Context, j *Job, s *Split, each func(line []byte) error) error {
	messages, err := r.ports.messagesOf(ctx, j, s)
	if err != nil {
		return err
	}
	chunks := map[int64]*Chunk{}
	for c, err := range r.ports.Ledger.Chunks(ctx, j.ID, s.N, OffsetRange{}) {
		if err != nil {
			return err
		}
		if !c.Done() || !c.Failed.Empty() {
			chunks[c.ID.Offset] = &c
			continue
		}
		delete(messages, c.ID.Offset) // all of it was answered
	}
	var meant []*ChunkMessage
	var codes []map[int]string // of their items that are meant, by ordinal
	for _, offset := range slices.Sorted(maps.Keys(messages)) {
		m, c := messages[offset], chunks[offset]
		if c == nil {
			c = newChunk(m) // nobody ever claimed it
		}
		if of := r.codesOf(j, m, c); len(of) > 0 {
			meant, codes = append(meant, m), append(codes, of)
		}
	}
	return readAhead(ctx, r.ports.Files, j, meant, func(n int, data []byte) error {
		return r.chunk(j, meant[n], data, codes[n], each)
	})
}

// codesOf are the codes of a chunk's failed items that are meant, by ordinal.
func (r *retrying) codesOf(j *Job, m *ChunkMessage, c *Chunk) map[int]string {
	codes := map[int]string{}
	for ordinal := range c.Failed.Or(c.Open()).Without(m.Skip).Ordinals {
		code := failedWith(j, c, ordinal)
		if len(r.q.Codes) == 0 || slices.Contains(r.q.Codes, code) {
			codes[ordinal] = code
		}
	}
	return codes
}

func (r *retrying) chunk(j *Job, m *ChunkMessage, data []byte, codes map[int]string, each func(line []byte) error) error {
	parser := newLineParser(j.Endpoint, j.Cut.LineBytes)
	for ordinal, l := range splitLines(data, m.Offset, m.Lines) {
		code, meant := codes[ordinal]
		if !meant {
			continue
		}
		line, err := patched(l.content, r.q.Set)
		if err != nil {
			return fmt.Errorf("line %d: %w", m.Line+int64(ordinal), err)
		}
		if _, v := parser.parse(line); v != nil {
			return Errorf(CodeInvalid, "line %d would break the rules of the input: %s", m.Line+int64(ordinal), v.Message)
		}
		r.done.Items++
		r.done.ByCode[code]++
		if err := each(line); err != nil {
			return err
		}
	}
	return nil
}

// failedWith is the code of an item's error, as its error line has it.
func failedWith(j *Job, c *Chunk, ordinal int) string {
	if c.Resolved.Has(ordinal) {
		for _, g := range c.Errors {
			if g.Items.Has(ordinal) {
				return g.Code
			}
		}
	}
	code, _ := unfinished(j, c, ordinal)
	return code
}

// patched is a request with some of its members set; the others stay as they are, byte for byte.
func patched(line []byte, set map[string]string) ([]byte, error) {
	for _, path := range slices.Sorted(maps.Keys(set)) {
		var err error
		if line, err = sjson.SetRawBytes(slices.Clone(line), path, []byte(set[path])); err != nil {
			return nil, Errorf(CodeInvalid, "set %s: %w", path, err)
		}
	}
	return line, nil
}

// childStates are what was read of children a moment ago; nil remembers nothing.
type childStates map[JobID]childState

// heldByChild tells which open child asks for items of a dead chunk, if one does.
func (p *Ports) heldByChild(ctx context.Context, j *Job, c *Chunk, known childStates) (*refusedWork, error) {
	for _, child := range j.Children {
		meant := slices.ContainsFunc(c.Errors, func(g ErrorGroup) bool {
			return !g.Items.And(c.Open()).Empty() && (len(child.Codes) == 0 || slices.Contains(child.Codes, g.Code))
		})
		if !meant {
			continue
		}
		state, seen := known[child.ID]
		if !seen {
			var err error
			if state, err = p.childState(ctx, child); err != nil {
				return nil, err
			}
			if known != nil {
				known[child.ID] = state
			}
		}
		if state == childOpen {
			return &refusedWork{"job_retried", fmt.Sprintf("items of it are retried by job %s, which has not ended", child.ID)}, nil
		}
	}
	return nil, nil
}

// lenientJSON tells whether a text is JSON as requests may have it.
func lenientJSON(s string) bool { return jsontext.Value(s).IsValid(lenient...) }
