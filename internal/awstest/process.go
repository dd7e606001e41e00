package awstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// tether runs a command that does not outlive the test process, however that ends. The test process holds the other end of
// stdin and writes nothing; when it is gone, cat reads the end, and the command ($$ keeps its number through exec) is killed
// and its data removed, twice because the dying command may still have made a file. A signal to the whole process group does not
// stop that. Descriptor 3 is the command's alone.
const tether = `exec 4<&0 </dev/null
{ trap '' HUP INT TERM; cat <&4; kill -9 $$; [ -z "$AWSTEST_DATA" ] || rm -rf "$AWSTEST_DATA" || rm -rf "$AWSTEST_DATA"; } 3<&- >/dev/null 2>&1 &
exec "$@" 4<&-`

// process is a command that runs until this test process ends.
type process struct {
	cmd   *exec.Cmd
	out   *tail
	ended chan struct{} // closed when the process has ended
	err   error         // how; to be read after ended
}

// run starts a command. data, if set, is a directory that is removed when the command is killed or this process ends.
func run(cmd command) (*process, error) {
	p := &process{cmd: exec.Command("/bin/sh", append([]string{"-c", tether, "tether"}, cmd.args...)...), out: &tail{}}
	p.cmd.Dir, p.cmd.Env = cmd.dir, append(cmd.env, "AWSTEST_DATA="+cmd.data)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	if cmd.socket != nil {
		p.cmd.ExtraFiles = []*os.File{cmd.socket}
	}
	if _, err := p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.ended = make(chan struct{})
	go func() { // ends with the process
		defer close(p.ended)
		p.err = p.cmd.Wait()
	}()
	return p, nil
}

// command is what to run, and where.
type command struct {
	args   []string
	dir    string
	env    []string
	socket *os.File // becomes descriptor 3
	data   string   // a directory that goes when the process does
}

// finish waits until the process has ended by itself, and kills it when ctx is done.
func (p *process) finish(ctx context.Context) error {
	select {
	case <-p.ended:
		if p.err == nil {
			return nil
		}
		return p.lastWords(p.err)
	case <-ctx.Done():
		return p.kill(ctx.Err())
	}
}

// untilReady probes until the probe is answered. A process that has ended, or does not answer until ctx is done, is an error
// that has its last words.
func (p *process) untilReady(ctx context.Context, probe func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { // ends with the process or with ctx
		select {
		case <-p.ended:
			cancel(errEnded)
		case <-ctx.Done():
		}
	}()
	for {
		err := probe(ctx)
		if err == nil && context.Cause(ctx) == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return p.kill(errors.Join(context.Cause(ctx), err))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

var errEnded = errors.New("the process has ended")

// kill ends the process and says why, with its last words.
func (p *process) kill(why error) error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return errors.Join(why, err)
	}
	<-p.ended
	return p.lastWords(why)
}

func (p *process) lastWords(why error) error {
	if out := p.out.String(); out != "" {
		return fmt.Errorf("%w; its last output:\n%s", why, out)
	}
	return fmt.Errorf("%w; it has said nothing", why)
}

// tail keeps the last lines that were written to it. Safe for concurrent use.
type tail struct {
	mu   sync.Mutex
	kept []byte
}

const tailBytes, tailLines = 8 << 10, 30

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - tailBytes; over > 0 {
		t.kept = bytes.Clone(t.kept[over:])
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(string(t.kept)), "\n")
	return strings.Join(lines[max(0, len(lines)-tailLines):], "\n")
}
