package e2e_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

// TestNamespaces looks at the requests: an open-source Vault ignores the header and
// answers from the root, whatever it says. What it cannot show is that an Enterprise
// server or OpenBao finds what the header names.
func TestNamespaces(t *testing.T) {
	t.Parallel()
	for _, k := range []struct {
		name, namespace, authNamespace string
		login, reads                   []string // values of the header
	}{
		{"none", "", "", nil, nil},
		{"one for all", "team-a", "", []string{"team-a"}, []string{"team-a"}},
		{"one for each", "/team-a/prod/", "admin", []string{"admin"}, []string{"team-a/prod"}},
		{"one for the login", "", "admin", []string{"admin"}, nil},
	} {
		t.Run(k.name, func(t *testing.T) {
			v := newProxiedVault(t, env{"VAULT_AUTH_METHOD": "approle"})
			// Short-lived, so that it is renewed soon.
			roleID, secretID := v.AppRole("nexus", []string{"nexus"}, map[string]any{"token_ttl": "4s"})
			b := start(t, v.world.env.with(env{"VAULT_ROLE_ID": roleID, "VAULT_SECRET_ID": secretID,
				"VAULT_NAMESPACE": k.namespace, "VAULT_AUTH_NAMESPACE": k.authNamespace}))
			id := b.call("POST", "/providers", map[string]any{"profile": profilePair("flow", "x")}).want(201).text("id")
			require.Equal(t, "x-id", b.clientID(id))
			b.call("PATCH", "/providers/"+id, map[string]any{"client_secret": "other"}).want(200)
			b.call("DELETE", "/providers/"+id, nil).want(200)
			eventually(t, "the token is renewed", func() bool { return len(v.proxy.Requests(servers.PathIs("/v1/auth/token/renew-self"))) > 0 })

			logins, reads := 0, 0
			for _, r := range v.proxy.Requests() {
				got := trimmed(r.Header["X-Vault-Namespace"])
				if strings.HasPrefix(r.Path, "/v1/auth/") {
					logins++
					require.Equal(t, k.login, got, "%s %s", r.Method, r.Path)
				} else {
					reads++
					require.Equal(t, k.reads, got, "%s %s", r.Method, r.Path)
				}
				require.NotContains(t, r.Path, "team-a", "the namespace is in the header alone")
			}
			require.GreaterOrEqual(t, logins, 2)
			require.GreaterOrEqual(t, reads, 6)
			require.NotEmpty(t, v.proxy.Requests(servers.PathIs("/v1/auth/approle/login"), servers.MethodIs(http.MethodPut)))
		})
	}
}

// trimmed is without the slash that may end a namespace.
func trimmed(values []string) (list []string) {
	for _, v := range values {
		list = append(list, strings.Trim(v, "/"))
	}
	return list
}
