package jobs

import (
	"fmt"
	"io"
	"log/slog"
)

// Secret is a credential. However it is printed, logged or encoded it reads ***, or nothing if it is empty; string(s) is
// the one way to its text.
type Secret string

const masked = "***"

// String masks the secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return masked
}

// Format masks the secret for every verb, %#v, %x and %d among them.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText masks the secret.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue masks the secret.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
