variable "name" {
  description = "Of the function, its role and its log."
  type        = string
}

variable "package" {
  description = "Its zip."
  type        = string
}

variable "settings" {
  description = "As in the module's functions."
  type = object({
    memory                  = number
    timeout                 = number
    ephemeral_storage       = number
    architecture            = string
    reserved_concurrency    = number
    provisioned_concurrency = number
    log_retention           = number
    batch_size              = optional(number)
    window                  = optional(number)
    maximum_concurrency     = optional(number)
    pollers                 = optional(object({ minimum = number, maximum = number }))
  })
}

variable "environment" {
  description = "What it is told."
  type        = map(string)
}

variable "statements" {
  description = "What its role may do, beside writing its log and being in a VPC."
  type        = any
}

variable "vpc" {
  description = "Where it is; null = in no VPC."
  type        = object({ subnet_ids = list(string), security_group_ids = list(string) })
}

variable "source_queue" {
  description = "The queue that it is pumped from; null = it is called in another way."
  type        = object({ arn = string })
  default     = null
}

variable "kms_key_arn" {
  description = "Encrypts its log and its environment; null = AWS manages the keys."
  type        = string
}
