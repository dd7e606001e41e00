locals {
  http_api     = var.api.front_door == "http_api"
  function_url = var.api.front_door == "function_url"
}

module "api" {
  source = "./modules/function"
  count  = var.api.front_door == "none" ? 0 : 1

  name        = "${var.name}-api"
  package     = "${var.packages}/api-${var.functions.api.architecture}.zip"
  settings    = var.functions.api
  statements  = local.statements["api"]
  vpc         = local.function_url ? null : local.vpc # a Function URL does not stream from a VPC
  kms_key_arn = var.kms_key_arn

  environment = merge(
    local.common,
    local.notify_queue,
    { for name in keys(local.pumped) : "FANOUT_${upper(name)}_DEAD_LETTERS" => local.queue_urls["${name}-dead"] },
    { FANOUT_PRICES = local.prices },
    { FANOUT_FRONT_DOOR = local.function_url ? "streaming" : "buffered" },
    var.api.operator_key_sha256 == null ? {} : { FANOUT_OPERATOR_KEY_SHA256 = var.api.operator_key_sha256 },
    length(var.api.models) == 0 ? {} : { FANOUT_MODELS = join(",", var.api.models) },
    length(var.webhooks.plain) == 0 ? {} : { FANOUT_HOOK_PLAIN = join(",", var.webhooks.plain) },
  )
}

resource "aws_apigatewayv2_api" "this" {
  count = local.http_api ? 1 : 0

  name          = var.name
  protocol_type = "HTTP"
}

resource "aws_apigatewayv2_integration" "api" {
  count = local.http_api ? 1 : 0

  api_id                 = aws_apigatewayv2_api.this[0].id
  integration_type       = "AWS_PROXY"
  integration_uri        = module.api[0].invoke_arn
  payload_format_version = "2.0"
  timeout_milliseconds   = 30000
}

resource "aws_apigatewayv2_authorizer" "jwt" {
  count = var.api.jwt == null ? 0 : 1

  api_id           = aws_apigatewayv2_api.this[0].id
  name             = "jwt"
  authorizer_type  = "JWT"
  identity_sources = ["$request.header.${var.api.jwt.header}"]

  jwt_configuration {
    issuer   = var.api.jwt.issuer
    audience = var.api.jwt.audience
  }
}

resource "aws_apigatewayv2_route" "all" {
  count = local.http_api ? 1 : 0

  api_id             = aws_apigatewayv2_api.this[0].id
  route_key          = "$default"
  target             = "integrations/${aws_apigatewayv2_integration.api[0].id}"
  authorization_type = var.api.jwt == null ? "NONE" : "JWT"
  authorizer_id      = var.api.jwt == null ? null : aws_apigatewayv2_authorizer.jwt[0].id
}

resource "aws_cloudwatch_log_group" "access" {
  count = local.http_api ? 1 : 0

  name              = "/aws/apigateway/${var.name}"
  retention_in_days = var.functions.api.log_retention
  kms_key_id        = var.kms_key_arn
}

resource "aws_apigatewayv2_stage" "this" {
  count = local.http_api ? 1 : 0

  api_id      = aws_apigatewayv2_api.this[0].id
  name        = "$default"
  auto_deploy = true

  default_route_settings {
    throttling_rate_limit  = var.api.rate
    throttling_burst_limit = var.api.burst
  }

  # No query strings and no headers: they may hold secrets.
  access_log_settings {
    destination_arn = aws_cloudwatch_log_group.access[0].arn
    format = jsonencode({
      time      = "$context.requestTimeEpoch"
      request   = "$context.requestId"
      ip        = "$context.identity.sourceIp"
      method    = "$context.httpMethod"
      path      = "$context.path"
      status    = "$context.status"
      bytes     = "$context.responseLength"
      took      = "$context.responseLatency"
      error     = "$context.error.message"
      authorize = "$context.authorizer.error"
    })
  }
}

resource "aws_lambda_permission" "http_api" {
  count = local.http_api ? 1 : 0

  statement_id  = "HttpApi"
  action        = "lambda:InvokeFunction"
  function_name = module.api[0].name
  qualifier     = module.api[0].qualifier
  principal     = "apigateway.amazonaws.com"
  source_arn    = "${aws_apigatewayv2_api.this[0].execution_arn}/*/*"
}

resource "aws_lambda_function_url" "this" {
  count = local.function_url ? 1 : 0

  function_name      = module.api[0].name
  qualifier          = module.api[0].qualifier
  authorization_type = "NONE" # the keys are the authorization
  invoke_mode        = "RESPONSE_STREAM"
}

resource "aws_lambda_permission" "function_url" {
  count = local.function_url ? 1 : 0

  statement_id           = "FunctionUrl"
  action                 = "lambda:InvokeFunctionUrl"
  function_name          = module.api[0].name
  qualifier              = module.api[0].qualifier
  principal              = "*"
  function_url_auth_type = "NONE"
}

# Since October 2025 a Function URL needs this one too: https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html
resource "aws_lambda_permission" "function_url_invoke" {
  count = local.function_url ? 1 : 0

  statement_id             = "FunctionUrlInvoke"
  action                   = "lambda:InvokeFunction"
  function_name            = module.api[0].name
  qualifier                = module.api[0].qualifier
  principal                = "*"
  invoked_via_function_url = true
}
