package oauth

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"
)

const (
	// DefaultTimeout is the time limit of a request unless HTTPOptions says otherwise.
	// It is shorter than the grace that a broker is given to shut down, so that a
	// refresh under way can still be stored.
	DefaultTimeout = 15 * time.Second

	maxRedirects      = 3
	maxResponseHeader = 256 << 10 // bytes
)

// HTTPOptions are what NewHTTPClient goes by.
type HTTPOptions struct {
	// AllowPrivate lets requests go to private, loopback and link-local addresses.
	AllowPrivate bool
	// Timeout limits a request from its start to the last byte of its answer, so
	// that a body that trickles in cannot hold it. Zero: DefaultTimeout.
	Timeout time.Duration
	// RootCAs verify the providers' certificates. nil: the system's.
	RootCAs *x509.CertPool
	// Proxy chooses a request's proxy. nil: HTTPS_PROXY, HTTP_PROXY and NO_PROXY say.
	Proxy func(*http.Request) (*url.URL, error)
}

// NewHTTPClient returns the client for requests whose URL an administrator has
// chosen.
//
//   - Unless AllowPrivate, a connection to an address that is not on the public
//     internet fails with ErrAddressNotAllowed. The address that the name has resolved
//     to is checked, at the moment of dialling: a name that changes its address
//     between a check and the request gains nothing. Through a proxy it is the proxy
//     that resolves names and dials, so there only a URL that holds an address is
//     refused.
//   - A redirect of a GET is followed within one scheme, host and port, at most three
//     times. Any other redirect, and each one of a POST, is not followed: the answer
//     is the redirect itself. A credential never travels on to where it was not meant
//     to go.
//   - TLS is 1.2 or newer.
func NewHTTPClient(o HTTPOptions) *http.Client {
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Proxy == nil {
		o.Proxy = http.ProxyFromEnvironment
	}
	client := &http.Client{Timeout: o.Timeout, CheckRedirect: checkRedirect}
	if o.AllowPrivate {
		client.Transport = newTransport(o, nil, o.Proxy)
		return client
	}
	client.Transport = &guard{
		proxy:   o.Proxy,
		direct:  newTransport(o, refuseNonPublic, nil),
		proxied: newTransport(o, nil, o.Proxy),
	}
	return client
}

func newTransport(o HTTPOptions, control func(string, string, syscall.RawConn) error, proxy func(*http.Request) (*url.URL, error)) *http.Transport {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second, Control: control}
	return &http.Transport{
		Proxy:                  proxy,
		DialContext:            dialer.DialContext,
		ForceAttemptHTTP2:      true,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs},
		TLSHandshakeTimeout:    10 * time.Second,
		MaxResponseHeaderBytes: maxResponseHeader,
		MaxIdleConns:           256,
		MaxIdleConnsPerHost:    32,
		IdleConnTimeout:        90 * time.Second,
	}
}

// guard keeps requests away from addresses that are not public. Direct and proxied
// requests have transports of their own, because the proxy itself may well have a
// private address, and nothing else may use that exception.
type guard struct {
	proxy           func(*http.Request) (*url.URL, error)
	direct, proxied *http.Transport
}

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	proxy, err := g.proxy(req)
	if err != nil {
		return nil, err
	}
	if proxy == nil {
		return g.direct.RoundTrip(req)
	}
	if ip, err := netip.ParseAddr(req.URL.Hostname()); err == nil && !public(ip) {
		return nil, &addressError{ip}
	}
	return g.proxied.RoundTrip(req)
}

// CloseIdleConnections is called by http.Client.CloseIdleConnections.
func (g *guard) CloseIdleConnections() {
	g.direct.CloseIdleConnections()
	g.proxied.CloseIdleConnections()
}

func checkRedirect(req *http.Request, via []*http.Request) error {
	first := via[0]
	sameOrigin := strings.EqualFold(req.URL.Scheme, first.URL.Scheme) && strings.EqualFold(req.URL.Host, first.URL.Host)
	if first.Method != http.MethodGet || !sameOrigin || req.URL.User != nil || len(via) > maxRedirects {
		return http.ErrUseLastResponse
	}
	return nil
}
