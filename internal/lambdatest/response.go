package lambdatest

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
)

// failedOf reads a partial batch response: which messages of the batch are to come again. An error means that the response
// breaks a rule, so all of them are (https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html):
//
//	success of all: no list, an empty or null list, an empty or null response
//	failure of all: invalid JSON; an id that is empty, null, misnamed, or not in the batch
//
// Keys count as they are written: "ItemIdentifier" is a wrong name, and "BatchItemFailures" is no list.
func failedOf(response []byte, batch []string) ([]string, error) {
	if len(bytes.TrimSpace(response)) == 0 {
		return nil, nil
	}
	var r struct {
		BatchItemFailures []struct {
			ItemIdentifier *string `json:"itemIdentifier"`
		} `json:"batchItemFailures"`
	}
	if err := json.Unmarshal(response, &r); err != nil {
		return nil, fmt.Errorf("the response is no partial batch response: %w", err)
	}
	var failed []string
	for _, f := range r.BatchItemFailures {
		switch {
		case f.ItemIdentifier == nil || *f.ItemIdentifier == "":
			return nil, fmt.Errorf("the response has a failure without itemIdentifier: %.200s", response)
		case !slices.Contains(batch, *f.ItemIdentifier):
			return nil, fmt.Errorf("the response names message %q, which is not in the batch", *f.ItemIdentifier)
		}
		failed = append(failed, *f.ItemIdentifier)
	}
	return failed, nil
}
