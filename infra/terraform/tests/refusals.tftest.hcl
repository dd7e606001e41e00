# Each wrong variable is refused when it is planned, with a sentence.

variables {
  packages = "tests/packages"
}

run "name" {
  command = plan

  variables {
    name = "Fanout"
  }

  expect_failures = [var.name]
}

run "no_packages" {
  command = plan

  variables {
    packages = "tests"
  }

  expect_failures = [var.packages]
}

run "no_such_network" {
  command = plan

  variables {
    network = "public"
  }

  expect_failures = [var.network]
}

run "a_network_without_subnets" {
  command = plan

  variables {
    network = { vpc_id = "vpc-1", subnet_ids = [], route_table_ids = ["rtb-1"] }
  }

  expect_failures = [var.network]
}

run "a_network_with_endpoints_twice" {
  command = plan

  variables {
    network = { vpc_id = "vpc-1", subnet_ids = ["s"], route_table_ids = ["rtb-1"], endpoint_security_group_id = "sg-1" }
  }

  expect_failures = [var.network]
}

run "a_network_without_endpoints" {
  command = plan

  variables {
    network = { vpc_id = "vpc-1", subnet_ids = ["s"] }
  }

  expect_failures = [var.network]
}

run "a_small_vpc" {
  command = plan

  variables {
    vpc_cidr = "10.0.0.0/28"
  }

  expect_failures = [var.vpc_cidr]
}

run "no_zone" {
  command = plan

  variables {
    availability_zones = 0
  }

  expect_failures = [var.availability_zones]
}

run "two_upstreams" {
  command = plan

  variables {
    upstream = { url = "http://x", cidr = "10.0.0.0/8", sagemaker_endpoint = "y" }
  }

  expect_failures = [var.upstream]
}

run "no_url" {
  command = plan

  variables {
    upstream = { url = "vllm.internal:8000", cidr = "10.0.0.0/8" }
  }

  expect_failures = [var.upstream]
}

run "a_key_in_the_url" {
  command = plan

  variables {
    upstream = { url = "https://key@vllm.internal", cidr = "10.0.0.0/8" }
  }

  expect_failures = [var.upstream]
}

run "two_keys" {
  command = plan

  variables {
    upstream = { url = "https://x.example", cidr = "10.0.0.0/8", key_secret = "a", key_parameter = "b" }
  }

  expect_failures = [var.upstream]
}

run "a_key_without_a_url" {
  command = plan

  variables {
    upstream = { key_secret = "a" }
  }

  expect_failures = [var.upstream]
}

run "all_models" {
  command = plan

  variables {
    upstream = { bedrock_models = ["arn:aws:bedrock:*::foundation-model/*"] }
  }

  expect_failures = [var.upstream]
}

run "a_route_on_the_internet_from_a_vpc" {
  command = plan

  variables {
    routes = { "gpt*" = { url = "https://api.example.com/v1" } }
  }

  expect_failures = [var.upstream]
}

run "a_route_for_all_models" {
  command = plan

  variables {
    routes = { "*" = { sagemaker_endpoint = "y" } }
  }

  expect_failures = [var.routes]
}

run "a_route_for_two_words" {
  command = plan

  variables {
    routes = { "llama 4" = { sagemaker_endpoint = "y" } }
  }

  expect_failures = [var.routes]
}

run "an_upstream_on_the_internet_from_a_vpc" {
  command = plan

  variables {
    upstream = { url = "https://api.example.com/v1" }
  }

  expect_failures = [var.upstream]
}

run "the_whole_internet" {
  command = plan

  variables {
    upstream = { url = "https://x.example", cidr = "0.0.0.0/0" }
  }

  expect_failures = [var.upstream]
}

run "an_architecture" {
  command = plan

  variables {
    functions = { api = { architecture = "x86" } }
  }

  expect_failures = [var.functions]
}

run "too_little_memory" {
  command = plan

  variables {
    functions = { notify = { memory = 64 } }
  }

  expect_failures = [var.functions]
}

run "too_long_a_timeout" {
  command = plan

  variables {
    functions = { ingest = { timeout = 901 } }
  }

  expect_failures = [var.functions]
}

run "an_odd_retention" {
  command = plan

  variables {
    functions = { worker = { log_retention = 10 } }
  }

  expect_failures = [var.functions]
}

run "fewer_reserved_than_are_started" {
  command = plan

  variables {
    functions = { worker = { reserved_concurrency = 5, maximum_concurrency = 10 } }
  }

  expect_failures = [var.functions]
}

run "one_at_a_time" {
  command = plan

  variables {
    functions = { worker = { maximum_concurrency = 1 } }
  }

  expect_failures = [var.functions]
}

run "a_large_batch_without_a_window" {
  command = plan

  variables {
    functions = { notify = { batch_size = 11 } }
  }

  expect_failures = [var.functions]
}

run "ingest_in_batches" {
  command = plan

  variables {
    functions = { ingest = { batch_size = 2 } }
  }

  expect_failures = [var.functions]
}

run "more_items_than_calls" {
  command = plan

  variables {
    functions = { worker = { batch_size = 3 } }
  }

  expect_failures = [var.functions]
}

run "too_many_calls" {
  command = plan

  variables {
    functions = { worker = { concurrency = 500 } }
  }

  expect_failures = [var.functions]
}

run "a_call_longer_than_its_function" {
  command = plan

  variables {
    functions = { worker = { timeout = 120 } }
  }

  expect_failures = [var.functions]
}

run "notify_in_a_hurry" {
  command = plan

  variables {
    functions = { notify = { timeout = 10 } }
  }

  expect_failures = [var.functions]
}

run "a_door" {
  command = plan

  variables {
    api = { front_door = "window" }
  }

  expect_failures = [var.api]
}

run "an_authorizer_of_a_url" {
  command = plan

  variables {
    api = { front_door = "function_url", jwt = { issuer = "https://id.example", audience = ["x"] } }
  }

  expect_failures = [var.api]
}

run "two_in_one_header" {
  command = plan

  variables {
    api = { jwt = { issuer = "https://id.example", audience = ["x"], header = "Authorization" } }
  }

  expect_failures = [var.api]
}

run "a_key_that_is_no_digest" {
  command = plan

  variables {
    api = { operator_key_sha256 = "sesame" }
  }

  expect_failures = [var.api]
}

run "no_rate" {
  command = plan

  variables {
    api = { rate = 0 }
  }

  expect_failures = [var.api]
}

run "an_address_for_a_network" {
  command = plan

  variables {
    webhooks = { enabled = true, allow = ["10.1.2.3"] }
  }

  expect_failures = [var.webhooks]
}

run "a_window_in_words" {
  command = plan

  variables {
    upload_window = "a day"
  }

  expect_failures = [var.upload_window]
}

run "a_loud_log" {
  command = plan

  variables {
    log_level = "LOUD"
  }

  expect_failures = [var.log_level]
}

run "a_key_by_its_name" {
  command = plan

  variables {
    kms_key_arn = "alias/fanout"
  }

  expect_failures = [var.kms_key_arn]
}

run "an_impatient_alarm" {
  command = plan

  variables {
    alarms = { work_age = 1 }
  }

  expect_failures = [var.alarms]
}

run "a_misspelt_network" {
  command = plan

  variables {
    network = { vpc_id = "vpc-1", subnet_ids = ["s"], route_table_ids = ["rtb-1"], open_endpoint = true }
  }

  expect_failures = [var.network]
}
