package terraformtest

import (
	"context"
	"fmt"
	"strings"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// Provider is an AWS provider that knows schemas alone. What it would learn from AWS it makes up, or leaves unknown until
// apply.
type Provider struct {
	tfprotov6.ProviderServer // whatever is not below is never asked for

	resources, data map[string]*tfprotov6.Schema
}

// NewProvider makes a Provider of the schemas.
func NewProvider() (*Provider, error) {
	s, err := readSchemas()
	if err != nil {
		return nil, err
	}
	p := &Provider{}
	if p.resources, err = schemasOf(s.Resources); err != nil {
		return nil, err
	}
	if p.data, err = schemasOf(s.Data); err != nil {
		return nil, err
	}
	for name, schema := range p.data {
		for _, a := range schema.Block.Attributes {
			if _, ok := answers[name][a.Name]; ok {
				a.Computed = true
			}
		}
	}
	return p, nil
}

// Account, Region and zones are what plans are made for.
const (
	Account = "123456789012"
	Region  = "eu-central-1"
)

// answers are what data sources say.
var answers = map[string]map[string]tftypes.Value{
	"aws_caller_identity": {"account_id": text(Account)},
	"aws_region":          {"region": text(Region), "name": text(Region)},
	"aws_partition":       {"partition": text("aws"), "dns_suffix": text("amazonaws.com")},
	"aws_availability_zones": {"names": tftypes.NewValue(tftypes.List{ElementType: tftypes.String}, []tftypes.Value{
		text(Region + "a"), text(Region + "b"), text(Region + "c"), text(Region + "d"),
	})},
	"aws_prefix_list":   {},
	"aws_ssm_parameter": {"value": text("ami-0123456789abcdef0"), "insecure_value": text("ami-0123456789abcdef0")},
	"aws_subnet":        {"cidr_block": text("10.0.0.0/20")},
	"aws_vpc":           {"cidr_block": text("10.0.0.0/16")},
}

func text(s string) tftypes.Value { return tftypes.NewValue(tftypes.String, s) }

// GetMetadata lists what there is.
func (p *Provider) GetMetadata(context.Context, *tfprotov6.GetMetadataRequest) (*tfprotov6.GetMetadataResponse, error) {
	r := &tfprotov6.GetMetadataResponse{}
	for name := range p.resources {
		r.Resources = append(r.Resources, tfprotov6.ResourceMetadata{TypeName: name})
	}
	for name := range p.data {
		r.DataSources = append(r.DataSources, tfprotov6.DataSourceMetadata{TypeName: name})
	}
	return r, nil
}

// GetProviderSchema gives the schemas, and that of the provider's own configuration, as far as examples use it.
func (p *Provider) GetProviderSchema(context.Context, *tfprotov6.GetProviderSchemaRequest) (*tfprotov6.GetProviderSchemaResponse, error) {
	tags := &tfprotov6.SchemaBlock{Attributes: []*tfprotov6.SchemaAttribute{{Name: "tags", Type: tftypes.Map{ElementType: tftypes.String}, Optional: true}}}
	own := &tfprotov6.SchemaBlock{
		Attributes: []*tfprotov6.SchemaAttribute{{Name: "region", Type: tftypes.String, Optional: true}},
		BlockTypes: []*tfprotov6.SchemaNestedBlock{{TypeName: "default_tags", Nesting: tfprotov6.SchemaNestedBlockNestingModeList, MaxItems: 1, Block: tags}},
	}
	return &tfprotov6.GetProviderSchemaResponse{Provider: &tfprotov6.Schema{Block: own}, ResourceSchemas: p.resources, DataSourceSchemas: p.data}, nil
}

// ValidateProviderConfig takes any.
func (p *Provider) ValidateProviderConfig(_ context.Context, r *tfprotov6.ValidateProviderConfigRequest) (*tfprotov6.ValidateProviderConfigResponse, error) {
	return &tfprotov6.ValidateProviderConfigResponse{PreparedConfig: r.Config}, nil
}

// ValidateResourceConfig takes what Terraform has held against the schema.
func (p *Provider) ValidateResourceConfig(context.Context, *tfprotov6.ValidateResourceConfigRequest) (*tfprotov6.ValidateResourceConfigResponse, error) {
	return &tfprotov6.ValidateResourceConfigResponse{}, nil
}

// ValidateDataResourceConfig does the same.
func (p *Provider) ValidateDataResourceConfig(context.Context, *tfprotov6.ValidateDataResourceConfigRequest) (*tfprotov6.ValidateDataResourceConfigResponse, error) {
	return &tfprotov6.ValidateDataResourceConfigResponse{}, nil
}

// ConfigureProvider needs nothing.
func (p *Provider) ConfigureProvider(context.Context, *tfprotov6.ConfigureProviderRequest) (*tfprotov6.ConfigureProviderResponse, error) {
	return &tfprotov6.ConfigureProviderResponse{}, nil
}

// StopProvider has nothing to stop.
func (p *Provider) StopProvider(context.Context, *tfprotov6.StopProviderRequest) (*tfprotov6.StopProviderResponse, error) {
	return &tfprotov6.StopProviderResponse{}, nil
}

// UpgradeResourceState has one version only.
func (p *Provider) UpgradeResourceState(_ context.Context, r *tfprotov6.UpgradeResourceStateRequest) (*tfprotov6.UpgradeResourceStateResponse, error) {
	v, err := r.RawState.Unmarshal(p.resources[r.TypeName].ValueType())
	if err != nil {
		return nil, err
	}
	state, err := tfprotov6.NewDynamicValue(p.resources[r.TypeName].ValueType(), v)
	return &tfprotov6.UpgradeResourceStateResponse{UpgradedState: &state}, err
}

// PlanResourceChange leaves unknown what AWS would say.
func (p *Provider) PlanResourceChange(_ context.Context, r *tfprotov6.PlanResourceChangeRequest) (*tfprotov6.PlanResourceChangeResponse, error) {
	schema := p.resources[r.TypeName]
	planned, err := fill(schema, r.ProposedNewState, func(_ string, t tftypes.Type) tftypes.Value { return tftypes.NewValue(t, tftypes.UnknownValue) })
	return &tfprotov6.PlanResourceChangeResponse{PlannedState: planned}, err
}

// ApplyResourceChange makes up what AWS would say.
func (p *Provider) ApplyResourceChange(_ context.Context, r *tfprotov6.ApplyResourceChangeRequest) (*tfprotov6.ApplyResourceChangeResponse, error) {
	schema := p.resources[r.TypeName]
	called, err := calledOf(schema, r.PlannedState)
	if err != nil {
		return nil, err
	}
	state, err := fill(schema, r.PlannedState, func(name string, t tftypes.Type) tftypes.Value {
		switch {
		case !t.Is(tftypes.String):
			return tftypes.NewValue(t, nil)
		case name == "url" || name == "function_url" || name == "api_endpoint":
			return text(madeUpURL + called)
		default:
			return text("<" + strings.Join([]string{r.TypeName, called, name}, " ") + ">")
		}
	})
	return &tfprotov6.ApplyResourceChangeResponse{NewState: state}, err
}

// madeUpURL begins what is made up where a URL is expected.
const madeUpURL = "https://made-up.example/"

// calledOf is the name that a resource was given.
func calledOf(schema *tfprotov6.Schema, from *tfprotov6.DynamicValue) (string, error) {
	v, err := from.Unmarshal(schema.ValueType())
	if err != nil || v.IsNull() {
		return "", err
	}
	members := map[string]tftypes.Value{}
	if err := v.As(&members); err != nil {
		return "", err
	}
	for _, name := range []string{"name", "function_name", "bucket", "service_name", "cidr_block", "description"} {
		var s string
		if m, ok := members[name]; ok && m.IsKnown() && !m.IsNull() && m.As(&s) == nil {
			return s, nil
		}
	}
	return "", nil
}

// ReadResource finds what was written.
func (p *Provider) ReadResource(_ context.Context, r *tfprotov6.ReadResourceRequest) (*tfprotov6.ReadResourceResponse, error) {
	return &tfprotov6.ReadResourceResponse{NewState: r.CurrentState}, nil
}

// ReadDataSource makes up what AWS would say.
func (p *Provider) ReadDataSource(_ context.Context, r *tfprotov6.ReadDataSourceRequest) (*tfprotov6.ReadDataSourceResponse, error) {
	known := answers[r.TypeName]
	if known == nil {
		return nil, fmt.Errorf("there is no answer to %s", r.TypeName)
	}
	schema := p.data[r.TypeName]
	state, err := fill(schema, r.Config, func(name string, t tftypes.Type) tftypes.Value {
		if v, ok := known[name]; ok {
			return v
		}
		if t.Is(tftypes.String) {
			return text(r.TypeName + "." + name)
		}
		return tftypes.NewValue(t, nil)
	})
	return &tfprotov6.ReadDataSourceResponse{State: state}, err
}

// fill sets computed attributes that are not known.
func fill(schema *tfprotov6.Schema, from *tfprotov6.DynamicValue, with func(name string, t tftypes.Type) tftypes.Value) (*tfprotov6.DynamicValue, error) {
	t := schema.ValueType()
	v, err := from.Unmarshal(t)
	if err != nil || v.IsNull() {
		return from, err
	}
	members := map[string]tftypes.Value{}
	if err := v.As(&members); err != nil {
		return nil, err
	}
	for _, a := range schema.Block.Attributes {
		if m := members[a.Name]; a.Computed && (m.IsNull() || !m.IsKnown()) {
			members[a.Name] = with(a.Name, a.Type)
		}
	}
	out, err := tfprotov6.NewDynamicValue(t, tftypes.NewValue(t, members))
	return &out, err
}
