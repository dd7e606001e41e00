locals {
  upstream_target = (
    var.upstream.url != null ? var.upstream.url :
    length(var.upstream.bedrock_models) > 0 ? "bedrock" :
    var.upstream.sagemaker_endpoint != null ? "sagemaker:${var.upstream.sagemaker_endpoint}" :
    "builtin"
  )

  # What a worker is told, wherever it runs.
  worker_environment = merge(
    local.common,
    {
      FANOUT_WORK_DEAD_LETTERS = local.queue_urls["work-dead"]
      FANOUT_UPSTREAM          = local.upstream_target
      FANOUT_PRICES            = local.prices
      FANOUT_CONCURRENCY       = tostring(var.functions.worker.concurrency)
      FANOUT_CALL_TIMEOUT      = "${var.functions.worker.call_timeout}s"
    },
    local.key_parameter == null ? {} : { FANOUT_UPSTREAM_KEY_FROM = local.key_parameter },
  )
}

module "worker" {
  source = "./modules/function"
  count  = var.functions.worker.enabled ? 1 : 0

  name        = "${var.name}-worker"
  package     = "${var.packages}/worker-${var.functions.worker.architecture}.zip"
  settings    = var.functions.worker
  statements  = concat(local.statements["worker"], local.upstream_statements, local.event_source["work"])
  vpc         = local.vpc
  kms_key_arn = var.kms_key_arn
  environment = local.worker_environment
  source_queue = {
    arn = local.queue_arns["work"]
  }
}

# For `fanout worker` on ECS, EC2 or elsewhere: attach it to the role that it runs with, and give it worker_environment.
resource "aws_iam_policy" "worker" {
  name        = "${var.name}-worker-elsewhere"
  description = "What fanout worker of ${var.name} needs where it is not a Lambda function"
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(local.statements["worker"], local.upstream_statements, [{
      Sid      = "Polls"
      Effect   = "Allow"
      Action   = ["sqs:ReceiveMessage", "sqs:DeleteMessage"]
      Resource = [local.queue_arns["work"]]
    }])
  })
}
