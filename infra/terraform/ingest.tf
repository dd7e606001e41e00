module "ingest" {
  source = "./modules/function"

  name        = "${var.name}-ingest"
  package     = "${var.packages}/ingest-${var.functions.ingest.architecture}.zip"
  settings    = var.functions.ingest
  statements  = concat(local.statements["ingest"], local.event_source["ingest"])
  vpc         = local.vpc
  kms_key_arn = var.kms_key_arn
  source_queue = {
    arn = local.queue_arns["ingest"]
  }

  environment = merge(local.common, {
    FANOUT_INGEST_DEAD_LETTERS = local.queue_urls["ingest-dead"]
    FANOUT_UPLOAD_WINDOW       = var.upload_window
  })
}

# Once a day a ping goes through all queues: each function tells how old it was, and an alarm that hears nothing tells more.
resource "aws_scheduler_schedule" "ping" {
  name                = "${var.name}-ping"
  schedule_expression = "rate(1 day)"
  kms_key_arn         = var.kms_key_arn

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = local.queue_arns["ingest"]
    role_arn = aws_iam_role.scheduler.arn
    input    = jsonencode({ v = 1, ping = true })
  }
}
