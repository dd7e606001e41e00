package jobs

import (
	"path"
	"slices"
	"strings"
)

// ModelPattern names models as path.Match has it, such as gpt-4o*; "/" is a character like any other, since models have it
// in their names.
type ModelPattern string

// AllModels matches every model, and requests that name none.
const AllModels ModelPattern = "*"

func (p ModelPattern) valid() bool {
	_, err := path.Match(string(p), "")
	return err == nil && p != ""
}

// Matches tells whether a model is one of the pattern's.
func (p ModelPattern) Matches(model string) bool {
	ok, _ := path.Match(strings.ReplaceAll(string(p), "/", "\x00"), strings.ReplaceAll(model, "/", "\x00"))
	return ok
}

// Route is where models are served, and by which key. It has at most one of the three.
type Route struct {
	Models ModelPattern
	Target string // what users call the upstream, such as a URL

	Key     Secret
	KeyEnv  string // the environment variable that holds it
	KeyFrom string // the parameter that holds it
}

// Routes is a table of routes: the first whose pattern matches counts.
type Routes []Route

// ParseRoutes reads MODELS=UPSTREAM with ,key-env=NAME or ,key-from=PARAMETER behind it, and white space between several,
// such as "gpt-4o*=https://api.example.com/v1,key-env=EXAMPLE_KEY llama*=http://10.0.0.7:8000/v1". What an upstream may be
// is for those to say who open it.
func ParseRoutes(s string) (Routes, error) {
	var all Routes
	for one := range strings.FieldsSeq(s) {
		fields := strings.Split(one, ",")
		models, target, ok := strings.Cut(fields[0], "=")
		r := Route{Models: ModelPattern(models), Target: target}
		ok = ok && r.Models.valid() && target != ""
		for _, field := range fields[1:] {
			name, value, _ := strings.Cut(field, "=")
			switch {
			case value == "" || r.KeyEnv != "" || r.KeyFrom != "":
				ok = false
			case name == "key-env":
				r.KeyEnv = value
			case name == "key-from":
				r.KeyFrom = value
			default:
				ok = false
			}
		}
		if !ok {
			return nil, Errorf(CodeInvalid, "%.80q is no route: it is MODELS=UPSTREAM, such as gpt-4o*=https://api.example.com/v1,key-env=EXAMPLE_KEY", one)
		}
		if slices.ContainsFunc(all, func(o Route) bool { return o.Models == r.Models }) {
			return nil, Errorf(CodeInvalid, "there are two routes for %.80q", r.Models)
		}
		all = append(all, r)
	}
	return all, nil
}

// UnmarshalText is ParseRoutes.
func (t *Routes) UnmarshalText(text []byte) (err error) {
	*t, err = ParseRoutes(string(text))
	return err
}

// Else is the table with a last route, for the models that no other is for.
func (t Routes) Else(r Route) Routes {
	r.Models = AllModels
	return append(slices.Clip(t), r)
}

// WithKeys is the table with the keys that environment variables hold.
func (t Routes) WithKeys(getenv func(name string) string) (Routes, error) {
	t = slices.Clone(t)
	for i := range t {
		r := &t[i]
		if r.KeyEnv == "" {
			continue
		}
		if r.Key = Secret(getenv(r.KeyEnv)); r.Key == "" {
			return nil, Errorf(CodeInvalid, "the environment variable %s, which holds the key for %s, is not set", r.KeyEnv, r.Models)
		}
	}
	return t, nil
}

// Of is the route of a model, an index into the table; -1 if it has none.
func (t Routes) Of(model string) int {
	return slices.IndexFunc(t, func(r Route) bool { return r.Models.Matches(model) })
}
