package batchapi

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Limits of a page of results.
const (
	resultsPage     = 1000
	maxResultsPage  = 10_000
	resultsPageSize = 4 << 20 // bytes: the line that reaches it is the last; no front door takes much more
)

// Headers of a page of results, whose body is lines only: where to go on, and what is to be had there.
const (
	HeaderResultsAfter = "Fanout-Results-After" // what ?after= goes on with
	HeaderResultsState = "Fanout-Results-State" // more, pending (the next chunk is still open), or complete
)

// readResults gives results in input order, as far as they are there: those of a running batch up to its first open chunk.
func (h *Handler) readResults(w http.ResponseWriter, r *http.Request, c Caller) error {
	q := r.URL.Query()
	page, err := pageOf(r, resultsPage, maxResultsPage)
	if err != nil {
		return err
	}
	read := jobs.ReadQuery{Items: page.limit, Bytes: resultsPageSize}
	if page.after != "" {
		if read.After, err = jobs.ParseCursor(page.after); err != nil {
			return invalid("after", "Invalid 'after': '%.80s' is no place in the results; it is what the header %s said.", page.after, HeaderResultsAfter)
		}
	}
	switch status := q.Get("status"); status {
	case "":
	case "completed":
		read.Only = jobs.OnlyAnswered
	case "failed":
		read.Only = jobs.OnlyFailed
	default:
		return invalid("status", "Invalid 'status': %.20q is neither 'completed' nor 'failed'.", status)
	}
	switch include := q.Get("include"); include {
	case "":
	case "input":
		read.Input = true
	default:
		return invalid("include", "Invalid 'include': %.20q is not 'input'.", include)
	}
	j, err := h.job(r.Context(), c, r.PathValue("id"))
	if err != nil {
		return err
	}
	var lines *bytes.Buffer
	var at jobs.Page
	if id := q.Get("custom_id"); id != "" {
		lines, at, err = h.search(r.Context(), &j, read, id)
	} else {
		lines, at, err = h.results(r.Context(), &j, read)
	}
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Content-Length", strconv.Itoa(lines.Len()))
	w.Header().Set(HeaderResultsAfter, at.Next.String())
	w.Header().Set(HeaderResultsState, string(at.State))
	w.WriteHeader(http.StatusOK)
	_, err = lines.WriteTo(w)
	return err
}

// searchFor is how long one request looks for a custom id; it then says where to go on.
const searchFor = 10 * time.Second

// search reads on until it has the result of a custom id.
func (h *Handler) search(ctx context.Context, j *jobs.Job, q jobs.ReadQuery, id string) (*bytes.Buffer, jobs.Page, error) {
	until := time.Now().Add(searchFor)
	for {
		var found *bytes.Buffer
		q.Items, q.Bytes = maxResultsPage, resultsPageSize
		at, err := jobs.ReadOutcomes(ctx, h.ports, j, q, func(line []byte) error {
			var l struct {
				CustomID string `json:"custom_id"`
			}
			if found == nil && json.Unmarshal(line, &l) == nil && l.CustomID == id {
				found = bytes.NewBuffer(bytes.Clone(line))
			}
			return nil
		})
		switch {
		case err != nil:
			return nil, at, err
		case found != nil && h.opt.MaxAnswer > 0 && int64(found.Len()) > h.opt.MaxAnswer:
			return nil, at, tooLargeResult(found.Len())
		case found != nil:
			at.State = jobs.ReadComplete // there is no other
			return found, at, nil
		case at.State != jobs.ReadMore || time.Now().After(until):
			return &bytes.Buffer{}, at, nil
		}
		q.After = at.Next
	}
}

func tooLargeResult(bytes int) error {
	return refuse(http.StatusBadRequest, "result_too_large", "The next result has %d bytes, more than this front door lets pass. Read it from the output file, once the batch has ended.", bytes)
}

// results reads a page. One whose last line makes it more than the front door lets pass is read again without that line.
func (h *Handler) results(ctx context.Context, j *jobs.Job, q jobs.ReadQuery) (*bytes.Buffer, jobs.Page, error) {
	var lines bytes.Buffer
	n := 0
	at, err := jobs.ReadOutcomes(ctx, h.ports, j, q, func(line []byte) error {
		lines.Write(line)
		n++
		return nil
	})
	switch {
	case err != nil:
		return nil, at, err
	case h.opt.MaxAnswer == 0 || int64(lines.Len()) <= h.opt.MaxAnswer:
		return &lines, at, nil
	case n > 1:
		q.Items = n - 1
		return h.results(ctx, j, q)
	default:
		return nil, at, tooLargeResult(lines.Len())
	}
}
