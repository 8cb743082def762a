package e2e_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/httpapi/openapitest"
	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

const agentKey, auditorKey = "CANARY-agent-key", "CANARY-auditor-key"

func as(key string) http.Header { return http.Header{"X-Api-Key": {key}} }

// operation is a method and a path of the contract.
type operation struct{ method, path string }

// TestAccessByRole tries every operation of the contract with every role. An operation
// that is new is forbidden to all but admins, until it is listed here.
func TestAccessByRole(t *testing.T) {
	t.Parallel()
	op := oauthtest.Start(t, oauthtest.Options{})
	c := newCanary()
	for _, k := range []string{apiKey, agentKey, auditorKey} {
		c.protect("key "+k, k)
	}
	b := start(t, base().with(env{"DATABASE_URL": servers.Postgres(t), "API_KEYS": "agent:" + agentKey + ", auditor:" + auditorKey + " ,root:CANARY-verbatim"}))
	provider := b.registerAt(op, "flow")
	connection, spare := b.connect(provider), b.connect(provider)
	agents := []operation{
		{"POST", "/auth/consent-spec"}, {"GET", "/connections/{id}/token"}, {"POST", "/connections/{id}/refresh"},
		{"GET", "/connections"}, {"DELETE", "/connections/{id}"},
	}
	auditors := []operation{
		{"GET", "/providers"}, {"GET", "/providers/metadata"}, {"GET", "/providers/health"}, {"GET", "/providers/by-name/{name}"},
		{"GET", "/providers/{id}"}, {"GET", "/audit"}, {"GET", "/connections"},
	}
	public := []operation{
		{"GET", "/auth/callback"}, {"GET", "/auth/capture-schema"}, {"POST", "/auth/capture-credential"},
		{"GET", "/health"}, {"GET", "/health/ready"}, {"GET", "/metrics"}, {"GET", "/openapi.yaml"},
	}
	loaded, err := openapitest.Load()
	require.NoError(t, err)
	seen := 0
	for path, item := range loaded.Document().Paths.Map() {
		for _, method := range slices.Sorted(maps.Keys(item.Operations())) {
			at := operation{method, path}
			id := connection
			switch {
			case strings.HasPrefix(path, "/providers"):
				id = provider
			case at == operation{"DELETE", "/connections/{id}"}:
				id = spare
			}
			real := strings.NewReplacer("{id}", id, "{name}", "flow").Replace(path)
			for role, allowed := range map[string][]operation{agentKey: agents, auditorKey: auditors} {
				a := b.raw(method, real, "", as(role))
				if slices.Contains(allowed, at) || slices.Contains(public, at) {
					require.NotContains(t, []int{401, 403}, a.Status, "%s %s as %s: %s", method, path, role, a.Body)
				} else {
					a.want(403, "forbidden")
				}
				seen++
			}
			nobody := b.raw(method, real, "", nil)
			if slices.Contains(public, at) {
				require.NotEqual(t, 401, nobody.Status)
			} else {
				nobody.want(401, "missing_api_key")
			}
		}
	}
	require.GreaterOrEqual(t, seen, 2*(len(agents)+len(auditors)+len(public)))
	b.call("GET", "/providers/"+provider, nil).want(200) // none of it has deleted anything
	b.raw("GET", "/providers", "", as("root:CANARY-verbatim")).want(200)
	b.raw("GET", "/providers", "", as("CANARY-verbatim")).want(403, "invalid_api_key")
	b.raw("GET", "/audit", "", as("agent:"+agentKey)).want(403, "invalid_api_key")

	// What a role may not see, in any depth.
	for _, a := range []answer{
		b.raw("GET", "/connections/"+connection+"/token", "", as(agentKey)).want(200),
		b.raw("POST", "/connections/"+connection+"/refresh", "", as(agentKey)).want(200),
	} {
		require.NotContains(t, string(a.Body), "refresh_token")
		require.NotContains(t, string(a.Body), `"rt-`)
		require.NotEmpty(t, a.text("access_token"))
	}
	require.NotEmpty(t, b.token(connection).text("refresh_token"))
	profile := b.raw("GET", "/providers/"+provider, "", as(auditorKey)).want(200)
	require.NotContains(t, string(profile.Body), "test-secret")
	require.NotContains(t, string(profile.Body), "test-client")
	c.checkBroker(t, b)
}

// TestAccessByAddress: X-Forwarded-For counts when a trusted proxy has sent it.
func TestAccessByAddress(t *testing.T) {
	t.Parallel()
	for _, k := range []struct {
		allowed, trusted, forwarded string
		status                      int
	}{
		{"10.0.0.0/8", "", "", 403},
		{"10.0.0.0/8", "", "10.0.0.1", 403},
		{"10.0.0.0/8", "192.168.0.0/16", "10.0.0.1", 403},
		{"10.0.0.0/8", "127.0.0.1/32", "10.0.0.1", 200},
		{"10.0.0.0/8", "127.0.0.1/32", "", 403},
		{"10.0.0.0/8", "127.0.0.1/32", "10.0.0.1, 8.8.8.8", 403},              // the first is what the caller claims
		{"10.0.0.0/8", "127.0.0.1/32", "8.8.8.8, 10.0.0.1", 200},              // the last is what our proxy has seen
		{"10.0.0.0/8", "127.0.0.1/32,10.9.0.0/16", "10.0.0.1, 10.9.1.1", 200}, // by way of two proxies
		{"10.0.0.0/8", "127.0.0.1/32", "10.0.0.1, nonsense", 403},
		{"10.0.0.0/8", "127.0.0.1/32", "::ffff:10.0.0.1", 200},
		{"", "", "", 200}, // the default allows this machine
		{"", "", "8.8.8.8", 200},
	} {
		t.Run(fmt.Sprintf("%s from %q trusting %q", k.allowed, k.forwarded, k.trusted), func(t *testing.T) {
			b := start(t, base().with(env{"DATABASE_URL": servers.Postgres(t), "REQUIRE_ALLOWLIST": "true",
				"ALLOWED_CIDRS": k.allowed, "TRUSTED_PROXIES": k.trusted}))
			h := key()
			if k.forwarded != "" {
				h.Set("X-Forwarded-For", k.forwarded)
			}
			for _, name := range []string{"X-Real-Ip", "Forwarded", "True-Client-Ip", "X-Client-Ip"} {
				h.Set(name, "10.0.0.1")
			}
			require.Equal(t, k.status, b.raw("GET", "/providers", "", h).Status)
			warned := strings.Contains(b.log.String(), "TRUSTED_PROXIES")
			require.Equal(t, k.forwarded != "" && !strings.Contains(k.trusted, "127.0.0.1"), warned)
		})
	}
}

// TestAccessKeyFiles: keys in files come and go while the broker runs.
func TestAccessKeyFiles(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "keys")
	write := func(content string) { require.NoError(t, os.WriteFile(file, []byte(content), 0o600)) }
	write("first\nagent:second\n")
	b := startDetecting(t, base().with(env{"DATABASE_URL": servers.Postgres(t), "API_KEY": "", "API_KEYS_FILE": file, "API_KEY_RELOAD_INTERVAL": "100ms"}))
	b.raw("GET", "/providers", "", as("first")).want(200)
	b.raw("GET", "/providers", "", as("second")).want(403, "forbidden")
	write("third,auditor:second")
	eventually(t, "the new keys count", func() bool { return b.raw("GET", "/providers", "", as("third")).Status == 200 })
	b.raw("GET", "/providers", "", as("second")).want(200)
	b.raw("GET", "/providers", "", as("first")).want(403, "invalid_api_key")
	// A file that is gone, or empty, must not open the door, nor close it.
	write("")
	require.NoError(t, os.Remove(file))
	b.raw("GET", "/providers", "", nil).want(401, "missing_api_key")
	b.raw("GET", "/providers", "", as("third")).want(200)
}

// TestAccessRate: a key has its own allowance, and is told when to come again.
func TestAccessRate(t *testing.T) {
	t.Parallel()
	b := start(t, base().with(env{"DATABASE_URL": servers.Postgres(t), "RATE_LIMIT": "0.1", "API_KEYS": agentKey}))
	limited := 0
	for range 20 {
		a := b.call("GET", "/providers", nil)
		if a.Status != 200 {
			a.want(429, "rate_limited")
			require.NotEmpty(t, a.Header.Get("Retry-After"))
			limited++
		}
	}
	require.Greater(t, limited, 5)
	b.raw("GET", "/providers", "", as(agentKey)).want(200)
	b.send("GET", "/health", nil, nil).want(200)
}

// TestAccessRedaction: with REDACT_CLIENT_SECRETS the internal backend shows no
// credentials either.
func TestAccessRedaction(t *testing.T) {
	t.Parallel()
	b := start(t, base().with(env{"DATABASE_URL": servers.Postgres(t), "REDACT_CLIENT_SECRETS": "true"}))
	id := b.call("POST", "/providers", map[string]any{"profile": profilePair("flow", "CANARY")}).want(201).text("id")
	profile := b.call("GET", "/providers/"+id, nil).want(200)
	require.NotContains(t, string(profile.Body), "CANARY")
	var view struct {
		Credentials struct{ Backend, State string }
	}
	require.NoError(t, json.Unmarshal(profile.Body, &view))
	require.Equal(t, "internal", view.Credentials.Backend)
	require.Equal(t, "CANARY-id", b.clientID(id))
}
