package jobs

import (
	"strconv"
	"strings"
)

// Cost is money, in billionths of a US dollar.
type Cost int64

// USD is a cost of so many dollars.
func USD(dollars float64) Cost { return Cost(dollars * 1e9) }

// USD is the cost in dollars.
func (c Cost) USD() float64 { return float64(c) / 1e9 }

// Price is what the tokens of some models cost.
type Price struct {
	Models        ModelPattern
	Input, Output float64 // US dollars for a million tokens
}

// Prices is a table of prices: the first whose pattern matches counts. A model that none matches costs nothing.
type Prices []Price

// ParsePrices reads MODELS=INPUT/OUTPUT, with commas between several, such as gpt-4o*=2.5/10,*=1/2.
func ParsePrices(s string) (Prices, error) {
	var all Prices
	for one := range strings.SplitSeq(s, ",") {
		if one = strings.TrimSpace(one); one == "" {
			continue
		}
		at := strings.LastIndexByte(one, '=')
		input, output, ok := strings.Cut(one[at+1:], "/")
		in, err1 := strconv.ParseFloat(strings.TrimSpace(input), 64)
		out, err2 := strconv.ParseFloat(strings.TrimSpace(output), 64)
		p := Price{Models: ModelPattern(strings.TrimSpace(one[:max(0, at)])), Input: in, Output: out}
		if !p.Models.valid() || !ok || err1 != nil || err2 != nil || !(in >= 0 && in <= 1e6 && out >= 0 && out <= 1e6) {
			return nil, Errorf(CodeInvalid, "%.80q is no price: it is MODELS=INPUT/OUTPUT in US dollars for a million tokens, such as gpt-4o*=2.5/10", one)
		}
		all = append(all, p)
	}
	return all, nil
}

// UnmarshalText is ParsePrices.
func (t *Prices) UnmarshalText(text []byte) (err error) {
	*t, err = ParsePrices(string(text))
	return err
}

// Of is what tokens of a model cost. Cached ones count as input.
func (t Prices) Of(model string, u Usage) Cost {
	for _, p := range t {
		if p.Models.Matches(model) {
			return Cost(p.Input*1000*float64(u.Input) + p.Output*1000*float64(u.Output))
		}
	}
	return 0
}
