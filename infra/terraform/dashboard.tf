locals {
  # List prices in dollars, us-east-1, November 2026. They make one graph and nothing else.
  price_gb_second = { arm64 = 0.0000133334, amd64 = 0.0000166667 }
  price_sqs       = 0.0000004   # a request
  price_write     = 0.000000625 # a write of 1 KB
  price_read      = 0.000000125 # a consistent read of 4 KB
  price_endpoint  = 0.01        # an hour, in each zone
  price_invoke    = 0.0000002

  endpoint_hours = local.new_endpoints ? length(local.interface_services) * (local.new_vpc ? var.availability_zones : length(local.subnet_ids)) : 0

  cost_metrics = concat(
    concat([for name in local.deployed : [
      ["AWS/Lambda", "Duration", "FunctionName", "${var.name}-${name}", { id = "d_${name}", stat = "Sum", visible = false }],
      ["AWS/Lambda", "Invocations", "FunctionName", "${var.name}-${name}", { id = "i_${name}", stat = "Sum", visible = false }],
    ]]...),
    concat([for name in keys(local.pumped) : [
      ["AWS/SQS", "NumberOfMessagesSent", "QueueName", "${var.name}-${name}", { id = "s_${name}", stat = "Sum", visible = false }],
      ["AWS/SQS", "NumberOfMessagesDeleted", "QueueName", "${var.name}-${name}", { id = "r_${name}", stat = "Sum", visible = false }],
    ]]...),
    [
      ["AWS/DynamoDB", "ConsumedWriteCapacityUnits", "TableName", var.name, { id = "w", stat = "Sum", visible = false }],
      ["AWS/DynamoDB", "ConsumedReadCapacityUnits", "TableName", var.name, { id = "rd", stat = "Sum", visible = false }],
    ],
  )
  cost_terms = concat(
    [for name in local.deployed : "d_${name}/1000*${var.functions[name].memory / 1024 * local.price_gb_second[var.functions[name].architecture]}"],
    [for name in local.deployed : "i_${name}*${local.price_invoke}"],
    [for name in keys(local.pumped) : "(s_${name}+2*r_${name})*${local.price_sqs}"],
    ["w*${local.price_write}", "rd*${local.price_read}", tostring(local.endpoint_hours * local.price_endpoint)],
  )

  widgets = [
    ["Items a second", [[{ expression = "answered/PERIOD(answered)", label = "answered" }], [{ expression = "failed/PERIOD(failed)", label = "failed" }],
      ["fanout", "items_answered", "function", "${var.name}-worker", { id = "answered", stat = "Sum", visible = false }],
    ["fanout", "items_failed", "function", "${var.name}-worker", { id = "failed", stat = "Sum", visible = false }]]],
    ["Calls of the upstream", [[{ expression = "SEARCH('{fanout,function,upstream} MetricName=\"calls_answered\"', 'Sum')", label = "answered" }],
      [{ expression = "SEARCH('{fanout,function,upstream} MetricName=\"calls_failed\"', 'Sum')", label = "failed" }],
    [{ expression = "SEARCH('{fanout,function,upstream} MetricName=\"calls_throttled\"', 'Sum')", label = "throttled" }]]],
    ["Failed calls by class", [for class in ["rejected", "held", "weather", "suspect"] : [{ expression = "SEARCH('{fanout,function,upstream} MetricName=\"calls_${class}\"', 'Sum')", label = class }]]],
    ["Latency of the upstream, seconds", [for stat in ["p50", "p90", "p99"] : [{ expression = "SEARCH('{fanout,function,upstream} MetricName=\"call_seconds\"', '${stat}')", label = stat }]]],
    ["Calls in flight of one instance, and their limit", [[{ expression = "SEARCH('{fanout,function,upstream} MetricName=\"calls_in_flight\"', 'Maximum')", label = "in flight" }],
    [{ expression = "SEARCH('{fanout,function,upstream} MetricName=\"call_limit\"', 'Minimum')", label = "limit" }]]],
    ["Jobs that have ended", [for end in ["completed", "failed", "expired", "cancelled"] : [{ expression = "SUM(SEARCH('{fanout,function} MetricName=\"jobs_${end}\"', 'Sum'))", label = end }]]],
    ["How old progress is, seconds", [["fanout", "fold_lag_seconds", "function", "${var.name}-aggregate", { stat = "p90" }]]],
    ["Messages", concat([for name in keys(local.pumped) : [
      ["fanout", "messages_done", "function", "${var.name}-${name == "work" ? "worker" : name}", { stat = "Sum" }],
      ["fanout", "messages_deferred", "function", "${var.name}-${name == "work" ? "worker" : name}", { stat = "Sum" }],
      ["fanout", "messages_failed", "function", "${var.name}-${name == "work" ? "worker" : name}", { stat = "Sum" }],
    ]]...)],
    ["Instances at work, and their limit", concat([for name in local.deployed : ["AWS/Lambda", "ConcurrentExecutions", "FunctionName", "${var.name}-${name}", { stat = "Maximum" }]],
    [[{ expression = tostring(var.functions.worker.maximum_concurrency), label = "limit of worker" }]])],
    ["Oldest message, seconds", [for name in keys(local.pumped) : ["AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", "${var.name}-${name}", { stat = "Maximum" }]]],
    ["Dead letters", [for name in keys(local.pumped) : ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", "${var.name}-${name}-dead", { stat = "Maximum" }]]],
    ["Errors and throttles", concat([for name in local.deployed : [
      ["AWS/Lambda", "Errors", "FunctionName", "${var.name}-${name}", { stat = "Sum" }],
      ["AWS/Lambda", "Throttles", "FunctionName", "${var.name}-${name}", { stat = "Sum" }],
    ]]...)],
    ["The day's ping, seconds", [for name in keys(local.pumped) : ["fanout", "ping_age", "function", "${var.name}-${name == "work" ? "worker" : name}", { stat = "Maximum" }]]],
    ["Requests of the API", [["fanout", "requests", "function", "${var.name}-api", { stat = "Sum" }], ["fanout", "requests_failed", "function", "${var.name}-api", { stat = "Sum" }]]],
    ["Cost an hour without the model, S3 and logs, dollars", concat(local.cost_metrics, [[{ expression = join("+", local.cost_terms), label = "dollars", period = 3600 }]]), 3600],
  ]
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = var.name
  dashboard_body = jsonencode({
    widgets = [for n, widget in local.widgets : {
      type   = "metric"
      x      = n % 2 * 12
      y      = floor(n / 2) * 6
      width  = 12
      height = 6
      properties = {
        title   = widget[0]
        region  = local.region
        period  = try(widget[2], 60)
        view    = "timeSeries"
        metrics = widget[1]
      }
    }]
  })
}
