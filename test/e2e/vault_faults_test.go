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

// readWrite is the policy of a broker that writes credentials.
const readWrite = `
path "secret/data/nexus/providers/*" { capabilities = ["create", "read", "update", "delete"] }
path "secret/metadata/nexus/providers/*" { capabilities = ["read", "delete", "list"] }`

// vaultTime is the SECRET_TIMEOUT of the tests that wait for it: short, and long
// enough for a busy machine.
const vaultTime = 3 * time.Second

// proxiedVault is a Vault of the test's own behind a proxy that can break it, and a
// world whose broker reaches it through the proxy.
type proxiedVault struct {
	*servers.VaultServer
	proxy *servers.FaultProxy
	world world
}

// newProxiedVault logs the broker in with a token of the policy readWrite, unless
// login does it in another way.
func newProxiedVault(t *testing.T, login env) proxiedVault {
	t.Helper()
	v := proxiedVault{VaultServer: servers.Vault(t)}
	v.proxy = servers.NewFaultProxy(t, v.Addr)
	v.Policy("nexus", readWrite)
	if login == nil {
		login = env{"VAULT_TOKEN": v.Token([]string{"nexus"}, nil)}
	}
	v.world = vaultWorld(sqliteWorld(t), "", v.VaultServer, "secret", 2, login)
	v.world.env = v.world.env.with(env{"VAULT_ADDR": v.proxy.URL, "SECRET_TIMEOUT": vaultTime.String(), "SECRET_CACHE_TTL": "0"})
	return v
}

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

// fault is a way in which a Vault fails, and what callers of the broker are told.
type fault struct {
	name       string
	begin, end func()
	status     int
	code       string
	component  string // status of the backend in GET /health/ready
	retryAfter int    // seconds; 0: no header
}

func (v proxiedVault) faults() []fault {
	inject := func(f servers.Fault) func() { return func() { v.proxy.Inject(f) } }
	outage := func(name string, begin, end func()) fault {
		return fault{name, begin, end, 503, "secret_backend_unavailable", "unavailable", 5}
	}
	throttled := outage("throttled", inject(servers.Throttle(7*time.Second)), v.proxy.Heal)
	throttled.retryAfter = 7
	return []fault{
		outage("sealed", v.Seal, v.Unseal),
		outage("stopped", v.proxy.Down, v.proxy.Up),
		outage("frozen", v.Pause, v.Resume),
		outage("slow", inject(servers.Latency(10*vaultTime)), v.proxy.Heal),
		outage("a page with 200", inject(servers.HTML(200)), v.proxy.Heal),
		outage("a page with 502", inject(servers.HTML(502)), v.proxy.Heal),
		outage("JSON of somebody else", inject(servers.Answer(200, "application/json", `{"data":{"data":{"value":"x"}}}`)), v.proxy.Heal),
		outage("not found by a proxy", inject(servers.Answer(404, "application/json", `{"message":"no Route matched"}`)), v.proxy.Heal),
		outage("connections cut", inject(servers.Drop()), v.proxy.Heal),
		outage("throttled without a wait", inject(servers.Throttle(0)), v.proxy.Heal),
		throttled,
		{"policy taken away", func() { v.Policy("nexus", `path "none/*" { capabilities = ["read"] }`) }, func() { v.Policy("nexus", readWrite) },
			502, "secret_backend_denied", "denied", 0},
	}
}

// TestVaultFaults breaks a Vault in every way, each time in the middle of a flow, and
// mends it. One broker lives through it all.
func TestVaultFaults(t *testing.T) {
	t.Parallel()
	c := newCanary()
	client := confidentialClient(c)
	v := newProxiedVault(t, nil)
	c.protect("Vault token", v.world.env["VAULT_TOKEN"])
	op := servers.OIDC(t, servers.OIDCOptions{Clients: []servers.OIDCClient{client}})
	b := start(t, v.world.env)
	steady := b.register(op, "steady", client)
	connection := b.connect(steady.id)
	for i, f := range v.faults() {
		t.Run(f.name, func(t *testing.T) {
			broken := brokenVault{proxiedVault: v, fault: f, b: b.in(t), op: op, client: client,
				steady: steady.id, connection: connection, number: strconv.Itoa(i)}
			broken.test(t)
		})
	}
	c.checkBroker(t, b)
}

// brokenVault is one fault around one flow.
type brokenVault struct {
	proxiedVault
	fault
	b                  *process
	op                 *servers.OIDCServer
	client             servers.OIDCClient
	steady, connection string
	number             string // makes names of its own
}

func (x brokenVault) test(t *testing.T) {
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
	require.Equal(t, x.client.ID, x.world.look(t, fresh+"/client_id"))
	require.Equal(t, x.client.Secret, x.world.look(t, fresh+"/client_secret"))
	again := x.client
	again.ID = "CANARY-client-id of the successor"
	b.register(x.op, doomedName, again)
	require.Equal(t, again.ID, x.world.look(t, doomedName+"/client_id"))
	b.waitReady(t, "ready", "ok")
}

// refused checks how the broker passes the fault on.
func (x brokenVault) refused(t *testing.T, a answer, provider string) {
	t.Helper()
	a.want(x.status, x.code)
	wait := ""
	if x.retryAfter > 0 {
		wait = strconv.Itoa(x.retryAfter)
	}
	require.Equal(t, wait, a.Header.Get("Retry-After"))
	require.Contains(t, a.text("message"), "hashicorp-vault")
	require.Contains(t, a.text("message"), x.world.location+"/"+provider)
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

// eventually waits until done returns true.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("does not come to pass: %s", what)
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
	require.Equal(t, "hashicorp-vault", backend["backend"])
	require.Equal(t, component, backend["status"])
	since, err := time.Parse(time.RFC3339, backend["since"].(string))
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), since, 10*time.Minute)
	require.Equal(t, component != "ok", backend["message"] != nil && backend["message"] != "")
}
