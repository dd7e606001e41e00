// Makes schemas.json: names, types and nesting of the resources that the module uses, from @cdktn/provider-aws, which is generated
// from the AWS provider's own schema.
//
//   npm pack @cdktn/provider-aws@24.1.0 && tar xzf cdktn-provider-aws-24.1.0.tgz
//   node extract.mjs package/lib > schemas.json
//
// What it cannot know: which optional attributes are computed too, validators, and what is sensitive.
import fs from 'node:fs'

const lib = process.argv[2]
const resources = `apigatewayv2_api apigatewayv2_authorizer apigatewayv2_integration apigatewayv2_route apigatewayv2_stage autoscaling_group
  cloudwatch_dashboard cloudwatch_log_group cloudwatch_log_resource_policy cloudwatch_metric_alarm dynamodb_table ecs_capacity_provider ecs_cluster
  ecs_cluster_capacity_providers ecs_service ecs_task_definition iam_instance_profile iam_policy iam_role iam_role_policy
  iam_role_policy_attachment lambda_alias lambda_event_source_mapping lambda_function lambda_function_recursion_config lambda_function_url
  lambda_permission lambda_provisioned_concurrency_config launch_template route_table route_table_association s3_bucket
  s3_bucket_lifecycle_configuration s3_bucket_notification s3_bucket_ownership_controls s3_bucket_policy s3_bucket_public_access_block
  s3_bucket_server_side_encryption_configuration s3_bucket_versioning scheduler_schedule scheduler_schedule_group security_group sqs_queue
  sqs_queue_policy sqs_queue_redrive_allow_policy sqs_queue_redrive_policy subnet vpc vpc_endpoint vpc_security_group_egress_rule
  vpc_security_group_ingress_rule default_security_group internet_gateway nat_gateway route`.split(/\s+/)
const data = 'availability_zones caller_identity partition prefix_list region ssm_parameter subnet vpc'.split(' ')

const simple = { string: 'string', number: 'number', boolean: 'bool' }
const camel = s => s.replace(/_([a-z0-9])/g, (_, c) => c.toUpperCase())

// read reads what a struct's mapper says, and which members its interface wants.
function read(js, dts, hcl, members) {
  const block = { attributes: {}, blocks: {} }
  const pattern = /\n\s+(\w+): \{\s*value: ([^\n]*),\n\s*isBlock: (\w+),\s*type: "(\w+)",\s*storageClassType: "(\w+)"/g
  for (const [, name, value, isBlock, type, storage] of hcl.matchAll(pattern)) {
    const required = new RegExp(`readonly ${camel(name)}: `).test(members)
    const mapper = value.match(/(\w+)ToHclTerraform\b/g)?.find(m => !/^(string|number|boolean|hashMapper|listMapper)ToHcl/.test(m))
    if (mapper && /^\w+ToHclTerraform$/.test(mapper) && !simple[storage] && !/^(string|number|boolean)(List|Map)$/.test(storage)) {
      const struct = mapper.replace(/ToHclTerraform$/, '')
      const type2 = struct[0].toUpperCase() + struct.slice(1)
      const body = js.match(new RegExp(`function ${mapper}\\(struct\\) \\{([\\s\\S]*?)\\n\\}`))[1]
      const face = dts.match(new RegExp(`export interface ${type2} \\{([\\s\\S]*?)\\n\\}`))?.[1] ?? ''
      const many = /listMapper/.test(value)
      block.blocks[name] = { nesting: type === 'set' ? 'set' : type === 'struct' || type === 'object' ? 'single' : 'list', ...(many ? {} : { max: 1 }), ...(required ? { min: 1 } : {}), block: read(js, dts, body, face) }
      continue
    }
    const element = simple[storage.replace(/(List|Map)$/, '')] ?? 'string'
    const of = type === 'simple' ? simple[storage] ?? 'string' : type === 'map' ? { map: element } : type === 'set' ? { set: element } : { list: element }
    block.attributes[name] = { type: of, ...(required ? { required: true } : { optional: true }) }
    if (isBlock === 'true') throw new Error(`${name} is a block of ${storage}`)
  }
  return block
}

function computed(js, block) {
  const getters = { getStringAttribute: 'string', getNumberAttribute: 'number', getBooleanAttribute: 'bool', getListAttribute: { list: 'string' } }
  const start = js.search(/class \w+ extends cdkt[fn]\.Terraform(Resource|DataSource)/)
  for (const [, getter, name] of js.slice(start).matchAll(/this\.(get(?:String|Number|Boolean|List)Attribute)\('(\w+)'\)/g)) {
    if (!block.attributes[name] && !block.blocks[name]) block.attributes[name] = { type: getters[getter], computed: true }
  }
  for (const [, name] of js.slice(start).matchAll(/new cdkt[fn]\.StringMap\(this, "(\w+)"/g)) {
    if (!block.attributes[name] && !block.blocks[name]) block.attributes[name] = { type: { map: 'string' }, computed: true }
  }
  if (block.attributes.id) block.attributes.id.computed = true
  if (block.attributes.tags_all) block.attributes.tags_all.computed = true
  return block
}

function schema(folder) {
  const js = fs.readFileSync(`${lib}/${folder}/index.js`, 'utf8'), dts = fs.readFileSync(`${lib}/${folder}/index.d.ts`, 'utf8')
  const members = dts.match(/export interface \w+Config extends[^{]*\{([\s\S]*?)\n\}/)[1]
  const hcl = js.match(/synthesizeHclAttributes\(\) \{([\s\S]*?)\n    \}/)?.[1] ?? ''
  return computed(js, read(js, dts, hcl, members))
}

const out = { source: '@cdktn/provider-aws 24.1.0, of AWS provider 6.45.0', resources: {}, data: {} }
for (const name of resources.sort()) out.resources[`aws_${name}`] = schema(name.replaceAll('_', '-'))
for (const name of data) out.data[`aws_${name}`] = schema(`data-aws-${name.replaceAll('_', '-')}`)
// A line for each resource: short, and changes can be read.
const lines = of => Object.entries(of).map(([name, s]) => `  ${JSON.stringify(name)}: ${JSON.stringify(s)}`).join(',\n')
console.log(`{\n "source": ${JSON.stringify(out.source)},\n "resources": {\n${lines(out.resources)}\n },\n "data": {\n${lines(out.data)}\n }\n}`)
