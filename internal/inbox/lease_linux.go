package inbox

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// beingWritten tells whether somebody has a file open to write to it: only if nobody has is a read lease to be had. Where there
// are no leases (other file systems, somebody else's files), time has to tell.
func beingWritten(path string) bool {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false // whoever copies it will say
	}
	defer f.Close()
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	if err == nil {
		_, _ = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK) // it ends with f anyway
	}
	return errors.Is(err, unix.EAGAIN)
}
