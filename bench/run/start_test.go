package main

import (
	"net/http"
	"os"
	"strings"
	"testing"
)

// startEnv says how this binary is to behave as a function.
const startEnv = "AWS_LAMBDA_FUNCTION_NAME"

// TestMain is a function if it was started as one.
func TestMain(m *testing.M) {
	if os.Getenv(startEnv) != "" {
		behave()
		return
	}
	os.Exit(m.Run())
}

// behave does what its name says: the test links to this binary by that name.
func behave() {
	api := "http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API")
	ask := func(url string) {
		if resp, err := http.Get(url); err == nil {
			_ = resp.Body.Close()
		}
	}
	switch {
	case strings.HasSuffix(os.Args[0], "ends"):
		return
	case strings.HasSuffix(os.Args[0], "calls AWS"):
		ask(os.Getenv("AWS_ENDPOINT_URL") + "/table")
	case strings.HasSuffix(os.Args[0], "calls a stranger"):
		ask("http://stranger.invalid/model")
	}
	ask(api + nextPath)
}

func TestAStartAsksForNothingButWork(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"asks":             "",
		"ends":             "it ended before it asked for work: exit status 0",
		"calls AWS":        "it asked for more than work: GET /table",
		"calls a stranger": "it asked for more than work: GET http://stranger.invalid/model",
	} {
		t.Run(name, func(t *testing.T) {
			binary := t.TempDir() + "/" + name
			if err := os.Symlink(self, binary); err != nil {
				t.Fatal(err)
			}
			took, err := startOnce(t.Context(), binary)
			if want == "" && (err != nil || took <= 0) {
				t.Errorf("%v, %v", took, err)
			}
			if want != "" && (err == nil || !strings.HasPrefix(err.Error(), want)) {
				t.Errorf("%v, want %q", err, want)
			}
		})
	}
}
