package upstream

import (
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// readPrompt is the text of the last user message of a chat completion request, or what is wrong with the request.
func readPrompt(body []byte) (string, *apiError) {
	var request struct {
		Messages jsontext.Value `json:"messages"`
	}
	if err := json.Unmarshal(body, &request, lenient); err != nil {
		return "", badPrompt("", "the body is not a JSON object")
	}
	if len(request.Messages) == 0 {
		return "", badPrompt("messages", "messages is missing")
	}
	var messages []jsontext.Value
	if request.Messages.Kind() != '[' || json.Unmarshal(request.Messages, &messages, lenient) != nil {
		return "", badPrompt("messages", "messages must be an array")
	}
	for i := len(messages) - 1; i >= 0; i-- {
		var m struct {
			Role    jsontext.Value `json:"role"`
			Content jsontext.Value `json:"content"`
		}
		at := fmt.Sprintf("messages[%d]", i)
		if messages[i].Kind() != '{' || json.Unmarshal(messages[i], &m, lenient) != nil {
			return "", badPrompt(at, at+" must be an object")
		}
		if text(m.Role) == "user" {
			return readContent(at+".content", m.Content)
		}
	}
	return "", badPrompt("messages", "messages has no message whose role is user")
}

// readContent reads a string, or an array of text parts, which are joined by line breaks.
func readContent(at string, content jsontext.Value) (string, *apiError) {
	switch content.Kind() {
	case '"':
		return text(content), nil
	case '[':
	default:
		return "", badPrompt(at, at+" must be a string or an array of text parts")
	}
	var parts []jsontext.Value
	if json.Unmarshal(content, &parts, lenient) != nil {
		return "", badPrompt(at, at+" must be an array of text parts")
	}
	texts := make([]string, len(parts))
	for i, p := range parts {
		var part struct {
			Type jsontext.Value `json:"type"`
			Text jsontext.Value `json:"text"`
		}
		if p.Kind() != '{' || json.Unmarshal(p, &part, lenient) != nil || text(part.Type) != "text" || part.Text.Kind() != '"' {
			at = fmt.Sprintf("%s[%d]", at, i)
			return "", badPrompt(at, at+" must be a text part; the built-in models read nothing but text")
		}
		texts[i] = text(part.Text)
	}
	return strings.Join(texts, "\n"), nil
}

func badPrompt(param, message string) *apiError {
	return &apiError{Message: message, Type: invalidRequest, Param: param}
}
