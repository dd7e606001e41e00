package functions

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/fanout-inference/fanout/pkg/upstream/upstreamtest"
)

// What a million items may cost: requests that the functions make, to all services, and dollars at list
// prices, those of the event sources included, without the functions' duration. How an event source receives is Lambda's
// affair: what is counted of it is what lambdatest does, which asks for ten messages at most, and for no more than a batch.
const (
	requestsPerMillion = 90_000
	dollarsPerMillion  = 0.10
)

// What is counted: two jobs that differ in nothing but their length, so that what grows with the items is told from what a
// job costs anyway. Sweeps are left out: one a minute, of a few requests.
const (
	fewItems     = 1_000
	manyItems    = 10_000
	itemBytes    = 2 << 10 // of a line, and about as many of its answer
	latency      = "delay=200ms"
	environments = 2               // of the worker, each with 100 calls in flight
	window       = 2 * time.Second // for which the event source of aggregate gathers messages, up to 100: most name the same split
	splitBytes   = 64 << 20
	splits       = 1e6 * itemBytes / splitBytes // of a million items
	itemRate     = 500                          // items a second, of a million
)

// Words of the table.
const (
	eventSource  = "event source"
	emptyReceive = "ReceiveMessage, empty"
)

// TestAMillionItemsCostWhatTheyMay counts the requests of the real binaries on the wire, by service and operation.
func TestAMillionItemsCostWhatTheyMay(t *testing.T) {
	upstream := &upstreamtest.Server{}
	if err := upstream.SetWeather(latency); err != nil {
		t.Fatal(err)
	}
	bill := &bill{all: map[line]spent{}}
	s := newStage(t, plan{upstream: upstream.Start(t), timeout: 25 * time.Second, via: func(function, service, endpoint string) string {
		return bill.proxy(t, function, service, endpoint)
	}})
	pumped := sqs.New(s.sqs.Options(), func(o *sqs.Options) {
		o.BaseEndpoint = aws.String(bill.proxy(t, eventSource, "sqs", *o.BaseEndpoint))
	})
	for name, m := range s.mappings {
		m.Client = pumped
		m.OnInvoke = func([]types.Message) { bill.add(line{eventSource, "lambda", "Invoke", name}, 0.20/1e6) }
		s.mappings[name] = m
	}
	work := s.mappings["work"]
	work.Concurrency = environments
	s.mappings["work"] = work
	aggregate := s.mappings["aggregate"]
	aggregate.BatchSize, aggregate.Window = 100, window
	s.mappings["aggregate"] = aggregate
	s.start(t)

	text := strings.Repeat("All happy families are alike. ", itemBytes/30-5)
	run := func(tenant string, n int) counted {
		t.Helper()
		bill.reset()
		s.send(t, "ingest", s.upload(t, "inbox/"+tenant+"/a.jsonl", ask(n, map[int]string{anyItem: text})))
		j := s.job(t, tenant)
		if j.Phase != "completed" || j.Totals.Answered != int64(n) {
			t.Fatalf("the job is %s, %+v", j.Phase, j.Totals)
		}
		if splits := j.Splits(); splits != 1 {
			t.Fatalf("the job has %d splits", splits)
		}
		return counted{bill.sofar(), j.Totals.LastAnswer.Sub(j.Created).Seconds()}
	}
	few, many := run("few", fewItems), run("many", manyItems)
	t.Logf("%d and %d items of %d bytes, 100 a chunk, %d × 100 calls in flight of %s: %.0f items a second; a million at %d\n%s",
		fewItems, manyItems, itemBytes, environments, latency, manyItems/many.seconds, itemRate, report(t, few, many))
}

// counted is what a job cost, and how long it took to its last answer.
type counted struct {
	lines   map[line]spent
	seconds float64
}

// project tells from both jobs what a line comes to for a million items. What is left at no items is what a job costs; each
// split of a big job is taken to cost as much again.
func (l line) project(few, many float64, a, b counted) float64 {
	switch {
	case strings.HasSuffix(l.operation, "MultipartUpload") || l.operation == "UploadPartCopy": // the short job needs none
		return splits * many
	case l.byTheClock():
		each := max(0, (many-few)/(b.seconds-a.seconds))
		return each*1e6/itemRate + splits*max(0, few-each*a.seconds)
	default:
		each := max(0, (many-few)/(manyItems-fewItems))
		return 1e6*each + splits*max(0, few-fewItems*each)
	}
}

// byTheClock tells what comes every few seconds while a job runs, whatever gets done meanwhile: looks at gates, and what
// aggregate does each time its window ends. So a busy machine changes nothing in the sum.
func (l line) byTheClock() bool {
	return l.on == "gate" || l.by == "aggregate" && (l.service == "dynamodb" || l.operation == "ChangeMessageVisibilityBatch") ||
		l.by == eventSource && l.service == "lambda" && l.on == "aggregate"
}

// report is the table, and holds its sums against the budgets.
func report(t *testing.T, few, many counted) string {
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "by\tservice\toperation\ton\t1k items\t10k\ta million\t$\t")
	var ours, source spent
	for _, l := range slices.SortedFunc(maps.Keys(many.lines), line.compare) {
		if l.operation == emptyReceive { // whether or not there is a job
			continue
		}
		a, b := few.lines[l], many.lines[l]
		m := spent{l.project(a.requests, b.requests, few, many), l.project(a.dollars, b.dollars, few, many)}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%.0f\t%.0f\t%.0f\t%.4f\t\n", l.by, l.service, l.operation, l.on, a.requests, b.requests, m.requests, m.dollars)
		switch {
		case l.service == "lambda": // no request of anybody's
			source = source.plus(spent{dollars: m.dollars})
		case l.by == eventSource:
			source = source.plus(m)
		default:
			ours = ours.plus(m)
		}
	}
	fmt.Fprintf(w, "\tfunctions\t\t\t\t\t%.0f\t%.4f\t\n\t%s\t\t\t\t\t%.0f\t%.4f\t\n", ours.requests, ours.dollars, eventSource, source.requests, source.dollars)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if ours.requests > requestsPerMillion {
		t.Errorf("a million items take %.0f requests, of %d", ours.requests, requestsPerMillion)
	}
	if all := ours.plus(source); all.dollars > dollarsPerMillion {
		t.Errorf("a million items cost $%.4f, of $%.2f", all.dollars, dollarsPerMillion)
	}
	return out.String()
}

// line is a line of a bill.
type line struct{ by, service, operation, on string }

func (l line) compare(o line) int {
	return cmp.Or(cmp.Compare(l.by, o.by), cmp.Compare(l.service, o.service), cmp.Compare(l.operation, o.operation), cmp.Compare(l.on, o.on))
}

type spent struct{ requests, dollars float64 }

func (s spent) plus(o spent) spent { return spent{s.requests + o.requests, s.dollars + o.dollars} }

// bill counts requests. Safe for concurrent use.
type bill struct {
	mu  sync.Mutex
	all map[line]spent
}

func (b *bill) add(l line, dollars float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all[l] = b.all[l].plus(spent{1, dollars})
}

func (b *bill) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.all)
}

func (b *bill) sofar() map[line]spent {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.all)
}

// proxy counts the requests to a service's endpoint, and returns where to send them.
func (b *bill) proxy(t *testing.T, by, service, endpoint string) string {
	return proxy(t, endpoint, func(r *http.Request, body, answer []byte) {
		l, dollars := charge[service](r, body, answer)
		l.by, l.service = by, service
		b.add(l, dollars)
	})
}

// charge reads what a request is and what it costs, by service, at the list prices of us-east-1. Where a size has to be
// guessed it is not below the real one. Writes to indexes, which a few saves of a job make, are left out.
var charge = map[string]func(r *http.Request, body, answer []byte) (line, float64){
	"dynamodb": chargeDynamoDB, "sqs": chargeSQS, "s3": chargeS3,
}

// chargeDynamoDB: $0.625 a million writes of 1 KB, $0.125 a million consistent reads of 4 KB.
func chargeDynamoDB(r *http.Request, body, answer []byte) (line, float64) {
	of := map[string]string{"J": "job", "S": "split", "C": "chunk", "U": "gate"}
	l := line{operation: target(r), on: "index"}
	if key := regexp.MustCompile(`"([JSCU])#`).FindSubmatch(body); key != nil {
		l.on = of[string(key[1])]
	}
	if l.operation == "PutItem" {
		return l, 0.625 / 1e6 * units(body, 1<<10)
	}
	return l, 0.125 / 1e6 * units(answer, 4<<10)
}

// chargeSQS: $0.40 a million requests of 64 KB, and $0.10 more for messages in groups.
func chargeSQS(r *http.Request, body, answer []byte) (line, float64) {
	var queue struct {
		URL string `json:"QueueUrl"`
	}
	_ = json.Unmarshal(body, &queue) // our clients speak JSON
	l, price := line{operation: target(r), on: queue.URL[strings.LastIndexByte(queue.URL, '-')+1:]}, 0.40
	if l.operation == "ReceiveMessage" && !bytes.Contains(answer, []byte("ReceiptHandle")) {
		l.operation = emptyReceive
	}
	if bytes.Contains(body, []byte("MessageGroupId")) {
		price += 0.10
	}
	return l, price / 1e6 * max(units(body, 64<<10), units(answer, 64<<10))
}

// chargeS3: $5 a million that write or list, $0.40 a million that read; what deletes is free.
func chargeS3(r *http.Request, _, _ []byte) (line, float64) {
	const writes, reads = 5 / 1e6, 0.40 / 1e6
	q := r.URL.Query()
	l := line{on: kindOf(r.URL.Path)}
	switch {
	case r.Method == http.MethodGet && q.Has("list-type"):
		l.operation = "ListObjectsV2"
		return l, writes
	case r.Method == http.MethodGet:
		l.operation = "GetObject"
		return l, reads
	case r.Method == http.MethodHead:
		l.operation = "HeadObject"
		return l, reads
	case r.Method == http.MethodDelete:
		l.operation = "DeleteObject"
		return l, 0
	case r.Method == http.MethodPost && q.Has("uploads"):
		l.operation = "CreateMultipartUpload"
	case r.Method == http.MethodPost:
		l.operation = "CompleteMultipartUpload"
	case q.Has("partNumber") && r.Header.Get("X-Amz-Copy-Source") != "":
		l.operation = "UploadPartCopy"
	case q.Has("partNumber"):
		l.operation = "UploadPart"
	case r.Header.Get("X-Amz-Copy-Source") != "":
		l.operation = "CopyObject"
	default:
		l.operation = "PutObject"
	}
	return l, writes
}

// kindOf is what kind of object a path names: /<bucket>/files/… or /<bucket>/jobs/<job>/parts/….
func kindOf(path string) string {
	switch at := strings.Split(path, "/"); {
	case len(at) > 4 && at[2] == "jobs":
		return at[4]
	case len(at) > 2:
		return at[2]
	default:
		return "bucket"
	}
}

func target(r *http.Request) string {
	_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	return operation
}

func units(body []byte, size int) float64 { return float64(max(1, (len(body)+size-1)/size)) }
