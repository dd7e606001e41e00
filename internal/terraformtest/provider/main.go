// Command provider stands for Terraform's AWS provider where that cannot be downloaded. It knows the names and types of the
// resources that the module uses and nothing of AWS: plans are made of it, and applied to nothing.
package main

import (
	"log"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tfprotov6/tf6server"

	"github.com/fanout-inference/fanout/internal/terraformtest"
)

func main() {
	p, err := terraformtest.NewProvider()
	if err != nil {
		log.Fatal(err)
	}
	if err := tf6server.Serve("registry.terraform.io/hashicorp/aws", func() tfprotov6.ProviderServer { return p }); err != nil {
		log.Fatal(err)
	}
}
