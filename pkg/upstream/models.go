package upstream

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Lister lists the models that an upstream serves, by name.
type Lister interface {
	Models(ctx context.Context) ([]string, error)
}

var (
	_ Lister = (*Builtin)(nil)
	_ Lister = (*OpenAI)(nil)
)

// Models are the built-in ones.
func (u *Builtin) Models(context.Context) ([]string, error) { return slices.Clone(builtinModels), nil }

// maxModelList bounds what is read of a list of models.
const maxModelList = 4 << 20

// Models asks the server, with GET /v1/models. Its errors are of CodeUpstream and quote nothing of the answer.
func (u *OpenAI) Models(ctx context.Context) ([]string, error) {
	call, cancel := context.WithTimeout(ctx, u.timeout)
	defer cancel()
	to, err := u.target("/v1/models")
	if err != nil {
		return nil, err
	}
	req := u.blank.WithContext(call)
	req.Method, req.URL, req.Header = http.MethodGet, to, u.header("")
	answer, err := u.transport.RoundTrip(req)
	if err != nil {
		return nil, jobs.Errorf(jobs.CodeUpstream, "list the models of %s: %w", u.host, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, jobs.Errorf(jobs.CodeUpstream, "list the models of %s: it answered %s", u.host, answer.Status)
	}
	var list struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxModelList)).Decode(&list); err != nil {
		return nil, jobs.Errorf(jobs.CodeUpstream, "list the models of %s: %w", u.host, fmt.Errorf("its answer is no list of models: %w", err))
	}
	names := make([]string, 0, len(list.Data))
	for _, m := range list.Data {
		names = append(names, m.ID)
	}
	return names, nil
}
