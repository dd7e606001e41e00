package jobs

import "testing"

func TestTheFirstPriceThatMatchesCounts(t *testing.T) {
	prices, err := ParsePrices("gpt-4o-mini=0.15/0.6, gpt-4o*=2.5/10,meta/*=1/1,*=0/0.5")
	if err != nil {
		t.Fatal(err)
	}
	for model, want := range map[string]Cost{
		"gpt-4o-mini": USD(0.15 + 0.3), "gpt-4o-2026": USD(2.5 + 5), "meta/llama/70b": USD(1.5), "else": USD(0.25), "": USD(0.25),
	} {
		if got := prices.Of(model, Usage{Input: 1_000_000, Output: 500_000}); got != want {
			t.Errorf("%s costs $%g, want $%g", model, got.USD(), want.USD())
		}
	}
	if got := prices.Of("gpt-4o", Usage{Input: 1}); got != 2500 {
		t.Errorf("a token costs %d billionths, want 2500", got)
	}
	if got := (Prices)(nil).Of("gpt-4o", Usage{Input: 1}); got != 0 {
		t.Errorf("without prices it costs %d", got)
	}
}

func TestWhatIsNoPriceIsRefused(t *testing.T) {
	for _, s := range []string{"x", "x=1", "x=1/", "=1/1", "x=-1/1", "x=1/NaN", "x=1/1e99", "[=1/1", "x=a/b"} {
		if p, err := ParsePrices(s); CodeOf(err) != CodeInvalid {
			t.Errorf("%q is %v, %v", s, p, err)
		}
	}
	for _, s := range []string{"", " , "} {
		if p, err := ParsePrices(s); err != nil || p != nil {
			t.Errorf("%q is %v, %v", s, p, err)
		}
	}
}
