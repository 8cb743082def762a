package e2e_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

// put stores fields as a person does with "vault kv put".
func (v proxiedVault) put(key string, fields map[string]any) {
	v.Write("secret/data/"+v.prefix()+"/"+key, map[string]any{"data": fields})
}

// prefix is where the world's credentials lie below the mount.
func (v proxiedVault) prefix() string { return strings.TrimPrefix(v.world.location, "secret/") }

// path is what an administrator is told.
func (v proxiedVault) path(key string) string { return v.world.location + "/" + key }

// details returns the paths that an answer names.
func (a answer) paths() []string {
	a.t.Helper()
	details, _ := a.object()["details"].(map[string]any)
	list, _ := details["paths"].([]any)
	var paths []string
	for _, p := range list {
		paths = append(paths, p.(string))
	}
	return paths
}

// TestExternalCredentials: what somebody else has put into the vault is adopted,
// used, and left alone for ever.
func TestExternalCredentials(t *testing.T) {
	t.Parallel()
	c := newCanary()
	client := confidentialClient(c)
	v := newProxiedVault(t, nil)
	op := servers.OIDC(t, servers.OIDCOptions{Clients: []servers.OIDCClient{client}})
	b := start(t, v.world.env)
	for name, fields := range map[string][2]string{
		"as-the-broker-writes": {"value", "value"},
		"as-a-person-writes":   {"client_id", "client_secret"},
	} {
		t.Run(name, func(t *testing.T) {
			b := b.in(t)
			v.put(name+"/client_id", map[string]any{fields[0]: client.ID, "note": "not ours"})
			v.put(name+"/client_secret", map[string]any{fields[1]: client.Secret})
			bare := servers.OIDCClient{Auth: client.Auth}
			id := b.call("POST", "/providers", profileOf(op, name, bare)).want(201).text("id")
			stored := b.call("GET", "/providers/"+id, nil).want(200).object()
			require.NotContains(t, stored, "client_id")
			require.NotContains(t, stored, "client_secret")
			require.Equal(t, map[string]any{"backend": "hashicorp-vault", "managed": false, "state": "ready",
				"location": v.path(name), "generation": 1.0}, stored["credentials"])
			b.refresh(b.connect(id)).want(200)

			// Nothing changes them; everything else of the profile can be changed.
			for _, change := range []map[string]any{
				{"client_secret": "CANARY-new"}, {"client_id": "CANARY-new"},
				{"client_id": "CANARY-new", "client_secret": "CANARY-new"},
			} {
				b.call("PATCH", "/providers/"+id, change).want(409, "credentials_external")
			}
			whole := profileOf(op, name, client)["profile"]
			b.call("PUT", "/providers/"+id, whole).want(409, "credentials_external")
			b.call("PATCH", "/providers/"+id, map[string]any{"name": name + "-moved"}).want(409, "credentials_external")
			b.call("PATCH", "/providers/"+id, map[string]any{"description": "new"}).want(200)
			b.call("PUT", "/providers/"+id, profileOf(op, name, bare)["profile"]).want(200)

			versions := v.Read("secret/metadata/" + v.prefix() + "/" + name + "/client_secret")["data"]
			b.call("DELETE", "/providers/"+id, nil).want(200)
			require.Equal(t, versions, v.Read("secret/metadata/" + v.prefix() + "/" + name + "/client_secret")["data"], "the secret has been touched")
			require.NotNil(t, v.Read("secret/data/"+v.prefix()+"/"+name+"/client_id"))
			b.call("POST", "/providers", profileOf(op, name, bare)).want(201)
		})
	}
	c.checkBroker(t, b)
}

// TestExternalCredentialsMissing: who registers without credentials is told exactly
// where they are expected.
func TestExternalCredentialsMissing(t *testing.T) {
	t.Parallel()
	c := newCanary()
	client := confidentialClient(c)
	v := newProxiedVault(t, nil)
	b := start(t, v.world.env)
	post := func(name, authHeader string) answer {
		return b.call("POST", "/providers", map[string]any{"profile": map[string]any{
			"name": name, "auth_url": "https://op.test/a", "token_url": "https://op.test/t", "auth_header": authHeader}})
	}
	a := post("none", "").want(409, "credentials_not_found")
	require.Equal(t, []string{v.path("none/client_id"), v.path("none/client_secret")}, a.paths())
	require.Contains(t, a.text("message"), v.path("none/client_id")+" and "+v.path("none/client_secret"))

	v.put("half/client_id", map[string]any{"value": client.ID})
	a = post("half", "").want(409, "credentials_not_found")
	require.Equal(t, []string{v.path("half/client_secret")}, a.paths())
	require.NotContains(t, a.text("message"), "half/client_id")

	// A public client needs no secret.
	post("half", "none").want(201)

	// One that was there and has been deleted is missing as well.
	v.put("gone/client_id", map[string]any{"value": client.ID})
	v.put("gone/client_secret", map[string]any{"value": client.Secret})
	v.Remove("secret/data/" + v.prefix() + "/gone/client_secret")
	a = post("gone", "").want(409, "credentials_not_found")
	require.Equal(t, []string{v.path("gone/client_secret")}, a.paths())

	// What is there and cannot be read as a credential is no missing one; the fields
	// are named, their values are not.
	v.put("odd/client_id", map[string]any{"value": client.ID})
	v.put("odd/client_secret", map[string]any{"password": client.Secret})
	a = post("odd", "").want(502, "credentials_invalid")
	require.Contains(t, a.text("message"), v.path("odd"))

	// The names are free.
	for _, name := range []string{"none", "gone", "odd"} {
		v.put(name+"/client_id", map[string]any{"value": client.ID})
		v.put(name+"/client_secret", map[string]any{"value": client.Secret})
		post(name, "").want(201)
	}
	c.checkBroker(t, b)
}

// TestExternalCredentialsAreNotOverwritten: a value that the broker did not write
// stops a registration with credentials, and stays as it is.
func TestExternalCredentialsAreNotOverwritten(t *testing.T) {
	t.Parallel()
	c := newCanary()
	client := confidentialClient(c)
	v := newProxiedVault(t, nil)
	op := servers.OIDC(t, servers.OIDCOptions{Clients: []servers.OIDCClient{client}})
	b := start(t, v.world.env)
	for _, present := range [][]string{{"client_id"}, {"client_secret"}, {"client_id", "client_secret"}} {
		name := "held-" + strings.ReplaceAll(strings.Join(present, "-"), "_", "-")
		for _, value := range present {
			v.put(name+"/"+value, map[string]any{"value": "CANARY-of-somebody-else"})
		}
		c.protect("somebody else's value", "CANARY-of-somebody-else")
		a := b.call("POST", "/providers", profileOf(op, name, client)).want(409, "credentials_exist")
		require.Contains(t, a.text("message"), v.path(name))
		for _, value := range []string{"client_id", "client_secret"} {
			held := v.world.look(t, name+"/"+value)
			if strings.Contains(strings.Join(present, " "), value) {
				require.Equal(t, "CANARY-of-somebody-else", held)
			} else {
				require.Empty(t, held, "the broker has left its own value")
			}
		}
	}
	// A rename does not overwrite either.
	v.put("taken/client_secret", map[string]any{"value": "CANARY-of-somebody-else"})
	moving := b.register(op, "moving", client)
	b.call("PATCH", "/providers/"+moving.id, map[string]any{"name": "taken"}).want(409, "credentials_exist")
	require.Equal(t, "CANARY-of-somebody-else", v.world.look(t, "taken/client_secret"))
	v.world.gone(t, "taken/client_id")
	b.refresh(b.connect(moving.id)).want(200)
	// Nor does a rename leave anything behind, where it succeeds.
	b.call("PATCH", "/providers/"+moving.id, map[string]any{"name": "moved"}).want(200)
	v.world.gone(t, "moving/client_id")
	v.world.gone(t, "moving/client_secret")
	require.Equal(t, client.Secret, v.world.look(t, "moved/client_secret"))
	b.connect(moving.id)
	c.checkBroker(t, b)
}

// TestExternalReadOnly: with a token that may only read, everything works, and the
// vault never sees an attempt to write.
func TestExternalReadOnly(t *testing.T) {
	t.Parallel()
	c := newCanary()
	client := confidentialClient(c)
	v := newProxiedVault(t, nil)
	v.Policy("reader", printedPolicy(t, v.world.env.with(env{"SECRET_READ_ONLY": "true", "VAULT_KV_VERSION": "2"})))
	token := v.Token([]string{"reader"}, nil)
	c.protect("Vault token", token)
	op := servers.OIDC(t, servers.OIDCOptions{Clients: []servers.OIDCClient{client}})
	b := start(t, v.world.env.with(env{"SECRET_READ_ONLY": "true", "VAULT_TOKEN": token}))
	require.NotContains(t, b.log.String(), "start-up check of the secret backend failed")
	b.waitReady(t, "ready", "ok")

	v.put("flow/client_id", map[string]any{"client_id": client.ID})
	v.put("flow/client_secret", map[string]any{"client_secret": client.Secret})
	b.call("POST", "/providers", profileOf(op, "flow", client)).want(409, "credentials_external")
	bare := servers.OIDCClient{Auth: client.Auth}
	provider := b.call("POST", "/providers", profileOf(op, "flow", bare)).want(201).text("id")
	connection := b.connect(provider)
	b.refresh(connection).want(200)
	const rotated = "CANARY-rotated-secret"
	c.protect("rotated client secret", rotated)
	op.SetSecret(t, client.ID, rotated)
	v.put("flow/client_secret", map[string]any{"client_secret": rotated})
	b.refresh(connection).want(200)
	b.call("PATCH", "/providers/"+provider, map[string]any{"client_secret": "CANARY-new"}).want(409, "credentials_external")
	b.call("PATCH", "/providers/"+provider, map[string]any{"description": "x"}).want(200)
	v.put("renamed/client_id", map[string]any{"client_id": client.ID})
	v.put("renamed/client_secret", map[string]any{"client_secret": rotated})
	b.call("PATCH", "/providers/"+provider, map[string]any{"name": "renamed"}).want(200)
	b.refresh(connection).want(200)
	b.call("DELETE", "/providers/"+provider, nil).want(200)
	b.token(connection).want(200)
	require.Equal(t, map[string]any{"client_secret": rotated}, v.fields("renamed/client_secret"))

	for _, r := range v.proxy.Requests() {
		if r.Path == "/v1/sys/capabilities-self" { // a question, put with PUT
			continue
		}
		require.Equal(t, http.MethodGet, r.Method, "%s %s", r.Method, r.Path)
	}
	c.checkBroker(t, b)
}

// fields returns what a KV secret holds.
func (v proxiedVault) fields(key string) map[string]any {
	data, _ := v.Read("secret/data/" + v.prefix() + "/" + key)["data"].(map[string]any)
	fields, _ := data["data"].(map[string]any)
	return fields
}
