// Command upstream answers every request with the same answer, as fast as it can. It prints its base URL as its first
// line, and ends when its stdin does, so that it never outlives who started it.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/fanout-inference/fanout/pkg/upstream/upstreamtest"
)

func main() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatalf("listen: %v", err)
	}
	fmt.Printf("http://%s\n", l.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	s := http.Server{Handler: upstreamtest.Constant(), ReadHeaderTimeout: 10 * time.Second}
	log.Fatalf("serve: %v", s.Serve(l))
}
