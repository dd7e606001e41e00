package awstest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// listening returns where a process listens beside that port of 127.0.0.1, as the kernel writes addresses.
func listening(t *testing.T, pid int, port string) (others []string) {
	t.Helper()
	var n int
	if _, err := fmt.Sscan(port, &n); err != nil {
		t.Fatal(err)
	}
	right := fmt.Sprintf("0100007F:%04X", n)
	sockets := map[string]bool{}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil {
			sockets[target] = true
		}
	}
	found := false
	for _, table := range []string{"tcp", "tcp6"} {
		lines, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if os.IsNotExist(err) {
			continue // no IPv6
		}
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(lines)) {
			f := strings.Fields(line)
			const local, state, inode, listen = 1, 3, 9, "0A"
			if len(f) <= inode || f[state] != listen || !sockets["socket:["+f[inode]+"]"] {
				continue
			}
			if f[local] == right {
				found = true
			} else {
				others = append(others, f[local])
			}
		}
	}
	if !found {
		t.Errorf("process %d is not seen to listen on port %s: this proves nothing", pid, port)
	}
	return others
}
