# What each function may do. permissions.json says it by function, service and resource; a test holds it to be exactly what
# the code calls. Queues that are not there drop out.
locals {
  permissions = jsondecode(file("${path.module}/permissions.json")).functions

  statements = { for name, may in local.permissions : name => concat(
    length(may.table) > 0 ? [{
      Sid      = "Table"
      Effect   = "Allow"
      Action   = [for action in may.table : "dynamodb:${action}"]
      Resource = [aws_dynamodb_table.this.arn, "${aws_dynamodb_table.this.arn}/index/*"]
    }] : [],
    length(may.bucket) > 0 ? [
      {
        Sid      = "Objects"
        Effect   = "Allow"
        Action   = [for action in may.bucket : "s3:${action}" if action != "ListBucket"]
        Resource = ["${aws_s3_bucket.this.arn}/*"]
      },
      {
        Sid      = "Bucket"
        Effect   = "Allow"
        Action   = ["s3:ListBucket"]
        Resource = [aws_s3_bucket.this.arn]
      },
    ] : [],
    [for queue, actions in may.queues : {
      Sid      = "Queue${replace(title(replace(queue, "-", " ")), " ", "")}"
      Effect   = "Allow"
      Action   = [for action in actions : "sqs:${action}"]
      Resource = [local.queue_arns[queue]]
    } if contains(keys(local.queue_arns), queue)],
    var.kms_key_arn == null ? [] : [{
      Sid      = "Key"
      Effect   = "Allow"
      Action   = ["kms:Decrypt", "kms:GenerateDataKey"]
      Resource = [var.kms_key_arn]
    }],
  ) }

  # What the event source of a queue does, in the function's name.
  event_source = { for name in keys(local.pumped) : name => [{
    Sid      = "EventSource"
    Effect   = "Allow"
    Action   = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"]
    Resource = [local.queue_arns[name]]
  }] }

  # The upstream's key.
  key_parameter     = var.upstream.key_parameter != null ? var.upstream.key_parameter : try("/aws/reference/secretsmanager/${coalesce(var.upstream.key_secret)}", null)
  key_parameter_arn = local.key_parameter == null ? null : "arn:${local.partition}:ssm:${local.region}:${local.account}:parameter/${trimprefix(local.key_parameter, "/")}"
  sagemaker_arn     = var.upstream.sagemaker_endpoint == null ? null : "arn:${local.partition}:sagemaker:${local.region}:${local.account}:endpoint/${lower(var.upstream.sagemaker_endpoint)}"

  upstream_statements = concat(
    local.key_parameter == null ? [] : [{
      Sid      = "UpstreamKey"
      Effect   = "Allow"
      Action   = ["ssm:GetParameter"]
      Resource = [local.key_parameter_arn]
    }],
    var.upstream.key_secret == null ? [] : [{
      Sid      = "UpstreamSecret"
      Effect   = "Allow"
      Action   = ["secretsmanager:GetSecretValue"]
      Resource = ["arn:${local.partition}:secretsmanager:${local.region}:${local.account}:secret:${var.upstream.key_secret}-??????"]
    }],
    length(var.upstream.bedrock_models) == 0 ? [] : [{
      Sid      = "Bedrock"
      Effect   = "Allow"
      Action   = ["bedrock:InvokeModel"]
      Resource = var.upstream.bedrock_models
    }],
    var.upstream.sagemaker_endpoint == null ? [] : [{
      Sid      = "SageMaker"
      Effect   = "Allow"
      Action   = ["sagemaker:InvokeEndpoint"]
      Resource = [local.sagemaker_arn]
    }],
  )

  # What every function but notify is told.
  common = {
    FANOUT_TABLE           = aws_dynamodb_table.this.name
    FANOUT_BUCKET          = aws_s3_bucket.this.id
    FANOUT_INGEST_QUEUE    = local.queue_urls["ingest"]
    FANOUT_WORK_QUEUE      = local.queue_urls["work"]
    FANOUT_AGGREGATE_QUEUE = local.queue_urls["aggregate"]
    FANOUT_FAIR_QUEUES     = tostring(var.fair_queues)
    FANOUT_LOG_LEVEL       = var.log_level
  }
  # The longest pattern first: the first that matches counts. An empty one counts as not set.
  prices = join(",", [for key in reverse(sort([for models in keys(var.upstream.prices) : format("%04d %s", length(models), models)])) :
    format("%s=%g/%g", substr(key, 5, -1), var.upstream.prices[substr(key, 5, -1)].input, var.upstream.prices[substr(key, 5, -1)].output)
  ])
  notify_queue = var.webhooks.enabled ? { FANOUT_NOTIFY_QUEUE = local.queue_urls["notify"] } : {}

  vpc = local.in_vpc ? { subnet_ids = local.subnet_ids, security_group_ids = [aws_security_group.functions[0].id] } : null
}
