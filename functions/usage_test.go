package functions

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// usage is what the functions were seen to do on the wire, in all tests of this package: function → "resource action", as
// permissions.json of the Terraform module names them.
var usage = struct {
	sync.Mutex
	of map[string]map[string]bool
}{of: map[string]map[string]bool{}}

// workerElsewhere is `fanout worker`, which may what the worker function may, and polls its queue itself.
const workerElsewhere = "fanout worker"

var polls = []string{"work ReceiveMessage", "work DeleteMessage"}

// watched is an endpoint whose requests by a function are noted.
func watched(t *testing.T, function, service, endpoint string) string {
	return proxy(t, endpoint, func(r *http.Request, body, _ []byte) {
		for _, action := range actionsOf(service, r, body) {
			usage.Lock()
			if usage.of[function] == nil {
				usage.of[function] = map[string]bool{}
			}
			usage.of[function][action] = true
			usage.Unlock()
		}
	})
}

// actionsOf are the actions of IAM that a request needs, with the resource.
// https://docs.aws.amazon.com/service-authorization/latest/reference/
func actionsOf(service string, r *http.Request, body []byte) []string {
	switch service {
	case "dynamodb":
		return []string{"table " + target(r)}
	case "sqs":
		var queue struct {
			URL  string `json:"QueueUrl"`
			From string `json:"SourceArn"`      // of a move, which needs to send …
			To   string `json:"DestinationArn"` // … here
		}
		_ = json.Unmarshal(body, &queue)          // our clients speak JSON
		if target(r) == "CancelMessageMoveTask" { // of which only the task is named: it may be that of any dead letters
			return []string{"ingest-dead CancelMessageMoveTask", "work-dead CancelMessageMoveTask", "aggregate-dead CancelMessageMoveTask", "notify-dead CancelMessageMoveTask"}
		}
		if queue.From != "" {
			queue.URL = strings.ReplaceAll(queue.From, ":", "/")
		}
		name := queue.URL[strings.LastIndexByte(queue.URL, '/')+1:]
		_, name, _ = strings.Cut(strings.TrimPrefix(name, "fanout-test-"), "-") // after what tells tests apart
		return []string{name + " " + strings.TrimSuffix(target(r), "Batch")}
	default:
		if r.Method == http.MethodPost && r.URL.Query().Has("delete") {
			return []string{"bucket DeleteObject"}
		}
		l, _ := chargeS3(r, nil, nil)
		return map[string][]string{
			"ListObjectsV2": {"bucket ListBucket"}, "GetObject": {"bucket GetObject"}, "HeadObject": {"bucket GetObject"}, "DeleteObject": {"bucket DeleteObject"},
			"CreateMultipartUpload": {"bucket PutObject"}, "CompleteMultipartUpload": {"bucket PutObject"}, "UploadPart": {"bucket PutObject"}, "PutObject": {"bucket PutObject"},
			"UploadPartCopy": {"bucket PutObject", "bucket GetObject"}, "CopyObject": {"bucket PutObject", "bucket GetObject"},
		}[l.operation]
	}
}

// unseen are permissions whose use no test here shows, each with its reason.
var unseen = map[string]string{
	"bucket AbortMultipartUpload":    "only a write that is given up after its first parts needs it",
	"bucket ListBucket":              "without it S3 says of what is not there that it is forbidden, and not that it is absent",
	"ingest: table BatchGetItem":     "only an upload of a tenant with a limit of open items has the open jobs listed",
	"aggregate: bucket DeleteObject": "only a file of more than 10,000 pieces is made by way of helpers, which are removed",
	"aggregate: ingest SendMessage":  "the sweep sends again what has not moved for an hour",
	"aggregate: work SendMessage":    "the sweep sends again what has not moved for an hour, and what was parked while an upstream was away",
}

// leastPrivilege compares what the roles allow with what the functions did; whole tells whether every test has run, so that
// what was not done is not needed.
func leastPrivilege(whole bool) error {
	raw, err := os.ReadFile("../infra/terraform/permissions.json")
	if err != nil {
		return err
	}
	var may struct {
		Functions map[string]struct {
			Table, Bucket []string
			Queues        map[string][]string
		}
	}
	if err := json.Unmarshal(raw, &may); err != nil {
		return err
	}
	usage.Lock()
	defer usage.Unlock()
	var wrong []string
	for function, of := range may.Functions {
		allowed := map[string]bool{}
		for _, action := range of.Table {
			allowed["table "+action] = true
		}
		for _, action := range of.Bucket {
			allowed["bucket "+action] = true
		}
		for queue, actions := range of.Queues {
			for _, action := range actions {
				allowed[queue+" "+action] = true
			}
		}
		for action := range usage.of[function] {
			if !allowed[action] {
				wrong = append(wrong, fmt.Sprintf("%s did %s, which its role does not allow", function, action))
			}
		}
		for action := range allowed {
			if whole && !usage.of[function][action] && unseen[action] == "" && unseen[function+": "+action] == "" {
				wrong = append(wrong, fmt.Sprintf("%s may %s, and never did", function, action))
			}
		}
	}
	for action := range usage.of[workerElsewhere] {
		resource, verb, _ := strings.Cut(action, " ")
		worker := may.Functions["worker"]
		ofWorker := map[string][]string{"table": worker.Table, "bucket": worker.Bucket}
		maps.Copy(ofWorker, worker.Queues)
		if !slices.Contains(ofWorker[resource], verb) && !slices.Contains(polls, action) {
			wrong = append(wrong, fmt.Sprintf("%s did %s, which its policy does not allow", workerElsewhere, action))
		}
	}
	for _, action := range polls {
		if whole && !usage.of[workerElsewhere][action] {
			wrong = append(wrong, fmt.Sprintf("%s may %s, and never did", workerElsewhere, action))
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	slices.Sort(wrong)
	return fmt.Errorf("infra/terraform/permissions.json is not what the functions do (of %v):\n  %s", slices.Sorted(maps.Keys(usage.of)), strings.Join(wrong, "\n  "))
}
