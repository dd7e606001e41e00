package upstream

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// OpenAIOptions say where an OpenAI-compatible URL is and how it is called. Only BaseURL is needed.
type OpenAIOptions struct {
	// BaseURL is http or https, with any path in front of the API. It may end in /v1 or not: an item's /v1 is not doubled.
	// Credentials, a query or a fragment in it are refused.
	BaseURL string
	// Key is sent as a bearer token; empty = no Authorization header.
	Key Secret
	// Timeout bounds a whole call, from connecting to the last byte of the answer. 0 = DefaultTimeout.
	Timeout time.Duration
	// MaxResponse bounds an answer's body, in bytes after decompression. 0 = DefaultMaxResponse.
	MaxResponse int64
	// Conns is how many idle connections are kept; it must be at least the calls in flight, or calls pay for new
	// connections. It bounds nothing: how many calls there are is the caller's to say. 0 = DefaultConns.
	Conns int
	// Path, if set, is where every item goes whatever its url says, below the base: a server that has one endpoint only.
	Path string
	// Sign, if set, signs a request that is whole but for that, with its body. Its error is a fault of the way to the upstream.
	Sign func(r *http.Request, body []byte) error
	// Version is fanout's own, for the User-Agent. Empty = "dev".
	Version string
	// Proxy picks the proxy of a request, as http.ProxyFromEnvironment does. nil = none, whatever the environment says: a
	// variable that somebody left in a function's environment must not send prompts elsewhere.
	Proxy func(*http.Request) (*url.URL, error)
	// Now is the clock that dates in Retry-After are read against. nil = time.Now.
	Now func() time.Time
}

// Defaults of OpenAIOptions.
const (
	DefaultTimeout     = 120 * time.Second
	DefaultMaxResponse = 8 << 20
	DefaultConns       = 256
)

// OpenAI calls an OpenAI-compatible URL.
//
// A call is one request. net/http by itself sends a request that carries an Idempotency-Key again, on the next kept
// connection and the next, whenever one closes before the first byte of the answer: then an item that kills the upstream
// would be asked as often as there are connections, unseen by whoever counts calls. Here it is sent again only if no byte
// of it had been written. So a connection that closes just as it is used again is a fault of CauseReset, which the worker
// retries.
//
// Redirects are not followed: the key and the prompts go to the host that was named, and to no other.
type OpenAI struct {
	base      string // without a slash at the end
	host      string // of base, with its port, for sentences
	key       Secret
	path      string // of every call; empty = that of the item
	sign      func(r *http.Request, body []byte) error
	timeout   time.Duration
	limit     int64
	now       func() time.Time
	transport *http.Transport
	blank     *http.Request // what all requests have in common
	shared    http.Header   // of all requests; never written to
	last      atomic.Pointer[target]
}

var _ jobs.Upstream = (*OpenAI)(nil)

// NewOpenAI reads the options. What cannot work is of CodeInvalid; the message never quotes a credential.
func NewOpenAI(o OpenAIOptions) (*OpenAI, error) {
	base, err := readBase(o.BaseURL)
	if err != nil {
		return nil, err
	}
	if strings.ContainsFunc(string(o.Key), func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return nil, jobs.Errorf(jobs.CodeInvalid, "read upstream key: it holds a space, a line break or another character that no key has").
			WithHint("look for a line break at its end")
	}
	if o.Timeout < 0 || o.MaxResponse < 0 || o.Conns < 0 {
		return nil, jobs.Errorf(jobs.CodeInvalid, "read upstream options: timeout %s, response limit %d and connections %d must not be negative",
			o.Timeout, o.MaxResponse, o.Conns)
	}
	u := &OpenAI{
		base: base.String(), host: base.Host, key: o.Key, path: o.Path, sign: o.Sign,
		timeout:   cmp.Or(o.Timeout, DefaultTimeout),
		limit:     cmp.Or(o.MaxResponse, DefaultMaxResponse),
		now:       o.Now,
		transport: newTransport(cmp.Or(o.Conns, DefaultConns), o.Proxy),
		blank:     &http.Request{Method: http.MethodPost, Host: base.Host},
		shared: http.Header{
			"Accept":       {"application/json"},
			"Content-Type": {"application/json"},
			"User-Agent":   {"fanout/" + cmp.Or(o.Version, "dev")},
		},
	}
	if u.now == nil {
		u.now = time.Now
	}
	if o.Key != "" {
		u.shared.Set("Authorization", "Bearer "+string(o.Key))
	}
	return u, nil
}

// Close drops idle connections. Calls in flight end as they would have.
func (u *OpenAI) Close() { u.transport.CloseIdleConnections() }

// Call sends r once. Its error is a *jobs.Fault.
func (u *OpenAI) Call(ctx context.Context, r jobs.Request) (jobs.Answer, error) {
	to, err := u.target(r.URL)
	if err != nil {
		return jobs.Answer{}, err
	}
	call, cancel := context.WithTimeout(ctx, u.timeout)
	defer cancel()
	req := u.blank.WithContext(call)
	req.URL, req.Header = to, u.header(r.IdempotencyKey)
	takeBack := setBody(req, r.Body)
	defer takeBack()
	if u.sign != nil {
		if err := u.sign(req, r.Body); err != nil {
			return jobs.Answer{}, &jobs.Fault{Cause: jobs.CauseUnreachable, Code: "not_signed", Message: "the request could not be signed: " + err.Error()}
		}
	}

	resp, err := u.transport.RoundTrip(req)
	if err != nil {
		return jobs.Answer{}, u.broken(ctx, call, err)
	}
	defer resp.Body.Close()
	rd := readers.Get().(*reader)
	defer rd.free()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return jobs.Answer{}, u.refused(ctx, resp, rd)
	}
	body, err := rd.read(resp.Body, u.limit)
	if err != nil {
		return jobs.Answer{}, u.unread(ctx, call, resp, err)
	}
	usage, err := rd.check(body)
	if err != nil {
		return jobs.Answer{}, u.malformed(resp, body, err)
	}
	line, err := oneLine(body)
	if err != nil {
		return jobs.Answer{}, u.malformed(resp, body, err)
	}
	return jobs.Answer{Status: resp.StatusCode, RequestID: u.requestID(resp), Body: line, Usage: usage}, nil
}

// header makes the header of a call. Its values are shared and never written to.
func (u *OpenAI) header(idempotencyKey string) http.Header {
	h := maps.Clone(u.shared)
	if idempotencyKey != "" {
		// In lower case, which servers must read alike, since by its usual spelling net/http takes it for leave to send
		// the request again.
		h["idempotency-key"] = []string{idempotencyKey}
	}
	return h
}

// target is where an item's url leads.
type target struct {
	item string
	url  *url.URL // read by many requests at once, so never written to
}

// target joins an item's url to the base. The items of a job have one url, so remembering the last is enough. A url that
// leads elsewhere is a fault as an API would give it, since the item alone is to blame.
func (u *OpenAI) target(item string) (*url.URL, error) {
	if t := u.last.Load(); t != nil && t.item == item {
		return t.url, nil
	}
	base := u.base
	if u.path != "" && isPath(item) {
		return u.remember(item, base+u.path)
	}
	if strings.HasPrefix(item, "/v1/") {
		base = strings.TrimSuffix(base, "/v1")
	}
	joined, err := url.Parse(base + item)
	if err != nil || !isPath(item) {
		return nil, refusal(http.StatusBadRequest, apiError{
			Message: "url must be a path such as /v1/chat/completions", Type: invalidRequest, Param: "url", Code: "invalid_url",
		})
	}
	return u.remember(item, joined.String())
}

func (u *OpenAI) remember(item, to string) (*url.URL, error) {
	joined, err := url.Parse(to)
	if err != nil {
		return nil, err
	}
	u.last.Store(&target{item: strings.Clone(item), url: joined})
	return joined, nil
}

// isPath tells whether url is a path, with or without a query, that leads nowhere but down.
func isPath(item string) bool {
	u, err := url.Parse(item)
	return err == nil && strings.HasPrefix(item, "/") && u.Host == "" && !strings.Contains(item, "#") && path.Clean(u.Path) == u.Path
}

// readBase reads a base URL. Its errors quote as little of it as they can: what is wrong may be a password.
func readBase(s string) (*url.URL, error) {
	invalid := func(format string, args ...any) error {
		return jobs.Errorf(jobs.CodeInvalid, "read upstream URL: "+format, args...).WithHint("write it as https://host/v1")
	}
	u, err := url.Parse(s)
	switch {
	case s == "":
		return nil, invalid("it is empty")
	case err != nil:
		return nil, invalid("it is not a URL")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, invalid("it must begin with http:// or https://")
	case u.User != nil:
		return nil, invalid("it carries credentials; the key has an option of its own")
	case u.Hostname() == "":
		return nil, invalid("it names no host")
	case strings.Contains(s, "?"):
		return nil, invalid("the query of %s://%s is not taken; an item's url may have one", u.Scheme, u.Host)
	case strings.Contains(s, "#"):
		return nil, invalid("the fragment of %s://%s is not taken", u.Scheme, u.Host)
	case strings.HasSuffix(strings.TrimRight(u.Path, "/"), "/chat/completions"):
		return nil, invalid("%s://%s%s is one endpoint; give what stands before /chat/completions", u.Scheme, u.Host, u.Path)
	}
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), strings.TrimRight(u.RawPath, "/")
	return u, nil
}
