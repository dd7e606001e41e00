package upstream

import (
	"bytes"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Secret is the key of an upstream.
type Secret = jobs.Secret

// minRedact is the shortest secret that is looked for in what an upstream says. Servers without authentication are given
// keys such as "x" or "none", and masking these would garble every message.
const minRedact = 8

// redact masks a secret in text that an upstream wrote: some quote the key that they refuse.
func redact(s Secret, text []byte) []byte {
	if len(s) < minRedact || !bytes.Contains(text, []byte(s)) {
		return text
	}
	return bytes.ReplaceAll(text, []byte(s), []byte(s.String()))
}
