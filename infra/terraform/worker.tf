locals {
  # By models; upstream is for all that no route is for.
  upstreams = merge({ "*" = var.upstream }, var.routes)

  upstream_targets = { for models, u in local.upstreams : models => (
    u.url != null ? u.url :
    length(u.bedrock_models) > 0 ? "bedrock" :
    u.sagemaker_endpoint != null ? "sagemaker:${u.sagemaker_endpoint}" :
    "builtin"
  ) }
  upstream_keys = { for models, u in local.upstreams : models =>
    u.key_parameter != null ? u.key_parameter : "/aws/reference/secretsmanager/${u.key_secret}" if u.key_parameter != null || u.key_secret != null
  }

  # The longest pattern first: the first that matches counts. An empty one counts as not set.
  routes = join(" ", [for key in reverse(sort([for models in keys(var.routes) : format("%04d %s", length(models), models)])) :
    join(",key-from=", compact(["${substr(key, 5, -1)}=${local.upstream_targets[substr(key, 5, -1)]}", lookup(local.upstream_keys, substr(key, 5, -1), "")]))
  ])

  # What a worker is told, wherever it runs.
  worker_environment = merge(
    local.common,
    {
      FANOUT_WORK_DEAD_LETTERS = local.queue_urls["work-dead"]
      FANOUT_UPSTREAM          = local.upstream_targets["*"]
      FANOUT_ROUTES            = local.routes
      FANOUT_PRICES            = local.prices
      FANOUT_CONCURRENCY       = tostring(var.functions.worker.concurrency)
      FANOUT_CALL_TIMEOUT      = "${var.functions.worker.call_timeout}s"
    },
    { for models, key in local.upstream_keys : "FANOUT_UPSTREAM_KEY_FROM" => key if models == "*" },
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
