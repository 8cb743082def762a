package oauth_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/oauth"
	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
)

// direct is no proxy, whatever the environment says.
func direct(*http.Request) (*url.URL, error) { return nil, nil }

func TestGuardRefusesWhatIsNotPublic(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request arrived") }))
	defer server.Close()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	require.NoError(t, err)
	c := oauth.New(oauth.Options{HTTP: oauth.NewHTTPClient(oauth.HTTPOptions{Proxy: direct})})

	for _, host := range []string{
		"127.0.0.1", "127.9.9.9", "0.0.0.0", "[::1]", "[::]", "localhost",
		"[::ffff:127.0.0.1]", "[::ffff:169.254.169.254]", "[::127.0.0.1]",
		"169.254.169.254", "[fe80::1%25lo]", "[fd00:ec2::254]", "[fc00::1]",
		"10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192",
		"[64:ff9b::7f00:1]", "[64:ff9b:1::a00:1]", "[2002:7f00:1::]", "[2001::1]", "[fec0::1]",
		"224.0.0.1", "[ff02::1]", "255.255.255.255", "240.0.0.1", "198.18.0.1", "192.0.2.1", "[2001:db8::1]",
		"0.1.2.3", "192.88.99.1", "198.51.100.1", "203.0.113.1", "[::ffff:0:7f00:1]", "[100::1]", "[3fff::1]", "[5f00::1]",
	} {
		_, err := c.CheckAPI(t.Context(), "http://"+host+":"+port+"/", nil)
		require.ErrorIs(t, err, oauth.ErrAddressNotAllowed, host)
	}
}

func TestGuardCoversEveryKindOfRequest(t *testing.T) {
	p := oauthtest.Start(t, oauthtest.Options{})
	c := oauth.New(oauth.Options{HTTP: oauth.NewHTTPClient(oauth.HTTPOptions{Proxy: direct})})
	_, err := c.Exchange(t.Context(), anExchange(t, p))
	require.ErrorIs(t, err, oauth.ErrAddressNotAllowed)
	_, err = c.Refresh(t.Context(), oauth.Refresh{TokenRequest: oauth.TokenRequest{Endpoint: p.URL(oauthtest.Token)}})
	require.ErrorIs(t, err, oauth.ErrAddressNotAllowed)
	_, err = c.Discover(t.Context(), p.Issuer())
	require.ErrorIs(t, err, oauth.ErrAddressNotAllowed)
	require.Contains(t, err.Error(), "127.0.0.1")
	require.Contains(t, err.Error(), "OUTBOUND_ALLOW_PRIVATE")
	require.Zero(t, p.Count(oauthtest.Token)+p.Count(oauthtest.Discovery))

	_, err = oauth.New(oauth.Options{}).Discover(t.Context(), p.Issuer())
	require.ErrorIs(t, err, oauth.ErrAddressNotAllowed, "the guard is on unless it is taken off")
}

// TestGuardLetsPublicAddressesThrough connects to nobody: a context that has ended
// stops the dialling after the guard has had its say, or before.
func TestGuardLetsPublicAddressesThrough(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c := oauth.New(oauth.Options{HTTP: oauth.NewHTTPClient(oauth.HTTPOptions{Proxy: direct})})
	for _, host := range []string{"8.8.8.8", "172.32.0.1", "100.128.0.1", "169.253.0.1", "[2606:4700::1111]"} {
		_, err := c.CheckAPI(ctx, "https://"+host+"/", nil)
		require.ErrorIs(t, err, context.Canceled, host)
	}
}

func TestGuardBehindAProxy(t *testing.T) {
	var seen []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.URL.String())
		w.WriteHeader(http.StatusTeapot)
	}))
	defer proxy.Close()
	proxyURL, err := url.Parse(proxy.URL)
	require.NoError(t, err)
	c := oauth.New(oauth.Options{HTTP: oauth.NewHTTPClient(oauth.HTTPOptions{Proxy: func(r *http.Request) (*url.URL, error) {
		if r.URL.Hostname() == "direct.localhost" {
			return nil, nil
		}
		return proxyURL, nil
	}})})

	status, err := c.CheckAPI(t.Context(), "http://provider.example/me", nil)
	require.NoError(t, err, "the proxy itself may have a private address")
	require.Equal(t, http.StatusTeapot, status)

	for _, host := range []string{"169.254.169.254", "[::ffff:169.254.169.254]", "[::ffff:100.64.0.1]", "10.0.0.1"} {
		_, err = c.CheckAPI(t.Context(), "http://"+host+"/latest/meta-data/", nil)
		require.ErrorIs(t, err, oauth.ErrAddressNotAllowed, host)
	}
	_, err = c.CheckAPI(t.Context(), "http://direct.localhost:"+proxyURL.Port()+"/", nil)
	require.Error(t, err, "that exception is the proxy's alone")
	require.Equal(t, []string{"http://provider.example/me"}, seen)
}

func TestTLS(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{MaxVersion: tls.VersionTLS12}
	server.StartTLS()
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())

	status, err := newClient(t, oauth.HTTPOptions{RootCAs: roots}).CheckAPI(t.Context(), server.URL, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status)

	_, err = newClient(t, oauth.HTTPOptions{RootCAs: x509.NewCertPool()}).CheckAPI(t.Context(), server.URL, nil)
	require.ErrorContains(t, err, "unknown authority")

	otherName := strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
	_, err = newClient(t, oauth.HTTPOptions{RootCAs: roots}).CheckAPI(t.Context(), otherName, nil)
	require.ErrorContains(t, err, "another host")

	old := httptest.NewUnstartedServer(http.NotFoundHandler())
	old.Config.ErrorLog = log.New(io.Discard, "", 0)
	old.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11} //nolint:gosec // what must be refused
	old.StartTLS()
	defer old.Close()
	roots.AddCert(old.Certificate())
	_, err = newClient(t, oauth.HTTPOptions{RootCAs: roots}).CheckAPI(t.Context(), old.URL, nil)
	require.ErrorContains(t, err, "TLS handshake")

	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	_, err = newClient(t, oauth.HTTPOptions{}).CheckAPI(t.Context(), strings.Replace(plain.URL, "http:", "https:", 1), nil)
	require.Error(t, err)
}

func TestCheckAPI(t *testing.T) {
	p := oauthtest.Start(t, oauthtest.Options{})
	c := newClient(t, oauth.HTTPOptions{})
	header := http.Header{"Authorization": {"Bearer nonsense"}}
	status, err := c.CheckAPI(t.Context(), p.URL(oauthtest.UserInfo)+"?a=b", header)
	require.NoError(t, err)
	require.Equal(t, http.StatusUnauthorized, status)
	request := p.LastRequest(oauthtest.UserInfo)
	require.Equal(t, "Bearer nonsense", request.Header.Get("Authorization"))
	require.Equal(t, "b", request.Query.Get("a"))
	require.Len(t, header, 1, "the caller's header is left as it was")

	other := oauthtest.Start(t, oauthtest.Options{})
	p.Next(oauthtest.UserInfo, oauthtest.RedirectTo(other.URL(oauthtest.UserInfo)))
	status, err = c.CheckAPI(t.Context(), p.URL(oauthtest.UserInfo), http.Header{"X-Api-Key": {"key"}})
	require.NoError(t, err)
	require.Equal(t, http.StatusTemporaryRedirect, status)
	require.Zero(t, other.Count(oauthtest.UserInfo), "the key stays with its host")
}

func TestCheckAPIErrorsShowNoCredential(t *testing.T) {
	c := newClient(t, oauth.HTTPOptions{})
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	garbage := listenOnce(t, "HTTP/1.1 hunter2 hunter2\r\n\r\n")
	for _, target := range []string{closed.URL + "/?key=hunter2", "http://" + garbage + "/?key=hunter2", "http://hunter2:hunter2@127.0.0.1/", "http://127.0.0.1:1/%zz?hunter2"} {
		_, err := c.CheckAPI(t.Context(), target, http.Header{"X-Api-Key": {"hunter2"}})
		require.Error(t, err, target)
		require.NotContains(t, err.Error(), "hunter2")
	}
	_, err := c.CheckAPI(t.Context(), closed.URL, nil)
	require.ErrorIs(t, err, syscall.ECONNREFUSED, "what a person needs to know is kept")
	_, err = c.CheckAPI(t.Context(), closed.URL, http.Header{"X-Api-Key": {"hunter2\r\nX-Injected: 1"}})
	require.Error(t, err, "a header cannot be split")
	require.NotContains(t, err.Error(), "hunter2")
}

// listenOnce answers one connection with raw bytes and returns its address.
func listenOnce(t *testing.T, raw string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = conn.Read(make([]byte, 4096))
		_, _ = io.WriteString(conn, raw)
		_ = conn.Close()
	}()
	return l.Addr().String()
}
