// Package bench measures what fanout costs over doing without it. See README.md.
package bench

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
)

// LineBytes is the length of an input line, its newline included.
const LineBytes = 1024

// WriteInput writes an input of so many items.
func WriteInput(path string, items int) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write an input: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	const form = `{"custom_id":"request-%08d","method":"POST","url":"/v1/chat/completions","body":{"model":"constant","messages":[{"role":"user","content":"%s"}]}}` + "\n"
	empty := len(fmt.Sprintf(form, 0, ""))
	text := strings.Repeat("Every unhappy family is unhappy in its own way. ", LineBytes/48+1)[:LineBytes-empty]
	w := bufio.NewWriterSize(f, 256<<10)
	for i := range items {
		if _, err := fmt.Fprintf(w, form, i, text); err != nil {
			return fmt.Errorf("write item %d of an input: %w", i, err)
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write an input: %w", err)
	}
	return nil
}
