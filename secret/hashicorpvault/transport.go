package hashicorpvault

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// maxBody bounds an answer. The largest legal one is a secret of 32 KiB, escaped.
const maxBody = 1 << 20

// newHTTPClient returns a client that follows the redirect of a standby and nothing
// else, and reads no more than maxBody of an answer.
func newHTTPClient(c TLS) (*http.Client, *transport, error) {
	t := &transport{config: c}
	if err := t.rebuild(); err != nil {
		return nil, nil, err
	}
	return &http.Client{Transport: t, CheckRedirect: checkRedirect}, t, nil
}

// errRedirect is a redirect that a Vault does not send.
var errRedirect = errors.New("the server redirects to somewhere else than a Vault: check the address and the proxies in front of it")

// checkRedirect allows what a standby node sends that does not forward: 307 to the
// same path of the active node. Anything else, a login portal's page for instance,
// would be handed the token. A redirect from https to http would show it to everybody.
func checkRedirect(req *http.Request, via []*http.Request) error {
	first := via[0]
	switch {
	case req.Response.StatusCode != http.StatusTemporaryRedirect,
		req.URL.Scheme != "https" && first.URL.Scheme == "https",
		apiPath(req.URL.Path) != apiPath(first.URL.Path),
		len(via) > 2:
		return errRedirect
	}
	return nil
}

// apiPath returns the part of a path from "/v1/" on: what goes before it is a
// gateway's, and the active node need not be behind the same one.
func apiPath(path string) string {
	if i := strings.Index(path, "/v1/"); i >= 0 {
		return path[i:]
	}
	return path
}

// transport is an http.Transport that can be replaced when the files of its
// certificates have changed.
type transport struct {
	config TLS

	mu      sync.Mutex
	current *http.Transport
	read    []fileState // of the certificates that current was made with
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	used := t.now()
	resp, err := used.RoundTrip(req)
	var untrusted *tls.CertificateVerificationError
	if errors.As(err, &untrusted) {
		if other, again := t.retry(req, used); other != nil {
			resp, err = other.RoundTrip(again)
		}
	}
	if err != nil {
		return nil, err
	}
	resp.Body = http.MaxBytesReader(nil, resp.Body, maxBody)
	return resp, nil
}

// retry returns req once more, and another transport than used for it if the certificates'
// files have changed since that was built. Nothing of req has been sent yet.
func (t *transport) retry(req *http.Request, used *http.Transport) (*http.Transport, *http.Request) {
	if err := t.rebuild(); err != nil || t.now() == used {
		return nil, nil
	}
	again := req.Clone(req.Context())
	if req.GetBody != nil {
		body, err := req.GetBody()
		if err != nil {
			return nil, nil
		}
		again.Body = body
	}
	return t.now(), again
}

func (t *transport) now() *http.Transport {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.current
}

// CloseIdleConnections closes the connections that are not in use.
func (t *transport) CloseIdleConnections() { t.now().CloseIdleConnections() }

// clientFiles returns the state of the client certificate and its key, as they are now.
func (t *transport) clientFiles() []fileState {
	if t.config.ClientCertFile == "" {
		return nil
	}
	return []fileState{stateOf(t.config.ClientCertFile), stateOf(t.config.ClientKeyFile)}
}

// rebuild reads the files of the certificates, unless they are those that were read last.
func (t *transport) rebuild() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	files, err := t.config.caFiles()
	if err != nil {
		return err
	}
	states := t.clientFiles()
	for _, f := range files {
		states = append(states, stateOf(f))
	}
	if t.current != nil && sameFiles(t.read, states) {
		return nil
	}
	tlsConfig, err := t.config.build(files)
	if err != nil {
		return err
	}
	if t.current != nil {
		t.current.CloseIdleConnections()
	}
	t.current, t.read = newTransport(tlsConfig), states
	return nil
}

func newTransport(c *tls.Config) *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:        c,
		TLSHandshakeTimeout:    10 * time.Second,
		ForceAttemptHTTP2:      true,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true,
		// A connection whose other end has vanished is found out and not used again.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second},
	}
}

// caFiles returns the files that hold the trusted CAs.
func (c TLS) caFiles() ([]string, error) {
	var files []string
	if c.CACertFile != "" {
		files = append(files, c.CACertFile)
	}
	if c.CACertDir == "" {
		return files, nil
	}
	err := filepath.WalkDir(c.CACertDir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("CA directory: %w", err)
	}
	return files, nil
}

func (c TLS) build(caFiles []string) (*tls.Config, error) {
	config := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         c.ServerName,
		InsecureSkipVerify: c.InsecureSkipVerify, //nolint:gosec // the operator asks for it, and is warned
	}
	var err error
	if config.RootCAs, err = c.pool(caFiles); err != nil {
		return nil, err
	}
	if c.ClientCertFile == "" {
		return config, nil
	}
	if _, err := tls.LoadX509KeyPair(c.ClientCertFile, c.ClientKeyFile); err != nil {
		return nil, fmt.Errorf("client certificate: %w", err)
	}
	// A function, not a list: it also ignores which CAs the server names, and a renewed
	// certificate is used without a restart.
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(c.ClientCertFile, c.ClientKeyFile)
		return &pair, err
	}
	return config, nil
}

// pool returns the trusted CAs, nil for the system's.
func (c TLS) pool(caFiles []string) (*x509.CertPool, error) {
	if c.CACertFile == "" && c.CACertDir == "" && len(c.CACertPEM) == 0 {
		return nil, nil
	}
	pool, found := x509.NewCertPool(), false
	for _, f := range caFiles {
		pem, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("CA file: %w", err)
		}
		ok := pool.AppendCertsFromPEM(pem)
		if !ok && f == c.CACertFile {
			return nil, fmt.Errorf("CA file %s holds no PEM certificate", f)
		}
		found = found || ok
	}
	found = pool.AppendCertsFromPEM(c.CACertPEM) || found
	if !found {
		return nil, errors.New("no PEM certificate among the CAs")
	}
	return pool, nil
}
