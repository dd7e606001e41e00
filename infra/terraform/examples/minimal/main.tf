# The least there is: no VPC, the built-in models, nothing to pay while nothing runs.

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
}

variable "region" {
  description = "Where."
  type        = string
  default     = "eu-central-1"
}

variable "packages" {
  description = "Directory with the zips that scripts/build makes."
  type        = string
  default     = "../../../../dist"
}

variable "operator_key_sha256" {
  description = "SHA-256 of the first key: printf %s \"$KEY\" | sha256sum."
  type        = string
}

variable "protect" {
  description = "Whether table and bucket refuse to be destroyed with what is in them."
  type        = bool
  default     = true
}

module "fanout" {
  source = "../.."

  packages = var.packages
  network  = "none"
  protect  = var.protect
  api      = { operator_key_sha256 = var.operator_key_sha256 }
}

output "api_url" {
  description = "For official clients and FANOUT_API."
  value       = module.fanout.api_url
}

output "bucket" {
  description = "What is put below inbox/<tenant>/ becomes a job."
  value       = module.fanout.bucket
}
