// Package main is a function that does as the first message of its batch says.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
)

type function struct{}

func main() {
	if how := os.Getenv("INIT"); how != "" {
		fmt.Println("init:", how)
		os.Exit(1)
	}
	lambda.StartHandler(function{})
}

// Invoke returns bytes as they are, so that a response can be anything.
func (function) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	var e events.SQSEvent
	if err := json.Unmarshal(payload, &e); err != nil || len(e.Records) == 0 {
		return nil, fmt.Errorf("no batch: %s", payload)
	}
	fmt.Println("told to", e.Records[0].Body)
	verb, what, _ := strings.Cut(e.Records[0].Body, " ")
	switch verb {
	case "respond": // $1 stands for the id of the second message
		return []byte(strings.ReplaceAll(what, "$1", e.Records[len(e.Records)-1].MessageId)), nil
	case "fail":
		return nil, errors.New("as told")
	case "panic":
		panic("as told")
	case "exit":
		os.Exit(3)
	case "hang":
		select {}
	case "get": // and respond when that has answered
		r, err := http.Get(what)
		if err != nil {
			return nil, err
		}
		defer r.Body.Close()
		_, err = io.Copy(io.Discard, r.Body)
		return nil, err
	case "env":
		return json.Marshal(map[string]any{"env": os.Environ(), "pid": os.Getpid()})
	}
	return nil, nil
}
