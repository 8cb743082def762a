// Package apiclient calls the provider routes of a broker's HTTP API, for the commands
// that work on a broker from elsewhere.
//
// It trusts the broker that it was pointed at and nothing in between: redirects are
// not followed, because they would take the API key along, and an answer that is not
// a broker's is an error that quotes none of it.
package apiclient

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/nexus-broker/nexus-broker/secret"
)

const (
	// RequestTime bounds one request, its answer included. A registration waits for the
	// broker's secret backend, several times SECRET_TIMEOUT at worst.
	RequestTime = time.Minute

	connectTime = 10 * time.Second
	// maxAnswer is the size of the largest answer that is read, in bytes: a listing of
	// some 200,000 providers.
	maxAnswer = 16 << 20
	// maxWaits is how often a request is sent again because the broker's RATE_LIMIT
	// refused it, and longestWait how long each of the waits may be.
	maxWaits    = 20
	longestWait = 30 * time.Second
)

// Options are what a Client is made of.
type Options struct {
	BaseURL *url.URL     // of the broker, without a trailing slash
	APIKey  secret.Value // zero: none is sent
	// HTTP sends the requests and must not follow redirects. nil: NewHTTPClient().
	HTTP      *http.Client
	UserAgent string
	// Sleep waits, or returns the context's error. nil: by the clock.
	Sleep func(context.Context, time.Duration) error
}

// Client calls one broker. It is safe for concurrent use.
type Client struct {
	base  *url.URL
	key   secret.Value
	http  *http.Client
	agent string
	sleep func(context.Context, time.Duration) error
}

// New returns a Client. It does not connect.
func New(o Options) *Client {
	c := &Client{base: o.BaseURL, key: o.APIKey, http: o.HTTP, agent: o.UserAgent, sleep: o.Sleep}
	if c.http == nil {
		c.http = NewHTTPClient()
	}
	if c.sleep == nil {
		c.sleep = sleep
	}
	return c
}

// NewHTTPClient returns a client with time limits that follows no redirect. It uses
// the proxies of HTTPS_PROXY, HTTP_PROXY and NO_PROXY.
func NewHTTPClient() *http.Client {
	return &http.Client{
		Timeout:       RequestTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         (&net.Dialer{Timeout: connectTime}).DialContext,
			TLSHandshakeTimeout: connectTime,
			ForceAttemptHTTP2:   true,
			MaxIdleConnsPerHost: 16,
			IdleConnTimeout:     time.Minute,
		},
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// call sends a request and decodes the answer into out, unless that is nil. body is
// sent as JSON, unless it is nil. What the broker's rate limit refuses is sent again
// when the broker says: it has not been begun.
func (c *Client) call(ctx context.Context, method, path string, body, out any, want int) error {
	var payload []byte
	if body != nil {
		var err error
		if payload, err = json.Marshal(body); err != nil {
			return err
		}
	}
	for waits := 0; ; waits++ {
		resp, answer, err := c.send(ctx, method, path, payload) //nolint:bodyclose // send has read and closed it
		if err != nil {
			return c.notReached(ctx, method, path, err)
		}
		switch {
		case resp.StatusCode == http.StatusTooManyRequests && waits < maxWaits:
			if err := c.sleep(ctx, retryAfter(resp.Header)); err != nil {
				return &Error{Op: method + " " + path, Err: ErrUnreachable, Message: "given up", cause: err}
			}
			continue
		case resp.StatusCode != want:
			return c.failed(method, path, resp, answer)
		case out != nil && json.Unmarshal(answer, out) != nil:
			return &Error{Op: method + " " + path, Status: resp.StatusCode, Err: ErrNotBroker, Message: notBroker}
		}
		return nil
	}
}

func (c *Client) send(ctx context.Context, method, path string, payload []byte) (*http.Response, []byte, error) {
	var body io.Reader
	if payload != nil {
		body = bytes.NewReader(payload)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base.JoinPath(path).String(), body)
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.agent)
	if payload != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if !c.key.IsZero() {
		req.Header.Set("X-API-Key", c.key.Reveal())
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(answer) > maxAnswer {
		err = errTooLarge
	}
	return resp, answer, err
}

// retryAfter returns how long to wait: what the broker asks for, within limits.
func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || seconds < 1 {
		return time.Second
	}
	return min(time.Duration(seconds)*time.Second, longestWait)
}
