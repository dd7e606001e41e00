locals {
  alarm_actions = var.alarms.topic_arn == null ? [] : [var.alarms.topic_arn]

  deployed = toset(concat(
    ["ingest", "aggregate"],
    var.functions.worker.enabled ? ["worker"] : [],
    var.api.front_door == "none" ? [] : ["api"],
    var.webhooks.enabled ? ["notify"] : [],
  ))

  # A queue's oldest message is older than this only if nobody takes it. Work may wait for its turn.
  oldest = { ingest = 900, work = var.alarms.work_age, aggregate = 900, notify = 900 }

  function_alarms = merge([for name in local.deployed : {
    "${name}-errors"    = { function = name, metric = "Errors", periods = 3, says = "Invocations of ${name} end with an error: see its log." }
    "${name}-throttles" = { function = name, metric = "Throttles", periods = 3, says = "Invocations of ${name} are throttled: the account's concurrency, or its reserved concurrency, is used up." }
    "${name}-recursion" = { function = name, metric = "RecursiveInvocationsDropped", periods = 1, says = "Lambda took messages to ${name} for a loop, and dropped them. The sweep sends them again." }
  } if var.alarms.enabled]...)
}

resource "aws_cloudwatch_metric_alarm" "dead_letters" {
  for_each = { for name, f in local.pumped : name => f if var.alarms.enabled }

  alarm_name          = "${var.name}-${each.key}-dead-letters"
  alarm_description   = "There are dead letters of ${each.key}: what was given up, with its reason."
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateNumberOfMessagesVisible"
  dimensions          = { QueueName = aws_sqs_queue.dead[each.key].name }
  statistic           = "Maximum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_actions
  ok_actions          = local.alarm_actions
}

resource "aws_cloudwatch_metric_alarm" "oldest_message" {
  for_each = { for name, f in local.pumped : name => f if var.alarms.enabled }

  alarm_name          = "${var.name}-${each.key}-oldest-message"
  alarm_description   = "The oldest message of ${each.key} has waited for ${local.oldest[each.key]} seconds."
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateAgeOfOldestMessage"
  dimensions          = { QueueName = aws_sqs_queue.this[each.key].name }
  statistic           = "Maximum"
  period              = 300
  evaluation_periods  = 2
  comparison_operator = "GreaterThanThreshold"
  threshold           = local.oldest[each.key]
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_actions
  ok_actions          = local.alarm_actions
}

resource "aws_cloudwatch_metric_alarm" "function" {
  for_each = local.function_alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.says
  namespace           = "AWS/Lambda"
  metric_name         = each.value.metric
  dimensions          = { FunctionName = "${var.name}-${each.value.function}" }
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = each.value.periods
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_actions
  ok_actions          = local.alarm_actions
}

resource "aws_cloudwatch_metric_alarm" "no_sweep" {
  count = var.alarms.enabled ? 1 : 0

  alarm_name          = "${var.name}-no-sweep"
  alarm_description   = "Nothing has invoked aggregate for ten minutes: the sweep does not run, and what is lost is not found."
  namespace           = "AWS/Lambda"
  metric_name         = "Invocations"
  dimensions          = { FunctionName = module.aggregate.name }
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 2
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  treat_missing_data  = "breaching"
  alarm_actions       = local.alarm_actions
  ok_actions          = local.alarm_actions
}
