package e2e_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

// TestReferences: a provider whose credentials are two fields of a secret that a team
// keeps at its own place. With rights to read and no more, the flows work, the team
// rotates, and the secret is left alone for ever.
func TestReferences(t *testing.T) {
	t.Parallel()
	c := newCanary()
	client := confidentialClient(c)
	v := newProxiedVault(t, nil)
	v.Policy("reader", `
path "secret/data/nexus/providers/*" { capabilities = ["read"] }
path "secret/data/team-a/*" { capabilities = ["read"] }
path "secret/data/team-ab/*" { capabilities = ["read"] }`)
	token := v.Token([]string{"reader"}, nil)
	c.protect("Vault token", token)
	const at = "secret/data/team-a/salesforce"
	keep := func(path, id, sec string) {
		v.Write(path, map[string]any{"data": map[string]any{"id": id, "secret": sec, "note": "kept by team a"}})
	}
	keep(at, client.ID, client.Secret)
	keep("secret/data/team-ab/x", client.ID, client.Secret)
	op := servers.OIDC(t, servers.OIDCOptions{Clients: []servers.OIDCClient{client}})
	b := start(t, v.world.env.with(env{
		"SECRET_READ_ONLY": "true", "VAULT_TOKEN": token, "SECRET_REF_ALLOWED_PREFIXES": "shared/oauth, team-a/",
	}))

	post := func(name, id, sec string) answer {
		profile := profileOf(op, name, servers.OIDCClient{Auth: client.Auth})["profile"].(map[string]any)
		profile["credentials_ref"] = map[string]any{"client_id": id, "client_secret": sec}
		return b.call("POST", "/providers", map[string]any{"profile": profile})
	}
	for _, path := range []string{
		"team-ab/x", "team-a/../team-ab/x", "team-a//salesforce", "team-a%2f..%2fteam-ab/x", "/team-ab/x", "data/team-a/salesforce", "secret/data/team-ab/x",
	} {
		post("refused", path+"#id", path+"#secret").want(400, "credentials_ref_not_allowed")
	}
	a := post("refused", "team-a/none#id", "team-a/none#secret").want(409, "credentials_not_found")
	require.Equal(t, []string{"secret/team-a/none#id", "secret/team-a/none#secret"}, a.paths())
	post("refused", "team-a/salesforce#id", "team-a/salesforce#password").want(502, "credentials_invalid")

	id := post("salesforce", "team-a/salesforce#id", "team-a/salesforce#secret").want(201).text("id")
	shown := b.call("GET", "/providers/"+id, nil).want(200).object()
	require.Equal(t, map[string]any{"client_id": "team-a/salesforce#id", "client_secret": "team-a/salesforce#secret"}, shown["credentials_ref"])
	require.Equal(t, "secret/team-a/salesforce#id and secret/team-a/salesforce#secret", shown["credentials"].(map[string]any)["location"])
	require.NotContains(t, shown, "client_secret")
	connection := b.connect(id)
	b.refresh(connection).want(200)
	pinned := post("pinned", "team-a/salesforce@1#id", "team-a/salesforce@1#secret").want(201).text("id")
	b.connect(pinned)

	const rotated = "CANARY-rotated-secret"
	c.protect("rotated client secret", rotated)
	op.SetSecret(t, client.ID, rotated)
	keep(at, client.ID, rotated)
	b.refresh(connection).want(200)

	versions := v.Read("secret/metadata/team-a/salesforce")["data"]
	for _, provider := range []string{id, pinned} {
		b.call("DELETE", "/providers/"+provider, nil).want(200)
	}
	b.token(connection).want(200)
	require.Equal(t, versions, v.Read("secret/metadata/team-a/salesforce")["data"], "the secret has been touched")
	for _, r := range v.proxy.Requests() {
		if r.Path != "/v1/sys/capabilities-self" { // a question, put with PUT
			require.Equal(t, http.MethodGet, r.Method, "%s %s", r.Method, r.Path)
			require.NotContains(t, r.Path, "team-ab", "what is not allowed is not asked for")
		}
	}
	c.checkBroker(t, b)
}
