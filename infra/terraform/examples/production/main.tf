# In a VPC of its own, with a model of Bedrock, webhooks, a key of yours, an authorizer in front of the API, and alarms.

terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.29, < 7"
    }
  }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = { service = "fanout" }
  }
}

variable "region" {
  description = "Where; the models are there too."
  type        = string
  default     = "us-west-2"
}

variable "packages" {
  description = "Directory with the zips that scripts/build makes."
  type        = string
  default     = "../../../../dist"
}

variable "operator_key_sha256" {
  description = "SHA-256 of the first key."
  type        = string
}

variable "models" {
  description = "ARNs of the models, or inference profiles, of Bedrock."
  type        = list(string)
  default     = ["arn:aws:bedrock:us-west-2::foundation-model/openai.gpt-oss-20b-1:0"]
}

variable "kms_key_arn" {
  description = "A key of yours."
  type        = string
}

variable "alarm_topic_arn" {
  description = "Who is told."
  type        = string
}

variable "jwt" {
  description = "Who issues the tokens that come before the keys."
  type        = object({ issuer = string, audience = list(string) })
}

variable "protect" {
  description = "Whether table and bucket refuse to be destroyed with what is in them."
  type        = bool
  default     = true
}

module "fanout" {
  source = "../.."

  name        = "fanout-production"
  packages    = var.packages
  protect     = var.protect
  kms_key_arn = var.kms_key_arn
  upstream    = { bedrock_models = var.models }
  webhooks    = { enabled = true }
  alarms      = { topic_arn = var.alarm_topic_arn }

  api = {
    operator_key_sha256 = var.operator_key_sha256
    jwt                 = var.jwt
    models              = [for arn in var.models : element(split("/", arn), 1)]
  }

  functions = {
    worker = { maximum_concurrency = 20, concurrency = 50, batch_size = 1 } # together what the models can bear
  }
}

output "api_url" {
  description = "For official clients and FANOUT_API."
  value       = module.fanout.api_url
}

output "bucket" {
  description = "What is put below inbox/<tenant>/ becomes a job."
  value       = module.fanout.bucket
}

output "dashboard" {
  description = "Where to look first."
  value       = module.fanout.dashboard
}
