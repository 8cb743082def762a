package servers

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"
)

// FaultProxy stands in front of a real server: it records the requests and, where
// told to, does something else than pass them on. It needs no server installed.
type FaultProxy struct {
	URL string // of the proxy, without a trailing slash

	t    TB
	pass *httputil.ReverseProxy
	tls  *tls.Config // nil: it speaks plain HTTP

	mu       sync.Mutex
	server   *http.Server
	faults   []injected
	requests []Request
	released chan struct{} // closed when the test ends: what hangs is let go
}

// Request is a request that a FaultProxy has seen.
type Request struct {
	Method, Path, RawQuery string
	Header                 http.Header
}

// Fault answers a request in place of the server, or delays it; pass asks the server.
type Fault func(w http.ResponseWriter, r *http.Request, pass http.HandlerFunc)

// Match selects requests.
type Match func(*http.Request) bool

type injected struct {
	fault Fault
	match Match
}

// NewFaultProxy starts a proxy in front of the server at target, an http or https
// URL; it does not verify the server's certificate. It ends with the test.
func NewFaultProxy(t TB, target string) *FaultProxy {
	t.Helper()
	return newFaultProxy(t, target, nil, func() (tls.Certificate, error) { return tls.Certificate{}, nil })
}

// NewTLSFaultProxy is NewFaultProxy with a certificate for 127.0.0.1 of the authority. It
// wants a client certificate, and has its key: to the server it shows the one of these
// files, as they are when it connects (see Reconnect).
func NewTLSFaultProxy(t TB, target string, a *Authority, clientCert, clientKey string) *FaultProxy {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(a.Server())
	if err != nil {
		t.Fatalf("fault proxy: %v", err)
	}
	return newFaultProxy(t, target, &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS12,
	}, func() (tls.Certificate, error) { return tls.LoadX509KeyPair(clientCert, clientKey) })
}

// Reconnect makes the proxy connect to the server anew.
func (p *FaultProxy) Reconnect() { p.pass.Transport.(*http.Transport).CloseIdleConnections() }

func newFaultProxy(t TB, target string, server *tls.Config, client func() (tls.Certificate, error)) *FaultProxy {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatalf("fault proxy: %v", err)
	}
	p := &FaultProxy{t: t, tls: server, released: make(chan struct{})}
	p.pass = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(u)
			r.Out.Host = r.In.Host // it may be signed
		},
		Transport: &http.Transport{TLSClientConfig: &tls.Config{
			InsecureSkipVerify: true,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				pair, err := client()
				return &pair, err
			},
		}},
		ErrorLog: log.New(io.Discard, "", 0),
	}
	p.listen("127.0.0.1:0")
	t.Cleanup(func() {
		close(p.released)
		p.Down()
		p.Reconnect()
	})
	return p
}

func (p *FaultProxy) listen(address string) {
	p.t.Helper()
	ln, err := net.Listen("tcp", address)
	if err != nil {
		p.t.Fatalf("fault proxy: %v", err)
	}
	srv := &http.Server{Handler: p, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	p.mu.Lock()
	p.URL, p.server = "http://"+ln.Addr().String(), srv
	if p.tls != nil {
		p.URL, ln = "https://"+ln.Addr().String(), tls.NewListener(ln, p.tls)
	}
	p.mu.Unlock()
	go func() { _ = srv.Serve(ln) }()
}

// Down closes the port: connections are refused, open ones are cut.
func (p *FaultProxy) Down() {
	p.mu.Lock()
	srv := p.server
	p.mu.Unlock()
	_ = srv.Close()
}

// Up opens the same port again.
func (p *FaultProxy) Up() {
	p.t.Helper()
	u, err := url.Parse(p.URL)
	if err != nil {
		p.t.Fatalf("fault proxy: %v", err)
	}
	p.listen(u.Host)
}

// Inject applies the fault to every request from now on that all of match select,
// until Heal. Of several faults the one injected last wins.
func (p *FaultProxy) Inject(f Fault, match ...Match) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = append(p.faults, injected{f, func(r *http.Request) bool {
		return !slices.ContainsFunc(match, func(m Match) bool { return !m(r) })
	}})
}

// Heal removes all faults.
func (p *FaultProxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = nil
}

// Requests returns the requests seen so far that all of match select.
func (p *FaultProxy) Requests(match ...Match) []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	var found []Request
	for _, r := range p.requests {
		seen := &http.Request{Method: r.Method, URL: &url.URL{Path: r.Path, RawQuery: r.RawQuery}, Header: r.Header}
		if !slices.ContainsFunc(match, func(m Match) bool { return !m(seen) }) {
			found = append(found, r)
		}
	}
	return found
}

// Forget forgets the requests seen so far.
func (p *FaultProxy) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests = nil
}

// ServeHTTP implements http.Handler.
func (p *FaultProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.requests = append(p.requests, Request{r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Clone()})
	fault := Fault(nil)
	for _, i := range slices.Backward(p.faults) {
		if i.match(r) {
			fault = i.fault
			break
		}
	}
	p.mu.Unlock()
	if fault == nil {
		p.pass.ServeHTTP(w, r)
		return
	}
	fault(w, r, p.pass.ServeHTTP)
}

// PathIs selects requests for exactly this path.
func PathIs(path string) Match { return func(r *http.Request) bool { return r.URL.Path == path } }

// MethodIs selects requests of this method.
func MethodIs(method string) Match { return func(r *http.Request) bool { return r.Method == method } }

// Latency passes requests on after d.
func Latency(d time.Duration) Fault {
	return func(w http.ResponseWriter, r *http.Request, pass http.HandlerFunc) {
		select {
		case <-time.After(d):
			pass(w, r)
		case <-r.Context().Done():
		}
	}
}

// Answer answers with the status, content type and body.
func Answer(status int, contentType, body string) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// HTML answers with a page, as a misconfigured proxy or a login portal does.
func HTML(status int) Fault {
	return Answer(status, "text/html; charset=utf-8", "<!doctype html><html><title>Gateway</title><h1>It works, but not for you</h1></html>")
}

// Throttle answers 429 and asks to wait; a wait of zero is left unsaid.
func Throttle(wait time.Duration) Fault {
	return func(w http.ResponseWriter, r *http.Request, pass http.HandlerFunc) {
		if wait > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(wait.Seconds())))
		}
		Answer(http.StatusTooManyRequests, "application/json", `{"errors":["rate limit quota exceeded"]}`)(w, r, pass)
	}
}

// Drop cuts the connection without an answer.
func Drop() Fault {
	return func(http.ResponseWriter, *http.Request, http.HandlerFunc) { panic(http.ErrAbortHandler) }
}

// DropAnswer lets the server do what was asked and cuts the connection then.
func DropAnswer() Fault {
	return func(_ http.ResponseWriter, r *http.Request, pass http.HandlerFunc) {
		pass(discard{http.Header{}}, r)
		panic(http.ErrAbortHandler)
	}
}

// Hang never answers, until the client goes away or the test ends.
func (p *FaultProxy) Hang() Fault {
	return func(_ http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		select {
		case <-r.Context().Done():
		case <-p.released:
		}
	}
}

type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}
