// Command fanout turns a file of inference requests into one file of answers.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/fanout-inference/fanout/internal/cli"
)

func main() {
	ctx, restore := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks for an orderly end; the second finds its default meaning restored and kills at once.
	context.AfterFunc(ctx, restore)
	os.Exit(cli.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
