package officialclients

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// curlClient is curl, with a folder for what it sends.
type curlClient struct {
	s   *server
	dir string
}

// object is what curl reads; what is of interest here.
type object struct {
	ID, Status, Object, Purpose string
	OutputFileID                string `json:"output_file_id"`
	ErrorFileID                 string `json:"error_file_id"`
	HasMore                     bool   `json:"has_more"`
	LastID                      string `json:"last_id"`
	Deleted                     bool
	Data                        []object
	ExpiresAt                   int64 `json:"expires_at"`
	CreatedAt                   int64 `json:"created_at"`
	Bytes                       int64
	File                        *object
	Upload                      *struct{ URL string }
	Errors                      struct {
		Data []struct {
			Code string
			Line int
		}
	}
	Error struct{ Message, Code, Param string }
}

// run calls curl; at is a path below the base URL, or a whole URL.
func (c curlClient) run(ctx context.Context, at string, args ...string) (string, error) {
	if strings.HasPrefix(at, "/") {
		at = c.s.url + at
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "curl", append([]string{"-sS", at, "-H", "Authorization: Bearer " + c.s.key}, args...)...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("curl %s: %w: %s", at, err, stderr.Bytes())
	}
	return string(out), nil
}

func (c curlClient) call(ctx context.Context, at string, args ...string) (o object, err error) {
	out, err := c.run(ctx, at, args...)
	if err == nil {
		err = json.Unmarshal([]byte(out), &o)
	}
	return o, err
}

func (c curlClient) post(ctx context.Context, at, body string) (object, error) {
	return c.call(ctx, at, "-H", "Content-Type: application/json", "-d", body)
}

func (c curlClient) upload(ctx context.Context, text string, args ...string) (object, error) {
	path := filepath.Join(c.dir, "input.jsonl")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return object{}, err
	}
	return c.call(ctx, "/files", append([]string{"-F", "purpose=batch", "-F", "file=@" + path}, args...)...)
}

func (c curlClient) create(ctx context.Context, text string) (object, error) {
	f, err := c.upload(ctx, text)
	if err != nil {
		return f, err
	}
	return c.post(ctx, "/batches", fmt.Sprintf(`{"input_file_id":%q,"endpoint":"/v1/chat/completions","completion_window":"24h"}`, f.ID))
}

// ended polls as the API lets a shell do it: each request waits for the next change.
func (c curlClient) ended(ctx context.Context, id string) (object, error) {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		b, err := c.call(ctx, "/batches/"+id+"?wait=1s")
		if err != nil || slices.Contains([]string{"completed", "failed", "expired", "cancelled"}, b.Status) {
			return b, err
		}
	}
	return object{}, fmt.Errorf("batch %s does not end", id)
}

func (c curlClient) walk(ctx context.Context, at string) (ids []string, err error) {
	for after := ""; ; {
		l, err := c.call(ctx, at+"&after="+after)
		if err != nil {
			return nil, err
		}
		for _, o := range l.Data {
			ids = append(ids, o.ID)
		}
		if !l.HasMore {
			return ids, nil
		}
		after = l.LastID
	}
}

// curlFeatures is what curl is asked to do. It repeats nothing by itself, so lost answers are no feature of it.
var curlFeatures = map[string]func(ctx context.Context, c curlClient) error{
	"files: upload, retrieve, content, delete": func(ctx context.Context, c curlClient) error {
		f, err := c.upload(ctx, answeredLines)
		if err != nil {
			return err
		}
		text, err := c.run(ctx, "/files/"+f.ID+"/content")
		if err != nil {
			return err
		}
		d, err := c.call(ctx, "/files/"+f.ID, "-X", "DELETE")
		if err != nil {
			return err
		}
		gone, err := c.run(ctx, "/files/"+f.ID, "-o", os.DevNull, "-w", "%{http_code}")
		return errors.Join(err, same("content", text, answeredLines), same("deleted", d.Deleted, true), same("then", gone, "404"))
	},
	"files: upload that expires": func(ctx context.Context, c curlClient) error {
		f, err := c.upload(ctx, "x", "-F", "expires_after[anchor]=created_at", "-F", "expires_after[seconds]=3600")
		return errors.Join(err, same("it lives for", f.ExpiresAt-f.CreatedAt, int64(3600)))
	},
	"files: list, three pages, both orders": func(ctx context.Context, c curlClient) error {
		var made []string
		for range 5 {
			f, err := c.upload(ctx, answeredLines)
			if err != nil {
				return err
			}
			made = append(made, f.ID)
		}
		newest, errNewest := c.walk(ctx, "/files?limit=2&purpose=batch")
		oldest, errOldest := c.walk(ctx, "/files?limit=2&purpose=batch&order=asc")
		slices.Reverse(newest)
		return errors.Join(errNewest, errOldest, same("oldest", oldest, newest), same("the last", oldest[len(oldest)-5:], made))
	},
	"files: presigned upload": func(ctx context.Context, c curlClient) error {
		f, err := c.post(ctx, "/files?presign=true", `{"filename":"large.jsonl","purpose":"batch"}`)
		if err != nil || f.Upload == nil {
			return fmt.Errorf("made %+v: %w", f, err)
		}
		path := filepath.Join(c.dir, "large.jsonl")
		if err := os.WriteFile(path, []byte(answeredLines), 0o600); err != nil {
			return err
		}
		if _, err := c.run(ctx, f.Upload.URL, "-T", path, "-f", "-H", "Authorization:"); err != nil {
			return err
		}
		f, err = c.call(ctx, "/files/"+f.ID)
		return errors.Join(err, same("bytes", f.Bytes, int64(len(answeredLines))), same("status", f.Status, "processed"))
	},
	"uploads: parts, complete, cancel": func(ctx context.Context, c curlClient) error {
		u, err := c.post(ctx, "/uploads", fmt.Sprintf(`{"bytes":%d,"filename":"p.jsonl","mime_type":"text/jsonl","purpose":"batch"}`, len(answeredLines)))
		if err != nil {
			return err
		}
		path := filepath.Join(c.dir, "part")
		if err := os.WriteFile(path, []byte(answeredLines), 0o600); err != nil {
			return err
		}
		part, err := c.call(ctx, "/uploads/"+u.ID+"/parts", "-F", "data=@"+path)
		if err != nil {
			return err
		}
		done, err := c.post(ctx, "/uploads/"+u.ID+"/complete", fmt.Sprintf(`{"part_ids":[%q]}`, part.ID))
		if err != nil || done.File == nil {
			return fmt.Errorf("completed %+v: %w", done, err)
		}
		other, err := c.post(ctx, "/uploads", `{"bytes":1,"filename":"p.jsonl","mime_type":"text/jsonl","purpose":"batch"}`)
		if err != nil {
			return err
		}
		cancelled, err := c.call(ctx, "/uploads/"+other.ID+"/cancel", "-X", "POST")
		return errors.Join(err, same("cancelled", cancelled.Status, "cancelled"))
	},
	"batches: create, poll, read output and errors": func(ctx context.Context, c curlClient) error {
		made, err := c.create(ctx, answeredLines+refusedLine)
		if err != nil {
			return err
		}
		b, err := c.ended(ctx, made.ID)
		if err != nil {
			return err
		}
		output, errOutput := c.run(ctx, "/files/"+b.OutputFileID+"/content")
		failed, errFailed := c.run(ctx, "/files/"+b.ErrorFileID+"/content")
		return errors.Join(errOutput, errFailed, same("status", b.Status, "completed"), same("answers", strings.Count(output, "\n"), 3), same("errors", strings.Count(failed, "\n"), 1))
	},
	"batches: results while they arrive": func(ctx context.Context, c curlClient) error {
		made, err := c.create(ctx, answeredLines+refusedLine)
		if err != nil {
			return err
		}
		b, err := c.ended(ctx, made.ID)
		if err != nil {
			return err
		}
		lines, err := c.run(ctx, "/batches/"+b.ID+"/results?include=input")
		return errors.Join(err, same("lines", strings.Count(lines, `"input":{"custom_id":`), 4))
	},
	"batches: an invalid file fails with lines": func(ctx context.Context, c curlClient) error {
		made, err := c.create(ctx, "no JSON\n"+answeredLines)
		if err != nil {
			return err
		}
		b, err := c.ended(ctx, made.ID)
		if err != nil || len(b.Errors.Data) == 0 {
			return fmt.Errorf("it ends as %+v: %w", b, err)
		}
		return errors.Join(same("status", b.Status, "failed"), same("line", b.Errors.Data[0].Line, 1))
	},
	"batches: list, three pages": func(ctx context.Context, c curlClient) error {
		var made []string
		for range 5 {
			b, err := c.create(ctx, answeredLines)
			if err != nil {
				return err
			}
			made = append([]string{b.ID}, made...)
		}
		found, err := c.walk(ctx, "/batches?limit=2")
		return errors.Join(err, same("batches", found[:5], made))
	},
	"batches: cancel": func(ctx context.Context, c curlClient) error {
		made, err := c.create(ctx, slowLines)
		if err != nil {
			return err
		}
		if _, err := c.call(ctx, "/batches/"+made.ID+"/cancel", "-X", "POST"); err != nil {
			return err
		}
		b, err := c.ended(ctx, made.ID)
		return errors.Join(err, same("status", b.Status, "cancelled"))
	},
	"errors: typed, and not repeated": func(ctx context.Context, c curlClient) error {
		e, err := c.call(ctx, "/batches/batch_none")
		if err != nil {
			return err
		}
		headers, err := c.run(ctx, "/batches/batch_none", "-o", os.DevNull, "-D", "-")
		return errors.Join(err, same("message", e.Error.Message, "No such Batch object: batch_none"), same("x-should-retry", strings.Contains(headers, "X-Should-Retry: false"), true))
	},
	"models: list, retrieve": func(ctx context.Context, c curlClient) error {
		l, err := c.call(ctx, "/models")
		if err != nil || len(l.Data) == 0 {
			return fmt.Errorf("listed %+v: %w", l, err)
		}
		m, err := c.call(ctx, "/models/"+l.Data[0].ID)
		return errors.Join(err, same("model", m.ID, l.Data[0].ID))
	},
}
