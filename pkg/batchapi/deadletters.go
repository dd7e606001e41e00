package batchapi

import (
	"net/http"
	"slices"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Pages and limits of what is done to dead letters.
const (
	deadPage    = 100
	maxDeadPage = 1000
	redriveFor  = 15 * time.Second // a longer redrive tells where to go on; front doors give up after 30
)

// MaxFollowed is how many chunks one call of a redrive names, and how many can be followed at once.
const MaxFollowed = 1000

// DeadChunk is a run of requests of one batch in the dead letters.
type DeadChunk struct {
	ID       string     `json:"id"`
	Object   string     `json:"object"` // "fanout.dead_chunk"
	Batch    string     `json:"batch"`
	Tenant   string     `json:"tenant"`
	Line     int64      `json:"line"` // its first one in the input, from 1
	Lines    int        `json:"lines"`
	Open     int        `json:"open"` // requests without outcome
	Code     string     `json:"code"` // of their commonest last error
	Message  string     `json:"message"`
	Attempts int        `json:"attempts"`
	Burials  int        `json:"burials"`
	DeadAt   *int64     `json:"dead_at"`
	State    string     `json:"state"`           // waiting, on_its_way or refused
	Refused  *string    `json:"refused"`         // code of why its batch does not take it back
	Why      *string    `json:"why"`             // the same, a sentence
	Items    []DeadItem `json:"items,omitempty"` // of one that is asked for alone
}

// DeadItem is a request in the dead letters.
type DeadItem struct {
	Line     int64  `json:"line"`
	CustomID string `json:"custom_id"`
	Code     string `json:"code"`
	Message  string `json:"message"`
	Status   *int   `json:"status"`
	Calls    int    `json:"calls"`   // counted against it
	Crashes  int    `json:"crashes"` // of its process, while it was in hand
}

// DeadSelection is which dead chunks are meant; the zero value means all.
type DeadSelection struct {
	Job       string `json:"job,omitempty"`
	Tenant    string `json:"tenant,omitempty"`
	Code      string `json:"code,omitempty"`
	OlderThan int64  `json:"older_than,omitempty"` // seconds
	Max       int64  `json:"max,omitempty"`
}

// RedriveRequest is what to redrive.
type RedriveRequest struct {
	DeadSelection
	Rate   float64 `json:"rate,omitempty"` // chunks a second; 0 = as fast as it goes
	From   string  `json:"from,omitempty"` // "next" of the answer before
	DryRun bool    `json:"dry_run"`        // the API's default is true
}

// Redriven is what was moved, or would be.
type Redriven struct {
	Object   string           `json:"object"` // "fanout.redrive"
	DryRun   bool             `json:"dry_run"`
	Chunks   int64            `json:"chunks"`
	Requests int64            `json:"requests"` // in these, without outcome
	Batches  int              `json:"batches"`
	Refused  map[string]int64 `json:"refused"`  // chunks that were left, by the code of the reason
	Cleared  int64            `json:"cleared"`  // copies taken out of the dead letters
	Followed []Followed       `json:"followed"` // to ask what became of them
	Next     *string          `json:"next"`     // where to go on; null = all is done
}

// Followed is a chunk that was redriven, as it was before.
type Followed struct {
	ID     string `json:"id"`
	Burial int    `json:"burial"`
	Failed int    `json:"failed"`
	Code   string `json:"code"`
}

// FollowedStates are what became of chunks, in their order: pending, answered or failed.
type FollowedStates struct {
	States []string `json:"states"`
}

// Purged is what was purged, or would be.
type Purged struct {
	Object string `json:"object"` // "fanout.purge"
	DryRun bool   `json:"dry_run"`
	Purged int64  `json:"purged"`
	More   bool   `json:"more"` // not all were come to in time: the same call again goes on
}

// deadLettersOff refuses what needs them where they cannot be reached.
func (h *Handler) deadLettersOff() error {
	if h.opt.DeadLetters != nil {
		return nil
	}
	return refuse(http.StatusBadRequest, "dead_letters_off", "This deployment does not reach its dead letters.")
}

func (h *Handler) deadQuery(s DeadSelection) (jobs.DeadQuery, error) {
	q := jobs.DeadQuery{Job: jobs.JobID(s.Job), Tenant: s.Tenant, Code: s.Code, Max: int(s.Max)}
	switch {
	case s.Job != "" && !plainID(s.Job, "batch_"):
		return q, notFound("Batch", s.Job)
	case s.Tenant != "" && !jobs.PlainTenant(s.Tenant):
		return q, wrongTenant()
	case s.OlderThan < 0:
		return q, invalid("older_than", "Invalid 'older_than': it takes seconds from 0.")
	case s.Max < 0:
		return q, invalid("max", "Invalid 'max': it takes a whole number from 0.")
	case s.OlderThan > 0:
		q.Before = h.ports.Now().Add(-time.Duration(min(s.OlderThan, 1e9)) * time.Second)
	}
	return q, nil
}

var selectionFields = []string{"job", "tenant", "code", "older_than", "max"}

func selectionOf(f *fields) DeadSelection {
	s := DeadSelection{Job: f.textOr("job", ""), Tenant: f.textOr("tenant", ""), Code: f.textOr("code", "")}
	if f.has("older_than") {
		s.OlderThan = f.integer("older_than")
	}
	if f.has("max") {
		s.Max = f.integer("max")
	}
	return s
}

// listDead lists dead chunks as the ledger has them.
func (h *Handler) listDead(w http.ResponseWriter, r *http.Request, _ Caller) error {
	page, err := pageOf(r, deadPage, maxDeadPage)
	if err != nil {
		return err
	}
	asked := r.URL.Query()
	s := DeadSelection{Job: asked.Get("job"), Tenant: asked.Get("tenant"), Code: asked.Get("code")}
	if text := asked.Get("older_than"); text != "" {
		d, err := time.ParseDuration(text + "s")
		if err != nil {
			return invalid("older_than", "Invalid 'older_than': %.20q is no number of seconds.", text)
		}
		s.OlderThan = int64(d / time.Second)
	}
	q, err := h.deadQuery(s)
	if err != nil {
		return err
	}
	if page.after != "" {
		if q.From, err = jobs.ParseChunkRef(page.after); err != nil {
			return unknownCursor(jobs.ErrNotFound, page.after)
		}
		q.From.Offset++
	}
	q.Max = page.limit + 1
	found := []DeadChunk{}
	for d, err := range h.inspector.Dead(r.Context(), q) {
		if err != nil {
			return absent(err, "Batch", s.Job)
		}
		found = append(found, wireDead(&d))
	}
	writeJSON(w, http.StatusOK, newList(found, page.limit, func(d DeadChunk) string { return d.ID }))
	return nil
}

func wireDead(d *jobs.DeadChunk) DeadChunk {
	return DeadChunk{
		ID: d.ID.Ref(), Object: "fanout.dead_chunk", Batch: string(d.ID.Job), Tenant: d.Tenant, Line: d.Line, Lines: d.Lines, Open: d.Items,
		Code: d.Code, Message: d.Message, Attempts: d.Attempts, Burials: d.Burial, DeadAt: unix(d.At), State: string(d.State), Refused: optional(d.Refused), Why: optional(d.Why),
	}
}

// getDead shows one with its requests.
func (h *Handler) getDead(w http.ResponseWriter, r *http.Request, _ Caller) error {
	id, err := jobs.ParseChunkRef(r.PathValue("id"))
	if err != nil {
		return notFound("Dead chunk", r.PathValue("id"))
	}
	d, items, err := h.inspector.DeadChunk(r.Context(), id)
	if err != nil {
		return absent(err, "Dead chunk", r.PathValue("id"))
	}
	shown := wireDead(&d)
	for _, i := range items {
		shown.Items = append(shown.Items, DeadItem{i.Line, i.CustomID, i.Code, i.Message, nonzero(i.Status), i.Calls, i.Crashes})
	}
	writeJSON(w, http.StatusOK, shown)
	return nil
}

// redrive moves dead chunks back to work, or counts what would move.
func (h *Handler) redrive(w http.ResponseWriter, r *http.Request, c Caller) error {
	f, err := readFields(r, slices.Concat(selectionFields, []string{"rate", "from", "dry_run"})...)
	if err != nil {
		return err
	}
	q := jobs.RedriveQuery{Rate: f.numberOr("rate", 0, 0, 10_000), DryRun: f.boolOr("dry_run", true)}
	s, from := selectionOf(f), f.textOr("from", "")
	if f.err != nil {
		return f.err
	}
	if q.DeadQuery, err = h.deadQuery(s); err != nil {
		return err
	}
	if from != "" {
		if q.From, err = jobs.ParseChunkRef(from); err != nil {
			return invalid("from", "Invalid 'from': %.80q names no chunk.", from)
		}
	}
	if err := h.deadLettersOff(); err != nil && !q.DryRun {
		return err
	}
	q.Until = h.ports.Now().Add(redriveFor)
	done, err := h.inspector.Redrive(r.Context(), q, c.who())
	if err != nil {
		return absent(err, "Batch", s.Job)
	}
	told := Redriven{
		Object: "fanout.redrive", DryRun: q.DryRun, Chunks: done.Chunks, Requests: done.Items, Batches: done.Jobs, Refused: done.Refused, Cleared: done.Cleared, Followed: []Followed{},
	}
	for _, f := range done.Followed {
		told.Followed = append(told.Followed, Followed{f.ID.Ref(), f.Burial, f.Failed, f.Code})
	}
	if done.More {
		told.Next = optional(done.Next.Ref())
	}
	writeJSON(w, http.StatusOK, told)
	return nil
}

// follow tells what became of chunks that were redriven.
func (h *Handler) follow(w http.ResponseWriter, r *http.Request, _ Caller) error {
	f, err := readFields(r, "chunks")
	if err != nil {
		return err
	}
	var asked []Followed
	if !f.into("chunks", &asked) {
		return f.err
	}
	if len(asked) > MaxFollowed {
		return invalid("chunks", "Invalid 'chunks': it takes at most %d.", MaxFollowed)
	}
	all := make([]jobs.Followed, len(asked))
	for n, a := range asked {
		id, err := jobs.ParseChunkRef(a.ID)
		if err != nil {
			return invalid("chunks", "Invalid 'chunks': %.80q names no chunk.", a.ID)
		}
		all[n] = jobs.Followed{ID: id, Burial: a.Burial, Failed: a.Failed, Code: a.Code}
	}
	states, err := h.inspector.Follow(r.Context(), all)
	if err != nil {
		return err
	}
	told := FollowedStates{States: []string{}}
	for _, s := range states {
		told.States = append(told.States, string(s))
	}
	writeJSON(w, http.StatusOK, told)
	return nil
}

// purgeDead clears dead chunks out of the dead letters.
func (h *Handler) purgeDead(w http.ResponseWriter, r *http.Request, c Caller) error {
	f, err := readFields(r, slices.Concat(selectionFields, []string{"dry_run"})...)
	if err != nil {
		return err
	}
	s, dry := selectionOf(f), f.boolOr("dry_run", true)
	if f.err != nil {
		return f.err
	}
	q, err := h.deadQuery(s)
	if err != nil {
		return err
	}
	if !dry {
		if err := h.deadLettersOff(); err != nil {
			return err
		}
	}
	q.Until = h.ports.Now().Add(redriveFor)
	done, err := h.inspector.Purge(r.Context(), jobs.PurgeQuery{DeadQuery: q, DryRun: dry}, c.who())
	if err != nil {
		return absent(err, "Batch", s.Job)
	}
	writeJSON(w, http.StatusOK, Purged{"fanout.purge", dry, done.Chunks, done.More})
	return nil
}
