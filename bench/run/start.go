package main

import (
	"archive/zip"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

// lambdaFunctions are those whose start is measured, by the names of their zips.
var lambdaFunctions = []string{"ingest", "worker", "aggregate", "api"}

const (
	bare      = "bare"
	starts    = 20 // of each binary
	startTime = 20 * time.Second
	nextPath  = "/2018-06-01/runtime/invocation/next"
)

// coldStarts starts the functions, as scripts/build makes them, and the bare function by turns, and looks at their sizes.
func coldStarts(ctx context.Context, dir string) (figures []figure, err error) {
	if runtime.GOOS != "linux" {
		log.Printf("the start of functions is not measured: they are binaries for Linux")
		return nil, nil
	}
	if err := buildFunctions(ctx, dir); err != nil {
		return nil, err
	}
	names := append([]string{bare}, lambdaFunctions...)
	took := map[string]*figure{}
	for _, name := range names {
		took[name] = &figure{Unit: " ms"}
	}
	for round := range starts + 1 {
		for i := range names {
			name := names[(i+round)%len(names)] // none is always the first
			d, err := startOnce(ctx, filepath.Join(dir, name))
			if err != nil {
				return nil, fmt.Errorf("start the function %s: %w", name, err)
			}
			if round > 0 { // at first its file may have to be read from the disk
				took[name].Samples = append(took[name].Samples, d.Seconds()*1e3)
			}
		}
	}
	for _, name := range names {
		log.Printf("%d starts of %s: %s", starts, name, took[name].spread())
	}
	for _, name := range lambdaFunctions {
		f := figure{Name: "start of " + name + ", over a bare function", Unit: "×", Budget: 2.5}
		for round, ms := range took[name].Samples {
			f.Samples = append(f.Samples, ms/took[bare].Samples[round])
		}
		figures = append(figures, f)
	}
	for _, name := range lambdaFunctions {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		figures = append(figures, figure{Name: "size of " + name, Unit: " MB", Budget: 15, Samples: []float64{float64(info.Size()) / 1e6}})
	}
	return figures, nil
}

// buildFunctions builds the functions and the bare one into dir.
func buildFunctions(ctx context.Context, dir string) error {
	zips := filepath.Join(dir, "zips")
	cmd := exec.CommandContext(ctx, "go", "run", "./internal/dist", "-o", zips, "-arch", runtime.GOARCH)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the functions: %w\n%s", err, out)
	}
	for _, name := range lambdaFunctions {
		if err := unpack(filepath.Join(zips, name+"-"+runtime.GOARCH+".zip"), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	// The flags are those of internal/dist: half the size of a binary hangs on them.
	cmd = exec.CommandContext(ctx, "go", "build", "-tags", "lambda.norpc", "-trimpath", "-ldflags", "-s -w",
		"-o", filepath.Join(dir, bare), "./bench/barefunction")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOAMD64=", "GOARM64=", "GOEXPERIMENT=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the bare function: %w\n%s", err, out)
	}
	return nil
}

// unpack writes the binary that is in a zip.
func unpack(path, binary string) (err error) {
	z, err := zip.OpenReader(path)
	if err != nil {
		return fmt.Errorf("unpack %s: %w", path, err)
	}
	defer z.Close()
	in, err := z.Open("bootstrap")
	if err != nil {
		return fmt.Errorf("unpack %s: %w", path, err)
	}
	defer in.Close()
	out, err := os.OpenFile(binary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return cmp.Or(err, out.Close())
}

// startOnce measures from the start of a process to its first request for work, and kills it. Whatever else it asks for is
// an error: a function that asks for something before it has work is slow wherever that is far away, and fails where it is
// not.
func startOnce(ctx context.Context, binary string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	api := &startAPI{first: make(chan time.Time, 1)}
	server := &http.Server{Handler: api}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) }) // until it is closed, below
	defer serving.Wait()
	defer server.Close()

	cmd := exec.Command(binary)
	cmd.Env = startEnviron(l.Addr().String())
	var talk bytes.Buffer
	cmd.Stdout, cmd.Stderr = &talk, &talk
	started := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan struct{})
	go func() { // joined by ended, which every way out waits for
		defer close(ended)
		err = cmd.Wait()
	}()
	select {
	case at := <-api.first:
		_ = cmd.Process.Kill() // what it wanted is known
		<-ended
		return at.Sub(started), api.strange()
	case <-ended:
		return 0, fmt.Errorf("it ended before it asked for work: %w\n%s", cmp.Or(err, errors.New("exit status 0")), talk.Bytes())
	case <-ctx.Done():
		_ = cmd.Process.Kill() // it is too late
		<-ended
		return 0, fmt.Errorf("it did not ask for work: %w\n%s", errors.Join(ctx.Err(), api.strange()), talk.Bytes())
	}
}

// startEnviron is what Lambda and a deployment set. Whatever the functions could ask for leads to the one server that
// notices: every service of AWS, the instance's metadata, the upstream, and by the proxy any other host.
func startEnviron(server string) []string {
	url := "http://" + server
	env := []string{
		"AWS_LAMBDA_RUNTIME_API=" + server, "AWS_LAMBDA_FUNCTION_NAME=start", "AWS_LAMBDA_FUNCTION_VERSION=$LATEST",
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE=512", "AWS_LAMBDA_INITIALIZATION_TYPE=on-demand",
		"AWS_EXECUTION_ENV=AWS_Lambda_provided.al2023", "_HANDLER=bootstrap", "LANG=en_US.UTF-8", "TZ=:UTC",
		"AWS_REGION=us-east-1", "AWS_DEFAULT_REGION=us-east-1", "AWS_ACCESS_KEY_ID=none", "AWS_SECRET_ACCESS_KEY=none",
		"AWS_ENDPOINT_URL=" + url, "AWS_EC2_METADATA_SERVICE_ENDPOINT=" + url, "HTTP_PROXY=" + url, "HTTPS_PROXY=" + url,
		"FANOUT_TABLE=table", "FANOUT_BUCKET=bucket", "FANOUT_UPSTREAM=" + url,
	}
	for _, queue := range []string{"INGEST", "WORK", "AGGREGATE"} {
		name := "/000000000000/" + strings.ToLower(queue)
		env = append(env, "FANOUT_"+queue+"_QUEUE="+url+name, "FANOUT_"+queue+"_DEAD_LETTERS="+url+name+"-dead")
	}
	return env
}

// startAPI is a Runtime API that never has work, and notes what else it is asked.
type startAPI struct {
	first chan time.Time // takes one: when it was first asked for work

	mu    sync.Mutex
	other []string
}

func (a *startAPI) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	now := time.Now()
	if r.Method != http.MethodGet || r.URL.Path != nextPath {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.other = append(a.other, r.Method+" "+r.RequestURI)
		return
	}
	select {
	case a.first <- now:
	default: // it asks with several requests at once
	}
	<-r.Context().Done() // it is killed
}

// strange is an error that names what it was asked besides work.
func (a *startAPI) strange() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.other) == 0 {
		return nil
	}
	return fmt.Errorf("it asked for more than work: %s", strings.Join(a.other, ", "))
}
