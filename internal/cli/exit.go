package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Exit codes, which scripts may rely on.
const (
	exitAnswered    = 0
	exitError       = 1
	exitInvalid     = 2
	exitItemsFailed = 3
	exitInterrupted = 130
)

// exits is the table that the help prints.
var exits = []struct {
	code  int
	means string
}{
	{exitAnswered, "all went well; every item was answered"},
	{exitError, "anything that is not below"},
	{exitInvalid, "bad usage, or invalid input"},
	{exitItemsFailed, "finished, but some items failed"},
	{exitInterrupted, "interrupted; the same fanout run goes on from there"},
}

// exitOf is the exit code of an error of each kind. What is not here is exitError.
var exitOf = map[jobs.Code]int{
	jobs.CodeInvalid:  exitInvalid,
	jobs.CodeNotFound: exitInvalid,
}

// told is an end that the command has already told in full: the process exits with it and nothing more is printed.
type told int

func (t told) Error() string { return fmt.Sprintf("exit code %d", int(t)) }

// exit tells the error, unless it was told, and returns the exit code.
func exit(ctx context.Context, stderr io.Writer, err error) int {
	var t told
	switch {
	case err == nil:
		return exitAnswered
	case errors.As(err, &t):
		return int(t)
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		if e, ok := errors.AsType[*jobs.Error](err); ok {
			tell(stderr, e)
		} else {
			tell(stderr, errors.New("interrupted"))
		}
		return exitInterrupted
	}
	tell(stderr, err)
	if code, ok := exitOf[jobs.CodeOf(err)]; ok {
		return code
	}
	return exitError
}

// tell prints an error as a sentence and, where it has a hint, what to try.
func tell(stderr io.Writer, err error) {
	fmt.Fprintf(stderr, "fanout: %s\n", oneLine(err.Error()))
	if e, ok := errors.AsType[*jobs.Error](err); ok && e.Hint != "" {
		fmt.Fprintf(stderr, "Try: %s\n", oneLine(e.Hint))
	}
}

// oneLine keeps what strangers wrote, such as a file name, from breaking a line, driving the terminal, or turning about what
// stands beside it.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsControl(r), r == '\u2028', r == '\u2029': // those above 0x80 too: some terminals take U+009B for ESC [
			return ' '
		case unicode.Is(unicode.Bidi_Control, r):
			return -1
		}
		return r
	}, strings.TrimSpace(s))
}
