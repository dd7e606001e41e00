// Command install installs the servers that the tests of the AWS driver run against, before several of them do so at once.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/fanout-inference/fanout/internal/awstest"
)

func main() {
	if err := awstest.Install(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
