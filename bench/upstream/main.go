// Command upstream answers every request with the same answer, as fast as it can, or after a delay. It prints its base URL as its first
// line, and ends when its stdin does, so that it never outlives who started it.
package main

import (
	"flag"
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
	delay := flag.Duration("delay", 0, "how long each answer takes")
	flag.Parse()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatalf("listen: %v", err)
	}
	fmt.Printf("http://%s\n", l.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	answer := upstreamtest.Constant()
	slowly := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(*delay) // it is to be slow, not to wait for something
		answer.ServeHTTP(w, r)
	})
	s := http.Server{Handler: slowly, ReadHeaderTimeout: 10 * time.Second}
	log.Fatalf("serve: %v", s.Serve(l))
}
