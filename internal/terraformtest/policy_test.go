package terraformtest

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// variants are installs whose plans must keep the rules.
var variants = map[string]map[string]any{
	"defaults": {},
	"everything": {
		"webhooks": object{"enabled": true, "allow": []string{"10.1.0.0/16"}, "plain": []string{"hooks.internal"}}, "kms_key_arn": "arn:aws:kms:eu-central-1:123456789012:key/1",
		"upstream":  object{"url": "http://vllm.internal:8000/v1", "security_group_id": "sg-1", "port": 8000, "key_secret": "upstream"},
		"api":       object{"operator_key_sha256": strings.Repeat("a", 64), "models": []string{"m"}, "jwt": object{"issuer": "https://id.example", "audience": []string{"x"}}},
		"alarms":    object{"topic_arn": "arn:aws:sns:eu-central-1:123456789012:alarms"},
		"functions": object{"worker": object{"provisioned_concurrency": 2, "reserved_concurrency": 20, "pollers": object{"minimum": 2, "maximum": 4}}},
	},
	"bedrock":   {"functions": object{"worker": object{"reserved_concurrency": 15}}, "upstream": object{"bedrock_models": []string{"arn:aws:bedrock:eu-central-1::foundation-model/openai.gpt-oss-20b-1:0"}}},
	"sagemaker": {"upstream": object{"sagemaker_endpoint": "llama-3"}},
	"routes": {"upstream": object{"sagemaker_endpoint": "llama-3"}, "routes": object{
		"gpt*":  object{"url": "http://vllm.internal:8000/v1", "security_group_id": "sg-1", "port": 8000, "key_parameter": "/fanout/key"},
		"nova*": object{"bedrock_models": []string{"arn:aws:bedrock:eu-central-1::foundation-model/openai.gpt-oss-20b-1:0"}},
	}},
	"a public URL":     {"network": "none", "upstream": object{"url": "https://api.example.com/v1", "key_parameter": "/fanout/key"}},
	"function URL":     {"api": object{"front_door": "function_url"}, "webhooks": object{"enabled": true}},
	"existing VPC":     {"network": object{"vpc_id": "vpc-1", "subnet_ids": []string{"s-1", "s-2"}, "route_table_ids": []string{"rtb-1"}}},
	sharedVPC:          {"network": object{"vpc_id": "vpc-1", "subnet_ids": []string{"s-1"}, "route_table_ids": []string{"rtb-1"}, "open_endpoints": true}},
	"worker elsewhere": {"functions": object{"worker": object{"enabled": false}}, "api": object{"front_door": "none"}},
}

// sharedVPC is used by others too, whom policies of endpoints would cut off.
const sharedVPC = "a VPC that is shared"

type object = map[string]any

// install is what a variant makes.
type install struct {
	t         *testing.T
	name      string
	resources []stateResource
}

func (i *install) of(types ...string) (all []stateResource) {
	for _, r := range i.resources {
		if r.Mode == "managed" && slices.Contains(types, r.Type) {
			all = append(all, r)
		}
	}
	return all
}

func (r *stateResource) text(name string) string { s, _ := r.Values[name].(string); return s }

func (r *stateResource) number(name string) float64 { n, _ := r.Values[name].(float64); return n }

// block is the first of a nested block; nil = there is none.
func (r *stateResource) block(name string) object { return firstBlock(r.Values, name) }

func firstBlock(of object, name string) object {
	list, _ := of[name].([]any)
	if len(list) == 0 {
		return nil
	}
	b, _ := list[0].(map[string]any)
	return b
}

// statement is one of a policy.
type statement struct {
	Sid, Effect string
	Principal   any
	Action      words
	Resource    words
	Condition   map[string]map[string]any
}

// words is a word or a list of them.
type words []string

func (w *words) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*w = words{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(w))
}

func (i *install) policy(r *stateResource, attribute string) []statement {
	i.t.Helper()
	var p struct{ Statement []statement }
	if err := json.Unmarshal([]byte(r.text(attribute)), &p); err != nil {
		i.t.Fatalf("%s: %v", r.Address, err)
	}
	return p.Statement
}

// rules are what every plan must keep.
var rules = map[string]func(t *testing.T, i *install){
	"there is no way to the internet": func(t *testing.T, i *install) {
		for _, r := range i.of("aws_nat_gateway", "aws_internet_gateway", "aws_egress_only_internet_gateway", "aws_route", "aws_eip") {
			t.Errorf("%s is there", r.Address)
		}
		for _, r := range i.resources {
			if strings.HasPrefix(r.Type, "aws_subnet") && r.Values["map_public_ip_on_launch"] == true {
				t.Errorf("%s gives public addresses", r.Address)
			}
			if raw, _ := json.Marshal(r.Values); strings.Contains(string(raw), "0.0.0.0/0") || strings.Contains(string(raw), "::/0") {
				t.Errorf("%s leads anywhere: %s", r.Address, raw)
			}
		}
	},
	"every function but those outside is in the VPC, with an endpoint for each service that it calls": func(t *testing.T, i *install) {
		inVPC := len(i.of("aws_security_group")) > 0
		services := map[string]bool{}
		for _, e := range i.of("aws_vpc_endpoint") {
			services[e.text("service_name")[strings.LastIndex(e.text("service_name"), Region)+len(Region)+1:]] = true
		}
		for _, f := range i.of("aws_lambda_function") {
			name := strings.TrimPrefix(f.text("function_name"), "fanout-")
			outside := name == "notify" || name == "api" && len(i.of("aws_lambda_function_url")) > 0 || !inVPC
			if in := f.block("vpc_config") != nil; in == outside {
				t.Errorf("%s is in the VPC: %v", name, in)
			}
			if outside || len(services) == 0 {
				continue
			}
			needs := map[string]string{"dynamodb:": "dynamodb", "s3:": "s3", "sqs:": "sqs", "bedrock:": "bedrock-runtime", "sagemaker:": "sagemaker.runtime", "ssm:": "ssm"}
			for _, s := range i.role(name) {
				for _, action := range s.Action {
					for prefix, service := range needs {
						if strings.HasPrefix(action, prefix) && !services[service] {
							t.Errorf("%s calls %s, and has no endpoint for it", name, action)
						}
					}
				}
			}
		}
	},
	"every event source reports what failed of a batch, and never starts more than is reserved": func(t *testing.T, i *install) {
		for _, m := range i.of("aws_lambda_event_source_mapping") {
			if kinds, _ := m.Values["function_response_types"].([]any); len(kinds) != 1 || kinds[0] != "ReportBatchItemFailures" {
				t.Errorf("%s: %v", m.Address, kinds)
			}
			for _, f := range i.of("aws_lambda_function") {
				reserved := f.number("reserved_concurrent_executions")
				scaling := firstBlock(m.Values, "scaling_config")
				if strings.Contains(m.text("function_name"), f.text("function_name")) && reserved >= 0 && scaling != nil && scaling["maximum_concurrency"].(float64) > reserved {
					t.Errorf("%s starts %v of %v reserved", m.Address, scaling["maximum_concurrency"], reserved)
				}
			}
		}
	},
	"messages are hidden for six times the function's timeout": func(t *testing.T, i *install) {
		timeouts := map[string]float64{}
		for _, f := range i.of("aws_lambda_function") {
			timeouts[strings.TrimPrefix(f.text("function_name"), "fanout-")] = f.number("timeout")
		}
		for _, q := range i.queues() {
			name := strings.TrimPrefix(q.text("name"), "fanout-")
			if name == "work" {
				name = "worker"
			}
			if hidden := q.number("visibility_timeout_seconds"); hidden < 6*timeouts[name] {
				t.Errorf("%s are hidden for %v s, the function has %v", q.Address, hidden, timeouts[name])
			}
		}
	},
	"every queue has dead letters of its own, which take from it alone": func(t *testing.T, i *install) {
		for _, q := range i.queues() {
			var to struct {
				DeadLetterTargetArn string
				MaxReceiveCount     int
			}
			if err := json.Unmarshal([]byte(q.text("redrive_policy")), &to); err != nil || to.DeadLetterTargetArn != "<aws_sqs_queue "+q.text("name")+"-dead arn>" || to.MaxReceiveCount != 1000 {
				t.Errorf("%s: %+v, %v", q.Address, to, err)
			}
		}
		allowed := i.of("aws_sqs_queue_redrive_allow_policy")
		if len(allowed) != len(i.queues()) {
			t.Errorf("%d of %d dead letters say from whom they take", len(allowed), len(i.queues()))
		}
		for _, a := range allowed {
			var from struct {
				RedrivePermission string
				SourceQueueArns   []string
			}
			queue := strings.TrimSuffix(strings.TrimPrefix(a.text("queue_url"), madeUpURL), "-dead")
			if err := json.Unmarshal([]byte(a.text("redrive_allow_policy")), &from); err != nil || from.RedrivePermission != "byQueue" || !slices.Equal(from.SourceQueueArns, []string{"<aws_sqs_queue " + queue + " arn>"}) {
				t.Errorf("%s: %+v, %v", a.Address, from, err)
			}
		}
	},
	"policies name resources of the module, and no action with a star": func(t *testing.T, i *install) {
		given := regexp.MustCompile(`^arn:aws:(kms|bedrock|sagemaker|ssm|secretsmanager):`)
		for _, r := range i.of("aws_iam_role_policy", "aws_iam_policy", "aws_vpc_endpoint") {
			if r.Type == "aws_vpc_endpoint" && i.name == sharedVPC {
				if r.text("policy") != "" {
					t.Errorf("%s has a policy", r.Address)
				}
				continue
			}
			for _, s := range i.policy(&r, "policy") {
				if s.Effect != "Allow" {
					continue
				}
				for _, action := range s.Action {
					if strings.Contains(action, "*") {
						t.Errorf("%s allows %s", r.Address, action)
					}
				}
				for _, of := range s.Resource {
					ours := strings.HasPrefix(of, "<aws_") || given.MatchString(of) && !strings.Contains(of, "*")
					if !ours && s.Sid != "NetworkInterfaces" { // Lambda names none, and the code may not
						t.Errorf("%s allows %v of %s", r.Address, s.Action, of)
					}
				}
				if len(s.Resource) == 0 {
					t.Errorf("%s allows %v of everything", r.Address, s.Action)
				}
			}
		}
	},
	"a role allows what permissions.json says, and what is listed here with its reason": func(t *testing.T, i *install) {
		written := permissions(t)
		for _, f := range i.of("aws_lambda_function") {
			function := strings.TrimPrefix(f.text("function_name"), "fanout-")
			allowed := map[string]bool{}
			for _, s := range i.role(function) {
				if s.Effect != "Allow" {
					continue
				}
				beside, listed := exceptions[s.Sid]
				if listed && beside.why != "" && slices.Equal(s.Action, beside.actions) {
					continue
				}
				for _, action := range s.Action {
					for _, of := range s.Resource {
						allowed[action+" "+resourceOf(of)] = true
					}
				}
			}
			for action := range allowed {
				if !written[function][action] {
					t.Errorf("%s may %s, which neither says", function, action)
				}
			}
			for action := range written[function] {
				if _, queue, _ := strings.Cut(action, " "); !allowed[action] && (len(i.of("aws_sqs_queue")) == 8 || !strings.HasPrefix(queue, "notify")) {
					t.Errorf("%s may not %s", function, action)
				}
			}
		}
	},
	"resources let in nobody but by name, and only by TLS": func(t *testing.T, i *install) {
		policies := i.of("aws_sqs_queue_policy", "aws_s3_bucket_policy")
		if want := 2*len(i.queues()) + 1; len(policies) != want {
			t.Errorf("%d resources have a policy, not %d", len(policies), want)
		}
		for _, r := range policies {
			tls := false
			for _, s := range i.policy(&r, "policy") {
				switch {
				case s.Effect == "Deny" && s.Condition["Bool"]["aws:SecureTransport"] == "false" && s.Principal == "*":
					tls = true
				case s.Effect == "Allow":
					by, _ := s.Principal.(map[string]any)
					if by["Service"] != "s3.amazonaws.com" || s.Condition["StringEquals"]["aws:SourceAccount"] != Account || !slices.Equal(s.Action, words{"sqs:SendMessage"}) {
						t.Errorf("%s lets in %+v", r.Address, s)
					}
				}
			}
			if !tls {
				t.Errorf("%s takes what comes without TLS", r.Address)
			}
		}
	},
	"everything that is kept is encrypted, and the bucket is not public": func(t *testing.T, i *install) {
		for _, q := range i.of("aws_sqs_queue") {
			if q.Values["sqs_managed_sse_enabled"] != true && q.text("kms_master_key_id") == "" {
				t.Errorf("%s is not encrypted", q.Address)
			}
		}
		for _, table := range i.of("aws_dynamodb_table") {
			if table.block("server_side_encryption")["enabled"] != true || table.block("point_in_time_recovery")["enabled"] != true {
				t.Errorf("%s: %v", table.Address, table.Values)
			}
		}
		for _, b := range i.of("aws_s3_bucket_public_access_block") {
			for _, what := range []string{"block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets"} {
				if b.Values[what] != true {
					t.Errorf("%s: %s is off", b.Address, what)
				}
			}
		}
		for _, want := range []string{"aws_s3_bucket_public_access_block", "aws_s3_bucket_server_side_encryption_configuration", "aws_s3_bucket_ownership_controls"} {
			if len(i.of(want)) != 1 {
				t.Errorf("there is no %s", want)
			}
		}
		for _, versioned := range i.of("aws_s3_bucket_versioning") {
			t.Errorf("%s: objects are written once", versioned.Address)
		}
	},
	"security groups open what is needed": func(t *testing.T, i *install) {
		for _, r := range i.of("aws_vpc_security_group_egress_rule", "aws_vpc_security_group_ingress_rule") {
			whom := 0
			for _, to := range []string{"referenced_security_group_id", "prefix_list_id", "cidr_ipv4"} {
				if r.text(to) != "" {
					whom++
				}
			}
			if r.text("ip_protocol") != "tcp" || r.number("from_port") != r.number("to_port") || whom != 1 {
				t.Errorf("%s: %v", r.Address, r.Values)
			}
			if r.number("from_port") != 443 && r.Name != "upstream" {
				t.Errorf("%s opens port %v", r.Address, r.number("from_port"))
			}
		}
		for _, g := range i.of("aws_security_group") {
			for _, inline := range []string{"ingress", "egress"} {
				if list, _ := g.Values[inline].([]any); len(list) > 0 {
					t.Errorf("%s has rules of its own: %v", g.Address, list)
				}
			}
		}
	},
	"logs are made first, and forget": func(t *testing.T, i *install) {
		logs := map[string]float64{}
		for _, l := range i.of("aws_cloudwatch_log_group") {
			logs[l.text("name")] = l.number("retention_in_days")
		}
		for _, f := range i.of("aws_lambda_function") {
			if days := logs["/aws/lambda/"+f.text("function_name")]; days != 14 {
				t.Errorf("the log of %s is kept for %v days", f.text("function_name"), days)
			}
		}
	},
}

// exceptions are statements of roles that permissions.json does not have, since the function's own code never calls them, or
// only where an upstream or a key wants it.
var exceptions = map[string]struct {
	actions words
	why     string
}{
	"EventSource":       {words{"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"}, "Lambda polls in the function's name"},
	"Logs":              {words{"logs:CreateLogStream", "logs:PutLogEvents"}, "Lambda writes what the function prints"},
	"NetworkInterfaces": {words{"ec2:CreateNetworkInterface", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets", "ec2:DeleteNetworkInterface", "ec2:AssignPrivateIpAddresses", "ec2:UnassignPrivateIpAddresses"}, "Lambda puts the function into the VPC; its code may not"},
	"Key":               {words{"kms:Decrypt", "kms:GenerateDataKey"}, "queues, bucket and table use it in the caller's name"},
	"UpstreamKey":       {words{"ssm:GetParameter"}, "internal/cloud reads it once, tested there"},
	"UpstreamSecret":    {words{"secretsmanager:GetSecretValue"}, "the parameter store reads it in the caller's name"},
	"Bedrock":           {words{"bedrock:InvokeModel"}, "internal/cloud calls it, tested there"},
	"SageMaker":         {words{"sagemaker:InvokeEndpoint"}, "internal/cloud calls it, tested there"},
}

// permissions is permissions.json: function → "action resource".
func permissions(t *testing.T) map[string]map[string]bool {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(module, "permissions.json"))
	if err != nil {
		t.Fatal(err)
	}
	var may struct {
		Functions map[string]struct {
			Table, Bucket []string
			Queues        map[string][]string
		}
	}
	if err := json.Unmarshal(raw, &may); err != nil {
		t.Fatal(err)
	}
	all := map[string]map[string]bool{}
	for function, of := range may.Functions {
		all[function] = map[string]bool{}
		for _, action := range of.Table {
			all[function]["dynamodb:"+action+" table"] = true
		}
		for _, action := range of.Bucket {
			all[function]["s3:"+action+" bucket"] = true
		}
		for queue, actions := range of.Queues {
			for _, action := range actions {
				all[function]["sqs:"+action+" "+queue] = true
			}
		}
	}
	return all
}

// resourceOf is what an ARN is of, in the words of permissions.json.
func resourceOf(arn string) string {
	switch {
	case strings.HasPrefix(arn, "<aws_dynamodb_table "):
		return "table"
	case strings.HasPrefix(arn, "<aws_s3_bucket "):
		return "bucket"
	default:
		return strings.TrimSuffix(strings.TrimPrefix(arn, "<aws_sqs_queue fanout-"), " arn>")
	}
}

// queues are those that are no dead letters.
func (i *install) queues() (all []stateResource) {
	for _, q := range i.of("aws_sqs_queue") {
		if !strings.HasSuffix(q.text("name"), "-dead") {
			all = append(all, q)
		}
	}
	return all
}

// role is what the role of a function allows.
func (i *install) role(function string) []statement {
	i.t.Helper()
	for _, r := range i.of("aws_iam_role_policy") {
		if strings.HasPrefix(r.Address, "module."+function+".") || strings.HasPrefix(r.Address, "module."+function+"[0].") {
			return i.policy(&r, "policy")
		}
	}
	i.t.Fatalf("%s has no role", function)
	return nil
}

var applied sync.Map // variant → func() []stateResource

// apply makes a variant, of nothing, once for all tests.
func apply(t *testing.T, name string) *install {
	t.Helper()
	leaveOut(t)
	once, _ := applied.LoadOrStore(name, sync.OnceValue(func() []stateResource {
		variables := object{"packages": "tests/packages"}
		maps.Copy(variables, variants[name])
		return newTerraform(t, "").apply(variables)
	}))
	i := &install{t: t, name: name, resources: once.(func() []stateResource)()}
	if len(i.resources) == 0 {
		t.Fatal("nothing was made: see the test that tried")
	}
	return i
}

func TestPlansKeepTheRules(t *testing.T) {
	for name := range variants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := apply(t, name)
			for rule, holds := range rules {
				t.Run(rule, func(t *testing.T) { holds(t, i) })
			}
		})
	}
}

// TestTwoInstallsFitOneAccount: nothing of one has the name of something of the other.
func TestTwoInstallsFitOneAccount(t *testing.T) {
	t.Parallel()
	named := func(name string) map[string]bool {
		all := map[string]bool{}
		for _, r := range newTerraform(t, "").apply(object{"packages": "tests/packages", "name": name, "webhooks": object{"enabled": true}}) {
			for _, attribute := range []string{"name", "function_name", "bucket", "alarm_name", "dashboard_name"} {
				of := r.text(attribute)
				known := strings.HasPrefix(of, "<") || of == "$default" || of == "needs" || of == "send" // of something that has another name
				if r.Mode == "managed" && of != "" && !known && !strings.HasPrefix(r.Type, "aws_s3_bucket_") {
					all[r.Type+" "+of] = true
				}
			}
		}
		return all
	}
	one, other := named("blue"), named("green")
	if len(one) < 20 {
		t.Errorf("only %v have a name", one)
	}
	for name := range one {
		if other[name] {
			t.Errorf("both have %s", name)
		}
	}
}
