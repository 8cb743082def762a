package apiclient_test

import (
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/apiclient"
	"github.com/nexus-broker/nexus-broker/secret"
)

const key = "canary-key"

func client(t *testing.T, address string, sleep func(context.Context, time.Duration) error) *apiclient.Client {
	t.Helper()
	u, err := url.Parse(address)
	require.NoError(t, err)
	return apiclient.New(apiclient.Options{BaseURL: u, APIKey: secret.NewValue(key), Sleep: sleep})
}

// Whatever answers, the error says what to do and quotes neither the key nor the answer.
func TestAnswersThatAreNoBrokers(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		want   error
		says   string
	}{
		"a page":              {200, "<html>canary", apiclient.ErrNotBroker, "is not a nexus-broker"},
		"other JSON":          {200, `[{"x":"canary"}]`, apiclient.ErrNotBroker, "is not a nexus-broker"},
		"not found page":      {404, "canary", apiclient.ErrNotBroker, "is not a nexus-broker"},
		"a proxy":             {502, "<html>canary", apiclient.ErrUnavailable, "in front of the broker"},
		"a redirect":          {302, "canary", apiclient.ErrNotBroker, "leads elsewhere"},
		"no key":              {401, `{"error":"missing_api_key","message":"m"}`, apiclient.ErrKey, "set API_KEY"},
		"a wrong key":         {403, `{"error":"invalid_api_key","message":"m"}`, apiclient.ErrKey, "check API_KEY"},
		"an agent's key":      {403, `{"error":"forbidden","message":"m"}`, apiclient.ErrForbidden, "role is admin"},
		"an address":          {403, `{"error":"access_denied","message":"m"}`, apiclient.ErrForbidden, "access_denied: m"},
		"an outage":           {503, `{"error":"secret_backend_unavailable","message":"m"}`, apiclient.ErrUnavailable, "503"},
		"an echo of the key":  {400, `{"error":"bad","message":"` + key + ` \u001b[2J"}`, apiclient.ErrRefused, "[redacted]"},
		"a code that is none": {400, `{"error":"canary canary","message":"canary"}`, apiclient.ErrNotBroker, "is not a nexus-broker"},
	} {
		t.Run(name, func(t *testing.T) {
			followed := false
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				followed = followed || r.URL.Path != "/base/providers"
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			}))
			t.Cleanup(srv.Close)
			_, err := client(t, srv.URL+"/base", nil).Providers(t.Context())
			require.ErrorIs(t, err, c.want)
			require.ErrorContains(t, err, c.says)
			require.NotContains(t, err.Error(), "canary")
			require.NotContains(t, err.Error(), "\x1b")
			require.False(t, followed, "the key went along")
		})
	}
}

func TestConnectionsThatFail(t *testing.T) {
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // it tells of the handshakes that fail
	secure.StartTLS()
	t.Cleanup(secure.Close)
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	for address, says := range map[string]string{
		secure.URL:                "an authority that this machine does not trust: SSL_CERT_FILE",
		"https" + plain.URL[4:]:   "does not speak TLS",
		"http://127.0.0.1:1":      "connection refused",
		"http://nowhere.invalid.": "cannot be found",
	} {
		_, err := client(t, address, nil).Providers(t.Context())
		require.ErrorIs(t, err, apiclient.ErrUnreachable, address)
		require.ErrorContains(t, err, says)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := client(t, plain.URL, nil).Providers(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

// What the rate limit refuses is sent again when the broker says, within limits.
func TestRateLimit(t *testing.T) {
	refuse := 2
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if refuse--; refuse >= 0 {
			w.Header().Set("Retry-After", "86400")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		_, _ = io.WriteString(w, "[]")
	}))
	t.Cleanup(srv.Close)
	var waits []time.Duration
	sleep := func(_ context.Context, d time.Duration) error { waits = append(waits, d); return nil }
	_, err := client(t, srv.URL, sleep).Providers(t.Context())
	require.NoError(t, err)
	require.Equal(t, []time.Duration{30 * time.Second, 30 * time.Second}, waits)
}
