// Package officialclients holds OpenAI's own clients, unmodified, to fanout serve.
//
// Its tests run the built binary and use it through openai-go, openai-node and curl. What each of them can do is written
// into docs/parity.md; after a change: go test ./internal/officialclients -update.
package officialclients
