package jobs

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// NoticeMessage is one attempt at a delivery, ready to be posted: who posts it needs neither the secret nor the ledger. It
// is signed for the time when it was sent, and receivers refuse what is older than five minutes; so every attempt is a
// notice of its own.
type NoticeMessage struct {
	V         int    `json:"v"`
	Notice    string `json:"notice"` // id of the delivery
	Tenant    string `json:"tenant"`
	Attempt   int    `json:"attempt"` // from 1
	URL       string `json:"url"`
	EventID   string `json:"event"`
	Timestamp int64  `json:"timestamp"` // Unix seconds, signed
	Signature string `json:"signature"` // as in its header: v1,…
	Body      string `json:"body"`      // JSON, as it is posted
}

// DeliveredMessage says what came of a notice.
type DeliveredMessage struct {
	V         int       `json:"v"`
	Delivered string    `json:"delivered"` // id of the delivery
	Tenant    string    `json:"tenant"`
	Attempt   int       `json:"attempt"`
	Status    int       `json:"status,omitempty"` // of the answer; 0 = there was none
	Error     string    `json:"error,omitempty"`  // a sentence
	Stale     bool      `json:"stale,omitempty"`  // it had waited too long, and was not posted
	At        time.Time `json:"at"`
}

// Limits of what these messages say: below 16 KB whatever is in them.
const (
	maxNoticeID    = 64  // of a delivery or an event
	maxOwner       = 256 // bytes of a tenant's name
	maxSignature   = 256
	maxNoticeBody  = 4 << 10
	maxNoticeError = 1 << 10
	maxNotices     = 1_000_000 // of a delivery
)

// secretPrefix begins a secret of Standard Webhooks; base64 follows.
const secretPrefix = "whsec_"

// sign signs a body as Standard Webhooks has it: https://www.standardwebhooks.com
func sign(secret Secret, id string, at time.Time, body string) (string, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(string(secret), secretPrefix))
	if err != nil {
		return "", Errorf(CodeInternal, "sign an event: the webhook's secret is no base64") // the error would quote it
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%d.%s", id, at.Unix(), body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)), nil
}

// notice makes the message of a delivery's attempt, signed now.
func (d *Delivery) notice(h *Hook, now time.Time) ([]byte, error) {
	type data struct {
		ID JobID `json:"id"`
	}
	body, err := json.Marshal(struct {
		ID      string `json:"id"`
		Object  string `json:"object"`
		Type    string `json:"type"`
		Created int64  `json:"created_at"`
		Data    data   `json:"data"`
	}{d.Event, "event", d.Type, d.At.Unix(), data{d.Job}})
	if err != nil {
		panic(err) // it always encodes
	}
	signature, err := sign(h.Secret, d.Event, now, string(body))
	if err != nil {
		return nil, fmt.Errorf("send delivery %s: %w", d.ID, err)
	}
	return encodeMessage(NoticeMessage{
		V: SchemaVersion, Notice: d.ID, Tenant: d.Tenant, Attempt: d.Sent, URL: d.URL,
		EventID: d.Event, Timestamp: now.Unix(), Signature: signature, Body: string(body),
	}), nil
}

func decodeNotice(body []byte) (Body, error) {
	var m NoticeMessage
	if err := json.Unmarshal(body, &m); err != nil {
		return Body{}, Errorf(CodeInvalid, "decode message: %w", err)
	}
	if err := checkAttempt(m.Notice, m.Tenant, m.Attempt); err != nil {
		return Body{}, err
	}
	switch {
	case m.URL == "" || len(m.URL) > maxHookURL:
		return Body{}, Errorf(CodeInvalid, "decode message: a notice whose url is empty or has more than %d bytes", maxHookURL)
	case !PlainTenant(m.EventID):
		return Body{}, Errorf(CodeInvalid, "decode message: a notice without an event's id")
	case m.Timestamp < 1 || !writable(time.Unix(m.Timestamp, 0)):
		return Body{}, Errorf(CodeInvalid, "decode message: a notice of second %d", m.Timestamp)
	case m.Signature == "" || len(m.Signature) > maxSignature || strings.ContainsFunc(m.Signature, func(r rune) bool { return r < ' ' || r > '~' }):
		return Body{}, Errorf(CodeInvalid, "decode message: a notice without a signature")
	case m.Body == "" || len(m.Body) > maxNoticeBody:
		return Body{}, Errorf(CodeInvalid, "decode message: a notice whose body is empty or has more than %d bytes", maxNoticeBody)
	}
	return Body{Notice: &m}, nil
}

func decodeDelivered(body []byte) (Body, error) {
	var m DeliveredMessage
	if err := json.Unmarshal(body, &m); err != nil {
		return Body{}, Errorf(CodeInvalid, "decode message: %w", err)
	}
	if err := checkAttempt(m.Delivered, m.Tenant, m.Attempt); err != nil {
		return Body{}, err
	}
	switch m.At = m.At.UTC(); {
	case m.Status < 0 || m.Status > 999:
		return Body{}, Errorf(CodeInvalid, "decode message: a delivery answered %d", m.Status)
	case len(m.Error) > maxNoticeError:
		return Body{}, Errorf(CodeInvalid, "decode message: a delivery whose error has more than %d bytes", maxNoticeError)
	case !writable(m.At):
		return Body{}, Errorf(CodeInvalid, "decode message: a delivery of the year %d", m.At.Year())
	}
	return Body{Delivered: &m}, nil
}

func checkAttempt(delivery, tenant string, attempt int) error {
	switch {
	case !PlainTenant(delivery):
		return Errorf(CodeInvalid, "decode message: a delivery's id takes 1 to %d letters, digits, - and _", maxNoticeID)
	case tenant == "" || len(tenant) > maxOwner:
		return Errorf(CodeInvalid, "decode message: a delivery whose tenant is empty or has more than %d bytes", maxOwner)
	case attempt < 1 || attempt > maxNotices:
		return Errorf(CodeInvalid, "decode message: attempt %d of a delivery", attempt)
	default:
		return nil
	}
}

// writable tells whether a time can be written again.
func writable(t time.Time) bool { return t.Year() >= 1 && t.Year() <= 9999 }
