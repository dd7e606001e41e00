package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// isTerminal tells whether a person looks at what is written to w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// columns is how wide a terminal is. It asks each time, since a window may be resized.
func columns(terminal *os.File) int {
	if width, _, err := term.GetSize(int(terminal.Fd())); err == nil && width > 0 {
		return width
	}
	return 80
}

// writeRows writes names and values, each in one line: aligned for a person, separated by tabs for a program.
func writeRows(out io.Writer, aligned bool, rows [][2]string) error {
	wide := 0
	for _, r := range rows {
		wide = max(wide, utf8.RuneCountInString(r[0]))
	}
	for _, r := range rows {
		r[1] = oneLine(r[1]) // such as a model, which strangers named
		gap := "\t"
		if aligned {
			gap = strings.Repeat(" ", wide-utf8.RuneCountInString(r[0])+2)
		}
		if _, err := fmt.Fprintf(out, "%s%s%s\n", r[0], gap, r[1]); err != nil {
			return err
		}
	}
	return nil
}
