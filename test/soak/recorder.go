package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// recorder stands before the provider's token endpoint and notes what goes through. It
// asks the provider to the end when the broker has gone: what a token was exchanged
// for must be known.
type recorder struct {
	tokens   *tokens
	issuer   string
	owner    func(net.Conn) *incarnation
	client   *http.Client
	listener net.Listener
	server   *http.Server
}

func newRecorder(t *tokens, issuer string, owner func(net.Conn) *incarnation) *recorder {
	return &recorder{tokens: t, issuer: issuer, owner: owner, client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 32}}}
}

type ownerKey struct{}

func (rec *recorder) listen() (err error) {
	if rec.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return err
	}
	rec.server = &http.Server{
		Handler: rec, ReadHeaderTimeout: time.Minute,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, ownerKey{}, rec.owner(c))
		},
	}
	go func() { _ = rec.server.Serve(rec.listener) }()
	return nil
}

func (rec *recorder) close() {
	_ = rec.server.Close()
	rec.client.CloseIdleConnections()
}

func (rec *recorder) url() string { return "http://" + rec.listener.Addr().String() }

// ServeHTTP implements http.Handler.
func (rec *recorder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the broker has died while it asked
	}
	form, _ := url.ParseQuery(string(body))
	token := form.Get("refresh_token")
	if token != "" {
		by, _ := r.Context().Value(ownerKey{}).(*incarnation)
		rec.tokens.present(token, by, time.Now())
	}
	answer, status, err := rec.pass(r, body)
	if err != nil {
		rec.tokens.refused(token)
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	var issued struct {
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
	}
	if status == http.StatusOK && json.Unmarshal(answer, &issued) == nil {
		rec.tokens.exchanged(token, issued.Access, issued.Refresh, time.Now())
	} else {
		rec.tokens.refused(token)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(answer)
}

func (rec *recorder) pass(r *http.Request, body []byte) (answer []byte, status int, err error) {
	ctx := context.WithoutCancel(r.Context())
	out, err := http.NewRequestWithContext(ctx, r.Method, rec.issuer+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		return nil, 0, err
	}
	for _, name := range []string{"Content-Type", "Accept", "Authorization"} {
		if v := r.Header.Get(name); v != "" {
			out.Header.Set(name, v)
		}
	}
	return exchange(rec.client, out)
}

// exchange sends a request and reads the whole answer.
func exchange(c *http.Client, r *http.Request) (body []byte, status int, err error) {
	resp, err := c.Do(r)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	return body, resp.StatusCode, err
}
