package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// askBuiltin is a request to a built-in model whose messages are given as JSON.
func askBuiltin(model, messages string) jobs.Request {
	return jobs.Request{URL: chatURL, Model: model, Body: fmt.Appendf(nil, `{"model":%q,"messages":%s}`, model, messages)}
}

func userSays(text string) string {
	b, err := json.Marshal([]any{map[string]any{"role": "user", "content": text}})
	if err != nil {
		panic(err)
	}
	return string(b)
}

// replyOf is the message content of an answer that must be there.
func replyOf(t *testing.T, u *Builtin, r jobs.Request) string {
	t.Helper()
	answer, err := u.Call(t.Context(), r)
	if err != nil {
		t.Fatalf("call %s: %v", r.Body, err)
	}
	var c struct {
		Choices []struct{ Message struct{ Content string } }
	}
	if err := json.Unmarshal(answer.Body, &c); err != nil || len(c.Choices) != 1 {
		t.Fatalf("answer %s has no one choice: %v", answer.Body, err)
	}
	return c.Choices[0].Message.Content
}

// TestBuiltinSentiment takes its first four scores from VADER's own examples.
func TestBuiltinSentiment(t *testing.T) {
	u := NewBuiltin()
	for text, want := range map[string]string{
		"VADER is smart, handsome, and funny.":      `{"label":"positive","confidence":0.8316}`,
		"VADER is not smart, handsome, nor funny.":  `{"label":"negative","confidence":0.7424}`,
		"The book was good.":                        `{"label":"positive","confidence":0.4404}`,
		"Today SUX!":                                `{"label":"negative","confidence":0.5461}`,
		"The\n book\twas  \u00a0good.\n":            `{"label":"positive","confidence":0.4404}`,
		"The parcel weighs four pounds.":            `{"label":"neutral","confidence":1}`,
		"":                                          `{"label":"neutral","confidence":1}`,
		"I love it 😁":                               `{"label":"positive","confidence":0.802}`,
		strings.Repeat("This is awful. ", 2000):     `{"label":"negative","confidence":1}`,
		"Das ist ein Satz ohne ein englisches Wort": `{"label":"neutral","confidence":1}`,
	} {
		if got := replyOf(t, u, askBuiltin("builtin/sentiment", userSays(text))); got != want {
			t.Errorf("%.60q: got %s, want %s", text, got, want)
		}
	}
}

func TestBuiltinLanguage(t *testing.T) {
	u := NewBuiltin()
	for text, want := range map[string]string{
		"Der schnelle braune Fuchs springt über den faulen Hund, und niemand weiß, warum er das tut.": `{"label":"de","name":"German","confidence":1}`,
		"The quick brown fox jumps over the lazy dog, and nobody knows why it would want to do that.": `{"label":"en","name":"English","confidence":1}`,
		"Le renard brun saute par-dessus le chien paresseux, et personne ne sait pourquoi.":           `{"label":"fr","name":"French","confidence":1}`,
		"Быстрая коричневая лиса прыгает через ленивую собаку, и никто не знает почему.":              `{"label":"ru","name":"Russian","confidence":0.6454}`,
		"素早い茶色の狐がのろまな犬を飛び越える。":                                                                        `{"label":"ja","name":"Japanese","confidence":1}`,
		"敏捷的棕色狐狸跳过了懒狗。":                                                                               `{"label":"zh","name":"Mandarin","confidence":1}`,
		"":        `{"label":"und","name":"Undetermined","confidence":0}`,
		"1234 !?": `{"label":"und","name":"Undetermined","confidence":0}`,
	} {
		if got := replyOf(t, u, askBuiltin("builtin/language", userSays(text))); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}

func TestBuiltinAnswerIsAWholeCompletion(t *testing.T) {
	r := askBuiltin("builtin/sentiment", userSays("The book was good."))
	got, err := NewBuiltin().Call(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	want := jobs.Answer{
		Status: 200, Usage: jobs.Usage{Input: 5, Output: 17, Total: 22},
		Body: []byte(`{"id":"ID","object":"chat.completion","created":0,"model":"builtin/sentiment","choices":[{"index":0,` +
			`"message":{"role":"assistant","content":"{\"label\":\"positive\",\"confidence\":0.4404}","refusal":null},` +
			`"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":17,"total_tokens":22}}`),
	}
	var id struct{ ID string }
	if err := json.Unmarshal(got.Body, &id); err != nil || len(id.ID) != len("chatcmpl-")+24 {
		t.Fatalf("id %q (%v), want chatcmpl- and 24 digits", id.ID, err)
	}
	got.Body = []byte(strings.Replace(string(got.Body), id.ID, "ID", 1))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
}

func TestBuiltinReadsTheLastUserMessage(t *testing.T) {
	const good = `{"label":"positive","confidence":0.4404}`
	u := NewBuiltin()
	for _, messages := range []string{
		`[{"role":"user","content":"The book was good."}]`,
		`[{"role":"system","content":"awful"},{"role":"user","content":"terrible"},{"role":"user","content":"The book was good."},{"role":"assistant","content":"horrible"}]`,
		`[{"role":"user","content":[{"type":"text","text":"The book"},{"type":"text","text":"was good."}]}]`,
		`[null, 3, {"role":"user","content":"The book was good."}]`,
		`[{"role":"user","content":"awful","content":"The book was good."}]`,
	} {
		if got := replyOf(t, u, askBuiltin("builtin/sentiment", messages)); got != good {
			t.Errorf("%s: got %s, want %s", messages, got, good)
		}
	}
	replyOf(t, u, askBuiltin("builtin/sentiment", `[{"role":"user","content":"\ud800 lone"}]`))
}

func TestBuiltinRefusesAsAnAPIWould(t *testing.T) {
	ok := userSays("x")
	tests := []struct {
		name          string
		r             jobs.Request
		status        int
		code          string
		param, saying string
	}{
		{"model", askBuiltin("builtin/poet", ok), 404, "model_not_found", "model", `the model "builtin/poet" does not exist; the built-in models are builtin/language and builtin/sentiment`},
		{"no model", askBuiltin("", ok), 404, "model_not_found", "model", `the model "" does not exist; the built-in models are builtin/language and builtin/sentiment`},
		{"url", jobs.Request{URL: "/v1/embeddings", Model: "builtin/language"}, 404, "unsupported_url", "url", "the built-in models answer /v1/chat/completions, not /v1/embeddings"},
		{"no body", jobs.Request{URL: chatURL, Model: "builtin/language"}, 400, "invalid_request_error", "", "the body is not a JSON object"},
		{"array", jobs.Request{URL: chatURL, Model: "builtin/language", Body: []byte(`[]`)}, 400, "invalid_request_error", "", "the body is not a JSON object"},
		{"null", jobs.Request{URL: chatURL, Model: "builtin/language", Body: []byte(`null`)}, 400, "invalid_request_error", "messages", "messages is missing"},
		{"no messages", jobs.Request{URL: chatURL, Model: "builtin/language", Body: []byte(`{"prompt":"x"}`)}, 400, "invalid_request_error", "messages", "messages is missing"},
		{"messages null", askBuiltin("builtin/language", `null`), 400, "invalid_request_error", "messages", "messages must be an array"},
		{"messages an object", askBuiltin("builtin/language", `{}`), 400, "invalid_request_error", "messages", "messages must be an array"},
		{"messages empty", askBuiltin("builtin/language", `[]`), 400, "invalid_request_error", "messages", "messages has no message whose role is user"},
		{"no user", askBuiltin("builtin/language", `[{"role":"system","content":"x"}]`), 400, "invalid_request_error", "messages", "messages has no message whose role is user"},
		{"message a string", askBuiltin("builtin/language", `["x"]`), 400, "invalid_request_error", "messages[0]", "messages[0] must be an object"},
		{"content a number", askBuiltin("builtin/language", `[{"role":"user","content":3}]`), 400, "invalid_request_error", "messages[0].content", "messages[0].content must be a string or an array of text parts"},
		{"no content", askBuiltin("builtin/language", `[{},{"role":"user"}]`), 400, "invalid_request_error", "messages[1].content", "messages[1].content must be a string or an array of text parts"},
		{"image", askBuiltin("builtin/language", `[{"role":"user","content":[{"type":"text","text":"x"},{"type":"image_url","image_url":{}}]}]`), 400, "invalid_request_error",
			"messages[0].content[1]", "messages[0].content[1] must be a text part; the built-in models read nothing but text"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := faultOf(t, NewBuiltin(), tt.r)
			want := &jobs.Fault{Cause: jobs.CauseStatus, Status: tt.status, Code: tt.code, Message: tt.saying, IsObject: true, Body: f.Body}
			if diff := cmp.Diff(want, f); diff != "" {
				t.Errorf("fault (-want +got):\n%s", diff)
			}
			var body struct {
				Error struct {
					Message, Type string
					Param         *string
				}
			}
			if err := json.Unmarshal(f.Body, &body); err != nil {
				t.Fatalf("body %s: %v", f.Body, err)
			}
			param := ""
			if body.Error.Param != nil {
				param = *body.Error.Param
			}
			if body.Error.Message != tt.saying || body.Error.Type != "invalid_request_error" || param != tt.param {
				t.Errorf("body %s, want param %q and the same message", f.Body, tt.param)
			}
		})
	}
}

func TestBuiltinDoesNotAnswerAnEndedCall(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := NewBuiltin().Call(ctx, askBuiltin("builtin/language", userSays("x")))
	var f *jobs.Fault
	if !errors.As(err, &f) || f.Cause != jobs.CauseAborted || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want aborted, by context.Canceled", err)
	}
}

// TestEqualRequestsHaveEqualAnswers also between processes' worth of analysers and while others ask: both libraries keep
// maps, and one of them walks them.
func TestEqualRequestsHaveEqualAnswers(t *testing.T) {
	words := rapid.SampledFrom([]string{"good", "BAD", "not", "no", "or", "never", "so", "this", "without", "doubt", "but", "kind", "of", "least", "at", "the", "shit",
		"bad", "ass", "très", "und", "nicht", "да", "это", "不", "好", "の", ":)", "😁", "!!!", "??", "\n", "  ", "1", "a", "\u0300", "isn't", "yeah", "right"})
	rapid.Check(t, func(rt *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOfN(words, 0, 12), func(w []string) string { return strings.Join(w, " ") })).Draw(rt, "text")
		for _, model := range builtinModels {
			r := askBuiltin(model, userSays(text))
			const askers = 4
			var (
				answers [askers]string
				wg      sync.WaitGroup
			)
			for i := range answers {
				wg.Go(func() {
					a, err := NewBuiltin().Call(t.Context(), r)
					answers[i] = fmt.Sprintf("%s %v %v", a.Body, a.Usage, err)
				})
			}
			wg.Wait()
			for _, a := range answers[1:] {
				if a != answers[0] {
					rt.Fatalf("%s of %q: %s and %s", model, text, answers[0], a)
				}
			}
		}
	})
}

func TestPiecesAreCountedAsTheyAreRead(t *testing.T) {
	for text, want := range map[string]int64{
		"":                           0,
		" \n\t":                      0,
		"one":                        1,
		"The book was good.":         5,
		"it's 25 °C":                 6,
		"敏捷的狐狸":                      5,
		"ok狐ok":                      3,
		"e\u0301te\u0301":            1,
		"a-b_c":                      5,
		`{"label":"de"}`:             9,
		strings.Repeat("word ", 100): 100,
	} {
		if got := countPieces(text); got != want {
			t.Errorf("%q: got %d, want %d", text, got, want)
		}
	}
}
