package oauth_test

import (
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// browse follows redirects, with cookies, until one leads to redirectURI, which it
// returns. Nobody listens there.
func browse(t *testing.T, target string) *url.URL {
	t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	browser := &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer browser.CloseIdleConnections()
	for range 10 {
		resp, err := browser.Get(target)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		next, err := resp.Location()
		require.NoError(t, err, "status %d is no redirect", resp.StatusCode)
		if strings.HasPrefix(next.String(), redirectURI) {
			return next
		}
		target = next.String()
	}
	t.Fatal("more than ten redirects")
	return nil
}
