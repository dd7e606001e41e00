package jobs

import (
	"reflect"
	"strings"
	"testing"
)

func TestTheFirstRouteThatMatchesCounts(t *testing.T) {
	routes, err := ParseRoutes("gpt-4o-mini=https://a.example/v1,key-env=A\n  gpt-4o*=https://b.example/v1,key-from=/b/key meta/*=bedrock")
	if err != nil {
		t.Fatal(err)
	}
	routes = routes.Else(Route{Target: "builtin"})
	for model, want := range map[string]string{
		"gpt-4o-mini": "https://a.example/v1", "gpt-4o-2026": "https://b.example/v1", "meta/llama/70b": "bedrock", "else": "builtin", "": "builtin",
	} {
		if got := routes[routes.Of(model)].Target; got != want {
			t.Errorf("%q is served by %s, want %s", model, got, want)
		}
	}
	keyed, err := routes.WithKeys(func(name string) string { return map[string]string{"A": "sesame"}[name] })
	if want := "sesame"; err != nil || string(keyed[0].Key) != want || routes[0].Key != "" {
		t.Errorf("the key is %q, %v", string(keyed[0].Key), err)
	}
	if _, err := routes.WithKeys(func(string) string { return "" }); CodeOf(err) != CodeInvalid || !strings.Contains(err.Error(), "variable A,") {
		t.Errorf("without the key: %v", err)
	}
}

func TestATableHasNoPlaceForWhatComesAfterIt(t *testing.T) {
	routes := make(Routes, 1, 2)
	one, other := routes.Else(Route{Target: "one"}), routes.Else(Route{Target: "other"})
	if one[1].Target != "one" || other[1].Target != "other" {
		t.Errorf("they share a place: %v, %v", one, other)
	}
}

func TestWhatIsNoRouteIsRefused(t *testing.T) {
	for _, s := range []string{"x", "x=", "=builtin", "[=builtin", "x=builtin,", "x=builtin,key-env", "x=builtin,key-env=", "x=a,key-env=A,key-from=/a", "x=a,y=b", "x=a x=b"} {
		if r, err := ParseRoutes(s); CodeOf(err) != CodeInvalid {
			t.Errorf("%q is %v, %v", s, r, err)
		}
	}
	for _, s := range []string{"", " \n "} {
		if r, err := ParseRoutes(s); err != nil || !reflect.DeepEqual(r, Routes(nil)) {
			t.Errorf("%q is %v, %v", s, r, err)
		}
	}
}
