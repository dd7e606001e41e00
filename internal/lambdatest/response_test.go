package lambdatest

import (
	"slices"
	"strings"
	"testing"
)

// responses are what functions may answer to a batch whose second message is $1.
var responses = []struct {
	response string
	failed   bool   // the second message comes again
	broken   string // or the batch failed, with this in the error
}{
	{response: ``},
	{response: `null`},
	{response: `{}`},
	{response: `{"batchItemFailures":null}`},
	{response: `{"batchItemFailures":[]}`},
	{response: `{"another":[{"itemIdentifier":"x"}]}`},
	{response: `{"BatchItemFailures":[{"itemIdentifier":"x"}]}`},
	{response: `{"batchItemFailures":[{"itemIdentifier":"$1"}]}`, failed: true},
	{response: `{"batchItemFailures":[{"itemIdentifier":"$1"},{"itemIdentifier":"$1"}]}`, failed: true},
	{response: `{"batchItemFailures":[{"itemIdentifier":"$1"},{"itemIdentifier":""}]}`, broken: "without itemIdentifier"},
	{response: `{"batchItemFailures":[{"itemIdentifier":null}]}`, broken: "without itemIdentifier"},
	{response: `{"batchItemFailures":[{"ItemIdentifier":"$1"}]}`, broken: "without itemIdentifier"},
	{response: `{"batchItemFailures":[null]}`, broken: "without itemIdentifier"},
	{response: `{"batchItemFailures":[{"itemIdentifier":"$1"},{"itemIdentifier":"x"}]}`, broken: "not in the batch"},
	{response: `{"batchItemFailures":[{"itemIdentifier":1}]}`, broken: "no partial batch response"},
	{response: `{"batchItemFailures":"$1"}`, broken: "no partial batch response"},
	{response: `{"batchItemFailures":[{"itemIdentifier":"$1"}`, broken: "no partial batch response"},
	{response: `"done"`, broken: "no partial batch response"},
}

func TestAResponseSaysWhichMessagesComeAgain(t *testing.T) {
	for _, r := range responses {
		got, err := failedOf([]byte(strings.ReplaceAll(r.response, "$1", "b")), []string{"a", "b"})
		switch {
		case r.broken == "" && err != nil, r.broken != "" && (err == nil || !strings.Contains(err.Error(), r.broken)):
			t.Errorf("%s: %v, want %q", r.response, err, r.broken)
		case r.failed != slices.Contains(got, "b") || slices.Contains(got, "a"):
			t.Errorf("%s: failed %q", r.response, got)
		}
	}
}
