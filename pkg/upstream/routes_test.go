package upstream

import (
	"context"
	"errors"
	"reflect"
	"testing"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// listing is an upstream that serves models, and is not called.
type listing struct {
	jobs.Upstream
	models []string
	err    error
}

func (l *listing) Models(context.Context) ([]string, error) { return l.models, l.err }

// unlisted is one without a list.
type unlisted struct{ jobs.Upstream }

func TestModelsAreServedWhereTheTableSays(t *testing.T) {
	table := jobs.Routes{
		{Models: "llama*", Target: "http://gpu:8000/v1"},
		{Models: "qwen*", Target: "http://gpu:8000/v1"},
		{Models: "claude*", Target: "bedrock"},
	}.Else(jobs.Route{Target: "https://models.example/v1", Key: "sesame"})
	gpu := &listing{models: []string{"llama-3", "qwen-3", "claude-9", "phi"}}
	rest := &listing{models: []string{"gpt-4o", "llama-3"}}
	opened := 0
	r, err := OpenRoutes(table, func(route jobs.Route) (jobs.Upstream, error) {
		opened++
		switch {
		case route.Target == "bedrock":
			return unlisted{}, nil
		case route.Key != "":
			return rest, nil
		}
		return gpu, nil
	})
	if err != nil || opened != 3 {
		t.Fatalf("%d upstreams are open, %v, want 3: each once", opened, err)
	}
	for model, want := range map[string]string{"llama-3": "gpu:8000", "qwen-3": "gpu:8000", "claude-9": "bedrock", "gpt-4o": "models.example", "": "models.example"} {
		if name, _ := r.Route(model); name != want {
			t.Errorf("%q is served by %s, want %s", model, name, want)
		}
	}
	got, err := r.Models(t.Context())
	want := []Served{{"llama-3", "gpu:8000"}, {"qwen-3", "gpu:8000"}, {"gpt-4o", "models.example"}} // each as it would be called
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("the models are %v, %v, want %v", got, err, want)
	}
	rest.err = errors.New("out to lunch")
	if _, err := r.Models(t.Context()); !errors.Is(err, rest.err) {
		t.Errorf("one that does not answer: %v", err)
	}
}

func TestARouteThatCannotBeOpenedIsNamed(t *testing.T) {
	broken := errors.New("no such host")
	_, err := OpenRoutes(jobs.Routes{{Models: "x*", Target: "y"}}.Else(jobs.Route{}), func(jobs.Route) (jobs.Upstream, error) { return nil, broken })
	if want := "open the upstream of x*: no such host"; !errors.Is(err, broken) || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}
