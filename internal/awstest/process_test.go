package awstest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// TestMain is the process that is killed in TestServersDieWithTheProcess where it is asked to be.
func TestMain(m *testing.M) {
	if os.Getenv("AWSTEST_HOLD") != "" {
		if err := hold(); err != nil {
			fmt.Println("error", err)
		}
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// hold starts every server, says where each is, and waits for its end.
func hold() error {
	for name, start := range all {
		s, err := start()
		if err != nil {
			return err
		}
		fmt.Println("server", name, strings.TrimPrefix(*s.config.BaseEndpoint, "http://"))
		if s.data != "" {
			fmt.Println("data", s.data)
		}
	}
	fmt.Println("ready")
	select {}
}

// TestServersDieWithTheProcess kills a process that has started every server. All that it has started inherits the write end
// of a pipe, so the pipe's end is theirs. A connection to each server ends with the server; whether its port still answers
// would prove nothing, since the kernel closes a killed process's sockets in its own time, and others may take the port.
func TestServersDieWithTheProcess(t *testing.T) {
	for name, start := range all { // installed, before anything is timed
		if _, err := start(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	alive, inherited, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer alive.Close()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "AWSTEST_HOLD=1")
	cmd.ExtraFiles = []*os.File{nil, nil, inherited} // 3 and 4 are taken
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(cmd.Start(), inherited.Close()); err != nil {
		t.Fatal(err)
	}
	said := map[string][]string{}
	for s := bufio.NewScanner(out); s.Scan() && s.Text() != "ready"; {
		verb, what, _ := strings.Cut(s.Text(), " ")
		said[verb] = append(said[verb], what)
	}
	if len(said["server"]) != len(all) || len(said["data"]) != 1 {
		t.Fatalf("the process said %v", said)
	}
	if objects, err := os.Stat(said["data"][0]); err != nil || !objects.IsDir() {
		t.Fatal("there is no data before the kill: this proves nothing", err)
	}
	connections := map[string]net.Conn{}
	for _, s := range said["server"] {
		name, address, _ := strings.Cut(s, " ")
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatalf("%s does not answer before the kill: this proves nothing: %v", name, err)
		}
		defer c.Close()
		connections[name] = c
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the process has ended by itself")
	}
	if err := alive.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, alive); err != nil {
		t.Errorf("what it had started is still there: %v", err)
	}
	for name, c := range connections {
		if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s still lives: %v", name, err)
		}
	}
	if _, err := os.Stat(said["data"][0]); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the data is still there: %v", err)
	}
}

func TestAServerThatDoesNotStartIsAnErrorWithItsLastWords(t *testing.T) {
	never := func(ctx context.Context, _ aws.Config) error {
		<-ctx.Done()
		return ctx.Err()
	}
	long := "for i in 1 2 3 4 5 6 7 8 9 10; do echo line $i; echo line $i; echo line $i; echo line $i; done; echo the end >&2; exit 7"
	_, err := startServer(t.Context(), aws.Config{}, command{args: []string{"/bin/sh", "-c", long}}, func() {}, never)
	if !errors.Is(err, errEnded) || !strings.HasSuffix(err.Error(), "line 10\nthe end") || strings.Contains(err.Error(), "line 2\n") {
		t.Errorf("a server that ends: %v, want its last lines", err)
	}

	data := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	late := errors.New("too late")
	ctx, cancel := context.WithCancelCause(t.Context())
	p, err := run(command{args: []string{"tail", "-f", os.DevNull}, data: data})
	if err != nil {
		t.Fatal(err)
	}
	err = p.untilReady(ctx, func(context.Context) error {
		cancel(late)
		return errors.New("refused")
	})
	if !errors.Is(err, late) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a server that never answers: %v, want why and the last refusal", err)
	}
	select {
	case <-p.ended:
	default:
		t.Error("a server that never answered still runs")
	}
}

func TestWhatCannotBeInstalledIsAnErrorAndIsTriedAgain(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("go.mod", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	broken := func(ctx context.Context, dir string) error {
		if err := os.WriteFile(filepath.Join(dir, "half"), nil, 0o600); err != nil {
			return err
		}
		return finish(ctx, dir, os.Environ(), "/bin/sh", "-c", "echo no such package; exit 1")
	}
	if _, err := install(t.Context(), "bin/tool", "file", broken); err == nil || !strings.Contains(err.Error(), "no such package") {
		t.Errorf("a failed installation: %v, want what it said", err)
	}
	times := 0
	whole := func(ctx context.Context, dir string) error {
		times++
		return finish(ctx, dir, os.Environ(), "/bin/sh", "-c", "touch file")
	}
	for range 2 {
		dir, err := install(t.Context(), "bin/tool", "file", whole)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadDir(dir); err != nil || len(got) != 1 || got[0].Name() != "file" {
			t.Errorf("installed %v, %v", got, err)
		}
	}
	if times != 1 {
		t.Errorf("installed %d times", times)
	}
}
