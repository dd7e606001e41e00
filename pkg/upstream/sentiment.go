package upstream

import (
	"math"
	"strings"
	"sync"

	"github.com/jonreiter/govader"
)

// sentiment is VADER: a lexicon of English words with rules for negation, emphasis and the like.
type sentiment struct{}

// analyser is built once, at the first call: it reads a lexicon of 7,500 words. It is only read afterwards, so all calls
// share it.
var analyser = sync.OnceValue(govader.NewSentimentIntensityAnalyzer)

// threshold is the compound score from which VADER's authors call a text positive, and below whose negative, negative
// (Hutto and Gilbert, 2014).
const threshold = 0.05

type sentimentReply struct {
	Label      string  `json:"label"`
	Confidence float64 `json:"confidence"` // the compound score's size; of neutral, how far it is from 1
}

func (sentiment) reply(text string) any {
	// VADER splits words at single spaces only.
	score := analyser().PolarityScores(strings.Join(strings.Fields(text), " ")).Compound
	size := round4(math.Abs(score))
	switch {
	case score >= threshold:
		return sentimentReply{"positive", size}
	case score <= -threshold:
		return sentimentReply{"negative", size}
	default:
		return sentimentReply{"neutral", round4(1 - size)}
	}
}
