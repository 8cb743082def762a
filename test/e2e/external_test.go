package e2e_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

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

// TestExternalCredentials: what somebody else has put into the backend is adopted,
// used, and left alone for ever.
func TestExternalCredentials(t *testing.T) {
	t.Parallel()
	forExternals(t, func(t *testing.T, x external) {
		c := newCanary()
		client := confidentialClient(c)
		op := servers.OIDC(t, servers.OIDCOptions{Clients: []servers.OIDCClient{client}})
		b := start(t, x.env)
		for way, store := range x.ways {
			t.Run(way, func(t *testing.T) {
				name := strings.ReplaceAll(way, " ", "-")
				store(t, name+"/client_id", client.ID)
				store(t, name+"/client_secret", client.Secret)
				x.adopt(t, b.in(t), op, name, client)
			})
		}
		c.checkBroker(t, b)
	})
}

// adopt registers what is there already, and tries everything that might change it.
func (x external) adopt(t *testing.T, b *process, op *servers.OIDCServer, name string, client servers.OIDCClient) {
	bare := servers.OIDCClient{Auth: client.Auth}
	before := []any{x.history(t, name+"/client_id"), x.history(t, name+"/client_secret")}
	id := b.call("POST", "/providers", profileOf(op, name, bare)).want(201).text("id")
	stored := b.call("GET", "/providers/"+id, nil).want(200).object()
	require.NotContains(t, stored, "client_id")
	require.NotContains(t, stored, "client_secret")
	require.Equal(t, map[string]any{"backend": x.env["SECRET_BACKEND"], "managed": false, "state": "ready",
		"location": x.path(name), "generation": 1.0}, stored["credentials"])
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

	b.call("DELETE", "/providers/"+id, nil).want(200)
	after := []any{x.history(t, name+"/client_id"), x.history(t, name+"/client_secret")}
	require.Equal(t, before, after, "the secrets have been touched")
	b.call("POST", "/providers", profileOf(op, name, bare)).want(201)
}

// TestExternalCredentialsMissing: who registers without credentials is told exactly
// where they are expected.
func TestExternalCredentialsMissing(t *testing.T) {
	t.Parallel()
	forExternals(t, func(t *testing.T, x external) {
		c := newCanary()
		client := confidentialClient(c)
		b := startDetecting(t, x.env)
		post := func(name, authHeader string) answer {
			return b.call("POST", "/providers", map[string]any{"profile": map[string]any{
				"name": name, "auth_url": "https://op.test/a", "token_url": "https://op.test/t", "auth_header": authHeader}})
		}
		a := post("none", "").want(409, "credentials_not_found")
		require.Equal(t, []string{x.path("none/client_id"), x.path("none/client_secret")}, a.paths())
		require.Contains(t, a.text("message"), x.path("none/client_id")+" and "+x.path("none/client_secret"))

		x.put(t, "half/client_id", client.ID)
		a = post("half", "").want(409, "credentials_not_found")
		require.Equal(t, []string{x.path("half/client_secret")}, a.paths())
		require.NotContains(t, a.text("message"), x.path("half/client_id"))

		// A public client needs no secret.
		post("half", "none").want(201)

		// One that was there and has been deleted is missing as well.
		x.put(t, "gone/client_id", client.ID)
		x.put(t, "gone/client_secret", client.Secret)
		x.remove(t, "gone/client_secret")
		a = post("gone", "").want(409, "credentials_not_found")
		require.Equal(t, []string{x.path("gone/client_secret")}, a.paths())

		// What is there and cannot be read as a credential is no missing one.
		x.put(t, "odd/client_id", client.ID)
		x.odd(t, "odd/client_secret")
		a = post("odd", "").want(502, "credentials_invalid")
		require.Contains(t, a.text("message"), x.path("odd"))

		// The names are free.
		for _, name := range []string{"none", "gone", "odd"} {
			x.put(t, name+"/client_id", client.ID)
			x.put(t, name+"/client_secret", client.Secret)
			post(name, "").want(201)
		}
		c.checkBroker(t, b)
	})
}

// TestExternalCredentialsAreNotOverwritten: a value that the broker did not write
// stops a registration with credentials, and stays as it is.
func TestExternalCredentialsAreNotOverwritten(t *testing.T) {
	t.Parallel()
	forExternals(t, func(t *testing.T, x external) {
		c := newCanary()
		client := confidentialClient(c)
		c.protect("somebody else's value", "CANARY-of-somebody-else")
		op := servers.OIDC(t, servers.OIDCOptions{Clients: []servers.OIDCClient{client}})
		b := start(t, x.env)
		for _, present := range [][]string{{"client_id"}, {"client_secret"}, {"client_id", "client_secret"}} {
			name := "held-" + strings.ReplaceAll(strings.Join(present, "-"), "_", "-")
			for _, value := range present {
				x.put(t, name+"/"+value, "CANARY-of-somebody-else")
			}
			a := b.call("POST", "/providers", profileOf(op, name, client)).want(409, "credentials_exist")
			require.Contains(t, a.text("message"), x.path(name))
			for _, value := range []string{"client_id", "client_secret"} {
				held := x.look(t, name+"/"+value)
				if strings.Contains(strings.Join(present, " "), value) {
					require.Equal(t, "CANARY-of-somebody-else", held)
				} else {
					require.Empty(t, held, "the broker has left its own value")
				}
			}
		}
		// A rename does not overwrite either.
		x.put(t, "taken/client_secret", "CANARY-of-somebody-else")
		moving := b.register(op, "moving", client)
		b.call("PATCH", "/providers/"+moving.id, map[string]any{"name": "taken"}).want(409, "credentials_exist")
		require.Equal(t, "CANARY-of-somebody-else", x.look(t, "taken/client_secret"))
		x.gone(t, "taken/client_id")
		b.refresh(b.connect(moving.id)).want(200)
		// Nor does a rename leave anything behind, where it succeeds.
		b.call("PATCH", "/providers/"+moving.id, map[string]any{"name": "moved"}).want(200)
		x.gone(t, "moving/client_id")
		x.gone(t, "moving/client_secret")
		require.Equal(t, client.Secret, x.look(t, "moved/client_secret"))
		b.connect(moving.id)
		c.checkBroker(t, b)
	})
}

// TestExternalReadOnly: with a login that may only read, everything works, and the
// backend never sees an attempt to write.
func TestExternalReadOnly(t *testing.T) {
	t.Parallel()
	forExternals(t, func(t *testing.T, x external) {
		c := newCanary()
		client := confidentialClient(c)
		op := servers.OIDC(t, servers.OIDCOptions{Clients: []servers.OIDCClient{client}})
		x.env = x.env.with(x.reader())
		x.protectLogin(c)
		x.forget()
		b := start(t, x.env.with(env{"SECRET_READ_ONLY": "true"}))
		require.NotContains(t, b.log.String(), "start-up check of the secret backend failed")
		b.waitReady(t, "ready", "ok")
		written := x.wrote()
		require.Empty(t, written)

		store := func(provider, secret string) { // as a person does, which is no write of the broker's
			x.put(t, provider+"/client_id", client.ID)
			x.put(t, provider+"/client_secret", secret)
		}
		store("flow", client.Secret)
		store("renamed", client.Secret)
		x.forget()
		b.call("POST", "/providers", profileOf(op, "flow", client)).want(409, "credentials_external")
		bare := servers.OIDCClient{Auth: client.Auth}
		provider := b.call("POST", "/providers", profileOf(op, "flow", bare)).want(201).text("id")
		connection := b.connect(provider)
		b.refresh(connection).want(200)
		written = append(written, x.wrote()...)
		const rotated = "CANARY-rotated-secret"
		c.protect("rotated client secret", rotated)
		op.SetSecret(t, client.ID, rotated)
		store("flow", rotated)
		store("renamed", rotated)
		x.forget()
		b.refresh(connection).want(200)
		b.call("PATCH", "/providers/"+provider, map[string]any{"client_secret": "CANARY-new"}).want(409, "credentials_external")
		b.call("PATCH", "/providers/"+provider, map[string]any{"description": "x"}).want(200)
		b.call("PATCH", "/providers/"+provider, map[string]any{"name": "renamed"}).want(200)
		b.refresh(connection).want(200)
		b.call("DELETE", "/providers/"+provider, nil).want(200)
		b.token(connection).want(200)
		require.Empty(t, append(written, x.wrote()...))
		require.Equal(t, rotated, x.look(t, "renamed/client_secret"))
		c.checkBroker(t, b)
	})
}
