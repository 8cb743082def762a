package oauth_test

import (
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/oauth"
	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

func TestMain(m *testing.M) { os.Exit(servers.Main(m)) }

// newClient returns a client that may speak to loopback.
func newClient(t *testing.T, o oauth.HTTPOptions) *oauth.Client {
	t.Helper()
	o.AllowPrivate = true
	h := oauth.NewHTTPClient(o)
	t.Cleanup(h.CloseIdleConnections)
	return oauth.New(oauth.Options{HTTP: h})
}

const redirectURI = "http://127.0.0.1:9/auth/callback"

// flow is what one consent hands from its beginning to its end.
type flow struct {
	code     string
	verifier secret.Value
	query    map[string][]string // of the redirect back
}

// authorize walks the user agent's part at a provider that agrees at once.
func authorize(t *testing.T, r oauth.AuthRequest) flow {
	t.Helper()
	f := flow{verifier: oauth.NewCodeVerifier()}
	r.RedirectURI, r.CodeChallenge = redirectURI, oauth.CodeChallenge(f.verifier)
	target, err := oauth.AuthorizationURL(r)
	require.NoError(t, err)
	back := browse(t, target)
	f.query = back.Query()
	f.code = back.Query().Get("code")
	return f
}

func exchangeOf(f flow, endpoint string, auth oauth.ClientAuth) oauth.Exchange {
	return oauth.Exchange{
		TokenRequest: oauth.TokenRequest{Endpoint: endpoint, Auth: auth},
		Code:         secret.NewValue(f.code),
		CodeVerifier: f.verifier,
		RedirectURI:  redirectURI,
	}
}

// testAuth is the default client of oauthtest.
var testAuth = oauth.ClientAuth{
	Style: oauth.ClientSecretPost, ID: secret.NewValue("test-client"), Secret: secret.NewValue("test-secret"),
}

// anExchange returns one that the provider would grant.
func anExchange(t *testing.T, p *oauthtest.Server) oauth.Exchange {
	t.Helper()
	f := authorize(t, oauth.AuthRequest{
		Endpoint: p.URL(oauthtest.Authorization), ClientID: testAuth.ID, State: "state", Scopes: []string{"openid", "email"}, Nonce: "nonce",
	})
	return exchangeOf(f, p.URL(oauthtest.Token), testAuth)
}

// roundTripper answers requests without a network.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// soon is far longer than anything prompt takes, and far shorter than what hangs.
const soon = 5 * time.Second
