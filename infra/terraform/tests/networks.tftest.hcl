variables {
  packages = "tests/packages"
}

run "no_vpc" {
  command = plan

  variables {
    network  = "none"
    upstream = { url = "https://api.example.com/v1", key_secret = "upstream" }
  }

  assert {
    condition     = length(aws_vpc.this) == 0 && length(aws_vpc_endpoint.interface) == 0 && length(aws_security_group.functions) == 0
    error_message = "Without a VPC there are neither endpoints nor security groups."
  }

  assert {
    condition     = output.worker_environment.FANOUT_UPSTREAM_KEY_FROM == "/aws/reference/secretsmanager/upstream"
    error_message = "The key comes from the secret."
  }
}

run "a_vpc_that_is_there" {
  command = plan

  variables {
    network  = { vpc_id = "vpc-1", subnet_ids = ["subnet-1", "subnet-2"], route_table_ids = ["rtb-1"] }
    upstream = { url = "http://vllm.internal:8000/v1", security_group_id = "sg-1", port = 8000 }
  }

  assert {
    condition     = length(aws_vpc.this) == 0 && aws_vpc_endpoint.gateway["s3"].route_table_ids == toset(["rtb-1"]) && aws_vpc_endpoint.interface["sqs"].subnet_ids == toset(["subnet-1", "subnet-2"])
    error_message = "Endpoints are made in the VPC that is there."
  }

  assert {
    condition     = aws_vpc_security_group_egress_rule.upstream["*"].referenced_security_group_id == "sg-1" && aws_vpc_security_group_egress_rule.upstream["*"].from_port == 8000
    error_message = "The functions reach the upstream."
  }
}

run "endpoints_that_are_there" {
  command = plan

  variables {
    network = { vpc_id = "vpc-1", subnet_ids = ["subnet-1"], endpoint_security_group_id = "sg-9" }
  }

  assert {
    condition     = length(aws_vpc_endpoint.interface) == 0 && length(aws_vpc_endpoint.gateway) == 0 && aws_vpc_security_group_egress_rule.interface[0].referenced_security_group_id == "sg-9"
    error_message = "No endpoint is made where they are there already."
  }
}

run "bedrock" {
  command = plan

  variables {
    upstream = { bedrock_models = ["arn:aws:bedrock:eu-central-1::foundation-model/openai.gpt-oss-20b-1:0"] }
  }

  assert {
    condition     = contains(keys(aws_vpc_endpoint.interface), "bedrock-runtime") && output.worker_environment.FANOUT_UPSTREAM == "bedrock"
    error_message = "Bedrock has an endpoint of its own."
  }
}

run "sagemaker" {
  command = plan

  variables {
    upstream = { sagemaker_endpoint = "llama-3" }
  }

  assert {
    condition     = contains(keys(aws_vpc_endpoint.interface), "sagemaker.runtime") && output.worker_environment.FANOUT_UPSTREAM == "sagemaker:llama-3"
    error_message = "SageMaker has an endpoint of its own."
  }
}

run "routes" {
  command = plan

  variables {
    upstream = { bedrock_models = ["arn:aws:bedrock:eu-central-1::foundation-model/openai.gpt-oss-20b-1:0"] }
    routes = {
      "llama*"   = { url = "http://vllm.internal:8000/v1", cidr = "10.1.0.0/16", port = 8000, key_secret = "llama" }
      "llama-4*" = { sagemaker_endpoint = "llama-4" }
      "qwen*"    = { url = "http://vllm.internal:8000/v1" }
      "qwen-x*"  = {}
    }
  }

  assert {
    condition     = output.worker_environment.FANOUT_UPSTREAM == "bedrock" && output.worker_environment.FANOUT_ROUTES == "llama-4*=sagemaker:llama-4 qwen-x*=builtin llama*=http://vllm.internal:8000/v1,key-from=/aws/reference/secretsmanager/llama qwen*=http://vllm.internal:8000/v1"
    error_message = "The longest pattern comes first, and each has its key."
  }

  assert {
    condition     = !contains(keys(output.worker_environment), "FANOUT_UPSTREAM_KEY_FROM")
    error_message = "The upstream has no key."
  }

  assert {
    condition     = join(" ", keys(aws_vpc_security_group_egress_rule.upstream)) == "llama*" && aws_vpc_security_group_egress_rule.upstream["llama*"].from_port == 8000
    error_message = "What is reached twice is let through once."
  }

  assert {
    condition     = length(setsubtract(["bedrock-runtime", "sagemaker.runtime", "ssm"], keys(aws_vpc_endpoint.interface))) == 0
    error_message = "Each service that an upstream needs has its endpoint."
  }
}

run "a_function_url_is_outside_the_vpc" {
  command = plan

  variables {
    api      = { front_door = "function_url" }
    webhooks = { enabled = true }
  }

  assert {
    condition     = aws_lambda_function_url.this[0].invoke_mode == "RESPONSE_STREAM" && length(aws_apigatewayv2_api.this) == 0
    error_message = "It streams."
  }
}

run "without_a_front_door_and_with_the_worker_elsewhere" {
  command = plan

  variables {
    api       = { front_door = "none" }
    functions = { worker = { enabled = false } }
  }

  assert {
    condition     = length(module.api) == 0 && length(module.worker) == 0 && output.api_url == null
    error_message = "Neither is there."
  }
}

run "provisioned" {
  command = plan

  variables {
    functions = {
      api    = { provisioned_concurrency = 2 }
      worker = { provisioned_concurrency = 5, pollers = { minimum = 2, maximum = 20 } }
    }
  }

  assert {
    condition     = module.api[0].qualifier == "live" && module.worker[0].qualifier == "live"
    error_message = "What is provisioned is called by its alias."
  }
}
