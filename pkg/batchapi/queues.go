package batchapi

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// queues are those that operators see, in the order in which work goes through them.
func (h *Handler) queues() []jobs.QueueName {
	all := []jobs.QueueName{jobs.QueueIngest, jobs.QueueWork, jobs.QueueAggregate}
	if h.opt.Webhooks != nil {
		all = append(all, jobs.QueueNotify)
	}
	return all
}

func (h *Handler) queueOf(r *http.Request) (jobs.QueueName, error) {
	name := jobs.QueueName(r.PathValue("queue"))
	if !slices.Contains(h.queues(), name) {
		return "", notFound("Queue", string(name))
	}
	return name, h.deadLettersOff()
}

// QueueState is what a queue holds, and the last moves of its dead letters.
type QueueState struct {
	ID       string      `json:"id"`
	Object   string      `json:"object"` // "fanout.queue"
	Waiting  int64       `json:"waiting"`
	InFlight int64       `json:"in_flight"`
	Delayed  int64       `json:"delayed"`
	Dead     int64       `json:"dead"`
	Oldest   *float64    `json:"oldest_seconds"` // age of the oldest waiting message; null = not known, which on AWS it never is
	Moves    []QueueMove `json:"moves"`          // newest first
}

// QueueMove is a move of a queue's dead letters back into it.
type QueueMove struct {
	State string  `json:"state"` // running, completed, stopped or failed
	Began int64   `json:"began"`
	Moved int64   `json:"moved"`
	Total int64   `json:"total"`
	Why   *string `json:"why"` // it failed
}

// listQueues tells what the queues hold.
func (h *Handler) listQueues(w http.ResponseWriter, r *http.Request, _ Caller) error {
	if err := h.deadLettersOff(); err != nil {
		return err
	}
	var found []QueueState
	for _, name := range h.queues() {
		s, err := h.queueState(r.Context(), name)
		if err != nil {
			return err
		}
		found = append(found, s)
	}
	writeJSON(w, http.StatusOK, newList(found, len(found), func(s QueueState) string { return s.ID }))
	return nil
}

func (h *Handler) queueState(ctx context.Context, name jobs.QueueName) (QueueState, error) {
	d, err := h.ports.Queue.Depth(ctx, name)
	if err != nil {
		return QueueState{}, err
	}
	moves, err := h.inspector.Moves(ctx, name)
	s := QueueState{ID: string(name), Object: "fanout.queue", Waiting: d.Waiting, InFlight: d.InFlight, Delayed: d.Delayed, Dead: d.Dead, Moves: []QueueMove{}}
	if d.Oldest > 0 {
		age := d.Oldest.Seconds()
		s.Oldest = &age
	}
	for _, m := range moves {
		s.Moves = append(s.Moves, QueueMove{string(m.State), m.Began.Unix(), m.Moved, m.Total, optional(m.Why)})
	}
	return s, err
}

// DeadLetter is a letter of a queue as it is.
type DeadLetter struct {
	ID       string  `json:"id"`
	Object   string  `json:"object"`   // "fanout.letter"
	Standing string  `json:"standing"` // what the ledger says to it: dead, stale, unreadable or other
	Batch    *string `json:"batch"`
	Code     *string `json:"code"`
	Message  *string `json:"message"`
	Attempts int     `json:"attempts"`
	SentAt   *int64  `json:"sent_at"`
	Body     string  `json:"body"` // a reference, never a request; cut
}

// maxLetterBody is how much of a letter is shown: whoever sent it, it may be anything.
const maxLetterBody = 1000

// listLetters looks at the letters of a queue. They come in any order, so no page can follow another, and there is no cursor.
func (h *Handler) listLetters(w http.ResponseWriter, r *http.Request, _ Caller) error {
	name, err := h.queueOf(r)
	if err != nil {
		return err
	}
	page, err := pageOf(r, deadPage, maxDeadPage)
	if err != nil {
		return err
	}
	if page.after != "" {
		return invalid("after", "Invalid 'after': letters have no order in which one follows another. Ask for more of them with 'limit', up to %d.", maxDeadPage)
	}
	letters, standings, err := h.inspector.Letters(r.Context(), name, page.limit+1)
	if err != nil {
		return err
	}
	found := []DeadLetter{}
	for n, l := range letters {
		body := strings.ToValidUTF8(string(l.Body[:min(len(l.Body), maxLetterBody)]), "\uFFFD")
		found = append(found, DeadLetter{l.ID, "fanout.letter", string(standings[n]), optional(string(l.Burial.Job)), optional(l.Burial.Code), optional(l.Burial.Message), l.Burial.Attempts, unix(l.At), body})
	}
	l := newList(found, page.limit, func(l DeadLetter) string { return l.ID })
	l.FirstID, l.LastID = nil, nil
	writeJSON(w, http.StatusOK, l)
	return nil
}

// purgeLetters removes letters as they are.
func (h *Handler) purgeLetters(w http.ResponseWriter, r *http.Request, c Caller) error {
	f, err := readFields(r, "only_stale", "dry_run")
	if err != nil {
		return err
	}
	stale, dry := f.boolOr("only_stale", false), f.boolOr("dry_run", true)
	if f.err != nil {
		return f.err
	}
	name, err := h.queueOf(r)
	if err != nil {
		return err
	}
	q := jobs.LettersQuery{Queue: name, OnlyStale: stale, DryRun: dry, Until: h.ports.Now().Add(redriveFor)}
	done, err := h.inspector.PurgeLetters(r.Context(), q, c.who())
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, Purged{"fanout.purge", dry, done.Chunks, done.More})
	return nil
}

// moveLetters begins to move all letters of a queue back into it.
func (h *Handler) moveLetters(w http.ResponseWriter, r *http.Request, c Caller) error {
	f, err := readFields(r, "rate")
	if err != nil {
		return err
	}
	rate := int64(0) // the transport's own pace, which only who says nothing of it gets: half a letter a second is not that
	if f.has("rate") {
		rate = f.integerFrom("rate", 1, jobs.MaxMoveRate)
	}
	if f.err != nil {
		return f.err
	}
	name, err := h.queueOf(r)
	if err != nil {
		return err
	}
	err = h.inspector.Move(r.Context(), name, int(rate), c.who())
	if jobs.CodeOf(err) == jobs.CodeConflict {
		return refuse(http.StatusConflict, "move_under_way", "The dead letters of queue '%s' are being moved; stop that first.", name)
	}
	if err != nil {
		return err
	}
	return h.writeQueue(w, r, name)
}

// stopMove ends the move that is under way.
func (h *Handler) stopMove(w http.ResponseWriter, r *http.Request, c Caller) error {
	name, err := h.queueOf(r)
	if err != nil {
		return err
	}
	if err := h.inspector.StopMove(r.Context(), name, c.who()); err != nil {
		return absent(err, "Move of queue", string(name))
	}
	return h.writeQueue(w, r, name)
}

func (h *Handler) writeQueue(w http.ResponseWriter, r *http.Request, name jobs.QueueName) error {
	s, err := h.queueState(r.Context(), name)
	if err == nil {
		writeJSON(w, http.StatusOK, s)
	}
	return err
}
