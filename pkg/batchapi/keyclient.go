package batchapi

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
)

// CreateKeyRequest is what a key is made of.
type CreateKeyRequest struct {
	Tenant    string   `json:"tenant,omitempty"` // the caller's own, if empty
	Scopes    []string `json:"scopes,omitempty"` // submit and read, if empty
	Note      string   `json:"note,omitempty"`
	ExpiresIn string   `json:"expires_in,omitempty"` // such as 720h; never, if empty
}

// CreateKey makes a key, whose secret is never told again. This is not repeated: nobody would know the first key.
func (c *Client) CreateKey(ctx context.Context, q CreateKeyRequest) (k Key, err error) {
	body, err := json.Marshal(q)
	if err != nil {
		return k, err
	}
	err = c.once(ctx, http.MethodPost, c.root()+"/fanout/v1/keys", bytes.NewReader(body), int64(len(body)), &k, "Content-Type", "application/json")
	return k, err
}

// Keys lists keys, newest first, of one tenant or of all.
func (c *Client) Keys(ctx context.Context, tenant string) (l List[Key], err error) {
	err = c.do(ctx, http.MethodGet, c.root()+"/fanout/v1/keys?"+url.Values{"tenant": {tenant}}.Encode(), nil, &l)
	return l, err
}

// RevokeKey makes a key useless.
func (c *Client) RevokeKey(ctx context.Context, id string) (k Key, err error) {
	err = c.do(ctx, http.MethodDelete, c.root()+"/fanout/v1/keys/"+url.PathEscape(id), nil, &k)
	return k, err
}

// CreateHookRequest is what a webhook is made of.
type CreateHookRequest struct {
	Tenant string   `json:"tenant,omitempty"` // the caller's own, if empty
	URL    string   `json:"url"`
	Events []string `json:"events,omitempty"` // all, if empty
}

// CreateHook makes a webhook, whose secret is never told again. This is not repeated: nobody would know the first secret.
func (c *Client) CreateHook(ctx context.Context, q CreateHookRequest) (h Hook, err error) {
	body, err := json.Marshal(q)
	if err != nil {
		return h, err
	}
	err = c.once(ctx, http.MethodPost, c.root()+"/fanout/v1/hooks", bytes.NewReader(body), int64(len(body)), &h, "Content-Type", "application/json")
	return h, err
}

// Hooks lists the webhooks of a tenant; "" = the caller's own.
func (c *Client) Hooks(ctx context.Context, tenant string) (l List[Hook], err error) {
	err = c.do(ctx, http.MethodGet, c.root()+"/fanout/v1/hooks"+ofTenant(tenant), nil, &l)
	return l, err
}

// DeleteHook deletes a webhook: nothing more is sent to it.
func (c *Client) DeleteHook(ctx context.Context, tenant, id string) (d Deleted, err error) {
	err = c.do(ctx, http.MethodDelete, c.root()+"/fanout/v1/hooks/"+url.PathEscape(id)+ofTenant(tenant), nil, &d)
	return d, err
}

// Deliveries lists what was, or is to be, told to the webhooks of a tenant, newest first.
func (c *Client) Deliveries(ctx context.Context, tenant string, q ListQuery) (l List[Delivery], err error) {
	q.tenant = tenant
	err = c.do(ctx, http.MethodGet, c.root()+"/fanout/v1/deliveries"+q.encode(), nil, &l)
	return l, err
}

// Replay sends a delivery again.
func (c *Client) Replay(ctx context.Context, tenant, id string) (d Delivery, err error) {
	err = c.do(ctx, http.MethodPost, c.root()+"/fanout/v1/deliveries/"+url.PathEscape(id)+"/replay"+ofTenant(tenant), nil, &d)
	return d, err
}
