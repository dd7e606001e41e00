package upstream

import (
	"bytes"
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

// minRedact is the shortest secret that is looked for in what an upstream says. Servers without authentication are given
// keys such as "x" or "none", and masking these would garble every message.
const minRedact = 8

// redact masks the secret in text that an upstream wrote: some quote the key that they refuse.
func (s Secret) redact(text []byte) []byte {
	if len(s) < minRedact || !bytes.Contains(text, []byte(s)) {
		return text
	}
	return bytes.ReplaceAll(text, []byte(s), []byte(masked))
}
