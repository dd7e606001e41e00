package webhook

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"code.dny.dev/ssrf"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Timeout is how long a receiver may take, from its name's look-up to its answer.
const Timeout = 15 * time.Second

// Limits of what is read of an answer. Nothing that it says is kept.
const (
	maxHeader = 16 << 10
	maxAnswer = 4 << 10
)

// Options are the choices of New. The zero value works.
type Options struct {
	// Allow are addresses that may be called though they are private, local or reserved.
	Allow []netip.Prefix
	// Resolver looks names up; nil = the system's.
	Resolver *net.Resolver
	// Timeout is another than the constant's; 0 = that.
	Timeout time.Duration
	// TLS is what connections are made with; nil = the defaults of Go.
	TLS *tls.Config
	// Version is told to receivers.
	Version string
}

// Client posts notices. It follows no redirect, uses no proxy and keeps neither cookies nor connections: every notice looks
// its receiver up, and has the address checked, anew. Safe for concurrent use.
type Client struct {
	http  http.Client
	agent string
}

var _ jobs.Courier = (*Client)(nil)

// New makes a Client.
func New(o Options) *Client {
	dialer := &net.Dialer{Resolver: o.Resolver, Control: guard(o.Allow).Safe}
	return &Client{
		agent: strings.TrimSuffix("fanout/"+o.Version, "/"),
		http: http.Client{
			Timeout:       cmp.Or(o.Timeout, Timeout),
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport: &http.Transport{
				DialContext:            dialer.DialContext,
				TLSClientConfig:        o.TLS,
				DisableKeepAlives:      true,
				DisableCompression:     true,
				MaxResponseHeaderBytes: maxHeader,
			},
		},
	}
}

// guard refuses addresses when they are connected to, after the look-up: any port, but only the public internet and what
// is allowed.
func guard(allow []netip.Prefix) *ssrf.Guardian {
	var v4, v6 []netip.Prefix
	for _, p := range allow {
		if p.Addr().Is4() {
			v4 = append(v4, p)
		} else {
			v6 = append(v6, p)
		}
	}
	return ssrf.New(ssrf.WithAnyPort(), ssrf.WithAllowedV4Prefixes(v4...), ssrf.WithAllowedV6Prefixes(v6...))
}

// Post posts a notice with the headers of Standard Webhooks.
func (c *Client) Post(ctx context.Context, n *jobs.NoticeMessage) (status int, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, n.URL, strings.NewReader(n.Body))
	if err != nil || r.URL.Hostname() == "" || r.URL.User != nil {
		return 0, errors.New("post an event: the url cannot be used")
	}
	r.Header = http.Header{
		"Content-Type":      {"application/json"},
		"User-Agent":        {c.agent},
		"Webhook-Id":        {n.EventID},
		"Webhook-Timestamp": {strconv.FormatInt(n.Timestamp, 10)},
		"Webhook-Signature": {n.Signature},
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return 0, errors.New(c.sentence(r.URL.Hostname(), err))
	}
	defer answer.Body.Close()
	_, _ = io.CopyN(io.Discard, answer.Body, maxAnswer) // it has answered: what else it says does not matter
	return answer.StatusCode, nil
}

// sentence says why there was no answer, for the tenant: with the host that it has named, and no address, proxy or path.
func (c *Client) sentence(host string, err error) string {
	var (
		wrapped *url.Error
		dns     *net.DNSError
		errno   syscall.Errno
		plain   tls.RecordHeaderError
		cert    *tls.CertificateVerificationError
		alert   tls.AlertError
	)
	if errors.As(err, &wrapped) {
		err = wrapped.Err // without the URL, which may hold secrets
	}
	switch {
	case errors.Is(err, ssrf.ErrProhibitedIP), errors.Is(err, ssrf.ErrProhibitedNetwork), errors.Is(err, ssrf.ErrInvalidHostPort):
		return fmt.Sprintf("connect to %s: its address is private, local or reserved, and is not allowed", host)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Sprintf("wait for %s: no answer within %s", host, c.http.Timeout)
	case errors.As(err, &dns) && dns.IsNotFound:
		return fmt.Sprintf("look up %s: there is no such host", host)
	case errors.As(err, &dns):
		return fmt.Sprintf("look up %s: the name could not be resolved", host)
	case errors.Is(err, http.ErrSchemeMismatch), errors.As(err, &plain):
		return fmt.Sprintf("agree on TLS with %s: it does not speak TLS", host)
	case errors.As(err, &cert):
		return fmt.Sprintf("agree on TLS with %s: its certificate is not valid", host)
	case errors.As(err, &alert):
		return fmt.Sprintf("agree on TLS with %s: it refused", host)
	case errors.As(err, &errno):
		return fmt.Sprintf("call %s: %s", host, errno)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Sprintf("call %s: it closed the connection without an answer", host)
	default:
		return fmt.Sprintf("call %s: its answer could not be read", host)
	}
}
