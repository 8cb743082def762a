package e2e_test

import (
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

// confidentialClient is a client of the authorization server whose credentials no
// answer and no log may show.
func confidentialClient(c *canary) servers.OIDCClient {
	client := servers.OIDCClient{
		ID: "CANARY-client-id", Secret: `CANARY-client-secret /+:%`, Auth: "client_secret_basic",
		RedirectURIs: []string{publicURL + "/auth/callback"}, ApplicationType: "native",
	}
	c.protect("client id", client.ID)
	c.protect("client secret", client.Secret)
	c.protect("API key", apiKey)
	return client
}

// checkBroker searches what a broker has said.
func (c *canary) checkBroker(t *testing.T, b *process) {
	t.Helper()
	c.search("log", []byte(b.log.String()))
	c.search("failures", []byte(b.failures.String()))
	c.check(t)
}

// profileOf is a profile with credentials, ready to be posted.
func profileOf(op *servers.OIDCServer, name string, c servers.OIDCClient) map[string]any {
	profile := map[string]any{
		"name": name, "issuer": op.Issuer, "enable_discovery": true, "auth_header": c.Auth,
		"params": map[string]any{"prompt": "consent"},
	}
	if c.ID != "" {
		profile["client_id"], profile["client_secret"] = c.ID, c.Secret
	}
	return map[string]any{"profile": profile}
}

func consentFor(providerID string) map[string]any {
	return map[string]any{"workspace_id": "ws-1", "provider_id": providerID, "return_url": returnURL,
		"scopes": []string{"openid", "offline_access", "email"}}
}

// fault is a way in which a backend fails, and what callers of the broker are told.
type fault struct {
	name       string
	begin, end func()
	status     int
	code       string
	component  string // status of the backend in GET /health/ready
	retryAfter int    // seconds; 0: no header
}

// protectLogin protects the broker's login to the backend.
func (w world) protectLogin(c *canary) {
	for _, name := range []string{"VAULT_TOKEN", "VAULT_SECRET_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} {
		c.protect(name, w.env[name])
	}
}

// TestBackendFaults breaks a backend in every way, each time in the middle of a flow,
// and mends it. One broker lives through it all.
func TestBackendFaults(t *testing.T) {
	t.Parallel()
	forExternals(t, testBackendFaults)
}

func testBackendFaults(t *testing.T, x external) {
	c := newCanary()
	client := confidentialClient(c)
	x.protectLogin(c)
	op := servers.OIDC(t, servers.OIDCOptions{Clients: []servers.OIDCClient{client}})
	b := startDetecting(t, x.env)
	steady := b.register(op, "steady", client)
	connection := b.connect(steady.id)
	for i, f := range x.faults {
		t.Run(f.name, func(t *testing.T) {
			broken := brokenBackend{external: x, fault: f, b: b.in(t), op: op, client: client,
				steady: steady.id, connection: connection, number: strconv.Itoa(i)}
			broken.test(t)
		})
	}
	c.checkBroker(t, b)
}

// brokenBackend is one fault around one flow.
type brokenBackend struct {
	external
	fault
	b                  *process
	op                 *servers.OIDCServer
	client             servers.OIDCClient
	steady, connection string
	number             string // makes names of its own
}

func (x brokenBackend) test(t *testing.T) {
	b, fresh, doomedName := x.b, "fresh-"+x.number, "doomed-"+x.number
	doomed := b.register(x.op, doomedName, x.client).id
	authURL, _ := b.begin(x.steady)
	callback := b.authorize(authURL)

	x.begin()
	mended := false
	defer func() {
		if !mended {
			x.end()
		}
	}()
	asked := []func() answer{ // all at once: some of the faults answer after the timeout
		func() answer { return b.call("POST", "/providers", profileOf(x.op, fresh, x.client)) },
		func() answer { return b.call("POST", "/auth/consent-spec", consentFor(x.steady)) },
		func() answer { return b.send("GET", callback.RequestURI(), nil, nil) },
		func() answer { return b.refresh(x.connection) },
		func() answer {
			return b.call("PATCH", "/providers/"+x.steady, map[string]any{"client_secret": "CANARY-never-stored"})
		},
		func() answer { return b.send("GET", callback.RequestURI(), nil, http.Header{"Accept": {"text/html"}}) },
		func() answer { return b.call("DELETE", "/providers/"+doomed, nil) },
	}
	answers := atOnce(asked)
	x.refused(t, answers[0], fresh)
	for _, a := range answers[1:5] {
		x.refused(t, a, "steady")
	}
	back := mustURL(t, answers[5].want(302).Header.Get("Location")).Query()
	require.Equal(t, "error", back.Get("status"))
	require.Equal(t, x.code, back.Get("error"))
	answers[6].want(200)
	b.call("GET", "/providers/by-name/"+fresh, nil).want(404, "provider_not_found")
	b.call("GET", "/providers/by-name/"+doomedName, nil).want(404, "provider_not_found")

	b.token(x.connection).want(200)
	b.call("GET", "/providers/"+x.steady, nil).want(200)
	require.Equal(t, "healthy", b.send("GET", "/health", nil, nil).want(200).text("status"))
	b.waitReady(t, "degraded", x.component)

	x.end()
	mended = true
	// Nothing was lost: neither the user's consent, nor the pair, nor a name.
	require.Equal(t, "success", b.callback(callback).Get("status"))
	b.refresh(x.connection).want(200)
	b.register(x.op, fresh, x.client)
	require.Equal(t, x.client.ID, x.look(t, fresh+"/client_id"))
	require.Equal(t, x.client.Secret, x.look(t, fresh+"/client_secret"))
	again := x.client
	again.ID = "CANARY-client-id of the successor"
	b.register(x.op, doomedName, again)
	require.Equal(t, again.ID, x.look(t, doomedName+"/client_id"))
	b.waitReady(t, "ready", "ok")
}

// refused checks how the broker passes the fault on.
func (x brokenBackend) refused(t *testing.T, a answer, provider string) {
	t.Helper()
	a.want(x.status, x.code)
	wait := ""
	if x.retryAfter > 0 {
		wait = strconv.Itoa(x.retryAfter)
	}
	require.Equal(t, wait, a.Header.Get("Retry-After"))
	require.Contains(t, a.text("message"), x.env["SECRET_BACKEND"])
	require.Contains(t, a.text("message"), x.path(provider))
}

// atOnce calls the functions at the same time and returns what they return.
func atOnce[T any](calls []func() T) []T {
	results := make([]T, len(calls))
	var all sync.WaitGroup
	for i, call := range calls {
		all.Go(func() { results[i] = call() })
	}
	all.Wait()
	return results
}

// patience is how long what must happen may take: seconds, on a machine that does nothing
// else.
const patience = 90 * time.Second

// eventually waits until done returns true.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	within(t, patience, what, done)
}

// within waits no longer than limit until done returns true.
func within(t *testing.T, limit time.Duration, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("does not come to pass in %s: %s", limit, what)
		}
	}
}

// waitReady waits until GET /health/ready says so. It never answers 503: stored
// tokens are served all the while.
func (p *process) waitReady(t *testing.T, status, component string) {
	t.Helper()
	var last answer
	eventually(t, "the broker is "+status, func() bool {
		last = p.send("GET", "/health/ready", nil, nil).want(200)
		return last.text("status") == status
	})
	components := last.object()["components"].(map[string]any)
	require.Equal(t, "ok", components["database"].(map[string]any)["status"])
	backend := components["secret_backend"].(map[string]any)
	require.Equal(t, p.env["SECRET_BACKEND"], backend["backend"])
	require.Equal(t, component, backend["status"])
	since, err := time.Parse(time.RFC3339, backend["since"].(string))
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), since, 10*time.Minute)
	require.Equal(t, component != "ok", backend["message"] != nil && backend["message"] != "")
}
