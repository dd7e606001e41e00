package functions

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/fanout-inference/fanout/internal/frontdoor"
	"github.com/fanout-inference/fanout/internal/lambdatest"
	"github.com/fanout-inference/fanout/pkg/batchapi"
	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/upstream/upstreamtest"
)

const operatorKey = "a-key-that-the-operator-made"

// frontDoor deploys the api function on a stage, and returns its URL.
func (s *stage) frontDoor(t *testing.T, streams bool) (url string, f *lambdatest.Function) {
	t.Helper()
	sum := sha256.Sum256([]byte(operatorKey))
	env := maps.Clone(s.env)
	for name := range env {
		if strings.HasPrefix(name, "FANOUT_UPSTREAM") || name == "FANOUT_WORK_DEAD_LETTERS" || name == "FANOUT_CALL_TIMEOUT" {
			delete(env, name)
		}
	}
	for _, service := range []string{"dynamodb", "sqs", "s3"} {
		variable := "AWS_ENDPOINT_URL_" + strings.ToUpper(service)
		env[variable] = s.via("api", service, env[variable])
	}
	env["FANOUT_OPERATOR_KEY_SHA256"], env["FANOUT_MODELS"] = hex.EncodeToString(sum[:]), "small,large"
	for _, name := range []string{"ingest", "work", "aggregate", "notify"} {
		env["FANOUT_"+strings.ToUpper(name)+"_DEAD_LETTERS"] = s.queues[name+"-dead"]
	}
	if s.notify != nil {
		env["FANOUT_NOTIFY_QUEUE"] = s.queues["notify"]
	}
	if streams {
		env["FANOUT_FRONT_DOOR"] = "streaming"
	}
	f = lambdatest.Deploy(t, lambdatest.Config{Name: "api", Bootstrap: lambdatest.Build(t, "api"), Env: env, Timeout: 30 * time.Second})
	return lambdatest.Gateway(t, f, streams) + "/v1", f
}

// tenantKey makes a key as an operator.
func tenantKey(t *testing.T, url, tenant string) string {
	t.Helper()
	operator, err := batchapi.NewClient(url, operatorKey)
	if err != nil {
		t.Fatal(err)
	}
	k, err := operator.CreateKey(t.Context(), batchapi.CreateKeyRequest{Tenant: tenant})
	if err != nil {
		t.Fatal(err)
	}
	return *k.Secret
}

// TestABatchGoesThroughBothFrontDoors: an official client, unmodified, through the real binaries of all functions.
func TestABatchGoesThroughBothFrontDoors(t *testing.T) {
	t.Parallel()
	s := newStage(t, plan{upstream: (&upstreamtest.Server{}).Start(t)})
	s.start(t)
	for name, streams := range map[string]bool{"an HTTP API": false, "a Function URL": true} {
		t.Run(name, func(t *testing.T) {
			url, f := s.frontDoor(t, streams)
			key := tenantKey(t, url, "acme")
			ours, err := batchapi.NewClient(url, key)
			if err != nil {
				t.Fatal(err)
			}
			client := openai.NewClient(option.WithBaseURL(url), option.WithAPIKey(key))
			input := ask(3, nil)
			file, err := client.Files.New(t.Context(), openai.FileNewParams{File: openai.File(strings.NewReader(input), "ü.jsonl", "application/jsonl"), Purpose: openai.FilePurposeBatch})
			if err != nil {
				t.Fatal(err)
			}
			made, err := client.Batches.New(t.Context(), openai.BatchNewParams{InputFileID: file.ID, Endpoint: "/v1/chat/completions", CompletionWindow: "24h"})
			if err != nil {
				t.Fatal(err)
			}
			if streams {
				follow(t, url, key, made.ID)
			} else if status := statusOf(t, url, key, "/batches/"+made.ID+"/events"); status != http.StatusBadRequest {
				t.Errorf("events: %d", status)
			}
			b := waited(t, ours, made.ID)
			if b.Status != "completed" || b.RequestCounts.Completed != 3 {
				t.Fatalf("the batch is %+v\n%s", b, strings.Join(f.Log(t), "\n"))
			}
			output, err := client.Files.Content(t.Context(), *b.OutputFileID)
			if err != nil {
				t.Fatal(err)
			}
			whole, err := io.ReadAll(output.Body)
			if err = errors.Join(err, output.Body.Close()); err != nil {
				t.Fatal(err)
			}
			var results bytes.Buffer
			after, state, err := ours.Results(t.Context(), made.ID, batchapi.ResultsQuery{}, func(line []byte) error {
				results.Write(append(line, '\n'))
				return nil
			})
			if err != nil || state != "complete" || after == "" || results.String() != string(whole) || bytes.Count(whole, []byte("\n")) != 3 {
				t.Errorf("the results are %s after %q, %v; the output is %s\n%s", state, after, err, whole, &results)
			}
			if models, err := client.Models.List(t.Context()); err != nil || len(models.Data) != 2 {
				t.Errorf("models: %+v, %v", models, err)
			}
			if log := strings.Join(f.Log(t), "\n"); strings.Contains(log, key) || strings.Contains(log, operatorKey) || !strings.Contains(log, `"requests"`) {
				t.Errorf("the log has a key, or no metrics:\n%s", log)
			}
		})
	}
}

// waited waits for the end of a batch.
func waited(t *testing.T, c *batchapi.Client, id string) batchapi.Batch {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for tag := ""; ; {
		b, next, err := c.WaitBatch(ctx, id, tag, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if b.Ended() {
			return b
		}
		tag = next
	}
}

func statusOf(t *testing.T, url, key, path string) int {
	t.Helper()
	r := get(t, url, key, path)
	defer r.Body.Close()
	return r.StatusCode
}

func get(t *testing.T, url, key, path string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+key)
	out, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// follow reads the events of a batch until one says that it has ended, or the invocation's time is over.
func follow(t *testing.T, url, key, id string) {
	t.Helper()
	r := get(t, url, key, "/batches/"+id+"/events")
	defer r.Body.Close()
	var statuses []string
	for lines := bufio.NewScanner(r.Body); lines.Scan(); {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var b batchapi.Batch
		if err := json.Unmarshal([]byte(data), &b); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		statuses = append(statuses, b.Status)
	}
	if len(statuses) < 2 || slices.Contains(statuses, "") {
		t.Errorf("the events are of %v", statuses)
	}
}

// TestWhatIsTooLargeForTheFrontDoorGoesPastIt: a presigned PUT, and a redirect to a presigned GET. OpenAI's Go client goes to
// no other host; it says so, and where it was to go.
func TestWhatIsTooLargeForTheFrontDoorGoesPastIt(t *testing.T) {
	t.Parallel()
	s := newStage(t, plan{upstream: (&upstreamtest.Server{}).Start(t)})
	url, _ := s.frontDoor(t, false)
	key := tenantKey(t, url, "acme")
	ours, err := batchapi.NewClient(url, key)
	if err != nil {
		t.Fatal(err)
	}
	content := strings.Repeat(`{"a":"line"}`+"\n", frontdoor.MaxBuffered/12)
	if _, err := ours.CreateFile(t.Context(), "large.jsonl", "batch", strings.NewReader(content)); jobs.CodeOf(err) != jobs.CodeLimit {
		t.Errorf("through the front door: %v", err)
	}
	f, err := ours.CreateLargeFile(t.Context(), "large.jsonl", "batch", strings.NewReader(content), int64(len(content)))
	if err != nil || f.Bytes != int64(len(content)) {
		t.Fatalf("past it: %+v, %v", f, err)
	}
	for from, want := range map[int64]string{0: content, 1000: content[1000:]} {
		out, err := ours.FileContent(t.Context(), f.ID, from)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(out)
		if err = errors.Join(err, out.Close()); err != nil || string(got) != want {
			t.Errorf("from byte %d on it comes back with %d bytes, not %d, %v", from, len(got), len(want), err)
		}
	}
	client := openai.NewClient(option.WithBaseURL(url), option.WithAPIKey(key))
	if r, err := client.Files.Content(t.Context(), f.ID); err == nil || !strings.Contains(err.Error(), "X-Amz-Signature") {
		t.Errorf("the official Go client: %v", err)
		if err == nil {
			_ = r.Body.Close() // it was not to be had
		}
	}
	if other := tenantKey(t, url, "other"); statusOf(t, url, other, "/files/"+f.ID+"/content") != http.StatusNotFound {
		t.Error("another tenant gets it")
	}
	if d, err := ours.DeleteFile(t.Context(), f.ID); err != nil || !d.Deleted {
		t.Errorf("deleting it: %+v, %v", d, err)
	}
}

// TestFilesInPartsCancelsAndWebhooksGoThroughTheFrontDoor: what the other tests do not ask of the function.
func TestFilesInPartsCancelsAndWebhooksGoThroughTheFrontDoor(t *testing.T) {
	t.Parallel()
	s := newStage(t, plan{upstream: (&upstreamtest.Server{}).Start(t), webhooks: true})
	url, _ := s.frontDoor(t, false)
	operator, err := batchapi.NewClient(url, operatorKey)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := operator.CreateHook(t.Context(), batchapi.CreateHookRequest{URL: "https://169.254.169.254/"}); err != nil {
		t.Fatal(err)
	}
	client := openai.NewClient(option.WithBaseURL(url), option.WithAPIKey(operatorKey))
	input := ask(3, nil)
	u, err := client.Uploads.New(t.Context(), openai.UploadNewParams{Bytes: int64(len(input)), Filename: "in.jsonl", MimeType: "text/jsonl", Purpose: openai.FilePurposeBatch})
	if err != nil {
		t.Fatal(err)
	}
	var parts []string
	for _, text := range []string{input[:100], input[100:]} {
		p, err := client.Uploads.Parts.New(t.Context(), u.ID, openai.UploadPartNewParams{Data: strings.NewReader(text)})
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, p.ID)
	}
	whole, err := client.Uploads.Complete(t.Context(), u.ID, openai.UploadCompleteParams{PartIDs: parts})
	if err != nil {
		t.Fatal(err)
	}
	made, err := client.Batches.New(t.Context(), openai.BatchNewParams{InputFileID: whole.File.ID, Endpoint: "/v1/chat/completions", CompletionWindow: "24h"})
	if err != nil {
		t.Fatal(err)
	}
	dry, err := operator.DryRun(t.Context(), batchapi.CreateBatchRequest{InputFileID: whole.File.ID, Endpoint: "/v1/chat/completions", CompletionWindow: "24h"})
	if err != nil || dry.RequestCounts.Total != 3 || dry.WouldFail {
		t.Errorf("the dry run says %+v, %v", dry, err)
	}
	if _, err := client.Batches.Cancel(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	s.send(t, "aggregate", `{"v":1,"sweep":true}`)
	s.start(t) // nothing was begun before the cancel
	if b := waited(t, operator, made.ID); b.Status != "cancelled" {
		t.Errorf("it is %s", b.Status)
	}
	var d batchapi.Delivery
	err = s.sources["notify"].WaitFor(t.Context(), func(ctx context.Context) (bool, error) {
		l, err := operator.Deliveries(ctx, "", batchapi.ListQuery{Limit: 1})
		if len(l.Data) == 1 {
			d = l.Data[0]
		}
		return len(d.Attempts) == 1, err
	})
	if err != nil {
		t.Fatal(err)
	}
	if again, err := operator.Replay(t.Context(), "", d.ID); err != nil || again.Status != "pending" {
		t.Errorf("the replay is %+v, %v", again, err)
	}
	for _, list := range []func() (int, error){
		func() (int, error) {
			l, err := operator.Files(t.Context(), batchapi.ListQuery{})
			return len(l.Data), err
		},
		func() (int, error) {
			l, err := operator.Batches(t.Context(), batchapi.ListQuery{})
			return len(l.Data), err
		},
		func() (int, error) { l, err := operator.Hooks(t.Context(), ""); return len(l.Data), err },
	} {
		if n, err := list(); err != nil || n != 1 {
			t.Errorf("%d are listed, %v", n, err)
		}
	}
}
