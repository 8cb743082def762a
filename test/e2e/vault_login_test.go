package e2e_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

// TestVaultTokenRevoked: a token that stops being valid is the administrator's turn,
// and a new one in the file is all it takes.
func TestVaultTokenRevoked(t *testing.T) {
	t.Parallel()
	c := newCanary()
	client := confidentialClient(c)
	file := filepath.Join(t.TempDir(), "token")
	v := newProxiedVault(t, env{"VAULT_TOKEN_FILE": file})
	issue := func() string {
		token := v.Token([]string{"nexus"}, nil)
		c.protect("Vault token "+token[len(token)-4:], token)
		require.NoError(t, os.WriteFile(file, []byte(token+"\n"), 0o600))
		return token
	}
	token := issue()
	op := servers.OIDC(t, servers.OIDCOptions{Clients: []servers.OIDCClient{client}})
	b := startDetecting(t, v.world.env)
	provider := b.register(op, "flow", client).id
	connection := b.connect(provider)

	v.Revoke(token)
	for _, a := range []answer{
		b.refresh(connection),
		b.call("POST", "/auth/consent-spec", consentFor(provider)),
		b.call("POST", "/providers", profileOf(op, "another", client)),
	} {
		a.want(502, "secret_backend_denied")
		require.Empty(t, a.Header.Get("Retry-After"))
	}
	b.token(connection).want(200)
	b.waitReady(t, "degraded", "denied")

	issue()
	b.refresh(connection).want(200)
	b.register(op, "another", client)
	b.connect(provider)
	b.waitReady(t, "ready", "ok")
	c.checkBroker(t, b)
}

// TestVaultAppRoleToken: a token that was revoked, or came to its end, costs a login
// and no request.
func TestVaultAppRoleToken(t *testing.T) {
	t.Parallel()
	c := newCanary()
	client := confidentialClient(c)
	file := filepath.Join(t.TempDir(), "secret-id")
	login := env{"VAULT_AUTH_METHOD": "approle", "VAULT_SECRET_ID_FILE": file}
	v := newProxiedVault(t, login)
	roleID, secretID := v.AppRole("nexus", []string{"nexus"}, map[string]any{"token_ttl": "4s", "token_max_ttl": "8s"})
	put := func(secretID string) {
		c.protect("secret id "+secretID[:4], secretID)
		require.NoError(t, os.WriteFile(file, []byte(secretID), 0o600))
	}
	put(secretID)
	op := servers.OIDC(t, servers.OIDCOptions{Clients: []servers.OIDCClient{client}})
	b := startDetecting(t, v.world.env.with(env{"VAULT_ROLE_ID": roleID}))
	provider := b.register(op, "flow", client).id
	connection := b.connect(provider)
	logins := func() int { return len(v.proxy.Requests(servers.PathIs("/v1/auth/approle/login"))) }
	require.Equal(t, 1, logins(), "one login serves everything")

	// Revoked: the next read logs in again.
	v.Revoke(v.lastToken())
	b.refresh(connection).want(200)
	require.Equal(t, 2, logins())

	// Its longest life ends: it is renewed, then replaced, without a failure.
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(300 * time.Millisecond) {
		b.call("POST", "/auth/consent-spec", consentFor(provider)).want(200)
	}
	require.NotEmpty(t, v.proxy.Requests(servers.PathIs("/v1/auth/token/renew-self")))
	require.LessOrEqual(t, logins(), 8, "never a login per read")

	// The secret id is worth nothing any more: denied, until the file has another.
	v.DestroySecretID("nexus", secretID)
	v.Revoke(v.lastToken())
	b.refresh(connection).want(502, "secret_backend_denied")
	b.token(connection).want(200)
	b.waitReady(t, "degraded", "denied")
	put(v.SecretID("nexus"))
	b.refresh(connection).want(200)
	b.waitReady(t, "ready", "ok")
	c.checkBroker(t, b)
}

// lastToken returns the token that the broker has used last.
func (v proxiedVault) lastToken() string {
	used := v.proxy.Requests(func(r *http.Request) bool {
		return r.Header.Get("X-Vault-Token") != "" && strings.HasPrefix(r.URL.Path, "/v1/secret/")
	})
	return used[len(used)-1].Header.Get("X-Vault-Token")
}
