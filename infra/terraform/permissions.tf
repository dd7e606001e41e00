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

  # What the upstreams, and their keys, are to AWS.
  key_parameter_arns = distinct([for key in values(local.upstream_keys) : "arn:${local.partition}:ssm:${local.region}:${local.account}:parameter/${trimprefix(key, "/")}"])
  key_secret_arns    = distinct([for u in values(local.upstreams) : "arn:${local.partition}:secretsmanager:${local.region}:${local.account}:secret:${u.key_secret}-??????" if u.key_secret != null])
  bedrock_models     = distinct(flatten([for u in values(local.upstreams) : u.bedrock_models]))
  sagemaker_arns     = distinct([for u in values(local.upstreams) : "arn:${local.partition}:sagemaker:${local.region}:${local.account}:endpoint/${lower(u.sagemaker_endpoint)}" if u.sagemaker_endpoint != null])

  upstream_statements = [for sid, may in {
    UpstreamKey    = { action = "ssm:GetParameter", resources = local.key_parameter_arns }
    UpstreamSecret = { action = "secretsmanager:GetSecretValue", resources = local.key_secret_arns }
    Bedrock        = { action = "bedrock:InvokeModel", resources = local.bedrock_models }
    SageMaker      = { action = "sagemaker:InvokeEndpoint", resources = local.sagemaker_arns }
    } : {
    Sid      = sid
    Effect   = "Allow"
    Action   = [may.action]
    Resource = may.resources
  } if length(may.resources) > 0]

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
