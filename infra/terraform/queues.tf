locals {
  # What pumps each queue, for how long a message is hidden while it is at work: six times its timeout, and the window.
  pumped = merge(
    {
      ingest    = var.functions.ingest
      work      = var.functions.worker
      aggregate = var.functions.aggregate
    },
    var.webhooks.enabled ? { notify = var.functions.notify } : {},
  )

  # A count of receives is no count of failures here: throttles, outages and bad deploys count too. The ledger counts, and
  # buries what was judged. A thousand receives are a net under a function that cannot even start.
  max_receive_count = 1000

  days_14 = 14 * 24 * 60 * 60
}

resource "aws_sqs_queue" "this" {
  for_each = local.pumped

  name                       = "${var.name}-${each.key}"
  visibility_timeout_seconds = min(43200, 6 * each.value.timeout + each.value.window)
  message_retention_seconds  = local.days_14
  receive_wait_time_seconds  = 20
  sqs_managed_sse_enabled    = var.kms_key_arn == null ? true : null
  kms_master_key_id          = var.kms_key_arn
  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead[each.key].arn
    maxReceiveCount     = local.max_receive_count
  })
}

resource "aws_sqs_queue" "dead" {
  for_each = local.pumped

  name                      = "${var.name}-${each.key}-dead"
  message_retention_seconds = local.days_14
  sqs_managed_sse_enabled   = var.kms_key_arn == null ? true : null
  kms_master_key_id         = var.kms_key_arn
}

resource "aws_sqs_queue_redrive_allow_policy" "dead" {
  for_each = local.pumped

  queue_url = aws_sqs_queue.dead[each.key].url
  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = [aws_sqs_queue.this[each.key].arn]
  })
}

locals {
  queue_arns = merge(
    { for name in keys(local.pumped) : name => aws_sqs_queue.this[name].arn },
    { for name in keys(local.pumped) : "${name}-dead" => aws_sqs_queue.dead[name].arn },
  )
  queue_urls = merge(
    { for name in keys(local.pumped) : name => aws_sqs_queue.this[name].url },
    { for name in keys(local.pumped) : "${name}-dead" => aws_sqs_queue.dead[name].url },
  )
}

resource "aws_sqs_queue_policy" "this" {
  for_each = local.pumped

  queue_url = aws_sqs_queue.this[each.key].url
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat([local.tls_only[each.key]], each.key == "ingest" ? [{
      Sid       = "UploadsFromTheBucket"
      Effect    = "Allow"
      Principal = { Service = "s3.amazonaws.com" }
      Action    = "sqs:SendMessage"
      Resource  = aws_sqs_queue.this[each.key].arn
      Condition = {
        ArnEquals    = { "aws:SourceArn" = aws_s3_bucket.this.arn }
        StringEquals = { "aws:SourceAccount" = local.account }
      }
    }] : [])
  })
}

resource "aws_sqs_queue_policy" "dead" {
  for_each = local.pumped

  queue_url = aws_sqs_queue.dead[each.key].url
  policy    = jsonencode({ Version = "2012-10-17", Statement = [local.tls_only["${each.key}-dead"]] })
}

locals {
  tls_only = { for name, arn in local.queue_arns : name => {
    Sid       = "OnlyByTLS"
    Effect    = "Deny"
    Principal = "*"
    Action    = "sqs:*"
    Resource  = arn
    Condition = { Bool = { "aws:SecureTransport" = "false" } }
  } }
}
