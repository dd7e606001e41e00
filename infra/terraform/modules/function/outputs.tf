output "name" {
  description = "Of the function."
  value       = aws_lambda_function.this.function_name
}

output "qualifier" {
  description = "The alias that is to be called; null = the function itself."
  value       = local.provisioned ? aws_lambda_alias.live[0].name : null
}

output "invoke_arn" {
  description = "What API Gateway calls."
  value       = local.provisioned ? aws_lambda_alias.live[0].invoke_arn : aws_lambda_function.this.invoke_arn
}

output "role_arn" {
  description = "Of its role."
  value       = aws_iam_role.this.arn
}

output "log_group" {
  description = "Name of its log."
  value       = aws_cloudwatch_log_group.this.name
}
