//go:build unix

package lambdatest

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"
)

// group is a process group that dies with this process, however that ends, also if its members are stopped. Its leader reads
// a pipe that nobody else holds; at the pipe's end it kills the group and thereby itself.
type group struct {
	leader *exec.Cmd
	alive  io.Closer
}

func newGroup() (*group, error) {
	g := &group{leader: exec.Command("/bin/sh", "-c", "cat >/dev/null; kill -9 0")}
	g.leader.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	alive, err := g.leader.StdinPipe()
	if err != nil {
		return nil, err
	}
	g.alive = alive
	return g, g.leader.Start()
}

// join makes a command that is to be started a member.
func (g *group) join(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pgid: g.leader.Process.Pid}
}

// end kills all members.
func (g *group) end() error {
	err := g.alive.Close()
	var killed *exec.ExitError // as it should be
	if end := g.leader.Wait(); !errors.As(end, &killed) {
		err = errors.Join(err, end)
	}
	return err
}

// A process that has ended meanwhile is noticed by who waits for it.
func freeze(p *os.Process) { _ = p.Signal(syscall.SIGSTOP) }
func thaw(p *os.Process)   { _ = p.Signal(syscall.SIGCONT) }
