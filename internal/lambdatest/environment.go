package lambdatest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// initTimeout is how long a process may take from its start to its first request for work.
const initTimeout = 10 * time.Second

// environment is one process of a function, and its Runtime API.
type environment struct {
	of      *Function
	nth     int // of the function's, from 1
	cmd     *exec.Cmd
	server  *http.Server
	started time.Time
	asked   atomic.Bool
	first   chan *poll    // the first request for work
	ended   chan struct{} // closed when the process has ended and its invocations are answered

	mu      sync.Mutex
	dead    *FunctionError // how it ended
	initErr *FunctionError // as it told itself
	handed  map[string]*invocation
}

// poll is a process's request for work.
type poll struct {
	of   *environment
	work chan *invocation
	gone chan struct{} // closed when it has work, or has gone
}

// start starts another process. f.mu is held.
func (f *Function) start() (*environment, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f.started++
	e := &environment{
		of: f, nth: f.started, cmd: exec.Command(f.Bootstrap, f.Args...), first: make(chan *poll, 1), ended: make(chan struct{}),
		handed: map[string]*invocation{}, started: time.Now(),
	}
	e.server = &http.Server{Handler: e.routes()}
	e.cmd.Dir = filepath.Dir(f.Bootstrap)
	e.cmd.Env = f.environ(l.Addr().String(), f.started)
	e.cmd.Stdout, e.cmd.Stderr = f.log, f.log
	f.group.join(e.cmd)
	if err := e.cmd.Start(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	f.environments[e] = true
	var serving sync.WaitGroup
	serving.Go(func() { _ = e.server.Serve(l) }) // until it is closed, below
	go func() {                                  // ends with the process; who kills it waits for ended
		defer close(e.ended)
		err := e.cmd.Wait()
		e.end(err)
		_ = e.server.Close() // nobody is there any more
		serving.Wait()
		f.forget(e)
	}()
	return e, nil
}

// environ is what Lambda sets. Env has the last word.
func (f *Function) environ(api string, nth int) []string {
	env := []string{
		"AWS_LAMBDA_RUNTIME_API=" + api,
		"AWS_LAMBDA_FUNCTION_NAME=" + f.Name,
		"AWS_LAMBDA_FUNCTION_VERSION=$LATEST",
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE=512",
		"AWS_LAMBDA_INITIALIZATION_TYPE=on-demand",
		"AWS_LAMBDA_LOG_GROUP_NAME=/aws/lambda/" + f.Name,
		fmt.Sprintf("AWS_LAMBDA_LOG_STREAM_NAME=%s[$LATEST]%032x", time.Now().UTC().Format("2006/01/02/"), nth),
		"AWS_EXECUTION_ENV=AWS_Lambda_provided.al2023",
		"LAMBDA_TASK_ROOT=" + filepath.Dir(f.Bootstrap),
		"_HANDLER=bootstrap",
		"AWS_REGION=" + region,
		"AWS_DEFAULT_REGION=" + region,
		"AWS_ACCESS_KEY_ID=test",
		"AWS_SECRET_ACCESS_KEY=test",
		"PATH=/usr/local/bin:/usr/bin:/bin",
		"LANG=en_US.UTF-8",
		"TZ=:UTC",
	}
	if f.Width > 1 {
		env = append(env, "AWS_LAMBDA_MAX_CONCURRENCY="+strconv.Itoa(f.Width))
	}
	for name, value := range f.Env {
		env = append(env, name+"="+value)
	}
	if f.EnvOf != nil {
		for name, value := range f.EnvOf(nth) {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// untilReady waits for the process's first request for work, and tells how long that took.
func (e *environment) untilReady() (*poll, time.Duration, error) {
	late := time.NewTimer(initTimeout)
	defer late.Stop()
	select {
	case p := <-e.first:
		return p, time.Since(e.started), nil
	case <-e.ended:
		return nil, time.Since(e.started), e.why()
	case <-late.C:
		e.kill()
		return nil, time.Since(e.started), &FunctionError{ErrorTimedOut, fmt.Sprintf("Init timed out after %.2f seconds", initTimeout.Seconds())}
	}
}

// why is the error of an invocation whose process has ended.
func (e *environment) why() *FunctionError {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.initErr != nil {
		return e.initErr
	}
	return e.dead
}

// kill ends the process and returns when it is gone.
func (e *environment) kill() {
	_ = e.cmd.Process.Kill() // it may be gone
	<-e.ended
}

// end answers what the process took with it.
func (e *environment) end(err error) {
	how := "exit status 0"
	if err != nil {
		how = err.Error()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.dead = &FunctionError{ErrorExit, "Runtime exited: " + how}
	for _, i := range e.handed {
		e.settle(i, Result{Err: e.dead})
	}
}

// settle answers an invocation that the process no longer has. e.mu is held.
func (e *environment) settle(i *invocation, r Result) {
	i.expiry.Stop()
	delete(e.handed, i.id)
	i.answer(r)
}

// begin notes that the process has the invocation, from when on its time runs.
func (e *environment) begin(i *invocation) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i.deadline = time.Now().Add(e.of.Timeout)
	i.expiry = time.AfterFunc(e.of.Timeout, func() { e.expire(i) })
	if e.dead != nil {
		e.settle(i, Result{Err: e.dead})
		return
	}
	e.handed[i.id] = i
}

// expire kills a process that has not answered in time, or has and did not ask for more. The answer comes when it is gone.
func (e *environment) expire(i *invocation) {
	late := i.claim()
	e.mu.Lock()
	busy := e.handed[i.id] == i
	e.mu.Unlock()
	if !busy && !late { // it asked for more in the last moment
		return
	}
	e.kill()
	if late {
		i.result <- Result{Err: &FunctionError{ErrorTimedOut, fmt.Sprintf("Task timed out after %.2f seconds", e.of.Timeout.Seconds())}}
	}
}

func (e *environment) routes() http.Handler {
	const runtime = "/2018-06-01/runtime/"
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+runtime+"invocation/next", e.serveNext)
	mux.HandleFunc("POST "+runtime+"invocation/{id}/response", e.serveAnswer(func(body []byte) Result { return Result{Payload: body} }))
	mux.HandleFunc("POST "+runtime+"invocation/{id}/error", e.serveAnswer(func(body []byte) Result { return Result{Err: told(body)} }))
	mux.HandleFunc("POST "+runtime+"init/error", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // it has ended
		}
		e.mu.Lock()
		e.initErr = told(body)
		e.mu.Unlock()
		w.WriteHeader(http.StatusAccepted)
	})
	return mux
}

// told is the error that a runtime tells.
func told(body []byte) *FunctionError {
	var f FunctionError
	if err := json.Unmarshal(body, &f); err != nil || f.Type == "" {
		return &FunctionError{"Runtime.Unknown", string(body)}
	}
	return &f
}

func (e *environment) serveNext(w http.ResponseWriter, r *http.Request) {
	if e.of.Width == 1 {
		e.finishAll()
	}
	p := &poll{of: e, work: make(chan *invocation), gone: make(chan struct{})}
	defer close(p.gone)
	e.of.offer(p)
	var i *invocation
	select {
	case i = <-p.work:
	case <-r.Context().Done():
		e.of.withdraw(p)
		return
	}
	thaw(e.cmd.Process)
	e.begin(i)
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Lambda-Runtime-Aws-Request-Id", i.id)
	h.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(i.deadline.UnixMilli(), 10))
	h.Set("Lambda-Runtime-Invoked-Function-Arn", e.of.ARN)
	h.Set("Lambda-Runtime-Trace-Id", fmt.Sprintf("Root=1-%08x-%s;Parent=%s;Sampled=0", time.Now().Unix(), newID(24), newID(16)))
	_, _ = w.Write(i.payload) // a process that is gone is noticed by who waits for it
}

// finishAll: who asks for work has done with what it had.
func (e *environment) finishAll() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, i := range e.handed {
		e.settle(i, Result{Err: &FunctionError{ErrorState, "asked for the next invocation before it had answered this one"}})
	}
}

// serveAnswer takes a response or an error. A second answer, or one to what the process was not handed, is refused.
func (e *environment) serveAnswer(read func(body []byte) Result) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		i := e.handed[r.PathValue("id")]
		e.mu.Unlock()
		var body []byte
		var err error
		if i != nil && i.stream != nil && r.Header.Get("Content-Type") == "application/vnd.awslambda.http-integration-response" {
			_, err = io.Copy(i.stream, r.Body)
		} else {
			body, err = io.ReadAll(r.Body)
		}
		if err != nil {
			return // it has ended, or nobody takes what it streams
		}
		e.mu.Lock()
		i = e.handed[r.PathValue("id")]
		if i != nil && e.of.Width > 1 { // a process of width 1 has it until it asks for the next
			i.expiry.Stop()
			delete(e.handed, i.id)
		}
		e.mu.Unlock()
		if i == nil || i.claimed.Load() {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"errorType":"InvalidRequestID","errorMessage":"Invalid request ID"}`)
			return
		}
		result := read(body)
		if kind := r.Trailer.Get("Lambda-Runtime-Function-Error-Type"); kind != "" { // after the answer had begun
			result = Result{Err: &FunctionError{Type: kind, Message: "the stream was broken off"}}
		}
		i.answer(result)
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, `{"status":"OK"}`)
	}
}
