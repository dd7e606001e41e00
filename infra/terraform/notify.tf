# Webhooks are URLs of strangers. So this function is outside the VPC, with a role that may use two queues and nothing else.
module "notify" {
  source = "./modules/function"
  count  = var.webhooks.enabled ? 1 : 0

  name        = "${var.name}-notify"
  package     = "${var.packages}/notify-${var.functions.notify.architecture}.zip"
  settings    = var.functions.notify
  statements  = concat(local.statements["notify"], local.event_source["notify"])
  vpc         = null
  kms_key_arn = var.kms_key_arn
  source_queue = {
    arn = local.queue_arns["notify"]
  }

  environment = merge(
    {
      FANOUT_NOTIFY_QUEUE        = local.queue_urls["notify"]
      FANOUT_NOTIFY_DEAD_LETTERS = local.queue_urls["notify-dead"]
      FANOUT_AGGREGATE_QUEUE     = local.queue_urls["aggregate"]
      FANOUT_LOG_LEVEL           = var.log_level
    },
    length(var.webhooks.allow) == 0 ? {} : { FANOUT_NOTIFY_ALLOW = join(",", var.webhooks.allow) },
  )
}
