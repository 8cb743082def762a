package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"
)

// client calls the brokers through the proxy, and notes each call in the ledger. Its
// connections are made anew now and then, so that it comes to every replica.
type client struct {
	base   string
	http   *http.Client
	ledger *ledger
	calls  atomic.Int64
}

// callsPerConnection is how many calls are made before a connection is given up.
const callsPerConnection = 20

func newClient(address string, l *ledger) *client {
	return &client{base: "http://" + address, ledger: l, http: &http.Client{
		Timeout: patience, Transport: &http.Transport{MaxIdleConnsPerHost: 4},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// answer is what came back of one call; err: nothing did.
type answer struct {
	status   int
	location *url.URL // of a redirect
	body     []byte
	err      error
}

// call makes a call with the API key and notes it under what.
func (c *client) call(ctx context.Context, what, method, path string, body any) answer {
	var payload io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return answer{err: err}
		}
		payload = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, payload)
	if err != nil {
		return answer{err: err}
	}
	r.Header.Set("X-API-Key", apiKey)
	r.Close = c.calls.Add(1)%callsPerConnection == 0
	began := time.Now()
	a := c.send(r)
	if ctx.Err() == nil { // else the run has ended, and with it the call
		c.ledger.note(what, a.class(), time.Since(began))
	}
	return a
}

func (c *client) send(r *http.Request) answer {
	resp, err := c.http.Do(r)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode}
	a.body, a.err = io.ReadAll(resp.Body)
	a.location, _ = resp.Location()
	return a
}

// good is the class of what succeeded.
const good = ""

// class tells what an answer is, as a reader of the report shall see it.
func (a answer) class() string {
	var timeout net.Error
	switch {
	case errors.As(a.err, &timeout) && timeout.Timeout():
		return "no answer after " + patience.String()
	case a.err != nil:
		return "connection cut"
	case a.location != nil && a.location.Query().Get("status") == "error":
		return "302 with " + a.location.Query().Get("error")
	case a.status < http.StatusBadRequest:
		return good
	}
	return fmt.Sprintf("%d %s", a.status, a.text("error"))
}

func (a answer) ok() bool { return a.class() == good }

// text returns a member of the answer's object, "" if it is no text.
func (a answer) text(name string) string {
	var object map[string]any
	_ = json.Unmarshal(a.body, &object)
	s, _ := object[name].(string)
	return s
}
