//go:build !linux

package inbox

// beingWritten is not to be found out here: time has to tell.
func beingWritten(string) bool { return false }
