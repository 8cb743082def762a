package e2e_test

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

// TestRotation: credentials that change in the vault while flows run, and a provider
// that refuses those that are stored. The cache holds a pair for an hour: only the
// refusal makes the broker read again.
func TestRotation(t *testing.T) {
	t.Parallel()
	forExternals(t, testRotation)
}

func testRotation(t *testing.T, x external) {
	c := newCanary()
	client := confidentialClient(c)
	op := servers.OIDC(t, servers.OIDCOptions{Clients: []servers.OIDCClient{client}})
	b := startDetecting(t, x.env.with(env{"SECRET_CACHE_TTL": "1h"}))
	provider := b.register(op, "flow", client).id
	connection := b.connect(provider)
	rotate := func(secret string) { // at the provider
		c.protect("rotated client secret", secret)
		op.SetSecret(t, client.ID, secret)
	}
	store := func(secret string) { x.set(t, "flow/client_secret", secret) }

	t.Run("between consent and callback", func(t *testing.T) {
		b := b.in(t)
		authURL, _ := b.begin(provider)
		callback := b.authorize(authURL)
		rotate("CANARY-rotated-1")
		store("CANARY-rotated-1")
		require.Equal(t, "success", b.callback(callback).Get("status"))
		require.Equal(t, "healthy", b.providerHealth(provider)["health_status"])
	})
	t.Run("between two refreshes", func(t *testing.T) {
		b := b.in(t)
		rotate("CANARY-rotated-2")
		store("CANARY-rotated-2")
		before := op.TokenRequests(t, "refresh_token")
		b.refresh(connection).want(200)
		require.Equal(t, before+2, op.TokenRequests(t, "refresh_token"), "one that is refused, one with the new pair")
	})
	t.Run("at the provider alone", func(t *testing.T) {
		b := b.in(t)
		authURL, _ := b.begin(provider)
		callback := b.authorize(authURL)
		rotate("CANARY-rotated-3")
		for range 2 {
			a := b.send("GET", callback.RequestURI(), nil, nil).want(502, "provider_credentials_rejected")
			require.Contains(t, a.text("message"), "provider")
			require.Empty(t, a.Header.Get("Retry-After"))
		}
		require.Equal(t, "provider_credentials_rejected", b.callback(callback).Get("error"))
		before := op.TokenRequests(t, "refresh_token")
		b.refresh(connection).want(502, "provider_credentials_rejected")
		require.Equal(t, before+1, op.TokenRequests(t, "refresh_token"), "the pair has not changed: no second try")
		health := b.providerHealth(provider)
		require.Equal(t, "credentials_rejected", health["health_status"])
		require.NotEmpty(t, health["health_message"])
		require.NotEmpty(t, health["last_health_check_at"])
		// Nobody's connection suffers for it.
		b.token(connection).want(200)

		store("CANARY-rotated-3")
		b.refresh(connection).want(200)
		require.Equal(t, "success", b.callback(callback).Get("status"), "neither state nor code are spent")
		require.Equal(t, "healthy", b.providerHealth(provider)["health_status"])
	})
	t.Run("while the vault is down", func(t *testing.T) {
		b := b.in(t)
		rotate("CANARY-rotated-4")
		store("CANARY-rotated-4")
		x.down()
		b.refresh(connection).want(503, "secret_backend_unavailable")
		b.token(connection).want(200)
		x.up()
		b.refresh(connection).want(200)
	})
	t.Run("taken away", func(t *testing.T) {
		b := b.in(t)
		rotate("CANARY-rotated-5")
		x.remove(t, "flow/client_secret")
		a := b.refresh(connection).want(502, "credentials_not_found")
		require.Equal(t, []string{x.path("flow/client_secret")}, a.paths())
		require.Equal(t, "credentials_missing", b.providerHealth(provider)["health_status"])
		require.Equal(t, "missing", b.credentialsState(provider))
		b.token(connection).want(200)
		store("CANARY-rotated-5")
		eventually(t, "the credentials are found again", func() bool { return b.refresh(connection).Status == http.StatusOK })
		require.Equal(t, "ready", b.credentialsState(provider))
	})
	t.Run("through the API", func(t *testing.T) {
		b := b.in(t)
		rotate("CANARY-rotated-6")
		b.call("PATCH", "/providers/"+provider, map[string]any{"client_secret": "CANARY-rotated-6"}).want(200)
		require.Equal(t, "CANARY-rotated-6", x.look(t, "flow/client_secret"))
		before := op.TokenRequests(t, "refresh_token")
		b.refresh(connection).want(200)
		require.Equal(t, before+1, op.TokenRequests(t, "refresh_token"), "effective at once")
		// The same values once more, as a manifest tool sends them, write nothing.
		x.forget()
		b.call("PATCH", "/providers/"+provider, map[string]any{"client_id": client.ID, "client_secret": "CANARY-rotated-6"}).want(200)
		require.Empty(t, x.wrote())
	})
	c.checkBroker(t, b)
}

// providerHealth returns a provider's entry of GET /providers/health.
func (p *process) providerHealth(id string) map[string]any {
	p.t.Helper()
	var list []map[string]any
	require.NoError(p.t, json.Unmarshal(p.call("GET", "/providers/health", nil).want(200).Body, &list))
	for _, entry := range list {
		if entry["id"] == id {
			return entry
		}
	}
	p.t.Fatalf("no health of %s", id)
	return nil
}
