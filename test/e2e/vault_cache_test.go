package e2e_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

// cachedFlow is a broker with a cache that has just read the credentials of a
// provider with a connection.
type cachedFlow struct {
	proxiedVault
	b                    *process
	provider, connection string
}

func newCachedFlow(t *testing.T, c *canary, ttl, maxStale time.Duration) cachedFlow {
	t.Helper()
	client := confidentialClient(c)
	f := cachedFlow{proxiedVault: newProxiedVault(t, nil)}
	op := servers.OIDC(t, servers.OIDCOptions{Clients: []servers.OIDCClient{client}})
	f.b = startDetecting(t, f.world.env.with(env{"SECRET_CACHE_TTL": ttl.String(), "SECRET_CACHE_MAX_STALE": maxStale.String()}))
	f.provider = f.b.register(op, "flow", client).id
	f.connection = f.b.connect(f.provider)
	return f
}

// TestVaultOutageIsBridged: with a cache a whole outage goes unnoticed by flows, and
// a denial never does.
func TestVaultOutageIsBridged(t *testing.T) {
	t.Parallel()
	c := newCanary()
	const ttl = 300 * time.Millisecond
	f := newCachedFlow(t, c, ttl, time.Hour)
	b := f.b

	f.proxy.Down()
	for range 3 {
		time.Sleep(2 * ttl) // what is served has expired
		b.connect(f.provider)
		b.refresh(f.connection).want(200)
	}
	b.waitReady(t, "degraded", "unavailable")
	require.Contains(t, b.log.String(), "serving expired client credentials")

	// The vault is back and says no: that counts at once, and is not bridged when the
	// vault goes again.
	f.Policy("nexus", `path "none/*" { capabilities = ["read"] }`)
	f.proxy.Up()
	eventually(t, "the denial takes effect", func() bool {
		return b.call("POST", "/auth/consent-spec", consentFor(f.provider)).Status == 502
	})
	b.refresh(f.connection).want(502, "secret_backend_denied")
	f.proxy.Down()
	b.refresh(f.connection).want(503, "secret_backend_unavailable")
	b.token(f.connection).want(200)
	f.proxy.Up()
	f.Policy("nexus", readWrite)
	b.refresh(f.connection).want(200)

	// A value that is gone is not bridged either.
	f.Remove("secret/metadata/" + f.prefix() + "/flow/client_secret")
	eventually(t, "the missing secret is noticed", func() bool {
		return b.call("POST", "/auth/consent-spec", consentFor(f.provider)).Status == 502
	})
	b.refresh(f.connection).want(502, "credentials_not_found")
	f.proxy.Down()
	time.Sleep(2 * ttl) // nor is it remembered for longer than a value
	b.refresh(f.connection).want(503, "secret_backend_unavailable")
	c.checkBroker(t, b)
}

// TestVaultOutageIsBridgedNoLonger: MAX_STALE is kept.
func TestVaultOutageIsBridgedNoLonger(t *testing.T) {
	t.Parallel()
	for name, maxStale := range map[string]time.Duration{"a while": time.Second, "never": 0} {
		t.Run(name, func(t *testing.T) {
			const ttl = 200 * time.Millisecond
			c := newCanary()
			f := newCachedFlow(t, c, ttl, maxStale)
			f.proxy.Down()
			time.Sleep(ttl + maxStale + 100*time.Millisecond)
			f.b.refresh(f.connection).want(503, "secret_backend_unavailable")
			f.b.token(f.connection).want(200)
			f.proxy.Up()
			f.b.refresh(f.connection).want(200)
			c.checkBroker(t, f.b)
		})
	}
}
