package oauth_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/oauth"
	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// TestRealProvider runs whole flows at an OpenID provider that is not ours.
func TestRealProvider(t *testing.T) {
	p := servers.OIDC(t, servers.OIDCOptions{Clients: servers.DefaultOIDCClients(redirectURI), AccessTokenTTL: 2 * time.Minute})
	c := newClient(t, oauth.HTTPOptions{})
	m, err := c.Discover(t.Context(), p.Issuer)
	require.NoError(t, err)
	require.Equal(t, p.Issuer, m.Issuer)
	require.NotEmpty(t, m.RevocationEndpoint)

	auths := map[string]oauth.ClientAuth{
		"basic":  {Style: oauth.ClientSecretBasic, Secret: secret.NewValue("s3cr3t/+:% x")},
		"post":   {Style: oauth.ClientSecretPost, Secret: secret.NewValue("post-secret")},
		"public": {Style: oauth.NoClientAuth},
	}
	for id, auth := range auths {
		t.Run(id, func(t *testing.T) {
			auth.ID = secret.NewValue(id)
			f := authorize(t, oauth.AuthRequest{
				Endpoint: m.AuthorizationEndpoint, ClientID: auth.ID, State: "the-state", Nonce: "the-nonce", Scopes: []string{"openid", "email"},
			})
			require.Equal(t, []string{"the-state"}, f.query["state"])
			require.Equal(t, []string{p.Issuer}, f.query["iss"])

			tokens, err := c.Exchange(t.Context(), exchangeOf(f, m.TokenEndpoint, auth))
			require.NoError(t, err)
			lifetime, ok := tokens.ExpiresIn()
			require.True(t, ok)
			require.Equal(t, 2*time.Minute, lifetime)
			check := oauth.IDTokenCheck{Metadata: m, ClientID: auth.ID, Nonce: "the-nonce"}
			require.NoError(t, c.VerifyIDToken(t.Context(), tokens.Text("id_token"), check))
			check.Nonce = "another"
			require.Error(t, c.VerifyIDToken(t.Context(), tokens.Text("id_token"), check))

			_, err = c.Exchange(t.Context(), exchangeOf(f, m.TokenEndpoint, auth))
			require.Equal(t, "invalid_grant", codeOf(t, err), "a code works once")
		})
	}
}

func TestRealProviderRotation(t *testing.T) {
	p := servers.OIDC(t, servers.OIDCOptions{Clients: servers.DefaultOIDCClients(redirectURI)})
	c := newClient(t, oauth.HTTPOptions{})
	m, err := c.Discover(t.Context(), p.Issuer)
	require.NoError(t, err)
	auth := oauth.ClientAuth{Style: oauth.ClientSecretBasic, ID: secret.NewValue("basic"), Secret: secret.NewValue("s3cr3t/+:% x")}
	f := authorize(t, oauth.AuthRequest{Endpoint: m.AuthorizationEndpoint, ClientID: auth.ID, State: "s", Scopes: []string{"openid"}})
	tokens, err := c.Exchange(t.Context(), exchangeOf(f, m.TokenEndpoint, auth))
	require.NoError(t, err)

	refresh := func(token secret.Value) (oauth.TokenSet, error) {
		return c.Refresh(t.Context(), oauth.Refresh{TokenRequest: oauth.TokenRequest{Endpoint: m.TokenEndpoint, Auth: auth}, RefreshToken: token})
	}
	second, err := refresh(tokens.Text("refresh_token"))
	require.NoError(t, err)
	require.NotEqual(t, tokens.Text("refresh_token").Reveal(), second.Text("refresh_token").Reveal())

	p.SetSecret(t, "basic", "rotated:%+ &=")
	_, err = refresh(second.Text("refresh_token"))
	require.Equal(t, "invalid_client", codeOf(t, err), "the secret was rotated at the provider")
	auth.Secret = secret.NewValue("rotated:%+ &=")
	third, err := refresh(second.Text("refresh_token"))
	require.NoError(t, err, "a refused client loses nothing")

	_, err = refresh(second.Text("refresh_token"))
	require.Equal(t, "invalid_grant", codeOf(t, err), "a second use")
	_, err = refresh(third.Text("refresh_token"))
	require.Equal(t, "invalid_grant", codeOf(t, err), "which ends the family")
	require.Equal(t, 5, p.TokenRequests(t, "refresh_token"))
}

func TestRealProviderDenial(t *testing.T) {
	p := servers.OIDC(t, servers.OIDCOptions{Clients: servers.DefaultOIDCClients(redirectURI)})
	c := newClient(t, oauth.HTTPOptions{})
	m, err := c.Discover(t.Context(), p.Issuer)
	require.NoError(t, err)
	f := authorize(t, oauth.AuthRequest{
		Endpoint: m.AuthorizationEndpoint + "?login_hint=deny", ClientID: secret.NewValue("post"), State: "s", Scopes: []string{"openid"},
	})
	require.Empty(t, f.code)
	require.Equal(t, []string{"access_denied"}, f.query["error"])

	wrong := exchangeOf(flow{code: "made-up", verifier: oauth.NewCodeVerifier()}, m.TokenEndpoint,
		oauth.ClientAuth{Style: oauth.ClientSecretPost, ID: secret.NewValue("post"), Secret: secret.NewValue("wrong")})
	_, err = c.Exchange(t.Context(), wrong)
	require.Equal(t, "invalid_client", codeOf(t, err))
}
