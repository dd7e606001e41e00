output "api_url" {
  description = "Base URL for official clients and FANOUT_API; null without a front door."
  value = (
    local.http_api ? "${aws_apigatewayv2_api.this[0].api_endpoint}/v1" :
    local.function_url ? "${aws_lambda_function_url.this[0].function_url}v1" :
    null
  )
}

output "bucket" {
  description = "Name of the bucket; what is put below inbox/<tenant>/ becomes a job."
  value       = aws_s3_bucket.this.id
}

output "table" {
  description = "Name of the table."
  value       = aws_dynamodb_table.this.name
}

output "queues" {
  description = "URLs of the queues, and of their dead letters, by name."
  value       = local.queue_urls
}

output "worker_environment" {
  description = "What fanout worker is told where it runs elsewhere."
  value       = local.worker_environment
}

output "worker_policy_arn" {
  description = "What the role of a fanout worker elsewhere needs."
  value       = aws_iam_policy.worker.arn
}

output "security_group_id" {
  description = "Of the functions; null outside a VPC. Let your upstream take connections from it."
  value       = local.in_vpc ? aws_security_group.functions[0].id : null
}

output "log_groups" {
  description = "Names of the logs, by function."
  value = merge(
    { ingest = module.ingest.log_group, aggregate = module.aggregate.log_group },
    { for f in module.worker : "worker" => f.log_group },
    { for f in module.api : "api" => f.log_group },
    { for f in module.notify : "notify" => f.log_group },
  )
}

output "dashboard" {
  description = "Name of the dashboard."
  value       = aws_cloudwatch_dashboard.this.dashboard_name
}
