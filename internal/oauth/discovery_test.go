package oauth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/oauth"
	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
)

// clock is a clock that tests set.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Now()} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func TestDiscovery(t *testing.T) {
	p := oauthtest.Start(t, oauthtest.Options{})
	m, err := newClient(t, oauth.HTTPOptions{}).Discover(t.Context(), p.Issuer())
	require.NoError(t, err)
	require.Equal(t, oauth.Metadata{
		Discovered:            true,
		Issuer:                p.Issuer(),
		AuthorizationEndpoint: p.URL(oauthtest.Authorization),
		TokenEndpoint:         p.URL(oauthtest.Token),
		JWKSURI:               p.URL(oauthtest.Keys),
		RevocationEndpoint:    p.URL(oauthtest.Revocation),
		SigningAlgs:           []string{"RS256"},
	}, m)
}

func TestDiscoveryKeepsGoodAnswersOnly(t *testing.T) {
	p := oauthtest.Start(t, oauthtest.Options{})
	var results []string
	now := newClock()
	c := oauth.New(oauth.Options{
		HTTP:        oauth.NewHTTPClient(oauth.HTTPOptions{AllowPrivate: true}),
		Now:         now.Now,
		OnDiscovery: func(result string, _ time.Duration) { results = append(results, result) },
	})
	discover := func() error { _, err := c.Discover(t.Context(), p.Issuer()); return err }

	p.Next(oauthtest.Discovery, oauthtest.HTML(200), oauthtest.Refuse(404, "not_found"))
	require.Error(t, discover())
	require.Error(t, discover(), "a failure is not kept")
	require.NoError(t, discover(), "and the next answer is taken")
	require.NoError(t, discover())
	now.advance(59 * time.Minute)
	require.NoError(t, discover())
	require.Equal(t, 3, p.Count(oauthtest.Discovery))
	now.advance(2 * time.Minute)
	require.NoError(t, discover())
	require.Equal(t, 4, p.Count(oauthtest.Discovery), "after an hour it is asked again")
	require.Equal(t, []string{"error", "error", "success", "cached", "cached", "success"}, results)
}

func TestDiscoveryAsksOnce(t *testing.T) {
	p := oauthtest.Start(t, oauthtest.Options{})
	release := make(chan struct{})
	p.Always(oauthtest.Discovery, oauthtest.When(release, oauthtest.Ordinary()))
	c := newClient(t, oauth.HTTPOptions{})

	// The caller who began the request goes away: those who wait still get the answer.
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() { _, err := c.Discover(ctx, p.Issuer()); first <- err }()
	require.Eventually(t, func() bool { return p.Count(oauthtest.Discovery) == 1 }, soon, time.Millisecond)
	cancel()
	require.ErrorIs(t, <-first, context.Canceled)

	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			_, err := c.Discover(t.Context(), p.Issuer())
			if err != nil {
				t.Error(err)
			}
		})
	}
	time.Sleep(100 * time.Millisecond) // for those to arrive who would ask for themselves
	close(release)
	wg.Wait()
	require.Equal(t, 1, p.Count(oauthtest.Discovery))
}

// discoverDocument lets the provider publish this at issuer.
func discoverDocument(t testing.TB, issuer string, status int, document string) (oauth.Metadata, error) {
	t.Helper()
	c := answering(func(r *http.Request) (*http.Response, error) {
		if want := strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration"; r.URL.String() != want {
			t.Errorf("asked %s, not %s", r.URL, want)
		}
		return response(status, "application/json", document), nil
	})
	return c.Discover(context.Background(), issuer)
}

func TestIssuerMustMatch(t *testing.T) {
	const guid = "9188040d-6c67-4c5b-b112-36a304b66dad"
	for _, c := range []struct {
		asked, stated string
		match         bool
	}{
		{"https://idp.example", "https://idp.example", true},
		{"https://idp.example", "https://idp.example/", true},
		{"https://idp.example/", "https://idp.example", true},
		{"https://idp.example/a", "https://idp.example/a", true},
		{"https://idp.example", "https://evil.example", false},
		{"https://idp.example", "", false},
		{"https://idp.example/a", "https://idp.example/b", false},
		{"https://idp.example", "https://idp.example//", false},
		{"https://login.microsoftonline.com/common/v2.0", "https://login.microsoftonline.com/{tenantid}/v2.0", true},
		{"https://login.microsoftonline.com/organizations/v2.0", "https://login.microsoftonline.com/{tenantid}/v2.0", true},
		{"https://login.microsoftonline.com/consumers/v2.0", "https://login.microsoftonline.com/" + guid + "/v2.0", true},
		{"https://login.microsoftonline.com/contoso.com/v2.0", "https://login.microsoftonline.com/" + guid + "/v2.0", true},
		{"https://login.microsoftonline.com/common/v2.0", "https://evil.example/{tenantid}/v2.0", false},
		{"https://login.microsoftonline.com/common/v2.0", "https://login.microsoftonline.com/{tenantid}/v1.0", false},
		{"https://login.microsoftonline.com/common/v2.0", "https://login.microsoftonline.com/other/v2.0", false},
		{"https://login.microsoftonline.com/11111111-6c67-4c5b-b112-36a304b66dad/v2.0", "https://login.microsoftonline.com/" + guid + "/v2.0", false},
		{"https://idp.example/tenant/v2.0", "https://idp.example/" + guid + "/v2.0", false},
		{"https://login.microsoftonline.com.evil.example/a/v2.0", "https://login.microsoftonline.com.evil.example/" + guid + "/v2.0", false},
		{"https://idp.example", "https://idp.example/{tenantid}", false},
	} {
		_, err := discoverDocument(t, c.asked, 200, fmt.Sprintf(`{"issuer":%q}`, c.stated))
		if c.match {
			require.NoError(t, err, "%s states %s", c.asked, c.stated)
		} else {
			require.Error(t, err, "%s states %s", c.asked, c.stated)
		}
	}
}

func TestDiscoveryDocumentIsChecked(t *testing.T) {
	const issuer = "https://idp.example"
	for name, document := range map[string]string{
		"not JSON":              `<html>canary</html>`,
		"an array":              `["canary"]`,
		"an endpoint in http":   `{"issuer":"https://idp.example","token_endpoint":"http://canary.example/token"}`,
		"an endpoint of a kind": `{"issuer":"https://idp.example","jwks_uri":"file:///canary"}`,
		"user information":      `{"issuer":"https://idp.example","token_endpoint":"https://canary:canary@idp.example/"}`,
		"a relative endpoint":   `{"issuer":"https://idp.example","authorization_endpoint":"/canary"}`,
		"a fragment":            `{"issuer":"https://idp.example","revocation_endpoint":"https://idp.example/#canary"}`,
		"a very long endpoint":  `{"issuer":"https://idp.example","token_endpoint":"https://idp.example/` + strings.Repeat("canary", 400) + `"}`,
		"a number":              `{"issuer":"https://idp.example","token_endpoint":42}`,
	} {
		_, err := discoverDocument(t, issuer, 200, document)
		var e *oauth.Error
		require.ErrorAs(t, err, &e, name)
		require.NotContains(t, err.Error(), "canary", name)
	}
	m, err := discoverDocument(t, issuer, 200, `{"issuer":"https://idp.example","id_token_signing_alg_values_supported":["none","HS256","ES256"]}`)
	require.NoError(t, err, "endpoints may be left out")
	require.Equal(t, []string{"ES256"}, m.SigningAlgs)
	require.Empty(t, m.TokenEndpoint)
}

func TestIssuerIsChecked(t *testing.T) {
	for _, issuer := range []string{"", "idp.example", "https://hunter2:hunter2@idp.example", "https://idp.example?hunter2", "https://idp.example#hunter2", "https://idp.example?", "file:///", "https://idp.example/" + strings.Repeat("a", 2048)} {
		_, err := answering(func(*http.Request) (*http.Response, error) {
			t.Error("a request was sent")
			return nil, errors.New("no")
		}).Discover(t.Context(), issuer)
		require.Error(t, err, issuer)
		require.NotContains(t, err.Error(), "hunter2")
	}
}

func TestDiscoveryOfAMultiTenantProvider(t *testing.T) {
	p := oauthtest.Start(t, oauthtest.Options{Tenant: "f8cdef31-a31e-4b4a-93e4-5f571e91255a"})
	issuer, err := oauth.DeriveIssuer(p.URL(oauthtest.Authorization))
	require.NoError(t, err)
	require.Equal(t, p.Issuer(), issuer)
	m, err := newClient(t, oauth.HTTPOptions{}).Discover(t.Context(), issuer)
	require.NoError(t, err)
	require.Contains(t, m.Issuer, "{tenantid}")
}

func TestDiscoveryFollowsRedirectsOfTheSameOriginOnly(t *testing.T) {
	p := oauthtest.Start(t, oauthtest.Options{})
	other := oauthtest.Start(t, oauthtest.Options{})
	c := newClient(t, oauth.HTTPOptions{})

	p.Next(oauthtest.Discovery, oauthtest.RedirectTo(other.URL(oauthtest.Discovery)))
	_, err := c.Discover(t.Context(), p.Issuer())
	var e *oauth.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, http.StatusTemporaryRedirect, e.Status)
	require.Zero(t, other.Count(oauthtest.Discovery))

	p.Next(oauthtest.Discovery, oauthtest.RedirectTo(p.URL(oauthtest.Discovery)))
	_, err = c.Discover(t.Context(), p.Issuer())
	require.NoError(t, err)

	p.Always(oauthtest.Keys, oauthtest.RedirectTo(p.URL(oauthtest.Keys)))
	status, err := c.CheckAPI(t.Context(), p.URL(oauthtest.Keys), nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusTemporaryRedirect, status)
	require.Equal(t, 4, p.Count(oauthtest.Keys), "a circle ends after three")
}
