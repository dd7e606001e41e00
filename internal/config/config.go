// Package config reads what a deployment is told by its environment.
//
// It is read once, in main, as a struct. Whatever is missing or wrong is told together, so that nobody mends a deployment
// one variable at a time. A variable that is set must parse; an empty one counts as not set.
package config

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Cloud is where the ports are. Each function needs the queues that it sends to; the dead letters are those of the queue
// that it is pumped from.
type Cloud struct {
	Table          string `env:"FANOUT_TABLE,required"`
	Bucket         string `env:"FANOUT_BUCKET,required"`
	IngestQueue    string `env:"FANOUT_INGEST_QUEUE,required"`    // URLs
	WorkQueue      string `env:"FANOUT_WORK_QUEUE,required"`      //
	AggregateQueue string `env:"FANOUT_AGGREGATE_QUEUE,required"` //
	// FairQueues sends messages in groups, one a tenant, so that a tenant's backlog does not hold up the others'.
	FairQueues bool       `env:"FANOUT_FAIR_QUEUES" envDefault:"true"`
	LogLevel   slog.Level `env:"FANOUT_LOG_LEVEL" envDefault:"INFO"` // DEBUG, INFO, WARN or ERROR
}

// Ingest is what the ingest function is told.
type Ingest struct {
	Cloud
	DeadLetters  string        `env:"FANOUT_INGEST_DEAD_LETTERS,required"`   // URL
	UploadWindow time.Duration `env:"FANOUT_UPLOAD_WINDOW" envDefault:"24h"` // from an upload to its job's deadline
}

// Worker is what the worker function, and `fanout worker`, are told.
type Worker struct {
	Cloud
	DeadLetters string      `env:"FANOUT_WORK_DEAD_LETTERS,required"` // URL
	Upstream    string      `env:"FANOUT_UPSTREAM,required"`          // builtin, bedrock, sagemaker:ENDPOINT, or the URL of an OpenAI-compatible server
	UpstreamKey jobs.Secret `env:"FANOUT_UPSTREAM_KEY"`
	// UpstreamKeyFrom is a parameter that holds the key, so that it stands in no function's configuration.
	UpstreamKeyFrom string `env:"FANOUT_UPSTREAM_KEY_FROM"`
	// Routes lead some models to other upstreams, such as llama*=http://10.0.0.7:8000/v1,key-from=/llama/key, with white space
	// between several.
	Routes      jobs.Routes   `env:"FANOUT_ROUTES"`
	Concurrency int           `env:"FANOUT_CONCURRENCY" envDefault:"100"` // calls in flight of one process for each upstream+model
	CallTimeout time.Duration `env:"FANOUT_CALL_TIMEOUT" envDefault:"120s"`
	Prices      jobs.Prices   `env:"FANOUT_PRICES"` // of tokens, such as gpt-4o*=2.5/10,*=1/2; none = nothing costs anything
}

// Aggregate is what the aggregate function is told.
type Aggregate struct {
	Cloud
	DeadLetters string `env:"FANOUT_AGGREGATE_DEAD_LETTERS,required"` // URL
	NotifyQueue string `env:"FANOUT_NOTIFY_QUEUE"`                    // URL; none = there are no webhooks
}

// Notify is what the notify function is told: it has neither table nor bucket.
type Notify struct {
	Queue          string         `env:"FANOUT_NOTIFY_QUEUE,required"`        // URLs
	DeadLetters    string         `env:"FANOUT_NOTIFY_DEAD_LETTERS,required"` //
	AggregateQueue string         `env:"FANOUT_AGGREGATE_QUEUE,required"`     //
	Allow          []netip.Prefix `env:"FANOUT_NOTIFY_ALLOW"`                 // private addresses that may be called, such as 10.1.0.0/16
	LogLevel       slog.Level     `env:"FANOUT_LOG_LEVEL" envDefault:"INFO"`
}

// API is what the api function is told.
type API struct {
	Cloud
	FrontDoor      string      `env:"FANOUT_FRONT_DOOR" envDefault:"buffered"`        // buffered: an HTTP API; streaming: a Function URL
	OperatorKey    string      `env:"FANOUT_OPERATOR_KEY_SHA256"`                     // hex; none = the first key is made elsewhere
	OperatorTenant string      `env:"FANOUT_OPERATOR_TENANT" envDefault:"default"`    // whose files and batches that key sees
	Models         []string    `env:"FANOUT_MODELS"`                                  // that are listed; it may not reach who knows
	NotifyQueue    string      `env:"FANOUT_NOTIFY_QUEUE"`                            // URL; none = there are no webhooks
	HookPlain      []string    `env:"FANOUT_HOOK_PLAIN"`                              // hosts that webhooks may lead to without TLS
	Prices         jobs.Prices `env:"FANOUT_PRICES"`                                  // as the workers have them, so that limits of costs are taken only where they act
	MaxFileBytes   int64       `env:"FANOUT_MAX_FILE_BYTES" envDefault:"50000000000"` // of a file that is brought

	// The dead letters that operators reach: URLs. Those of the notify queue are there with it.
	IngestDead    string `env:"FANOUT_INGEST_DEAD_LETTERS,required"`
	WorkDead      string `env:"FANOUT_WORK_DEAD_LETTERS,required"`
	AggregateDead string `env:"FANOUT_AGGREGATE_DEAD_LETTERS,required"`
	NotifyDead    string `env:"FANOUT_NOTIFY_DEAD_LETTERS"`
}

// Upstreams that are no URL. Those that AWS runs are called with its signatures. SageMaker is followed by the name of an endpoint, whose
// container takes OpenAI's requests.
const (
	Builtin   = "builtin" // models of fanout's own; upstream.BuiltinName, whose package only a worker should carry
	Bedrock   = "bedrock"
	SageMaker = "sagemaker:"
)

// The front doors of the api function.
const (
	Buffered  = "buffered"
	Streaming = "streaming"
)

// Limits of what can be asked for.
const (
	MaxConcurrency  = 1000
	MinUploadWindow = time.Minute
	MaxUploadWindow = 14 * 24 * time.Hour // records and objects are kept for a time that rests on this
)

// Checked is a pointer to a configuration of this package.
type Checked[T any] interface {
	*T
	check() []error
}

// Load reads a configuration from an environment such as os.Environ(). Its error names every variable that is missing or
// wrong, and never a value of a secret.
func Load[T any, P Checked[T]](environ []string) (T, error) {
	var c T
	set := env.ToMap(environ)
	maps.DeleteFunc(set, func(_, value string) bool { return strings.TrimSpace(value) == "" })
	var wrong []error
	if err := env.ParseWithOptions(&c, env.Options{Environment: set}); err != nil {
		wrong = reasons(err, reflect.TypeOf(c))
	}
	missing := map[string]bool{}
	for _, err := range wrong {
		if v, ok := errors.AsType[*variableError](err); ok {
			missing[v.name] = true
		}
	}
	for _, err := range P(&c).check() {
		if v, ok := errors.AsType[*variableError](err); !ok || !missing[v.name] {
			wrong = append(wrong, err)
		}
	}
	if len(wrong) == 0 {
		return c, nil
	}
	all := make([]string, len(wrong))
	for i, err := range wrong {
		all[i] = err.Error()
	}
	slices.Sort(all)
	return c, jobs.Errorf(jobs.CodeInvalid, "read the environment: %s", strings.Join(all, "; "))
}

// variableError is what is wrong with one variable.
type variableError struct{ name, why string }

func (e *variableError) Error() string { return e.name + " " + e.why }

func wrong(name, format string, args ...any) error {
	return &variableError{name, fmt.Sprintf(format, args...)}
}

// reasons are what the library found, in words of ours: its own name fields of Go, and may repeat values.
func reasons(err error, of reflect.Type) (all []error) {
	var found env.AggregateError
	if !errors.As(err, &found) {
		return []error{err}
	}
	for _, err := range found.Errors {
		switch e := err.(type) { //nolint:errorlint // they are these, unwrapped
		case env.VarIsNotSetError:
			all = append(all, wrong(e.Key, "is not set"))
		case env.ParseError:
			all = append(all, wrong(variableOf(of, e.Name), "must be %s", kinds[e.Type.String()]))
		default:
			all = append(all, err)
		}
	}
	return all
}

// variableOf is the variable of a field.
func variableOf(of reflect.Type, field string) string {
	f, _ := of.FieldByName(field)
	name, _, _ := strings.Cut(f.Tag.Get("env"), ",")
	return cmp.Or(name, field)
}

// kinds say what a variable must be for a Go type.
var kinds = map[string]string{
	"bool": "true or false", "int": "a whole number", "int64": "a whole number", "time.Duration": "a duration such as 90s or 24h",
	"slog.Level": "DEBUG, INFO, WARN or ERROR", "jobs.Prices": "prices of a million tokens such as gpt-4o*=2.5/10, with commas between them",
	"jobs.Routes":    "routes such as llama*=http://10.0.0.7:8000/v1,key-from=/llama/key, one for each pattern, with white space between them",
	"[]netip.Prefix": "networks such as 10.1.0.0/16, with commas between them",
}

func (c *Cloud) check() []error {
	return checkURLs(map[string]string{
		"FANOUT_INGEST_QUEUE": c.IngestQueue, "FANOUT_WORK_QUEUE": c.WorkQueue, "FANOUT_AGGREGATE_QUEUE": c.AggregateQueue,
	})
}

func (c *Ingest) check() []error {
	all := append(c.Cloud.check(), checkURLs(map[string]string{"FANOUT_INGEST_DEAD_LETTERS": c.DeadLetters})...)
	if c.UploadWindow < MinUploadWindow || c.UploadWindow > MaxUploadWindow {
		all = append(all, wrong("FANOUT_UPLOAD_WINDOW", "is %s, but must be from %s to %s", c.UploadWindow, MinUploadWindow, MaxUploadWindow))
	}
	return all
}

// endpointName is what SageMaker calls one.
var endpointName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9-]{0,62}$`)

// Table is where each model is served.
func (c *Worker) Table() jobs.Routes {
	return c.Routes.Else(jobs.Route{Target: c.Upstream, Key: c.UpstreamKey, KeyFrom: c.UpstreamKeyFrom})
}

// checkUpstream says what is wrong with an upstream that a variable names.
func checkUpstream(variable, target string) []error {
	endpoint, sagemaker := strings.CutPrefix(target, SageMaker)
	switch {
	case sagemaker && !endpointName.MatchString(endpoint):
		return []error{wrong(variable, "must name an endpoint after %s", SageMaker)}
	case sagemaker, target == Builtin, target == Bedrock:
		return nil
	default:
		return checkURLs(map[string]string{variable: target})
	}
}

func (c *Worker) check() []error {
	all := append(c.Cloud.check(), checkURLs(map[string]string{"FANOUT_WORK_DEAD_LETTERS": c.DeadLetters})...)
	all = append(all, checkUpstream("FANOUT_UPSTREAM", c.Upstream)...)
	for _, r := range c.Routes {
		all = append(all, checkUpstream("FANOUT_ROUTES", r.Target)...)
	}
	if c.UpstreamKey != "" && c.UpstreamKeyFrom != "" {
		all = append(all, wrong("FANOUT_UPSTREAM_KEY_FROM", "and FANOUT_UPSTREAM_KEY are both set"))
	}
	if c.Concurrency < 1 || c.Concurrency > MaxConcurrency {
		all = append(all, wrong("FANOUT_CONCURRENCY", "is %d, but must be from 1 to %d", c.Concurrency, MaxConcurrency))
	}
	if c.CallTimeout <= 0 {
		all = append(all, wrong("FANOUT_CALL_TIMEOUT", "is %s, but must be above 0", c.CallTimeout))
	}
	return all
}

func (c *Aggregate) check() []error {
	urls := map[string]string{"FANOUT_AGGREGATE_DEAD_LETTERS": c.DeadLetters}
	if c.NotifyQueue != "" {
		urls["FANOUT_NOTIFY_QUEUE"] = c.NotifyQueue
	}
	return append(c.Cloud.check(), checkURLs(urls)...)
}

func (c *API) check() []error {
	urls := map[string]string{"FANOUT_INGEST_DEAD_LETTERS": c.IngestDead, "FANOUT_WORK_DEAD_LETTERS": c.WorkDead, "FANOUT_AGGREGATE_DEAD_LETTERS": c.AggregateDead}
	if c.NotifyQueue != "" {
		urls["FANOUT_NOTIFY_QUEUE"], urls["FANOUT_NOTIFY_DEAD_LETTERS"] = c.NotifyQueue, c.NotifyDead
	}
	all := append(c.Cloud.check(), checkURLs(urls)...)
	if c.FrontDoor != Buffered && c.FrontDoor != Streaming {
		all = append(all, wrong("FANOUT_FRONT_DOOR", "must be %s or %s", Buffered, Streaming))
	}
	if sum, err := hex.DecodeString(c.OperatorKey); err != nil || len(sum) != 0 && len(sum) != sha256.Size || strings.ToLower(c.OperatorKey) != c.OperatorKey {
		all = append(all, wrong("FANOUT_OPERATOR_KEY_SHA256", "must be the SHA-256 of a key, in lower-case hex"))
	}
	if !jobs.PlainTenant(c.OperatorTenant) {
		all = append(all, wrong("FANOUT_OPERATOR_TENANT", "takes 1 to 64 letters, digits, - and _"))
	}
	if c.MaxFileBytes < 1 {
		all = append(all, wrong("FANOUT_MAX_FILE_BYTES", "is %d, but must be above 0", c.MaxFileBytes))
	}
	return all
}

func (c *Notify) check() []error {
	return checkURLs(map[string]string{
		"FANOUT_NOTIFY_QUEUE": c.Queue, "FANOUT_NOTIFY_DEAD_LETTERS": c.DeadLetters, "FANOUT_AGGREGATE_QUEUE": c.AggregateQueue,
	})
}

func checkURLs(urls map[string]string) (all []error) {
	for name, value := range urls {
		u, err := url.Parse(value)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			all = append(all, wrong(name, "must be a URL that begins with https:// or http://"))
		}
	}
	return all
}
