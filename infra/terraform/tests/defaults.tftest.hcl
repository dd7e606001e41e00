# What an install with no knob turned is. The rules that every plan must keep are tests over plans in internal/terraformtest.

variables {
  packages = "tests/packages"
}

run "defaults" {
  command = plan

  assert {
    condition     = length(aws_subnet.private) == 2 && length(aws_vpc_endpoint.interface) == 1 && length(aws_vpc_endpoint.gateway) == 2
    error_message = "Two private subnets, an endpoint for SQS, and gateways for S3 and DynamoDB."
  }

  assert {
    condition     = aws_sqs_queue.this["work"].visibility_timeout_seconds == 6 * 900 && aws_sqs_queue.this["aggregate"].visibility_timeout_seconds == 6 * 300 + 5
    error_message = "A message is hidden for six times the function's timeout, and the window."
  }

  assert {
    condition     = aws_sqs_queue.this["ingest"].message_retention_seconds == 1209600 && aws_sqs_queue.dead["ingest"].message_retention_seconds == 1209600
    error_message = "Messages and dead letters are kept for 14 days."
  }

  assert {
    condition     = aws_dynamodb_table.this.billing_mode == "PAY_PER_REQUEST" && aws_dynamodb_table.this.deletion_protection_enabled && aws_dynamodb_table.this.ttl[0].attribute_name == "expires"
    error_message = "The table is paid by request, protected, and forgets what has expired."
  }

  assert {
    condition     = !aws_s3_bucket.this.force_destroy && aws_s3_bucket.this.bucket != var.name
    error_message = "The bucket is not destroyed with what is in it, and its name is the account's own."
  }

  assert {
    condition     = length(aws_apigatewayv2_api.this) == 1 && length(aws_lambda_function_url.this) == 0 && length(module.notify) == 0
    error_message = "The front door is an HTTP API, and there are no webhooks."
  }

  assert {
    condition     = aws_scheduler_schedule.sweep.schedule_expression == "rate(1 minute)" && jsondecode(aws_scheduler_schedule.sweep.target[0].input).sweep
    error_message = "The sweep runs each minute."
  }

  assert {
    condition     = toset(keys(aws_cloudwatch_metric_alarm.dead_letters)) == toset(["ingest", "work", "aggregate"]) && length(aws_cloudwatch_metric_alarm.no_sweep) == 1
    error_message = "There is an alarm for each queue's dead letters, and one for the sweep."
  }

  assert {
    condition     = output.worker_environment.FANOUT_UPSTREAM == "builtin"
    error_message = "Without an upstream the built-in models answer."
  }
}
