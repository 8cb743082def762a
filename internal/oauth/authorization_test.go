package oauth_test

import (
	"net/url"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/oauth"
	"github.com/nexus-broker/nexus-broker/secret"
)

func authRequest() oauth.AuthRequest {
	return oauth.AuthRequest{
		Endpoint: "https://provider.example/authorize", ClientID: secret.NewValue("an id/&"), RedirectURI: "https://broker.example/auth/callback",
		Scopes: []string{"openid", "email"}, State: "st.ate", CodeChallenge: "challenge", Nonce: "st.ate",
	}
}

func authQuery(t *testing.T, r oauth.AuthRequest) (*url.URL, url.Values) {
	t.Helper()
	raw, err := oauth.AuthorizationURL(r)
	require.NoError(t, err)
	u, err := url.Parse(raw)
	require.NoError(t, err)
	return u, u.Query()
}

func TestAuthorizationURLHasWhatTheProtocolWants(t *testing.T) {
	u, q := authQuery(t, authRequest())
	require.Equal(t, "https://provider.example/authorize", u.Scheme+"://"+u.Host+u.Path)
	require.Equal(t, url.Values{
		"client_id": {"an id/&"}, "redirect_uri": {"https://broker.example/auth/callback"}, "response_type": {"code"},
		"scope": {"openid email"}, "state": {"st.ate"}, "nonce": {"st.ate"},
		"code_challenge": {"challenge"}, "code_challenge_method": {"S256"},
	}, q)
}

func TestAuthorizationURLScope(t *testing.T) {
	r := authRequest()
	r.Scopes = nil
	_, q := authQuery(t, r)
	require.Equal(t, []string{""}, q["scope"], "empty, but there")

	r.SkipScope = true
	_, q = authQuery(t, r)
	require.NotContains(t, q, "scope")
}

func TestAuthorizationURLLeavesOutTheNonce(t *testing.T) {
	r := authRequest()
	r.Nonce = ""
	_, q := authQuery(t, r)
	require.NotContains(t, q, "nonce")
}

func TestAuthorizationURLKeepsTheEndpointsQuery(t *testing.T) {
	r := authRequest()
	r.Endpoint = "https://provider.example/authorize?audience=api%2Fv1&state=theirs&client_id=theirs"
	_, q := authQuery(t, r)
	require.Equal(t, []string{"api/v1"}, q["audience"])
	require.Equal(t, []string{"st.ate"}, q["state"], "ours, once")
	require.Equal(t, []string{"an id/&"}, q["client_id"])
}

func TestExtraParametersCannotReplaceTheProtocols(t *testing.T) {
	r := authRequest()
	r.Extra = url.Values{"access_type": {"offline"}, "prompt": {"consent"}, "scope": {"theirs"}}
	owned := []string{"state", "redirect_uri", "code_challenge", "code_challenge_method", "code_challenge_anything", "client_id", "response_type", "nonce"}
	for _, name := range owned {
		r.Extra.Set(name, "evil")
	}
	_, q := authQuery(t, r)
	require.Equal(t, "offline", q.Get("access_type"))
	require.Equal(t, "consent", q.Get("prompt"))
	require.Equal(t, "theirs", q.Get("scope"), "a profile may fix the scope")
	for _, name := range owned {
		require.NotContains(t, q[name], "evil", name)
	}
	r.Nonce = ""
	_, q = authQuery(t, r)
	require.NotContains(t, q, "nonce")
}

func TestAuthorizationEndpointIsChecked(t *testing.T) {
	for _, endpoint := range []string{
		"", "/authorize", "provider.example", "ftp://provider.example/", "javascript:alert(1)", "https:///authorize",
		"https://user:hunter2@provider.example/", "https://provider.example/#fragment", "https://provider.example/?a=%zz", "http://hunter2\x7f/",
	} {
		r := authRequest()
		r.Endpoint = endpoint
		_, err := oauth.AuthorizationURL(r)
		require.Error(t, err, endpoint)
		require.NotContains(t, err.Error(), "hunter2")
	}
}

func TestCodeVerifier(t *testing.T) {
	v := oauth.NewCodeVerifier()
	require.Regexp(t, regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`), v.Reveal())
	require.False(t, v.Equal(oauth.NewCodeVerifier()))
	// The example of RFC 7636, appendix B.
	require.Equal(t, "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
		oauth.CodeChallenge(secret.NewValue("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")))
}

func TestDeriveIssuer(t *testing.T) {
	for authURL, issuer := range map[string]string{
		"https://accounts.google.com/o/oauth2/v2/auth":                               "https://accounts.google.com",
		"https://login.microsoftonline.com/common/oauth2/v2.0/authorize":             "https://login.microsoftonline.com/common/v2.0",
		"https://login.microsoftonline.com/contoso.com/oauth2/v2.0/authorize?p=1":    "https://login.microsoftonline.com/contoso.com/v2.0",
		"https://login.microsoftonline.us/organizations/oauth2/v2.0/authorize":       "https://login.microsoftonline.us/organizations/v2.0",
		"https://idp.example:8443/realms/a/protocol/openid-connect/auth?kc_idp_hint": "https://idp.example:8443",
		"http://127.0.0.1:9400/auth":                                                 "http://127.0.0.1:9400",
	} {
		got, err := oauth.DeriveIssuer(authURL)
		require.NoError(t, err)
		require.Equal(t, issuer, got)
	}
	_, err := oauth.DeriveIssuer("not a url")
	require.Error(t, err)
}
