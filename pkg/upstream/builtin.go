package upstream

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"net/http"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// model is what stands behind a built-in model. Safe for concurrent use; equal texts have equal replies.
type model interface {
	reply(text string) any // a struct, to be written as compact JSON
}

const builtinURL = "/v1/chat/completions"

// Builtin is inference without weights or network, by two small models:
//
//   - builtin/sentiment says whether a text, in English, is positive, negative or neutral:
//     {"label":"positive","confidence":0.8316}
//   - builtin/language says in which language a text is written: {"label":"de","name":"German","confidence":1}.
//     It is weak below a sentence; then its confidence is low. It is trained on prose: names and code are anybody's guess.
//
// It answers /v1/chat/completions: the input is the text of the last user message, the reply is a chat.completion whose
// message content is the JSON above. Equal requests have equal answers, byte for byte; so `created` is 0 and the id is a
// digest of the request. Usage counts the input and the reply in pieces: see countPieces.
type Builtin struct {
	models map[string]model
}

var _ jobs.Upstream = (*Builtin)(nil)

// builtinModels are the names, as an error lists them.
var builtinModels = []string{"builtin/language", "builtin/sentiment"}

// NewBuiltin makes the built-in models. It is cheap: what they know is read at the first call.
func NewBuiltin() *Builtin {
	return &Builtin{models: map[string]model{
		"builtin/language":  language{},
		"builtin/sentiment": sentiment{},
	}}
}

// Call answers r. Its error is a *jobs.Fault, as an API would give it.
func (u *Builtin) Call(ctx context.Context, r jobs.Request) (jobs.Answer, error) {
	if ctx.Err() != nil {
		return jobs.Answer{}, &jobs.Fault{Cause: jobs.CauseAborted, Code: codeAborted, Err: context.Cause(ctx),
			Message: "the call was ended here before the built-in model had answered"}
	}
	if r.URL != builtinURL {
		return jobs.Answer{}, refusal(http.StatusNotFound, apiError{
			Message: fmt.Sprintf("the built-in models answer %s, not %s", builtinURL, tidy(r.URL, maxWord)),
			Type:    invalidRequest, Param: "url", Code: "unsupported_url",
		})
	}
	m := u.models[r.Model]
	if m == nil {
		return jobs.Answer{}, refusal(http.StatusNotFound, apiError{
			Message: fmt.Sprintf("the model %q does not exist; the built-in models are %s", tidy(r.Model, maxWord), strings.Join(builtinModels, " and ")),
			Type:    invalidRequest, Param: "model", Code: "model_not_found",
		})
	}
	input, wrong := readPrompt(r.Body)
	if wrong != nil {
		return jobs.Answer{}, refusal(http.StatusBadRequest, *wrong)
	}
	return complete(r, input, m.reply(input))
}

// completion is a chat.completion object, in the order in which OpenAI writes it.
type completion struct {
	ID      string   `json:"id"`
	Object  string   `json:"object"`
	Created int64    `json:"created"`
	Model   string   `json:"model"`
	Choices []choice `json:"choices"`
	Usage   struct {
		Prompt     int64 `json:"prompt_tokens"`
		Completion int64 `json:"completion_tokens"`
		Total      int64 `json:"total_tokens"`
	} `json:"usage"`
}

type choice struct {
	Index        int            `json:"index"`
	Message      reply          `json:"message"`
	Logprobs     jsontext.Value `json:"logprobs"`
	FinishReason string         `json:"finish_reason"`
}

type reply struct {
	Role    string         `json:"role"`
	Content string         `json:"content"`
	Refusal jsontext.Value `json:"refusal"`
}

func complete(r jobs.Request, input string, said any) (jobs.Answer, error) {
	content, err := json.Marshal(said)
	if err != nil {
		return jobs.Answer{}, &jobs.Fault{Cause: jobs.CauseMalformed, Code: codeMalformed, Message: "encode the reply of " + r.Model, Err: err}
	}
	digest := sha256.Sum256(append([]byte(r.Model+"\n"), r.Body...))
	c := completion{
		ID: "chatcmpl-" + hex.EncodeToString(digest[:12]), Object: "chat.completion", Model: r.Model,
		Choices: []choice{{Message: reply{Role: "assistant", Content: string(content)}, FinishReason: "stop"}},
	}
	usage := jobs.Usage{Input: countPieces(input), Output: countPieces(string(content))}
	usage.Total = usage.Input + usage.Output
	c.Usage.Prompt, c.Usage.Completion, c.Usage.Total = usage.Input, usage.Output, usage.Total
	body, err := json.Marshal(c)
	if err != nil {
		return jobs.Answer{}, &jobs.Fault{Cause: jobs.CauseMalformed, Code: codeMalformed, Message: "encode the answer of " + r.Model, Err: err}
	}
	return jobs.Answer{Status: http.StatusOK, Body: body, Usage: usage}, nil
}

// countPieces counts what the built-in models call a token: a run of letters and digits, a character of a script that
// puts no spaces between words, or any other character that is no space. It is no model's tokenizer; for English it comes
// to about the same number.
func countPieces(text string) int64 {
	var n int64
	inWord := false
	for _, r := range text {
		switch {
		case unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar):
			n, inWord = n+1, false
		case unicode.IsLetter(r), unicode.IsDigit(r), unicode.IsMark(r):
			if !inWord {
				n++
			}
			inWord = true
		case unicode.IsSpace(r):
			inWord = false
		default:
			n, inWord = n+1, false
		}
	}
	return n
}

// round4 rounds to four digits: enough to read, and few enough to be the same on every processor.
func round4(x float64) float64 { return math.Round(x*1e4) / 1e4 }
