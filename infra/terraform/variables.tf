variable "name" {
  description = "Begins the names of everything; two installs in one account differ in it."
  type        = string
  default     = "fanout"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,23}$", var.name))
    error_message = "name takes 1 to 24 lower-case letters, digits and hyphens, and begins with a letter."
  }
}

variable "packages" {
  description = "Directory with the zips that scripts/build makes."
  type        = string

  validation {
    condition     = fileexists("${var.packages}/ingest-${var.functions.ingest.architecture}.zip")
    error_message = "packages has no ingest-….zip of that architecture: run scripts/build, and name its directory."
  }
}

variable "network" {
  description = <<-EOT
    Where the functions are. "create": a VPC of their own, with private subnets and endpoints. "none": in no VPC, for upstreams on the internet.
    An object: a VPC that is there, { vpc_id, subnet_ids, route_table_ids } for endpoints to be made in it (they let through what is fanout's alone,
    and so cut off whoever else uses S3 or DynamoDB by these route tables; with open_endpoints = true they let through everything), or
    { vpc_id, subnet_ids, endpoint_security_group_id } where those of S3, DynamoDB, SQS and the upstream are there already.
  EOT
  type        = any
  default     = "create"

  validation {
    condition     = can(tostring(var.network)) ? contains(["create", "none"], tostring(var.network)) : can(var.network.vpc_id) && try(length(var.network.subnet_ids) > 0, false)
    error_message = "network is \"create\", \"none\", or an object with vpc_id and at least one of subnet_ids."
  }
  validation {
    condition     = can(tostring(var.network)) || length(setsubtract(try(keys(var.network), []), ["vpc_id", "subnet_ids", "route_table_ids", "endpoint_security_group_id", "open_endpoints"])) == 0
    error_message = "network has vpc_id, subnet_ids, route_table_ids or endpoint_security_group_id, and open_endpoints."
  }
  validation {
    condition     = can(tostring(var.network)) || (can(var.network.route_table_ids) != can(var.network.endpoint_security_group_id))
    error_message = "network names either route_table_ids, to have endpoints made, or the endpoint_security_group_id of those that are there."
  }
}

variable "vpc_cidr" {
  description = "Addresses of the VPC that network = \"create\" makes."
  type        = string
  default     = "10.87.0.0/16"

  validation {
    condition     = can(cidrnetmask(var.vpc_cidr)) && try(tonumber(split("/", var.vpc_cidr)[1]) <= 24, false)
    error_message = "vpc_cidr is a network of IPv4 of at most /24, such as 10.87.0.0/16."
  }
}

variable "availability_zones" {
  description = "In how many zones the VPC that is made has a subnet; each interface endpoint is paid for in each."
  type        = number
  default     = 2

  validation {
    condition     = var.availability_zones >= 1 && var.availability_zones <= 4
    error_message = "availability_zones is from 1 to 4."
  }
}

variable "upstream" {
  description = <<-EOT
    Where inference happens; one of:
      {}                                        the built-in models, for trying things out
      { url = "https://…/v1" }                  an OpenAI-compatible server. Its key: key_parameter (a name in the parameter store) or key_secret (a name in Secrets Manager).
                                                In a VPC, how it is reached: security_group_id or cidr, and port
      { bedrock_models = ["arn:…"] }            models, or inference profiles, of Bedrock
      { sagemaker_endpoint = "name" }           an endpoint whose container takes OpenAI's requests
    prices, in US dollars for a million tokens, by models such as "gpt-4o*" ("*" matches what no longer pattern does), let jobs and tenants be held at what they may cost.
  EOT
  type = object({
    url                = optional(string)
    key_parameter      = optional(string)
    key_secret         = optional(string)
    security_group_id  = optional(string)
    cidr               = optional(string)
    port               = optional(number, 443)
    bedrock_models     = optional(list(string), [])
    sagemaker_endpoint = optional(string)
    prices             = optional(map(object({ input = number, output = number })), {})
  })
  default = {}

  validation {
    condition     = alltrue([for models, price in var.upstream.prices : can(regex("^[^,= ]+$", models)) && price.input >= 0 && price.output >= 0])
    error_message = "upstream.prices are from 0, by models without comma, equals sign or space."
  }

  # These hold for each of routes, too.
  validation {
    condition     = alltrue([for u in concat([var.upstream], values(var.routes)) : length([for one in [u.url != null, length(u.bedrock_models) > 0, u.sagemaker_endpoint != null] : one if one]) <= 1])
    error_message = "upstream, and each route, is one of url, bedrock_models and sagemaker_endpoint."
  }
  validation {
    condition     = alltrue([for u in concat([var.upstream], values(var.routes)) : u.url == null || can(regex("^https?://[^/?#@, ]+(/[^?#@, ]*)?$", u.url))])
    error_message = "The url of upstream, and of each route, begins with https:// or http:// and a host, and has no user in it."
  }
  validation {
    condition     = alltrue([for u in concat([var.upstream], values(var.routes)) : u.key_parameter == null || u.key_secret == null])
    error_message = "upstream, and each route, has a key_parameter or a key_secret, not both."
  }
  validation {
    condition     = alltrue([for u in concat([var.upstream], values(var.routes)) : u.url != null || (u.key_parameter == null && u.key_secret == null)])
    error_message = "key_parameter and key_secret of upstream, and of each route, go with a url."
  }
  validation {
    condition     = alltrue([for arn in flatten([for u in concat([var.upstream], values(var.routes)) : u.bedrock_models]) : can(regex("^arn:[a-z-]+:bedrock:", arn)) && !strcontains(arn, "*")])
    error_message = "bedrock_models of upstream, and of each route, are whole ARNs of models or inference profiles."
  }
  validation {
    condition = try(tostring(var.network), "") == "none" || alltrue([for u in concat([var.upstream], values(var.routes)) : u.url == null || anytrue([
      for o in concat([var.upstream], values(var.routes)) : o.url == u.url && (o.security_group_id != null || o.cidr != null)
    ])])
    error_message = "A url of upstream, or of a route, in a VPC needs security_group_id or cidr, by which it is reached: there is no way out to the internet. For one on the internet: network = \"none\"."
  }
  validation {
    condition     = alltrue([for u in concat([var.upstream], values(var.routes)) : u.cidr == null || (can(cidrnetmask(u.cidr)) && u.cidr != "0.0.0.0/0")])
    error_message = "The cidr of upstream, and of each route, is a network such as 10.1.0.0/16, and not the whole internet."
  }
}

variable "routes" {
  description = <<-EOT
    Other upstreams for some models, by models such as "llama*" (the longest that matches counts); each is what upstream is, without prices. What none of them is for goes to upstream.
    Of several with one url, in a VPC, one says how it is reached.
  EOT
  type = map(object({
    url                = optional(string)
    key_parameter      = optional(string)
    key_secret         = optional(string)
    security_group_id  = optional(string)
    cidr               = optional(string)
    port               = optional(number, 443)
    bedrock_models     = optional(list(string), [])
    sagemaker_endpoint = optional(string)
  }))
  default = {}

  validation {
    condition     = alltrue([for models in keys(var.routes) : can(regex("^[^,= \\\\]+$", models)) && models != "*"])
    error_message = "routes are for models without comma, equals sign, backslash or space, and not for \"*\": that is upstream."
  }
}

variable "functions" {
  description = <<-EOT
    Sizes. memory and ephemeral_storage in MB, timeout in seconds, log_retention in days; reserved_concurrency -1 is none. Of those with a queue: batch_size, window (seconds that messages are gathered
    for), maximum_concurrency, or pollers = { minimum, maximum } in its place, which are provisioned. Of worker: concurrency (calls in flight of one instance), call_timeout (seconds), and
    enabled = false where `fanout worker` does its work elsewhere.
  EOT
  type = object({
    api = optional(object({
      memory                  = optional(number, 512)
      timeout                 = optional(number, 30)
      ephemeral_storage       = optional(number, 512)
      architecture            = optional(string, "arm64")
      reserved_concurrency    = optional(number, -1)
      provisioned_concurrency = optional(number, 0)
      log_retention           = optional(number, 14)
    }), {})
    ingest = optional(object({
      memory                  = optional(number, 512)
      timeout                 = optional(number, 300)
      ephemeral_storage       = optional(number, 512)
      architecture            = optional(string, "arm64")
      reserved_concurrency    = optional(number, -1)
      provisioned_concurrency = optional(number, 0)
      log_retention           = optional(number, 14)
      batch_size              = optional(number, 1)
      window                  = optional(number, 0)
      maximum_concurrency     = optional(number, 10)
      pollers                 = optional(object({ minimum = number, maximum = number }))
    }), {})
    worker = optional(object({
      enabled                 = optional(bool, true)
      memory                  = optional(number, 512)
      timeout                 = optional(number, 900)
      ephemeral_storage       = optional(number, 512)
      architecture            = optional(string, "arm64")
      reserved_concurrency    = optional(number, -1)
      provisioned_concurrency = optional(number, 0)
      log_retention           = optional(number, 14)
      batch_size              = optional(number, 2)
      window                  = optional(number, 0)
      maximum_concurrency     = optional(number, 10)
      pollers                 = optional(object({ minimum = number, maximum = number }))
      concurrency             = optional(number, 100)
      call_timeout            = optional(number, 120)
    }), {})
    aggregate = optional(object({
      memory                  = optional(number, 512)
      timeout                 = optional(number, 300)
      ephemeral_storage       = optional(number, 512)
      architecture            = optional(string, "arm64")
      reserved_concurrency    = optional(number, -1)
      provisioned_concurrency = optional(number, 0)
      log_retention           = optional(number, 14)
      batch_size              = optional(number, 100)
      window                  = optional(number, 5)
      maximum_concurrency     = optional(number, 10)
      pollers                 = optional(object({ minimum = number, maximum = number }))
    }), {})
    notify = optional(object({
      memory                  = optional(number, 128)
      timeout                 = optional(number, 30)
      ephemeral_storage       = optional(number, 512)
      architecture            = optional(string, "arm64")
      reserved_concurrency    = optional(number, -1)
      provisioned_concurrency = optional(number, 0)
      log_retention           = optional(number, 14)
      batch_size              = optional(number, 10)
      window                  = optional(number, 0)
      maximum_concurrency     = optional(number, 5)
      pollers                 = optional(object({ minimum = number, maximum = number }))
    }), {})
  })
  default = {}

  validation {
    condition     = alltrue([for f in values(var.functions) : contains(["arm64", "amd64"], f.architecture)])
    error_message = "functions.….architecture is arm64 or amd64, as the zips are named."
  }
  validation {
    condition     = alltrue([for f in values(var.functions) : f.memory >= 128 && f.memory <= 10240 && f.ephemeral_storage >= 512 && f.ephemeral_storage <= 10240])
    error_message = "functions.….memory is from 128 to 10240, and ephemeral_storage from 512 to 10240."
  }
  validation {
    condition     = alltrue([for f in values(var.functions) : f.timeout >= 3 && f.timeout <= 900])
    error_message = "functions.….timeout is from 3 to 900."
  }
  validation {
    condition     = alltrue([for f in values(var.functions) : contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], f.log_retention)])
    error_message = "functions.….log_retention is a number of days that CloudWatch knows: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, ….."
  }
  validation {
    condition     = alltrue([for f in values(var.functions) : f.reserved_concurrency < 0 || f.reserved_concurrency >= max(try(f.maximum_concurrency, 1), f.provisioned_concurrency, 1)])
    error_message = "functions.….reserved_concurrency is at least maximum_concurrency and provisioned_concurrency: else Lambda refuses messages that were received, which then come again."
  }
  validation {
    condition     = alltrue([for f in values(var.functions) : try(f.maximum_concurrency >= 2 && f.maximum_concurrency <= 1000, true)])
    error_message = "functions.….maximum_concurrency is from 2 to 1000."
  }
  validation {
    condition     = alltrue([for f in values(var.functions) : try(f.batch_size >= 1 && f.batch_size <= (f.window > 0 ? 10000 : 10) && f.window >= 0 && f.window <= 300, true)])
    error_message = "functions.….batch_size is from 1 to 10, with a window to 10000; window is from 0 to 300."
  }
  validation {
    condition     = var.functions.ingest.batch_size == 1
    error_message = "functions.ingest.batch_size is 1: Lambda drops messages in long chains, and which chain a batch of several continues is not documented."
  }
  validation {
    condition     = var.functions.worker.batch_size * 100 <= 2 * var.functions.worker.concurrency
    error_message = "functions.worker.batch_size × 100 items a chunk is at most 2 × concurrency: what an instance has in hand beyond that waits for a place."
  }
  validation {
    condition     = var.functions.worker.concurrency >= 1 && var.functions.worker.concurrency <= 400
    error_message = "functions.worker.concurrency is from 1 to 400: a function has 1,024 file descriptors."
  }
  validation {
    condition     = var.functions.worker.call_timeout >= 1 && var.functions.worker.timeout >= 1.1 * var.functions.worker.call_timeout + 7
    error_message = "functions.worker.timeout is at least 1.1 × call_timeout and 7 seconds; else it would put off every message."
  }
  validation {
    condition     = var.functions.notify.timeout >= 17
    error_message = "functions.notify.timeout is at least 17: a receiver may take 15 seconds."
  }
}

variable "api" {
  description = <<-EOT
    The front door. front_door: "http_api" (buffered; the function is in the VPC), "function_url" (streaming; it is outside, since a Function URL does not stream from a VPC), or "none".
    operator_key_sha256: of a key that may do everything, and so make the first keys. rate and burst: requests a second, and at once, of all callers of an HTTP API. jwt = { issuer, audience, header }: an
    authorizer in front of the keys, whose token comes in a header of its own. models: what /v1/models lists.
  EOT
  type = object({
    front_door          = optional(string, "http_api")
    operator_key_sha256 = optional(string)
    rate                = optional(number, 500)
    burst               = optional(number, 1000)
    jwt                 = optional(object({ issuer = string, audience = list(string), header = optional(string, "x-fanout-token") }))
    models              = optional(list(string), [])
  })
  default = {}

  validation {
    condition     = contains(["http_api", "function_url", "none"], var.api.front_door)
    error_message = "api.front_door is http_api, function_url or none."
  }
  validation {
    condition     = var.api.jwt == null || var.api.front_door == "http_api"
    error_message = "api.jwt goes with front_door = \"http_api\": a Function URL has no authorizer."
  }
  validation {
    condition     = try(lower(var.api.jwt.header), "") != "authorization"
    error_message = "api.jwt.header is another than authorization, in which the key comes."
  }
  validation {
    condition     = var.api.operator_key_sha256 == null || can(regex("^[0-9a-f]{64}$", var.api.operator_key_sha256))
    error_message = "api.operator_key_sha256 is 64 lower-case hex digits: printf %s \"$KEY\" | sha256sum."
  }
  validation {
    condition     = var.api.rate >= 1 && var.api.burst >= 1
    error_message = "api.rate and api.burst are at least 1."
  }
}

variable "webhooks" {
  description = "Whether the ends of jobs are told, by a function outside the VPC that reaches two queues and nothing else. allow: private networks that webhooks may lead to; plain: hosts that they may lead to without TLS."
  type = object({
    enabled = optional(bool, false)
    allow   = optional(list(string), [])
    plain   = optional(list(string), [])
  })
  default = {}

  validation {
    condition     = alltrue([for network in var.webhooks.allow : can(cidrhost(network, 0))])
    error_message = "webhooks.allow are networks such as 10.1.0.0/16."
  }
}

variable "upload_window" {
  description = "From an upload to the inbox to its job's deadline, as Go writes durations, such as 24h or 90m."
  type        = string
  default     = "24h"

  validation {
    condition     = can(regex("^([0-9]+h)?([0-9]+m)?([0-9]+s)?$", var.upload_window)) && var.upload_window != ""
    error_message = "upload_window is a duration such as 24h or 90m."
  }
}

variable "log_level" {
  description = "DEBUG, INFO, WARN or ERROR."
  type        = string
  default     = "INFO"

  validation {
    condition     = contains(["DEBUG", "INFO", "WARN", "ERROR"], var.log_level)
    error_message = "log_level is DEBUG, INFO, WARN or ERROR."
  }
}

variable "fair_queues" {
  description = "Whether a tenant's backlog is kept from holding up the others'. SQS takes a little more for it."
  type        = bool
  default     = true
}

variable "kms_key_arn" {
  description = "A key of yours that encrypts table, bucket, queues and logs, in place of those that AWS manages. Its policy must let S3, CloudWatch Logs and EventBridge Scheduler use it."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[a-z-]+:kms:", var.kms_key_arn))
    error_message = "kms_key_arn is the ARN of a key."
  }
}

variable "protect" {
  description = "Whether table and bucket refuse to be destroyed with what is in them. Apply false before you destroy."
  type        = bool
  default     = true
}

variable "alarms" {
  description = "topic_arn: who is told; null is nobody, but the alarms are there. work_age: seconds that work may wait before it counts as stuck."
  type = object({
    enabled   = optional(bool, true)
    topic_arn = optional(string)
    work_age  = optional(number, 86400)
  })
  default = {}

  validation {
    condition     = var.alarms.work_age >= 60
    error_message = "alarms.work_age is at least 60."
  }
}
