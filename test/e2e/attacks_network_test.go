package e2e_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// TestAttackWithPaths: a name is never a path, neither in a URL nor in the vault.
func TestAttackWithPaths(t *testing.T) {
	t.Parallel()
	v := newProxiedVault(t, nil)
	b := start(t, v.world.env)
	v.Write("secret/data/nexus/other/client_secret", map[string]any{"data": map[string]any{"value": "CANARY-of-another-prefix"}})
	v.proxy.Forget()
	for _, name := range []string{"..", ".", "../other", "../../other", "a/b", "/etc", "a%2fb", "a\\b", "a\x00", "a\n", "%2e%2e", "a.b", "é", " a", "a "} {
		b.call("POST", "/providers", map[string]any{"profile": profilePair(name, "x")}).want(400, "invalid_provider_name")
		resp, err := http.DefaultTransport.RoundTrip(b.request("GET", "/providers/by-name/"+url.PathEscape(name), nil, key()))
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, http.StatusNotFound, resp.StatusCode, name)
	}
	for _, path := range []string{"/providers/../audit", "//providers", "/providers//", "/./health", "/providers/by-name/..%2f..%2fother", "/%2e%2e/providers", "/auth/callback/../../health"} {
		conn := b.dial(t)
		_, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: x\r\nX-Api-Key: "+apiKey+"\r\nConnection: close\r\n\r\n")
		require.NoError(t, err)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusNotFound, resp.StatusCode, "%s is neither cleaned nor redirected", path)
		require.NoError(t, resp.Body.Close())
	}
	require.Empty(t, v.proxy.Requests(), "none of it has reached the vault")
}

// dial opens a connection for what no HTTP client would send.
func (p *process) dial(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.URL, "http://"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	return conn
}

// TestAttackWithLineBreaks: what callers send does not become a header, or a line of
// the log, of its own.
func TestAttackWithLineBreaks(t *testing.T) {
	t.Parallel()
	op := oauthtest.Start(t, oauthtest.Options{})
	b := start(t, base().with(env{"DATABASE_URL": servers.Postgres(t)}))
	provider := b.registerAt(op, "flow")
	for _, returnURL := range []string{"https://app.test/\r\nSet-Cookie: a=b", "https://app.test/\nx", "https://app.test/\x00", "https://app.test/\t"} {
		b.call("POST", "/auth/consent-spec", map[string]any{"workspace_id": "w", "provider_id": provider, "return_url": returnURL}).
			want(400, "return_url_not_allowed")
	}
	// Encoded, it is part of the URL and stays so.
	a := b.call("POST", "/auth/consent-spec", map[string]any{"workspace_id": "w", "provider_id": provider,
		"return_url": "https://app.test/%0d%0aSet-Cookie:%20a=b?q=%0d%0aX:%20y"}).want(200)
	done := b.send("GET", b.authorize(a.text("authUrl")).RequestURI(), nil, nil).want(302)
	require.Empty(t, done.Header.Get("Set-Cookie"))
	require.NotContains(t, done.Header.Get("Location"), "\n")
	require.Equal(t, "/\r\nSet-Cookie: a=b", mustURL(t, done.Header.Get("Location")).Path)
	for _, header := range []string{"X-Request-Id: a\r\n Set-Cookie: evil=1", "X-Request-Id: a\rSet-Cookie: evil=1", "X-Request-Id: a\tevil", "User-Agent: a\x01\"}\x7f{\"msg\":\"evil\"}"} {
		conn := b.dial(t)
		_, err := io.WriteString(conn, "GET /providers HTTP/1.1\r\nHost: x\r\nX-Api-Key: "+apiKey+"\r\n"+header+"\r\nConnection: close\r\n\r\n")
		require.NoError(t, err)
		answer, err := io.ReadAll(conn)
		require.NoError(t, err)
		require.NotContains(t, string(answer), "evil")
	}
	for line := range strings.Lines(b.log.String()) {
		require.True(t, strings.HasPrefix(line, "{") && strings.HasSuffix(line, "}\n"), "a line of its own: %q", line)
	}
}

// TestAttackWithReturnURLs tries to send users elsewhere.
func TestAttackWithReturnURLs(t *testing.T) {
	t.Parallel()
	op := oauthtest.Start(t, oauthtest.Options{})
	dsn := servers.Postgres(t)
	strict := start(t, base().with(env{"DATABASE_URL": dsn, "ENFORCE_RETURN_URL": "true", "ALLOWED_RETURN_DOMAINS": "app.test,*.wild.test"}))
	lax := start(t, base().with(env{"DATABASE_URL": dsn}))
	provider := strict.registerAt(op, "flow")
	ask := func(b *process, returnURL string) answer {
		return b.call("POST", "/auth/consent-spec", map[string]any{"workspace_id": "w", "provider_id": provider, "return_url": returnURL})
	}
	for _, allowed := range []string{"https://app.test", "http://app.test:8080/x?y#z", "https://APP.test/", "https://a.wild.test", "https://a.b.wild.test/"} {
		ask(strict, allowed).want(200)
	}
	for _, refused := range []string{
		"https://evil.test", "https://app.test.evil.test", "https://app.test@evil.test", "https://evil.test/app.test", "https://evil.test?app.test",
		"https://evil.test#app.test", "//evil.test", "//app.test", "/path", "evil.test", "https:evil.test", "https:///evil.test", "https://evil.test\\.app.test",
		"https:\\\\evil.test", "https://app.test%2eevil.test", "https://app.test%00.evil.test", "https://wild.test", "https://evilwild.test",
		"https://xapp.test", "ftp://app.test", "javascript://app.test/%0aalert(1)", "data:text/html,app.test", "https://", "https://[::1]", " https://app.test",
		"https://app.test:80@evil.test", "https://аpp.test", "https://app.test.:443@evil.test/",
	} {
		a := ask(strict, refused)
		require.Equal(t, 400, a.Status, "%q: %s", refused, a.Body)
		require.Contains(t, []string{"return_url_not_allowed"}, a.text("error"), refused)
	}
	for _, refused := range []string{"javascript:alert(1)", "JavaScript:alert(1)", "data:text/html,x", "vbscript:x", "file:///etc/passwd", "\tjavascript:alert(1)", "java\nscript:alert(1)"} {
		a := ask(lax, refused)
		require.Equal(t, 400, a.Status, "%q: %s", refused, a.Body)
	}
	require.NotEmpty(t, strict.events("invalid_return_url"))
}

// TestAttackBySlowness: a connection that never comes to the point is closed, and
// meanwhile everybody else is served.
func TestAttackBySlowness(t *testing.T) {
	t.Parallel()
	b := start(t, base().with(env{"DATABASE_URL": servers.Postgres(t)}))
	for range 100 {
		_, err := io.WriteString(b.dial(t), "GET /health HTTP/1.1\r\nHost: x\r\nX-A: ")
		require.NoError(t, err)
	}
	conn := b.dial(t)
	_, err := io.WriteString(conn, "GET /health HTTP/1.1\r\nHost: x\r\nX-A: ")
	require.NoError(t, err)
	b.send("GET", "/health", nil, nil).want(200)
	dripped := make(chan struct{})
	go func() { // what trickles in does not prolong it
		defer close(dripped)
		for {
			if _, err := io.WriteString(conn, "a"); err != nil {
				return
			}
			time.Sleep(500 * time.Millisecond)
		}
	}()
	_, err = io.ReadAll(conn)
	var timeout net.Error
	require.False(t, err != nil && errors.As(err, &timeout) && timeout.Timeout(), "after a minute it is still open")
	_ = conn.Close()
	<-dripped
}

// TestAttackOnPrivateAddresses: with OUTBOUND_ALLOW_PRIVATE=false no URL of a profile
// makes the broker speak to its own machine or network.
func TestAttackOnPrivateAddresses(t *testing.T) {
	t.Parallel()
	op := oauthtest.Start(t, oauthtest.Options{})
	port := mustURL(t, op.Issuer()).Port()
	dsn := servers.Postgres(t)
	b := start(t, base().with(env{"DATABASE_URL": dsn, "OUTBOUND_ALLOW_PRIVATE": "false"}))
	for i, host := range []string{"127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "[::]", "169.254.169.254", "10.0.0.1", "[fe80::1]", "[fd00::1]", "100.64.0.1"} {
		at := "http://" + host + ":" + port
		name := "private-" + string(rune('a'+i))
		id := b.call("POST", "/providers", map[string]any{"profile": map[string]any{"name": name, "client_id": "test-client", "client_secret": "test-secret",
			"auth_url": op.URL(oauthtest.Authorization), "token_url": at + "/token"}}).want(201).text("id")
		a := b.call("POST", "/auth/consent-spec", map[string]any{"workspace_id": "w", "provider_id": id, "return_url": returnURL}).want(200)
		b.send("GET", "/auth/callback?code=c&state="+url.QueryEscape(a.text("state")), nil, nil).want(500, "token_exchange_failed")

		b.call("PATCH", "/providers/"+id, map[string]any{"issuer": at, "enable_discovery": true, "auth_url": nil, "token_url": nil}).want(200)
		b.call("POST", "/auth/consent-spec", consentFor(id)).want(502, "upstream_error")

		static := b.call("POST", "/providers", map[string]any{"profile": map[string]any{"name": name + "-static", "auth_type": "api_key",
			"api_base_url": at, "user_info_endpoint": "/userinfo"}}).want(201).text("id")
		state := b.call("POST", "/auth/consent-spec", consentFor(static)).want(200).text("state")
		b.send("POST", "/auth/capture-credential", map[string]any{"state": state, "credentials": map[string]any{"api_key": "k"}}, nil).want(400, "invalid_credentials")
	}
	for _, e := range []oauthtest.Endpoint{oauthtest.Token, oauthtest.Discovery, oauthtest.UserInfo} {
		require.Equal(t, 0, op.Count(e), "%s was asked", e)
	}
}
