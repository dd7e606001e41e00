package functions

import (
	"bytes"
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"
)

// proxy stands before a service and shows each answered request. Requests go on as they are, with the host that the client
// sees: it is part of their signature.
func proxy(t *testing.T, endpoint string, show func(r *http.Request, body, answer []byte)) string {
	t.Helper()
	to, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	type asked struct{}
	transport := &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}
	on := &httputil.ReverseProxy{
		Transport: transport,
		ErrorLog:  log.New(io.Discard, "", 0), // clients that leave, which tests make them do
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host
		},
		ModifyResponse: func(r *http.Response) error {
			answer, err := io.ReadAll(r.Body)
			if err != nil {
				return err
			}
			r.Body = io.NopCloser(bytes.NewReader(answer))
			body, _ := r.Request.Context().Value(asked{}).([]byte)
			show(r.Request, body, answer)
			return nil
		},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client has left
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		on.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), asked{}, body)))
	}))
	t.Cleanup(func() { // after whoever uses it, which is made later
		server.CloseClientConnections()
		server.Close()
		transport.CloseIdleConnections()
	})
	return server.URL
}
