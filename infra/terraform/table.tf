resource "aws_dynamodb_table" "this" {
  name                        = var.name
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "pk"
  range_key                   = "sk"
  deletion_protection_enabled = var.protect

  dynamic "attribute" {
    for_each = ["pk", "sk", "tenant", "created", "open"]
    content {
      name = attribute.value
      type = "S"
    }
  }

  # Only keys are projected: a save that leaves these alone writes, and costs, nothing in the index.
  global_secondary_index {
    name            = "tenant"
    hash_key        = "tenant"
    range_key       = "created"
    projection_type = "KEYS_ONLY"
  }

  global_secondary_index {
    name            = "open"
    hash_key        = "open"
    range_key       = "pk"
    projection_type = "KEYS_ONLY"
  }

  ttl {
    attribute_name = "expires"
    enabled        = true
  }

  point_in_time_recovery {
    enabled = true
  }

  server_side_encryption {
    enabled     = true
    kms_key_arn = var.kms_key_arn
  }
}
