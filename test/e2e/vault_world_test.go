package e2e_test

import (
	"strings"
	"testing"
	"time"

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

// put stores fields as a person does with "vault kv put".
func (v proxiedVault) put(key string, fields map[string]any) {
	v.Write("secret/data/"+v.prefix()+"/"+key, map[string]any{"data": fields})
}

// prefix is where the world's credentials lie below the mount.
func (v proxiedVault) prefix() string {
	return strings.Trim(strings.TrimPrefix(v.world.path(""), "secret/"), "/")
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
