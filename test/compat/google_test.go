package compat_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// googleURL is Google's issuer, below which the stand-in has all its endpoints; Google's
// own are on several hosts.
const googleURL = "https://accounts.google.com"

// google stands in for Google: a provider of that name, which is reached through a proxy
// and nowhere else.
type google struct {
	provider  *oauthtest.Server
	proxy     *httptest.Server
	authority string            // a file with the certificate that signed its own
	way       http.RoundTripper // to it, for the user's browser
}

func newGoogle(t *testing.T, clients []oauthtest.Client) *google {
	t.Helper()
	g := &google{provider: oauthtest.Start(t, oauthtest.Options{Clients: clients, URL: googleURL})}
	authority := servers.NewAuthority(t)
	g.authority = authority.File
	pair, err := tls.LoadX509KeyPair(authority.Server("accounts.google.com"))
	require.NoError(t, err)
	front := httptest.NewUnstartedServer(httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: g.provider.Addr()}))
	front.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	front.StartTLS()
	t.Cleanup(front.Close)

	g.proxy = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Host != "accounts.google.com:443" {
			http.Error(w, "there is nothing but Google here", http.StatusForbidden)
			return
		}
		tunnel(t, w, front.Listener.Addr().String())
	}))
	t.Cleanup(g.proxy.Close)

	pem, err := os.ReadFile(g.authority)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(pem))
	through, err := url.Parse(g.proxy.URL)
	require.NoError(t, err)
	way := &http.Transport{Proxy: http.ProxyURL(through), TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(way.CloseIdleConnections)
	g.way = way
	return g
}

// tunnel carries bytes between the client of a CONNECT request and an address.
func tunnel(t *testing.T, w http.ResponseWriter, address string) {
	to, err := net.Dial("tcp", address)
	if err != nil {
		http.Error(w, "the server does not answer", http.StatusBadGateway)
		return
	}
	w.WriteHeader(http.StatusOK)
	from, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Errorf("the connection cannot be taken over: %v", err)
		return
	}
	go func() {
		_, _ = io.Copy(to, buffered)
		_ = to.Close()
	}()
	_, _ = io.Copy(from, to)
	_ = from.Close()
}
