package httpapi_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/httpapi"
	"github.com/nexus-broker/nexus-broker/internal/httpserver"
)

// send writes raw bytes to a server and returns its first answer.
func send(t *testing.T, addr, raw string) (*http.Response, string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	_, _ = io.WriteString(conn, raw) // the server may answer before it has read all
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp, string(body)
}

func (c *client) addr() string { return strings.TrimPrefix(c.url, "http://") }

// A return_url with line breaks must not become headers of its own, whatever the
// domain lets through.
func TestHeaderInjectionThroughReturnURL(t *testing.T) {
	for _, evil := range []string{
		"https://app.example.com/\r\nSet-Cookie: a=b", "https://app.example.com/\nX: y", "https://app.example.com/\x00", "https://app.example.com/\u0085x", "",
	} {
		c := newClient(t, httpapi.Options{Broker: &stub{redirect: broker.Redirect{URL: evil}}})
		answer := c.get("/auth/callback?code=c&state=s")
		answer.requireError(t, 500, "internal_error")
		require.Empty(t, answer.Header.Get("Location"))
		require.Empty(t, answer.Header.Get("Set-Cookie"))

		c = newClient(t, httpapi.Options{Broker: &stub{err: &broker.Error{Code: broker.CodeOAuthError, Message: "m", ReturnURL: evil}}}).with("Accept", browserAccept)
		answer = c.get("/auth/callback?error=x&state=s")
		require.Equal(t, 400, answer.StatusCode)
		require.Empty(t, answer.Header.Get("Location"))
		requirePage(t, answer)
	}
}

func TestHeaderInjectionThroughRequestID(t *testing.T) {
	c := newClient(t, httpapi.Options{Broker: &stub{}})
	for _, id := range []string{"a\rX-Evil: 1", "a\x0bX-Evil: 1", "a%0d%0aX-Evil:%201", "a\u2028X-Evil: 1"} {
		resp, _ := send(t, c.addr(), "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-Id: "+id+"\r\n\r\n")
		require.Empty(t, resp.Header.Get("X-Evil"))
		require.NotContains(t, resp.Header.Get("X-Request-Id"), "Evil")
	}
}

// Where the browser goes is the domain's word alone: nothing in the request to the
// callback or the form adds to it.
func TestNoOpenRedirect(t *testing.T) {
	c := newClient(t, httpapi.Options{Broker: &stub{err: &broker.Error{Code: broker.CodeInvalidState, Message: "m"}}}).with("Accept", browserAccept)
	for _, query := range []string{
		"return_url=https://evil.example.com", "redirect_uri=https://evil.example.com", "state=https://evil.example.com&code=c",
		"state=s&code=c&next=//evil.example.com",
	} {
		for _, path := range []string{"/auth/callback?", "/auth/capture-schema?"} {
			answer := c.get(path + query)
			require.Equal(t, 400, answer.StatusCode)
			require.Empty(t, answer.Header.Get("Location"))
			require.NotContains(t, answer.body, "evil")
		}
	}
	answer := c.with("Host", "evil.example.com").with("X-Forwarded-Host", "evil.example.com").get("//evil.example.com/..")
	answer.requireError(t, 404, "not_found")
	require.Empty(t, answer.Header.Get("Location"))
	// A redirect is sent as the domain has given it, also where it looks relative.
	ok := newClient(t, httpapi.Options{Broker: &stub{redirect: broker.Redirect{URL: "com.example.app:/done?a=1"}}})
	require.Equal(t, "com.example.app:/done?a=1", ok.get("/auth/callback?code=c&state=s").Header.Get("Location"))
}

func TestOversizedBodies(t *testing.T) {
	domain := &stub{}
	c := newClient(t, httpapi.Options{Broker: domain})
	pad := func(size int) string {
		const frame = `{"profile":{"name":"a","x":""}}`
		return `{"profile":{"name":"a","x":"` + strings.Repeat("y", size-len(frame)) + `"}}`
	}
	require.Equal(t, 201, c.do("POST", "/providers", pad(httpapi.MaxBodyBytes)).StatusCode)
	before := domain.calls()
	c.do("POST", "/providers", pad(httpapi.MaxBodyBytes+1)).requireError(t, 413, "body_too_large")
	c.do("DELETE", "/providers/"+someID, strings.Repeat(" ", httpapi.MaxBodyBytes+1)).requireError(t, 413, "body_too_large")
	require.Equal(t, before, domain.calls())

	// Neither does it help not to say how long it is, whether the operation takes a body
	// or not.
	chunked := func(route string, size int) string {
		const chunk = 64 << 10
		return route + " HTTP/1.1\r\nHost: x\r\nX-API-Key: " + adminKey + "\r\nTransfer-Encoding: chunked\r\n\r\n" +
			strings.Repeat(fmt.Sprintf("%x\r\n%s\r\n", chunk, strings.Repeat(" ", chunk)), size/chunk) + "0\r\n\r\n"
	}
	for _, route := range []string{
		"POST /auth/capture-credential", "POST /connections/" + someID + "/refresh", "DELETE /providers/" + someID, "GET /providers",
	} {
		resp, body := send(t, c.addr(), chunked(route, httpapi.MaxBodyBytes+64<<10))
		require.Equal(t, 413, resp.StatusCode, "%s: %s", route, body)
		require.Contains(t, body, "body_too_large")
		require.Equal(t, before, domain.calls(), route)
	}
	resp, body := send(t, c.addr(), chunked("DELETE /providers/"+someID, httpapi.MaxBodyBytes))
	require.Equal(t, 200, resp.StatusCode, body)
	resp, _ = send(t, c.addr(), "DELETE /connections/"+someID+" HTTP/1.1\r\nHost: x\r\nX-API-Key: "+adminKey+
		"\r\nTransfer-Encoding: chunked\r\n\r\nf\r\n{\"reason\":\"old\"\r\n1\r\n}\r\n0\r\n\r\n")
	require.Equal(t, 200, resp.StatusCode)
	require.Equal(t, "old", domain.last().(broker.RevokeRequest).Reason, "a body in chunks is read")
}

// A body that stops arriving is answered, in our form, when the time is up.
func TestSlowBody(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- httpserver.Serve(ctx, ln, httpserver.Options{
			Handler: handler(t, httpapi.Options{Broker: &stub{}}), Logger: slog.New(slog.DiscardHandler),
			ReadTimeout: 200 * time.Millisecond, Grace: 10 * time.Second,
		})
	}()
	resp, body := send(t, ln.Addr().String(), "POST /providers HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"profile\":")
	require.Equal(t, 408, resp.StatusCode, body)
	require.Contains(t, body, "request_timeout")
	cancel()
	require.NoError(t, <-done)
}

// A body that ends too early is not taken for a whole one.
func TestBodyThatIsCutOff(t *testing.T) {
	domain := &stub{}
	c := newClient(t, httpapi.Options{Broker: domain})
	conn, err := net.Dial("tcp", c.addr())
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "POST /providers HTTP/1.1\r\nHost: x\r\nX-API-Key: "+adminKey+"\r\nContent-Length: 100\r\n\r\n"+`{"profile":{"name":"a"}}`)
	require.NoError(t, err)
	require.NoError(t, conn.(*net.TCPConn).CloseWrite())
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(30*time.Second)))
	_, _ = io.ReadAll(conn)
	require.Zero(t, domain.calls())
}

// Two requests where a careless proxy sees one: the server refuses to guess.
func TestRequestSmuggling(t *testing.T) {
	domain := &stub{}
	c := newClient(t, httpapi.Options{Broker: domain})
	head := "POST /providers HTTP/1.1\r\nHost: x\r\nX-API-Key: " + adminKey + "\r\n"
	for _, framing := range []string{
		"Content-Length: 5\r\nContent-Length: 60\r\n", "Transfer-Encoding: chunked, identity\r\n", "Transfer-Encoding: xchunked\r\n",
	} {
		resp, _ := send(t, c.addr(), head+framing+"\r\n"+`{"profile":{"name":"a"}}`+strings.Repeat(" ", 60))
		require.GreaterOrEqual(t, resp.StatusCode, 400, framing)
	}
	require.Zero(t, domain.calls())
}
