locals {
  network_text = try(tostring(var.network), "existing")
  in_vpc       = local.network_text != "none"
  new_vpc      = local.network_text == "create"
  # Endpoints are made in a VPC of ours, and in one that is there if its route tables are named.
  new_endpoints = local.new_vpc || can(var.network.route_table_ids)

  # In a VPC that others use too, policies that let through our resources alone would cut them off.
  open_endpoints = try(var.network.open_endpoints, false)

  vpc_id          = local.new_vpc ? aws_vpc.this[0].id : try(var.network.vpc_id, null)
  subnet_ids      = local.new_vpc ? aws_subnet.private[*].id : try(var.network.subnet_ids, [])
  route_table_ids = local.new_vpc ? [aws_route_table.private[0].id] : try(var.network.route_table_ids, [])

  # Each service that a function in the VPC calls, and no other.
  interface_services = toset(concat(
    ["sqs"],
    length(local.bedrock_models) > 0 ? ["bedrock-runtime"] : [],
    length(local.sagemaker_arns) > 0 ? ["sagemaker.runtime"] : [],
    length(local.key_parameter_arns) > 0 ? ["ssm"] : [],
  ))
}

data "aws_availability_zones" "this" {
  count = local.new_vpc ? 1 : 0
  state = "available"
}

# Nothing here leads to the internet: no internet gateway, no NAT gateway, and a route table without routes but those of the
# gateway endpoints.
resource "aws_vpc" "this" {
  count = local.new_vpc ? 1 : 0

  cidr_block           = var.vpc_cidr
  enable_dns_support   = true
  enable_dns_hostnames = true

  tags = { Name = var.name }
}

resource "aws_default_security_group" "closed" {
  count  = local.new_vpc ? 1 : 0
  vpc_id = aws_vpc.this[0].id
}

resource "aws_subnet" "private" {
  count = local.new_vpc ? var.availability_zones : 0

  vpc_id                  = aws_vpc.this[0].id
  availability_zone       = data.aws_availability_zones.this[0].names[count.index]
  cidr_block              = cidrsubnet(var.vpc_cidr, 2, count.index)
  map_public_ip_on_launch = false

  tags = { Name = "${var.name}-private-${count.index}" }
}

resource "aws_route_table" "private" {
  count  = local.new_vpc ? 1 : 0
  vpc_id = aws_vpc.this[0].id

  tags = { Name = "${var.name}-private" }
}

resource "aws_route_table_association" "private" {
  count = local.new_vpc ? var.availability_zones : 0

  subnet_id      = aws_subnet.private[count.index].id
  route_table_id = aws_route_table.private[0].id
}

resource "aws_vpc_endpoint" "gateway" {
  for_each = local.new_endpoints ? toset(["s3", "dynamodb"]) : toset([])

  vpc_id            = local.vpc_id
  service_name      = "com.amazonaws.${local.region}.${each.key}"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = local.route_table_ids
  policy            = local.open_endpoints ? null : jsonencode({ Version = "2012-10-17", Statement = [local.endpoint_statements[each.key]] })

  tags = { Name = "${var.name}-${each.key}" }
}

resource "aws_vpc_endpoint" "interface" {
  for_each = local.new_endpoints ? local.interface_services : toset([])

  vpc_id              = local.vpc_id
  service_name        = "com.amazonaws.${local.region}.${each.key}"
  vpc_endpoint_type   = "Interface"
  private_dns_enabled = true
  subnet_ids          = local.subnet_ids
  security_group_ids  = [aws_security_group.endpoints[0].id]
  policy              = local.open_endpoints ? null : jsonencode({ Version = "2012-10-17", Statement = [local.endpoint_statements[each.key]] })

  tags = { Name = "${var.name}-${each.key}" }
}

locals {
  ours = { StringEquals = { "aws:PrincipalAccount" = local.account } }

  # What passes an endpoint: calls of this account, of these resources. A worker that runs elsewhere in the VPC polls.
  endpoint_statements = {
    s3 = {
      Effect    = "Allow"
      Principal = "*"
      Action    = [for action in distinct(flatten([for f in local.permissions : f.bucket])) : "s3:${action}"]
      Resource  = [aws_s3_bucket.this.arn, "${aws_s3_bucket.this.arn}/*"]
      Condition = local.ours
    }
    dynamodb = {
      Effect    = "Allow"
      Principal = "*"
      Action    = [for action in distinct(flatten([for f in local.permissions : f.table])) : "dynamodb:${action}"]
      Resource  = [aws_dynamodb_table.this.arn, "${aws_dynamodb_table.this.arn}/index/*"]
      Condition = local.ours
    }
    sqs = {
      Effect    = "Allow"
      Principal = "*"
      Action    = ["sqs:SendMessage", "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"]
      Resource  = values(local.queue_arns)
      Condition = local.ours
    }
    bedrock-runtime = {
      Effect    = "Allow"
      Principal = "*"
      Action    = ["bedrock:InvokeModel"]
      Resource  = local.bedrock_models
      Condition = local.ours
    }
    "sagemaker.runtime" = {
      Effect    = "Allow"
      Principal = "*"
      Action    = ["sagemaker:InvokeEndpoint"]
      Resource  = local.sagemaker_arns
      Condition = local.ours
    }
    ssm = {
      Effect    = "Allow"
      Principal = "*"
      Action    = ["ssm:GetParameter"]
      Resource  = local.key_parameter_arns
      Condition = local.ours
    }
  }
}

resource "aws_security_group" "functions" {
  count = local.in_vpc ? 1 : 0

  name        = "${var.name}-functions"
  description = "The functions of ${var.name}: to the endpoints and the upstreams, and nowhere else"
  vpc_id      = local.vpc_id
}

resource "aws_security_group" "endpoints" {
  count = local.in_vpc && local.new_endpoints ? 1 : 0

  name        = "${var.name}-endpoints"
  description = "The endpoints of ${var.name}: from its functions"
  vpc_id      = local.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "endpoints" {
  count = local.in_vpc && local.new_endpoints ? 1 : 0

  security_group_id            = aws_security_group.endpoints[0].id
  referenced_security_group_id = aws_security_group.functions[0].id
  description                  = "From the functions"
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
}

resource "aws_vpc_security_group_egress_rule" "interface" {
  count = local.in_vpc ? 1 : 0

  security_group_id            = aws_security_group.functions[0].id
  referenced_security_group_id = local.new_endpoints ? aws_security_group.endpoints[0].id : var.network.endpoint_security_group_id
  description                  = "To the interface endpoints"
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
}

data "aws_prefix_list" "gateway" {
  for_each = local.in_vpc ? toset(["s3", "dynamodb"]) : toset([])
  name     = "com.amazonaws.${local.region}.${each.key}"
}

resource "aws_vpc_security_group_egress_rule" "gateway" {
  for_each = local.in_vpc ? toset(["s3", "dynamodb"]) : toset([])

  security_group_id = aws_security_group.functions[0].id
  prefix_list_id    = data.aws_prefix_list.gateway[each.key].id
  description       = "To ${each.key}"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_egress_rule" "upstream" {
  for_each = { for models, u in local.upstreams : models => u if local.in_vpc && (u.security_group_id != null || u.cidr != null) }

  security_group_id            = aws_security_group.functions[0].id
  referenced_security_group_id = each.value.security_group_id
  cidr_ipv4                    = each.value.security_group_id == null ? each.value.cidr : null
  description                  = "To the upstream of ${each.key}"
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
}
