package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"syscall"
	"time"
)

const (
	// connectTimeout bounds connecting and the TLS handshake together. A server that takes longer for these is not there.
	connectTimeout = 10 * time.Second
	// idleTimeout is shorter than the 60 s after which common load balancers drop a connection, so that we drop it first.
	idleTimeout = 55 * time.Second
	// maxHeader bounds the header of an answer.
	maxHeader = 64 << 10
)

// unreachable is why nobody took a request.
type unreachable struct {
	message string // a sentence; it names the host
	err     error
}

func (u *unreachable) Error() string { return u.message }
func (u *unreachable) Unwrap() error { return u.err }

// dialer connects, and tells what fails before a request can be sent from what fails after: an EOF reads the same in a TLS
// handshake and in an answer, but only the second says anything of the request.
type dialer struct {
	net.Dialer
	tls *tls.Config
}

func newTransport(conns int, proxy func(*http.Request) (*url.URL, error)) *http.Transport {
	d := &dialer{tls: &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}}
	return &http.Transport{
		Proxy:                  proxy,
		DialContext:            d.dial,
		DialTLSContext:         d.dialTLS,
		TLSClientConfig:        d.tls,
		ForceAttemptHTTP2:      true, // with a dialer of our own it would be off
		MaxIdleConns:           conns,
		MaxIdleConnsPerHost:    conns, // the default, 2, would close and open connections all the time
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeader,
		OnProxyConnectResponse: func(_ context.Context, proxy *url.URL, _ *http.Request, r *http.Response) error {
			if r.StatusCode == http.StatusOK {
				return nil
			}
			return &unreachable{message: fmt.Sprintf("connect by proxy %s: it answered %s", proxy.Host, r.Status)}
		},
	}
}

func (d *dialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, cannotConnect(addr, err)
	}
	return conn, nil
}

func (d *dialer) dialTLS(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	raw, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, cannotConnect(addr, err)
	}
	config := d.tls.Clone()
	if config.ServerName == "" {
		config.ServerName, _, _ = net.SplitHostPort(addr)
	}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, cannotAgree(addr, err)
	}
	return conn, nil
}

func cannotConnect(addr string, err error) error {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return &unreachable{fmt.Sprintf("look up %s: %s", dns.Name, dns.Err), err}
	}
	return &unreachable{fmt.Sprintf("connect to %s: %s", addr, reason(err)), err}
}

func cannotAgree(addr string, err error) error {
	var (
		plain   tls.RecordHeaderError
		unknown x509.UnknownAuthorityError
	)
	why := reason(err)
	switch {
	case errors.As(err, &plain):
		why = "it does not speak TLS; is it an http:// URL?"
	case errors.As(err, &unknown):
		why = "its certificate is signed by an authority that this machine does not trust"
	}
	return &unreachable{fmt.Sprintf("agree on TLS with %s: %s", addr, why), err}
}

// reason is the innermost cause of a network error, without the addresses that wrap it.
func reason(err error) string {
	var (
		errno syscall.Errno
		op    *net.OpError
	)
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Sprintf("no answer within %s", connectTimeout)
	case errors.As(err, &errno):
		return errno.Error()
	case errors.As(err, &op) && op.Err != nil:
		return op.Err.Error()
	default:
		return err.Error()
	}
}
