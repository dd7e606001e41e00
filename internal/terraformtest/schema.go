package terraformtest

import (
	_ "embed" // what extract.mjs has made
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

//go:embed schemas.json
var schemasJSON []byte

// block is a block as schemas.json has it.
type block struct {
	Attributes map[string]struct {
		Type                         json.RawMessage
		Required, Optional, Computed bool
	}
	Blocks map[string]struct {
		Nesting  string
		Min, Max int64
		Block    block
	}
}

type schemas struct{ Resources, Data map[string]block }

func readSchemas() (s schemas, err error) {
	if err = json.Unmarshal(schemasJSON, &s); err != nil {
		err = fmt.Errorf("read schemas.json: %w", err)
	}
	return s, err
}

var simpleTypes = map[string]tftypes.Type{"string": tftypes.String, "number": tftypes.Number, "bool": tftypes.Bool}

// typeOf reads "string", {"list":"string"}, {"set":…} or {"map":…}.
func typeOf(raw json.RawMessage) (tftypes.Type, error) {
	var name string
	if json.Unmarshal(raw, &name) == nil && simpleTypes[name] != nil {
		return simpleTypes[name], nil
	}
	var of map[string]string
	if err := json.Unmarshal(raw, &of); err != nil {
		return nil, fmt.Errorf("there is no type %s", raw)
	}
	for kind, name := range of {
		element := simpleTypes[name]
		switch {
		case element == nil:
		case kind == "list":
			return tftypes.List{ElementType: element}, nil
		case kind == "set":
			return tftypes.Set{ElementType: element}, nil
		case kind == "map":
			return tftypes.Map{ElementType: element}, nil
		}
	}
	return nil, fmt.Errorf("there is no type %s", raw)
}

var nestings = map[string]tfprotov6.SchemaNestedBlockNestingMode{
	"list": tfprotov6.SchemaNestedBlockNestingModeList, "set": tfprotov6.SchemaNestedBlockNestingModeSet, "single": tfprotov6.SchemaNestedBlockNestingModeSingle,
}

// schema is a block in the protocol's words.
func (b *block) schema() (*tfprotov6.SchemaBlock, error) {
	out := &tfprotov6.SchemaBlock{}
	for _, name := range slices.Sorted(maps.Keys(b.Attributes)) {
		a := b.Attributes[name]
		t, err := typeOf(a.Type)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out.Attributes = append(out.Attributes, &tfprotov6.SchemaAttribute{Name: name, Type: t, Required: a.Required, Optional: a.Optional, Computed: a.Computed})
	}
	for _, name := range slices.Sorted(maps.Keys(b.Blocks)) {
		n := b.Blocks[name]
		inner, err := n.Block.schema()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		nested := &tfprotov6.SchemaNestedBlock{TypeName: name, Nesting: nestings[n.Nesting], Block: inner}
		if n.Nesting != "single" {
			nested.MinItems, nested.MaxItems = n.Min, n.Max
		}
		out.BlockTypes = append(out.BlockTypes, nested)
	}
	return out, nil
}

func schemasOf(of map[string]block) (map[string]*tfprotov6.Schema, error) {
	all := map[string]*tfprotov6.Schema{}
	for name, b := range of {
		s, err := b.schema()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all[name] = &tfprotov6.Schema{Block: s}
	}
	return all, nil
}
