module "aggregate" {
  source = "./modules/function"

  name        = "${var.name}-aggregate"
  package     = "${var.packages}/aggregate-${var.functions.aggregate.architecture}.zip"
  settings    = var.functions.aggregate
  statements  = concat(local.statements["aggregate"], local.event_source["aggregate"])
  vpc         = local.vpc
  kms_key_arn = var.kms_key_arn
  source_queue = {
    arn = local.queue_arns["aggregate"]
  }

  environment = merge(local.common, local.notify_queue, {
    FANOUT_AGGREGATE_DEAD_LETTERS = local.queue_urls["aggregate-dead"]
  })
}

# It sends itself one message for each split that is compacted. The chain is short, but Lambda counts what a batch of several
# messages continues in a way that it does not document.
resource "aws_lambda_function_recursion_config" "aggregate" {
  function_name  = module.aggregate.name
  recursive_loop = "Allow"
}

# What has not moved is found, and what is late is stopped, once a minute.
resource "aws_scheduler_schedule" "sweep" {
  name                = "${var.name}-sweep"
  schedule_expression = "rate(1 minute)"
  kms_key_arn         = var.kms_key_arn

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = local.queue_arns["aggregate"]
    role_arn = aws_iam_role.scheduler.arn
    input    = jsonencode({ v = 1, sweep = true })
  }
}

resource "aws_iam_role" "scheduler" {
  name = "${var.name}-scheduler"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "scheduler.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
    }]
  })
}

resource "aws_iam_role_policy" "scheduler" {
  name = "send"
  role = aws_iam_role.scheduler.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat([{
      Effect   = "Allow"
      Action   = ["sqs:SendMessage"]
      Resource = [local.queue_arns["ingest"], local.queue_arns["aggregate"]]
      }], var.kms_key_arn == null ? [] : [{
      Effect   = "Allow"
      Action   = ["kms:Decrypt", "kms:GenerateDataKey"]
      Resource = [var.kms_key_arn]
    }])
  })
}
