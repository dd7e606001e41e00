package functions

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/fanout-inference/fanout/internal/awstest"
	"github.com/fanout-inference/fanout/internal/lambdatest"
	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/awsjobs"
)

// How long the functions may take. An item starts only if its call's timeout, what is kept for saving and the pump's margin
// fit before the deadline; a crash delays its chunk until ten seconds after.
const (
	timeout     = 12 * time.Second
	callTimeout = 2 * time.Second
)

// plan is what a stage is made for.
type plan struct {
	upstream string        // its URL
	timeout  time.Duration // of an invocation; 0 = timeout
	// via is where a function finds a service; nil = at its endpoint.
	via      func(function, service, endpoint string) string
	webhooks bool            // there is a notify function
	sqs      awstest.SQSKind // "" = Fauxqs
}

// notifyTimeout is more than a receiver may take.
const notifyTimeout = 20 * time.Second

// notifyEnv is all that the notify function is told.
func notifyEnv(t *testing.T, c *sqs.Client, endpoint string, queues map[string]string) map[string]string {
	t.Helper()
	keys, err := c.Options().Credentials.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		"AWS_ACCESS_KEY_ID": keys.AccessKeyID, "AWS_SECRET_ACCESS_KEY": keys.SecretAccessKey, "AWS_ENDPOINT_URL_SQS": endpoint,
		"FANOUT_NOTIFY_QUEUE": queues["notify"], "FANOUT_NOTIFY_DEAD_LETTERS": queues["notify-dead"], "FANOUT_AGGREGATE_QUEUE": queues["aggregate"],
		"FANOUT_NOTIFY_ALLOW": "127.0.0.0/8,::1/128",
	}
}

// stage is a whole deployment: the real binaries, pumped from queues, on a table and a bucket.
type stage struct {
	ingest, worker, aggregate *lambdatest.Function
	notify                    *lambdatest.Function          // nil unless it was planned
	mappings                  map[string]lambdatest.Mapping // by queue; to be changed before start
	sources                   map[string]*lambdatest.Source
	env                       map[string]string // of the worker
	via                       func(function, service, endpoint string) string

	queues map[string]string // URLs, by name
	sqs    *sqs.Client
	s3     *s3.Client
	bucket string
	store  *awsjobs.Store
	files  *awsjobs.Files
}

// newStage deploys everything. Nothing runs before start.
func newStage(t *testing.T, p plan) *stage {
	t.Helper()
	if p.via == nil {
		p.via = func(function, service, endpoint string) string { return watched(t, function, service, endpoint) }
	}
	db := awstest.DynamoDB(t)
	s := &stage{sqs: awstest.SQS(t, cmp.Or(p.sqs, awstest.Fauxqs)), s3: awstest.S3(t)}
	s.queues, s.bucket = awstest.Queues(t, s.sqs), awstest.Bucket(t, s.s3)
	table := awstest.Table(t, db, awsjobs.TableInput)
	s.store, s.files = awsjobs.NewStore(db, table), awsjobs.NewFiles(s.s3, s.bucket)

	keys, err := s.s3.Options().Credentials.Retrieve(t.Context()) // the other servers take any
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{
		"AWS_ACCESS_KEY_ID": keys.AccessKeyID, "AWS_SECRET_ACCESS_KEY": keys.SecretAccessKey, "AWS_SESSION_TOKEN": keys.SessionToken,
		"AWS_ENDPOINT_URL_DYNAMODB": aws.ToString(db.Options().BaseEndpoint),
		"AWS_ENDPOINT_URL_SQS":      aws.ToString(s.sqs.Options().BaseEndpoint),
		"AWS_ENDPOINT_URL_S3":       aws.ToString(s.s3.Options().BaseEndpoint),
		"FANOUT_TABLE":              table, "FANOUT_BUCKET": s.bucket,
		"FANOUT_INGEST_QUEUE": s.queues["ingest"], "FANOUT_WORK_QUEUE": s.queues["work"], "FANOUT_AGGREGATE_QUEUE": s.queues["aggregate"],
	}
	deploy := func(name string, more map[string]string) *lambdatest.Function {
		all := maps.Clone(env)
		maps.Copy(all, more)
		for _, service := range []string{"dynamodb", "sqs", "s3"} {
			variable := "AWS_ENDPOINT_URL_" + strings.ToUpper(service)
			all[variable] = p.via(name, service, env[variable])
		}
		return lambdatest.Deploy(t, lambdatest.Config{
			Name: name, Bootstrap: lambdatest.Build(t, name), Env: all, Timeout: cmp.Or(p.timeout, timeout),
			EnvOf: func(nth int) map[string]string { return map[string]string{"FANOUT_UPSTREAM_KEY": fmt.Sprint(nth)} },
		})
	}
	s.ingest = deploy("ingest", map[string]string{"FANOUT_INGEST_DEAD_LETTERS": s.queues["ingest-dead"]})
	of := map[string]string{
		"FANOUT_WORK_DEAD_LETTERS": s.queues["work-dead"], "FANOUT_UPSTREAM": p.upstream, "FANOUT_CALL_TIMEOUT": callTimeout.String(),
	}
	s.worker = deploy("worker", of)
	s.env = maps.Clone(env)
	maps.Copy(s.env, of)
	s.via = p.via
	of = map[string]string{"FANOUT_AGGREGATE_DEAD_LETTERS": s.queues["aggregate-dead"]}
	if p.webhooks {
		of["FANOUT_NOTIFY_QUEUE"] = s.queues["notify"]
	}
	s.aggregate = deploy("aggregate", of)
	s.mappings = map[string]lambdatest.Mapping{
		"ingest":    {Function: s.ingest, BatchSize: 1},
		"work":      {Function: s.worker, BatchSize: 2},
		"aggregate": {Function: s.aggregate},
	}
	if p.webhooks {
		s.notify = lambdatest.Deploy(t, lambdatest.Config{
			Name: "notify", Bootstrap: lambdatest.Build(t, "notify"), Env: notifyEnv(t, s.sqs, p.via("notify", "sqs", aws.ToString(s.sqs.Options().BaseEndpoint)), s.queues), Timeout: notifyTimeout,
		})
		s.mappings["notify"] = lambdatest.Mapping{Function: s.notify}
	}
	return s
}

// start attaches the event sources.
func (s *stage) start(t *testing.T) {
	t.Helper()
	s.sources = map[string]*lambdatest.Source{}
	for name, m := range s.mappings {
		m.Client, m.Queue = cmp.Or(m.Client, s.sqs), s.queues[name]
		s.sources[name] = lambdatest.Map(t, m)
	}
}

// upload puts a file into the inbox and returns the notification that S3 would send.
func (s *stage) upload(t *testing.T, key, body string) (notification string) {
	t.Helper()
	put, err := s.s3.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &s.bucket, Key: &key, Body: strings.NewReader(body)})
	if err != nil {
		t.Fatal(err)
	}
	type object map[string]any
	n, err := json.Marshal(object{"Records": []object{{
		"eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "us-east-1", "eventName": "ObjectCreated:Put",
		"s3": object{
			"s3SchemaVersion": "1.0", "configurationId": "inbox", "bucket": object{"name": s.bucket, "arn": "arn:aws:s3:::" + s.bucket},
			"object": object{"key": key, "size": len(body), "eTag": strings.Trim(*put.ETag, `"`), "sequencer": "0055AED6DCD90281E5"},
		},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return string(n)
}

func (s *stage) send(t *testing.T, queue, body string) {
	t.Helper()
	url := s.queues[queue]
	if _, err := s.sqs.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: &body}); err != nil {
		t.Fatal(err)
	}
}

// job waits for the end of the tenant's one job.
func (s *stage) job(t *testing.T, tenant string) jobs.Job {
	t.Helper()
	return s.jobIs(t, tenant, func(j jobs.Job) bool { return j.Phase.Ended() })
}

// jobIs waits until the tenant's one job is as wanted.
func (s *stage) jobIs(t *testing.T, tenant string, wanted func(jobs.Job) bool) (j jobs.Job) {
	t.Helper()
	err := s.sources["aggregate"].WaitFor(t.Context(), func(ctx context.Context) (bool, error) {
		found := 0
		for one, err := range s.store.Jobs(ctx, jobs.JobQuery{Tenant: tenant}) {
			if err != nil {
				return false, err
			}
			j = one
			found++
		}
		if found > 1 {
			return false, errors.New("more than one job")
		}
		return found == 1 && wanted(j), nil
	})
	if err != nil {
		t.Fatalf("%v; the job is %s, %+v", err, j.Phase, j.Totals)
	}
	return j
}

// outcome is a line of a job's files.
type outcome struct {
	ID    string `json:"custom_id"`
	Error *struct{ Code, Message string }
}

// outcomes reads one of the job's files; nil has none.
func (s *stage) outcomes(t *testing.T, f *jobs.FileInfo) (all []outcome) {
	t.Helper()
	if f == nil {
		return nil
	}
	r, err := s.files.Read(t.Context(), f.FileRef, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		var o outcome
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			t.Fatalf("%v in %s", err, lines.Text())
		}
		all = append(all, o)
	}
	return all
}

// endLease does what time does to the lease of a chunk whose worker has died.
func (s *stage) endLease(t *testing.T, id jobs.ChunkID) {
	for c, err := range s.store.Chunks(t.Context(), id.Job, id.Split, jobs.At(id.Offset)) {
		if err == nil && c.Owner != "" {
			c.Lease = time.Now()
			err = s.store.SaveChunk(t.Context(), &c)
		}
		if err != nil && t.Context().Err() == nil {
			t.Errorf("end the lease of chunk %s: %v", id, err)
			return
		}
	}
}

// nothingDead holds that nothing was buried. What still waits in the queues, for some minutes, are nudges that came while
// somebody else was at it.
func (s *stage) nothingDead(t *testing.T) {
	t.Helper()
	for _, name := range []string{"ingest", "work", "aggregate", "notify"} {
		if dead := s.dead(t, name); len(dead) > 0 {
			t.Errorf("%s has %d dead letters, such as %s, %+v", name, len(dead), *dead[0].Body, dead[0].MessageAttributes)
		}
	}
}

// ask is the input of n items with these texts, by their numbers; the others say that of anyItem, or "hello".
func ask(n int, texts map[int]string) string {
	var b strings.Builder
	for i := range n {
		text := cmp.Or(texts[i], texts[anyItem], "hello")
		fmt.Fprintf(&b, `{"custom_id":"c%d","method":"POST","url":"/v1/chat/completions","body":{"model":"m","n":%d,"messages":[{"role":"user","content":%q}]}}`+"\n", i, i, text)
	}
	return b.String()
}

// anyItem is the text of those that have none of their own.
const anyItem = -1

// answered holds that the answers are those of n items, in input order, but the items left out.
func answered(t *testing.T, got []outcome, n int, leftOut ...string) {
	t.Helper()
	next, stop := iter.Pull(func(yield func(string) bool) {
		for i := range n {
			if id := fmt.Sprint("c", i); !strings.Contains(" "+strings.Join(leftOut, " ")+" ", " "+id+" ") && !yield(id) {
				return
			}
		}
	})
	defer stop()
	for at, o := range got {
		if want, _ := next(); o.ID != want {
			t.Fatalf("line %d answers %q, want %q", at+1, o.ID, want)
		}
	}
	if id, more := next(); more {
		t.Errorf("%d answers; %s has none", len(got), id)
	}
}
