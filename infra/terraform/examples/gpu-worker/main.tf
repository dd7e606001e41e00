# The worker beside a model: an ECS service on machines with a GPU takes work from the same queue, and the Lambda worker is
# switched off. In a VPC that is there, from which images can be pulled.

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
  description = "SHA-256 of the first key."
  type        = string
}

variable "vpc_id" {
  description = "The VPC."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets in it."
  type        = list(string)
}

variable "route_table_ids" {
  description = "Their route tables, for the gateway endpoints."
  type        = list(string)
}

variable "worker_image" {
  description = "An image whose entry point is the fanout binary."
  type        = string
}

variable "model_image" {
  description = "An image that serves OpenAI's API at port 8000, such as vLLM's."
  type        = string
}

variable "model_command" {
  description = "Its arguments."
  type        = list(string)
  default     = ["--model", "openai/gpt-oss-20b"]
}

variable "instance_type" {
  description = "With a GPU."
  type        = string
  default     = "g6.2xlarge"
}

variable "instances" {
  description = "How many, each with one worker and one model."
  type        = number
  default     = 1
}

variable "protect" {
  description = "Whether table and bucket refuse to be destroyed with what is in them."
  type        = bool
  default     = true
}

module "fanout" {
  source = "../.."

  packages  = var.packages
  protect   = var.protect
  network   = { vpc_id = var.vpc_id, subnet_ids = var.subnet_ids, route_table_ids = var.route_table_ids, open_endpoints = true } # layers of images are in S3
  api       = { operator_key_sha256 = var.operator_key_sha256 }
  functions = { worker = { enabled = false } }
}

locals {
  name = "fanout-gpu-worker"
}

# Its worker calls the model on its own machine, so it is told another upstream than the module would say.
resource "aws_ecs_task_definition" "worker" {
  family                   = local.name
  requires_compatibilities = ["EC2"]
  network_mode             = "host"
  task_role_arn            = aws_iam_role.task.arn
  execution_role_arn       = aws_iam_role.execution.arn

  container_definitions = jsonencode([
    {
      name                 = "model"
      image                = var.model_image
      command              = var.model_command
      essential            = true
      memoryReservation    = 8192
      resourceRequirements = [{ type = "GPU", value = "1" }]
      healthCheck = {
        command     = ["CMD-SHELL", "curl -fsS http://127.0.0.1:8000/health || exit 1"]
        startPeriod = 300
        interval    = 30
      }
      logConfiguration = { logDriver = "awslogs", options = { "awslogs-group" = aws_cloudwatch_log_group.worker.name, "awslogs-region" = var.region, "awslogs-stream-prefix" = "model" } }
    },
    {
      name              = "worker"
      image             = var.worker_image
      command           = ["worker", "--grace", "100s"]
      essential         = true
      memoryReservation = 512
      stopTimeout       = 120
      dependsOn         = [{ containerName = "model", condition = "HEALTHY" }]
      environment = [for name, value in merge(module.fanout.worker_environment, {
        AWS_REGION         = var.region
        FANOUT_UPSTREAM    = "http://127.0.0.1:8000/v1"
        FANOUT_CONCURRENCY = "256"
      }) : { name = name, value = value }]
      logConfiguration = { logDriver = "awslogs", options = { "awslogs-group" = aws_cloudwatch_log_group.worker.name, "awslogs-region" = var.region, "awslogs-stream-prefix" = "worker" } }
    },
  ])
}

resource "aws_cloudwatch_log_group" "worker" {
  name              = "/ecs/${local.name}"
  retention_in_days = 14
}

resource "aws_ecs_cluster" "this" {
  name = local.name
}

resource "aws_ecs_capacity_provider" "gpu" {
  name = local.name

  auto_scaling_group_provider {
    auto_scaling_group_arn = aws_autoscaling_group.gpu.arn
  }
}

resource "aws_ecs_cluster_capacity_providers" "this" {
  cluster_name       = aws_ecs_cluster.this.name
  capacity_providers = [aws_ecs_capacity_provider.gpu.name]
}

resource "aws_ecs_service" "worker" {
  name            = local.name
  cluster         = aws_ecs_cluster.this.id
  task_definition = aws_ecs_task_definition.worker.arn
  desired_count   = var.instances

  capacity_provider_strategy {
    capacity_provider = aws_ecs_capacity_provider.gpu.name
    weight            = 1
  }

  depends_on = [aws_ecs_cluster_capacity_providers.this]
}

data "aws_ssm_parameter" "ami" {
  name = "/aws/service/ecs/optimized-ami/amazon-linux-2023/gpu/recommended/image_id"
}

resource "aws_launch_template" "gpu" {
  name_prefix            = "${local.name}-"
  image_id               = data.aws_ssm_parameter.ami.insecure_value
  instance_type          = var.instance_type
  vpc_security_group_ids = [module.fanout.security_group_id, aws_security_group.pull.id]
  user_data = base64encode(<<-EOT
    #!/bin/sh
    echo ECS_CLUSTER=${aws_ecs_cluster.this.name} >> /etc/ecs/ecs.config
    echo ECS_ENABLE_GPU_SUPPORT=true >> /etc/ecs/ecs.config
  EOT
  )

  iam_instance_profile {
    arn = aws_iam_instance_profile.instance.arn
  }

  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1 # of the machine alone: a task has a role of its own
  }
}

resource "aws_autoscaling_group" "gpu" {
  name                = local.name
  min_size            = var.instances
  max_size            = var.instances
  vpc_zone_identifier = var.subnet_ids

  launch_template {
    id      = aws_launch_template.gpu.id
    version = aws_launch_template.gpu.latest_version
  }

  tag {
    key                 = "AmazonECSManaged"
    value               = "true"
    propagate_at_launch = true
  }
}

# Images, ECS and logs are reached as this VPC reaches them: by endpoints of its own inside it.
resource "aws_security_group" "pull" {
  name        = "${local.name}-pull"
  description = "To the endpoints of the VPC"
  vpc_id      = var.vpc_id
}

data "aws_vpc" "this" {
  id = var.vpc_id
}

resource "aws_vpc_security_group_egress_rule" "pull" {
  security_group_id = aws_security_group.pull.id
  cidr_ipv4         = data.aws_vpc.this.cidr_block
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_iam_role" "task" {
  name               = "${local.name}-task"
  assume_role_policy = jsonencode({ Version = "2012-10-17", Statement = [{ Effect = "Allow", Principal = { Service = "ecs-tasks.amazonaws.com" }, Action = "sts:AssumeRole" }] })
}

resource "aws_iam_role_policy_attachment" "task" {
  role       = aws_iam_role.task.name
  policy_arn = module.fanout.worker_policy_arn
}

resource "aws_iam_role" "execution" {
  name               = "${local.name}-execution"
  assume_role_policy = jsonencode({ Version = "2012-10-17", Statement = [{ Effect = "Allow", Principal = { Service = "ecs-tasks.amazonaws.com" }, Action = "sts:AssumeRole" }] })
}

resource "aws_iam_role_policy_attachment" "execution" {
  role       = aws_iam_role.execution.name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy"
}

resource "aws_iam_role" "instance" {
  name               = "${local.name}-instance"
  assume_role_policy = jsonencode({ Version = "2012-10-17", Statement = [{ Effect = "Allow", Principal = { Service = "ec2.amazonaws.com" }, Action = "sts:AssumeRole" }] })
}

resource "aws_iam_role_policy_attachment" "instance" {
  role       = aws_iam_role.instance.name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AmazonEC2ContainerServiceforEC2Role"
}

resource "aws_iam_instance_profile" "instance" {
  name = "${local.name}-instance"
  role = aws_iam_role.instance.name
}

output "api_url" {
  description = "For official clients and FANOUT_API."
  value       = module.fanout.api_url
}
