# The AMI that prod points at. A refusal fails the plan, with the reason.
terraform {
  required_providers {
    external = {
      source = "hashicorp/external"
    }
  }
}

data "external" "image" {
  program = ["factory", "-C", "../factory", "resolve", "--frozen", "--terraform"]

  query = {
    name    = "web"
    channel = "prod"
    at      = "aws/eu-west-1"
    policy  = "policy.toml"
    seen    = "seen.json"
  }
}

output "ami" {
  value = data.external.image.result.reference
}

output "digest" {
  value = data.external.image.result.digest
}
