package oauth

import (
	"context"
	"io"
	"net/http"
	"time"
)

const (
	// maxAnswer is the size of the largest answer that is read, in bytes after
	// decompression. Token answers and discovery documents are a few KiB.
	maxAnswer = 1 << 20
	userAgent = "nexus-broker" // some APIs refuse a request without one
)

// Options are what a Client is made of.
type Options struct {
	// HTTP sends the requests: what NewHTTPClient returned, whose redirect policy and
	// time limit the Client relies on. nil: NewHTTPClient(HTTPOptions{}).
	HTTP *http.Client
	// OnDiscovery, if not nil, is told of each call of Discover: "success" or "error"
	// once for every request that was made to a provider, with its duration, and
	// "cached" for every call that was answered from memory. Callers who waited for
	// somebody else's request are not reported.
	OnDiscovery func(result string, took time.Duration)
	// Now is the clock of caches, ID tokens and Retry-After dates. nil: time.Now.
	Now func() time.Time
}

// Client speaks to providers. It is safe for concurrent use.
//
// Each error that it returns is, or wraps, an *Error, and holds nothing that the
// provider sent but a registered error code.
type Client struct {
	http        *http.Client
	onDiscovery func(result string, took time.Duration)
	now         func() time.Time
	discoveries *cache[Metadata]
	keySets     *cache[keySet]
}

// New returns a Client.
func New(o Options) *Client {
	c := &Client{http: o.HTTP, onDiscovery: o.OnDiscovery, now: o.Now}
	if c.http == nil {
		c.http = NewHTTPClient(HTTPOptions{})
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.onDiscovery == nil {
		c.onDiscovery = func(string, time.Duration) {}
	}
	c.discoveries = newCache[Metadata](c.now, discoveryTTL, maxDiscoveries)
	c.keySets = newCache[keySet](c.now, keySetTTL, maxKeySets)
	return c
}

// CheckAPI sends one GET with header to target and returns the status of the
// answer, whose body is not read. It is how credentials that a user has entered are
// tried; neither header nor target shows in an error. Redirects are followed as
// NewHTTPClient says, so that the credentials stay with the host they were meant for.
func (c *Client) CheckAPI(ctx context.Context, target string, header http.Header) (status int, err error) {
	const op = "API check"
	u, reason := endpointURL(target)
	if reason != "" {
		return 0, &Error{Op: op, Reason: "the URL " + reason}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return 0, &Error{Op: op, Reason: "the URL is not valid"}
	}
	req.Header = header.Clone()
	if req.Header == nil {
		req.Header = http.Header{}
	}
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", userAgent)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, networkError(op, 0, err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode, nil
}

// answer is an HTTP answer, read to its end.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// getJSON sends a GET that asks for JSON.
func (c *Client) getJSON(ctx context.Context, op, target string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return answer{}, &Error{Op: op, Reason: "the URL is not valid"}
	}
	return c.send(op, req)
}

// send sends req and reads the answer, which must not be larger than maxAnswer.
func (c *Client) send(op string, req *http.Request) (answer, error) {
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", userAgent)
	resp, err := c.http.Do(req)
	if err != nil {
		return answer{}, networkError(op, 0, err)
	}
	defer func() { _ = resp.Body.Close() }()
	tooLarge := &Error{Op: op, Status: resp.StatusCode, Reason: "the answer is larger than 1 MiB"}
	if resp.ContentLength > maxAnswer {
		return answer{}, tooLarge
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return answer{}, networkError(op, resp.StatusCode, err)
	}
	if len(body) > maxAnswer {
		return answer{}, tooLarge
	}
	return answer{status: resp.StatusCode, header: resp.Header, body: body}, nil
}
