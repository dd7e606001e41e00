package officialclients

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

// goClient is openai-go.
type goClient struct {
	openai.Client
	s *server
}

func newGoClient(s *server) goClient {
	return goClient{openai.NewClient(option.WithBaseURL(s.url), option.WithAPIKey(s.key)), s}
}

func (c goClient) upload(ctx context.Context, text string) (string, error) {
	f, err := c.Files.New(ctx, openai.FileNewParams{File: openai.File(strings.NewReader(text), "input.jsonl", "application/jsonl"), Purpose: openai.FilePurposeBatch})
	if err != nil {
		return "", err
	}
	return f.ID, nil
}

func (c goClient) create(ctx context.Context, text string) (*openai.Batch, error) {
	file, err := c.upload(ctx, text)
	if err != nil {
		return nil, err
	}
	return c.Batches.New(ctx, batchOf(file))
}

func batchOf(file string) openai.BatchNewParams {
	return openai.BatchNewParams{
		InputFileID: file, Endpoint: openai.BatchNewParamsEndpointV1ChatCompletions, CompletionWindow: openai.BatchNewParamsCompletionWindow24h,
	}
}

func (c goClient) ended(ctx context.Context, id string) (*openai.Batch, error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		b, err := c.Batches.Get(ctx, id)
		if err != nil {
			return nil, err
		}
		switch b.Status {
		case openai.BatchStatusCompleted, openai.BatchStatusFailed, openai.BatchStatusExpired, openai.BatchStatusCancelled:
			return b, nil
		}
		select { // a client polls, as clients do
		case <-tick.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (c goClient) content(ctx context.Context, id string) (string, error) {
	r, err := c.Files.Content(ctx, id)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	return string(body), err
}

// event is what came to a webhook.
type event struct {
	header http.Header
	body   []byte
}

// hooked calls do while a webhook is there, and gives it what comes to it.
func (c goClient) hooked(ctx context.Context, do func(secret string, events <-chan event) error) (err error) {
	events := make(chan event, 100)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		events <- event{r.Header, body}
	}))
	defer receiver.Close()
	var hook struct{ ID, Secret string }
	if err := c.s.operate(ctx, "POST", "/hooks", fmt.Sprintf(`{"url":%q,"events":["batch.completed"]}`, receiver.URL), &hook); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.s.operate(ctx, "DELETE", "/hooks/"+hook.ID, "", &struct{}{})) }()
	return do(hook.Secret, events)
}

// same tells what differs.
func same(what string, got, want any) error {
	if reflect.DeepEqual(got, want) {
		return nil
	}
	return fmt.Errorf("%s: %v, want %v", what, got, want)
}

func statusOf(err error) int {
	var e *openai.Error
	if errors.As(err, &e) {
		return e.StatusCode
	}
	return 0
}

// goFeatures is what openai-go is asked to do.
var goFeatures = map[string]func(ctx context.Context, c goClient) error{
	"files: upload, retrieve, content, delete": func(ctx context.Context, c goClient) error {
		id, err := c.upload(ctx, answeredLines)
		if err != nil {
			return err
		}
		f, err := c.Files.Get(ctx, id)
		if err != nil {
			return err
		}
		text, err := c.content(ctx, id)
		if err != nil {
			return err
		}
		d, err := c.Files.Delete(ctx, id)
		if err != nil {
			return err
		}
		_, gone := c.Files.Get(ctx, id)
		return errors.Join(same("bytes", f.Bytes, int64(len(answeredLines))), same("content", text, answeredLines), same("deleted", d.Deleted, true), same("then", statusOf(gone), 404))
	},
	"files: upload that expires": func(ctx context.Context, c goClient) error {
		f, err := c.Files.New(ctx, openai.FileNewParams{
			File: openai.File(strings.NewReader("x"), "x.jsonl", "application/jsonl"), Purpose: openai.FilePurposeBatch, ExpiresAfter: openai.FileNewParamsExpiresAfter{Seconds: 3600},
		})
		if err != nil {
			return err
		}
		return same("it lives for", f.ExpiresAt-f.CreatedAt, int64(3600))
	},
	"files: list, three pages, both orders": func(ctx context.Context, c goClient) error {
		var made, newest, oldest []string
		for range 5 {
			id, err := c.upload(ctx, answeredLines)
			if err != nil {
				return err
			}
			made = append(made, id)
		}
		for order, ids := range map[openai.FileListParamsOrder]*[]string{openai.FileListParamsOrderDesc: &newest, openai.FileListParamsOrderAsc: &oldest} {
			pages := c.Files.ListAutoPaging(ctx, openai.FileListParams{Limit: openai.Int(2), Order: order, Purpose: openai.String("batch")})
			for pages.Next() {
				*ids = append(*ids, pages.Current().ID)
			}
			if err := pages.Err(); err != nil {
				return err
			}
		}
		slices.Reverse(newest)
		return errors.Join(same("newest", newest[len(newest)-5:], made), same("oldest", oldest, newest))
	},
	"uploads: parts, complete, cancel": func(ctx context.Context, c goClient) error {
		params := openai.UploadNewParams{Bytes: int64(len(answeredLines)), Filename: "parts.jsonl", MimeType: "text/jsonl", Purpose: openai.FilePurposeBatch}
		u, err := c.Uploads.New(ctx, params)
		if err != nil {
			return err
		}
		half := len(answeredLines) / 2
		var parts []string
		for _, text := range []string{answeredLines[half:], answeredLines[:half]} {
			p, err := c.Uploads.Parts.New(ctx, u.ID, openai.UploadPartNewParams{Data: strings.NewReader(text)})
			if err != nil {
				return err
			}
			parts = append([]string{p.ID}, parts...)
		}
		sum := md5.Sum([]byte(answeredLines))
		done, err := c.Uploads.Complete(ctx, u.ID, openai.UploadCompleteParams{PartIDs: parts, Md5: openai.String(hex.EncodeToString(sum[:]))})
		if err != nil {
			return err
		}
		text, err := c.content(ctx, done.File.ID)
		if err != nil {
			return err
		}
		other, err := c.Uploads.New(ctx, params)
		if err != nil {
			return err
		}
		cancelled, err := c.Uploads.Cancel(ctx, other.ID)
		if err != nil {
			return err
		}
		return errors.Join(same("status", done.Status, openai.UploadStatusCompleted), same("content", text, answeredLines), same("cancelled", cancelled.Status, openai.UploadStatusCancelled))
	},
	"batches: create, poll, read output and errors": func(ctx context.Context, c goClient) error {
		file, err := c.upload(ctx, answeredLines+refusedLine)
		if err != nil {
			return err
		}
		params := batchOf(file)
		params.Metadata = map[string]string{"team": "blue"}
		params.OutputExpiresAfter = openai.BatchNewParamsOutputExpiresAfter{Seconds: 7200}
		made, err := c.Batches.New(ctx, params)
		if err != nil {
			return err
		}
		b, err := c.ended(ctx, made.ID)
		if err != nil {
			return err
		}
		output, err := c.content(ctx, b.OutputFileID)
		if err != nil {
			return err
		}
		failed, err := c.content(ctx, b.ErrorFileID)
		if err != nil {
			return err
		}
		info, err := c.Files.Get(ctx, b.OutputFileID)
		if err != nil {
			return err
		}
		var ids []string
		for line := range strings.Lines(output) {
			var l struct {
				CustomID string `json:"custom_id"`
				Response struct {
					StatusCode int                   `json:"status_code"`
					RequestID  string                `json:"request_id"`
					Body       openai.ChatCompletion `json:"body"`
				} `json:"response"`
			}
			if err := json.Unmarshal([]byte(line), &l); err != nil {
				return err
			}
			if l.Response.StatusCode != 200 || l.Response.RequestID == "" || l.Response.Body.Choices[0].Message.Content != "hi" {
				return fmt.Errorf("an answer is %s", line)
			}
			ids = append(ids, l.CustomID)
		}
		return errors.Join(
			same("at first", made.Status, openai.BatchStatusValidating), same("status", b.Status, openai.BatchStatusCompleted), same("model", b.JSON.Model.Valid(), true),
			same("counts", []int64{b.RequestCounts.Total, b.RequestCounts.Completed, b.RequestCounts.Failed}, []int64{4, 3, 1}), same("metadata", b.Metadata["team"], "blue"),
			same("usage", b.Usage.TotalTokens, int64(12)), same("order", ids, []string{"a", "b", "c"}), same("an error", strings.Contains(failed, `"status_code":400`), true),
			same("purpose", info.Purpose, openai.FileObjectPurposeBatchOutput), same("it lives for", info.ExpiresAt-info.CreatedAt, int64(7200)))
	},
	"batches: an invalid file fails with lines": func(ctx context.Context, c goClient) error {
		made, err := c.create(ctx, "no JSON\n"+answeredLines)
		if err != nil {
			return err
		}
		b, err := c.ended(ctx, made.ID)
		if err != nil {
			return err
		}
		return errors.Join(same("status", b.Status, openai.BatchStatusFailed), same("code", b.Errors.Data[0].Code, "invalid_json_line"), same("line", b.Errors.Data[0].Line, int64(1)))
	},
	"batches: list, three pages": func(ctx context.Context, c goClient) error {
		var made, found []string
		for range 5 {
			b, err := c.create(ctx, answeredLines)
			if err != nil {
				return err
			}
			made = append([]string{b.ID}, made...)
		}
		pages := c.Batches.ListAutoPaging(ctx, openai.BatchListParams{Limit: openai.Int(2)})
		for len(found) < 5 && pages.Next() {
			found = append(found, pages.Current().ID)
		}
		return errors.Join(pages.Err(), same("batches", found, made))
	},
	"batches: cancel": func(ctx context.Context, c goClient) error {
		made, err := c.create(ctx, slowLines)
		if err != nil {
			return err
		}
		if _, err := c.Batches.Cancel(ctx, made.ID); err != nil {
			return err
		}
		b, err := c.ended(ctx, made.ID)
		if err != nil {
			return err
		}
		return same("status", b.Status, openai.BatchStatusCancelled)
	},
	"batches: a create whose answer is lost makes one batch": func(ctx context.Context, c goClient) error {
		file, err := c.upload(ctx, answeredLines)
		if err != nil {
			return err
		}
		lossy := openai.NewClient(option.WithBaseURL(c.s.lossy), option.WithAPIKey(c.s.key))
		made, err := lossy.Batches.New(ctx, batchOf(file))
		if err != nil {
			return err
		}
		var found []string
		pages := c.Batches.ListAutoPaging(ctx, openai.BatchListParams{Limit: openai.Int(100)})
		for pages.Next() {
			if pages.Current().InputFileID == file {
				found = append(found, pages.Current().ID)
			}
		}
		return errors.Join(pages.Err(), same("batches", found, []string{made.ID}))
	},
	"webhooks: unwrap verifies an event": func(ctx context.Context, c goClient) error {
		return c.hooked(ctx, func(secret string, events <-chan event) error {
			made, err := c.create(ctx, answeredLines)
			if err != nil {
				return err
			}
			for {
				var e event
				select {
				case e = <-events:
				case <-ctx.Done():
					return ctx.Err()
				}
				is, err := c.Webhooks.Unwrap(e.body, e.header, option.WithWebhookSecret(secret))
				if err != nil {
					return err
				}
				if is.AsBatchCompleted().Data.ID != made.ID {
					continue // of another batch of ours
				}
				_, forged := c.Webhooks.Unwrap(append(e.body, ' '), e.header, option.WithWebhookSecret(secret))
				return errors.Join(same("type", is.Type, "batch.completed"), same("a forged one is refused", forged != nil, true))
			}
		})
	},
	"errors: typed, and not repeated": func(ctx context.Context, c goClient) error {
		_, unknown := c.Batches.Get(ctx, "batch_none")
		_, noFile := c.Batches.New(ctx, batchOf("file-none"))
		_, cursor := c.Batches.List(ctx, openai.BatchListParams{After: openai.String("batch_none")})
		stranger := openai.NewClient(option.WithBaseURL(c.s.url), option.WithAPIKey("wrong"))
		_, denied := stranger.Files.List(ctx, openai.FileListParams{})
		var e *openai.Error
		param := ""
		if errors.As(noFile, &e) {
			param = e.Param
		}
		return errors.Join(same("unknown", statusOf(unknown), 404), same("no file", statusOf(noFile), 400), same("param", param, "input_file_id"),
			same("cursor", statusOf(cursor), 400), same("wrong key", statusOf(denied), 401))
	},
	"models: list, retrieve": func(ctx context.Context, c goClient) error {
		page, err := c.Models.List(ctx)
		if err != nil {
			return err
		}
		if len(page.Data) == 0 {
			return errors.New("there are no models")
		}
		m, err := c.Models.Get(ctx, page.Data[0].ID)
		if err != nil {
			return err
		}
		return same("model", m.ID, "quick")
	},
}
