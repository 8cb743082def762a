package e2e_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// TestDatabaseRestarts: while PostgreSQL is away every request fails in the API's own
// form, readiness says so, and no restart of the broker is needed afterwards.
func TestDatabaseRestarts(t *testing.T) {
	t.Parallel()
	cluster := servers.PostgresCluster(t, "fsync=off")
	op := oauthtest.Start(t, oauthtest.Options{})
	c := newCanary()
	c.protect("API key", apiKey)
	c.protect("client secret", "test-secret")
	b := startDetecting(t, base().with(env{"DATABASE_URL": cluster.Database(t)}))
	provider := b.registerAt(op, "flow")
	connection := b.connect(provider)
	authURL, _ := b.begin(provider)
	callback := b.authorize(authURL)
	before := b.token(connection).want(200).text("access_token")

	cluster.Stop()
	for _, a := range []answer{
		b.token(connection), b.refresh(connection), b.call("GET", "/providers", nil), b.call("GET", "/providers/"+provider, nil),
		b.call("POST", "/auth/consent-spec", consentFor(provider)), b.send("GET", callback.RequestURI(), nil, nil),
		b.call("POST", "/providers", map[string]any{"profile": profilePair("another", "x")}),
		b.call("PATCH", "/providers/"+provider, map[string]any{"description": "x"}), b.call("GET", "/audit", nil),
	} {
		a.want(503, "database_unavailable")
		require.Equal(t, "5", a.Header.Get("Retry-After"))
	}
	require.Equal(t, 0, op.CountGrant("refresh_token"), "no token may be rotated that cannot be stored")
	ready := b.send("GET", "/health/ready", nil, nil).want(503).object()
	require.Equal(t, "unavailable", ready["status"])
	components := ready["components"].(map[string]any)
	require.Equal(t, "unavailable", components["database"].(map[string]any)["status"])
	require.NotContains(t, components["secret_backend"].(map[string]any)["message"], "served", "the backend is that database")
	b.send("GET", "/health", nil, nil).want(200)
	b.send("GET", "/metrics", nil, nil).want(200)

	cluster.Start(t)
	eventually(t, "the broker is ready", func() bool { return b.send("GET", "/health/ready", nil, nil).Status == 200 })
	require.Equal(t, before, b.token(connection).want(200).text("access_token"))
	require.Equal(t, "success", b.callback(callback).Get("status"))
	b.refresh(connection).want(200)
	b.call("POST", "/providers", map[string]any{"profile": profilePair("another", "x")}).want(201)

	// Sessions that the server has ended are replaced without an error to anybody.
	cluster.Restart(t)
	for range 20 {
		b.token(connection).want(200)
	}
	c.checkBroker(t, b)
}

// TestDatabaseAwayAtARefresh: a provider has rotated a token and the database is away
// at this moment: the token is stored when it is back, whether or not anybody waits.
func TestDatabaseAwayAtARefresh(t *testing.T) {
	t.Parallel()
	cluster := servers.PostgresCluster(t, "fsync=off")
	op := oauthtest.Start(t, oauthtest.Options{})
	b := start(t, base().with(env{"DATABASE_URL": cluster.Database(t)}))
	provider := b.registerAt(op, "flow")
	waiting, gone := b.connect(provider), b.connect(provider)
	authURL, _ := b.begin(provider)
	callback := b.authorize(authURL)
	old := b.token(gone).want(200).text("access_token")

	open := gate(op, 3)
	refreshed := later(func() answer { return b.refresh(waiting) })
	called := later(func() answer { return b.send("GET", callback.RequestURI(), nil, nil) })
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan struct{})
	go func() {
		defer close(left)
		req := b.request("POST", "/connections/"+gone+"/refresh", nil, http.Header{"X-Api-Key": {apiKey}})
		resp, err := http.DefaultTransport.RoundTrip(req.WithContext(ctx))
		if err == nil {
			_ = resp.Body.Close()
		}
	}()
	eventually(t, "the requests are in flight", func() bool {
		return op.CountGrant("refresh_token") == 2 && op.CountGrant("authorization_code") == 3
	})
	leave()
	<-left
	cluster.Stop()
	open()
	eventually(t, "the broker has tried to store", func() bool { return countOf(b, "a token could not be stored") >= 3 })
	cluster.Start(t)

	require.Equal(t, refreshed.wait(t).want(200).text("access_token"), b.token(waiting).want(200).text("access_token"))
	require.Contains(t, called.wait(t).want(302).Header.Get("Location"), "status=success")
	eventually(t, "the token is stored without its caller", func() bool {
		return b.token(gone).want(200).text("access_token") != old
	})
	// The provider ends a grant whose old refresh token it sees again.
	b.refresh(gone).want(200)
	b.refresh(waiting).want(200)
}

// countOf returns how often a text is in the log of a broker.
func countOf(b *process, text string) int { return strings.Count(b.log.String(), text) }

// TestDatabaseAwayAtARegistration: the database goes between the write to the vault
// and the publication: the registration has failed, and in time nothing is left of it.
func TestDatabaseAwayAtARegistration(t *testing.T) {
	t.Parallel()
	cluster := servers.PostgresCluster(t, "fsync=off")
	v := newProxiedVault(t, nil)
	const timeout = 2 * time.Second // longer than it takes to stop the database
	b := start(t, v.world.env.with(env{"DATABASE_URL": cluster.Database(t), "SECRET_TIMEOUT": timeout.String()}))
	v.proxy.Inject(oneFault(func(w http.ResponseWriter, r *http.Request, pass http.HandlerFunc) {
		rec := httptest.NewRecorder()
		pass(rec, r)
		cluster.Stop()
		for name, values := range rec.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes())
	}), writes("client_secret"))
	body := map[string]any{"profile": profilePair("cut", "old")}
	b.call("POST", "/providers", body).want(503)
	cluster.Start(t)
	eventually(t, "the database is back", func() bool { return b.call("GET", "/providers", nil).Status == 200 })
	b.call("GET", "/providers/by-name/cut", nil).want(404)
	body["profile"] = profilePair("cut", "new")
	within(t, time.Minute, "the name is free", func() bool { return b.call("POST", "/providers", body).Status == 201 })
	require.Equal(t, "new-secret", v.world.look(t, "cut/client_secret"))
	require.Equal(t, "new-id", v.world.look(t, "cut/client_id"))
}
