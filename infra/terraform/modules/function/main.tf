# A Lambda function of fanout: its role, its log, itself, and what pumps it.

terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.29, < 7"
    }
  }
}

# Before the function: else Lambda makes it, without a retention.
resource "aws_cloudwatch_log_group" "this" {
  name              = "/aws/lambda/${var.name}"
  retention_in_days = var.settings.log_retention
  kms_key_id        = var.kms_key_arn
}

resource "aws_iam_role" "this" {
  name = var.name
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "lambda.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_role_policy" "this" {
  name = "needs"
  role = aws_iam_role.this.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      var.statements,
      [{
        Sid      = "Logs"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = ["${aws_cloudwatch_log_group.this.arn}:*"]
      }],
      # Lambda makes the interfaces in the role's name, and names no resource: https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html.
      # The function's own code may not.
      [for statement in [
        {
          Sid    = "NetworkInterfaces"
          Effect = "Allow"
          Action = [
            "ec2:CreateNetworkInterface", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets", "ec2:DeleteNetworkInterface",
            "ec2:AssignPrivateIpAddresses", "ec2:UnassignPrivateIpAddresses",
          ]
          Resource = ["*"]
        },
        {
          Sid    = "NotByTheCode"
          Effect = "Deny"
          Action = [
            "ec2:CreateNetworkInterface", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets", "ec2:DeleteNetworkInterface",
            "ec2:DetachNetworkInterface", "ec2:AssignPrivateIpAddresses", "ec2:UnassignPrivateIpAddresses",
          ]
          Resource  = ["*"]
          Condition = { ArnEquals = { "lambda:SourceFunctionArn" = [local.arn] } }
        },
      ] : statement if var.vpc != null],
    )
  })
}

data "aws_caller_identity" "this" {}
data "aws_region" "this" {}
data "aws_partition" "this" {}

locals {
  # Written out: the role's policy comes before the function.
  arn = "arn:${data.aws_partition.this.partition}:lambda:${data.aws_region.this.region}:${data.aws_caller_identity.this.account_id}:function:${var.name}"

  provisioned = var.settings.provisioned_concurrency > 0
}

resource "aws_lambda_function" "this" {
  function_name                  = var.name
  role                           = aws_iam_role.this.arn
  filename                       = var.package
  source_code_hash               = filebase64sha256(var.package)
  runtime                        = "provided.al2023"
  handler                        = "bootstrap"
  architectures                  = [var.settings.architecture == "amd64" ? "x86_64" : var.settings.architecture]
  memory_size                    = var.settings.memory
  timeout                        = var.settings.timeout
  reserved_concurrent_executions = var.settings.reserved_concurrency
  publish                        = local.provisioned
  kms_key_arn                    = var.kms_key_arn

  ephemeral_storage {
    size = var.settings.ephemeral_storage
  }

  environment {
    variables = var.environment
  }

  dynamic "vpc_config" {
    for_each = var.vpc == null ? [] : [var.vpc]
    content {
      subnet_ids         = vpc_config.value.subnet_ids
      security_group_ids = vpc_config.value.security_group_ids
    }
  }

  logging_config {
    log_format = "Text" # lines are JSON already, and metrics among them
    log_group  = aws_cloudwatch_log_group.this.name
  }

  depends_on = [aws_iam_role_policy.this]
}

# Provisioned concurrency is of a version, which only an alias keeps up with.
resource "aws_lambda_alias" "live" {
  count = local.provisioned ? 1 : 0

  name             = "live"
  function_name    = aws_lambda_function.this.function_name
  function_version = aws_lambda_function.this.version
}

resource "aws_lambda_provisioned_concurrency_config" "live" {
  count = local.provisioned ? 1 : 0

  function_name                     = aws_lambda_function.this.function_name
  qualifier                         = aws_lambda_alias.live[0].name
  provisioned_concurrent_executions = var.settings.provisioned_concurrency
}

resource "aws_lambda_event_source_mapping" "queue" {
  count = var.source_queue == null ? 0 : 1

  event_source_arn                   = var.source_queue.arn
  function_name                      = local.provisioned ? aws_lambda_alias.live[0].arn : aws_lambda_function.this.arn
  batch_size                         = var.settings.batch_size
  maximum_batching_window_in_seconds = var.settings.window
  function_response_types            = ["ReportBatchItemFailures"]

  # Throttles at the poller, so that no message is received for which there is no room.
  dynamic "scaling_config" {
    for_each = var.settings.pollers == null ? [var.settings.maximum_concurrency] : []
    content {
      maximum_concurrency = scaling_config.value
    }
  }

  dynamic "provisioned_poller_config" {
    for_each = var.settings.pollers == null ? [] : [var.settings.pollers]
    content {
      minimum_pollers = provisioned_poller_config.value.minimum
      maximum_pollers = provisioned_poller_config.value.maximum
    }
  }
}
