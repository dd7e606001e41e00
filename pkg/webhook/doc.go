// Package webhook delivers signed events over HTTP.
//
// URLs come from strangers, so a Client reaches only addresses of the public internet, whatever a name resolves to, unless
// it is told of others.
package webhook
