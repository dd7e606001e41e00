package upstream

import (
	"cmp"

	"github.com/abadojack/whatlanggo"
)

// language compares trigrams with the profiles of 84 languages. Its data are only read, so calls share them.
type language struct{}

type languageReply struct {
	Label      string  `json:"label"` // ISO 639-1, or 639-3 for a language without; "und" if it cannot be told
	Name       string  `json:"name"`
	Confidence float64 `json:"confidence"`
}

func (language) reply(text string) any {
	found := whatlanggo.Detect(text)
	// Two languages that are equally near have confidence 0, and then which of them is named differs from run to run
	// (the library walks a map). So 0 names none.
	if confidence := round4(found.Confidence); found.Lang >= 0 && confidence > 0 {
		return languageReply{cmp.Or(found.Lang.Iso6391(), found.Lang.Iso6393()), found.Lang.String(), confidence}
	}
	return languageReply{"und", "Undetermined", 0}
}
