package e2e_test

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

// printedPolicy is what "doctor --print-policy" prints.
func printedPolicy(t *testing.T, e env) string {
	t.Helper()
	code, output := exits(t, e, "doctor", "--print-policy")
	require.Zero(t, code, output)
	return output
}

// underPrintedPolicy is a world whose login has the printed policy and no other right,
// but for those of Vault's own policy "default".
func underPrintedPolicy(t *testing.T, w world, v *servers.VaultServer, name string, login func(policy string) env) world {
	t.Helper()
	policy := printedPolicy(t, w.env.with(env{"VAULT_TOKEN": "nothing-is-sent"}))
	require.Regexp(t, `(?s)^(# .*\n)?path ".*" \{\n.*\}\n$`, policy, "nothing but the policy")
	v.Policy(name, policy)
	w.env = w.env.with(env{"VAULT_TOKEN": ""}).with(login(name))
	return w
}

// doctor runs "doctor --json" and returns the findings by area and check, as "verdict:
// detail: advice".
func doctor(t *testing.T, c *canary, e env, wantCode int) map[string]string {
	t.Helper()
	code, output := exits(t, e, "doctor", "--json")
	c.search("doctor", []byte(output))
	require.Equal(t, wantCode, code, output)
	body, rest, _ := strings.Cut(output, "\n}\n")
	require.Equal(t, wantCode != 0, rest != "", output) // of stderr
	var report struct {
		Result string
		Checks []struct{ Area, Check, Verdict, Detail, Advice string }
	}
	require.NoError(t, json.Unmarshal([]byte(body+"\n}"), &report), output)
	require.Equal(t, wantCode != 0, report.Result == "fail")
	found := map[string]string{}
	for _, f := range report.Checks {
		found[f.Area+" "+f.Check] = f.Verdict + ": " + f.Detail + ": " + f.Advice
	}
	return found
}

// doctorLines checks that the lines for a person say what --json has said.
func doctorLines(t *testing.T, c *canary, e env, wantCode int, found map[string]string) {
	t.Helper()
	code, lines := exits(t, e, "doctor")
	c.search("doctor", []byte(lines))
	require.Equal(t, wantCode, code, lines)
	for check, text := range found {
		verdict, rest, _ := strings.Cut(text, ": ")
		line := "(?m)^" + verdict + " +" + strings.Replace(regexp.QuoteMeta(check), " ", " +", 1) + " +"
		if !strings.HasSuffix(check, " token") { // which tells how long it will last
			line += regexp.QuoteMeta(strings.TrimSuffix(rest, ": ")) + "$"
		}
		require.Regexp(t, line, lines)
	}
}

// TestDoctorOnVault: what an administrator is told of a Vault that is as it should be,
// and of one that is not.
func TestDoctorOnVault(t *testing.T) {
	t.Parallel()
	c := newCanary()
	c.protect("API key", apiKey)
	c.protect("encryption key", encryptionKey)
	c.protect("state key", stateKey)
	v := servers.Vault(t)
	v.MountKV("kv1", 1)
	token := func(policy string, settings map[string]any) env {
		token := v.Token([]string{policy}, settings)
		c.protect("Vault token "+token[len(token)-4:], token)
		return env{"VAULT_TOKEN": token}
	}
	periodic := map[string]any{"period": "1h"}
	healthy := func(policy string) env { return token(policy, periodic) }
	base := sqliteWorld(t)
	start(t, base.env).stop() // makes the database
	v2 := underPrintedPolicy(t, vaultWorld(base, "", v, "secret", 2, nil), v, "v2", healthy)
	v1 := underPrintedPolicy(t, vaultWorld(base, "", v, "kv1", 1, env{"VAULT_KV_VERSION": "1"}), v, "v1", healthy)
	path := regexp.QuoteMeta(strings.Replace(v2.path("*"), "secret/", "secret/data/", 1))

	for _, w := range []world{v2, v1} {
		found := doctor(t, c, w.env, 0)
		for check, text := range found {
			require.Regexp(t, "^ok: ", text, check)
		}
		require.Len(t, found, 14, "%v", found)
		doctorLines(t, c, w.env, 0, found)
	}
	trouble := func(name string, e env, code int, want map[string]string) {
		t.Helper()
		found := doctor(t, c, e, code)
		if name == "one right is missing" {
			doctorLines(t, c, e, code, found)
		}
		for check, text := range want {
			require.Regexp(t, "^"+text+"$", found["backend "+check], "%s: %s", name, check)
		}
	}

	printed := v.Read("sys/policies/acl/v2")["data"].(map[string]any)["policy"].(string)
	v.Policy("v2", strings.Replace(printed, `, "update"`, "", 1))
	trouble("one right is missing", v2.env, 1, map[string]string{
		"create": "ok: .*", "read": "ok: .*", "delete": "ok: .*",
		"update": "fail: no policy of the token allows to update " + path + `: allow "update" on ` + path,
	})
	v.Policy("v2", printed)

	// Read-only, with the policy for it.
	readOnly := v2.env.with(env{"SECRET_READ_ONLY": "true"})
	v.Policy("reader", printedPolicy(t, readOnly))
	trouble("read-only", readOnly.with(token("reader", periodic)), 0, map[string]string{"read": "ok: .*", "create": "", "least privilege": ""})
	trouble("rights to write", v2.env.with(token("reader", periodic)), 1, map[string]string{"create": "fail: .*", "delete": "fail: .*", "read": "ok: .*"})
	trouble("more rights than needed", readOnly, 0, map[string]string{"least privilege": "warn: the token may also create, update, delete .*"})

	trouble("a wrong token", v2.env.with(env{"VAULT_TOKEN": "hvs.CANARY"}), 1, map[string]string{
		"login": "fail: the token is not valid: it has expired or was revoked: give the broker a new one", "create": ""})
	c.protect("wrong token", "hvs.CANARY")
	trouble("a token about to end", v2.env.with(token("v2", map[string]any{"ttl": "55s"})), 0, map[string]string{"token": "warn: ends in .* s: .*"})
	expired := token("v2", map[string]any{"ttl": "1s", "renewable": false})
	require.Eventually(t, func() bool {
		status, _ := v.Do("POST", "auth/token/lookup", map[string]string{"token": expired["VAULT_TOKEN"]})
		return status != 200
	}, 30*time.Second, 100*time.Millisecond)
	trouble("an expired token", v2.env.with(expired), 1, map[string]string{"login": "fail: the token is not valid: .*"})

	secure := servers.Vault(t, servers.VaultTLS())
	secured := v2.env.with(env{"VAULT_ADDR": secure.Addr, "VAULT_TOKEN": secure.RootToken})
	trouble("an unknown authority", secured, 1, map[string]string{"connection": "fail: the server's certificate is not trusted .*"})
	trouble("TLS", secured.with(env{"VAULT_CACERT": secure.CAFile}), 0, map[string]string{
		"tls": "warn: the certificate, signed by CN=nexus-broker test CA, ends on .*: renew it", "delete": "ok: .*"})

	v.Seal()
	trouble("sealed", v2.env, 1, map[string]string{"connection": "fail: .* is sealed: unseal it", "login": ""})
	v.Unseal()
	v.Stop()
	trouble("stopped", v2.env, 1, map[string]string{"connection": "fail: the connection is refused: .*", "login": ""})
	c.check(t)
}

// TestDoctorOnDatabaseAndKeys: what an administrator is told of the database, and of
// what the keys open.
func TestDoctorOnDatabaseAndKeys(t *testing.T) {
	t.Parallel()
	dsn := servers.Postgres(t)
	for name, w := range map[string]world{"SQLite": sqliteWorld(t), "PostgreSQL": {env: base().with(env{"DATABASE_URL": dsn})}} {
		t.Run(name, func(t *testing.T) {
			c := newCanary()
			c.protect("client secret", "CANARY-client-secret")
			another := randomKey("another-key.")
			for name, key := range map[string]string{"API key": apiKey, "encryption key": encryptionKey, "state key": stateKey, "another key": another} {
				c.protect(name, key)
			}
			b := start(t, w.env)
			b.call("POST", "/providers", map[string]any{"profile": map[string]any{
				"name": "acme", "auth_url": "https://op.test/a", "token_url": "https://op.test/t",
				"client_id": "id", "client_secret": "CANARY-client-secret"}}).want(201)
			b.stop()
			found := doctor(t, c, w.env, 0)
			require.Regexp(t, "^ok: "+name+".*: $", found["database connection"])
			require.Regexp(t, "^ok: [0-9]+ of [0-9]+, up to date: $", found["database schema"])
			require.Equal(t, "ok: ENCRYPTION_KEY opens what is in the database (2 values looked at): ", found["keys encryption"])
			require.Equal(t, "ok: works: ", found["backend delete"])

			found = doctor(t, c, w.env.with(env{"ENCRYPTION_KEY": another + "," + encryptionKey}), 0)
			require.Equal(t, "warn: the first key of ENCRYPTION_KEY does not open 2 of 2 sealed values that were looked at; a later one does: "+
				`run "nexus-broker keys rotate", and keep that key in the list until "nexus-broker keys rotate --check" succeeds`,
				found["keys encryption"])
			found = doctor(t, c, w.env.with(env{"ENCRYPTION_KEY": another}), 1)
			require.Equal(t, "fail: ENCRYPTION_KEY does not open 2 of 2 sealed values that were looked at: "+
				"add the key that they were sealed under to the end of the list", found["keys encryption"])
			c.check(t)
		})
	}
	c := newCanary()
	c.protect("password", "CANARY-password")
	found := doctor(t, c, base().with(env{"DATABASE_URL": "postgres://u:CANARY-password@127.0.0.1:1/db?sslmode=disable"}), 1)
	require.Regexp(t, "^fail: .*: check DATABASE_URL, the network, and that the database runs$", found["database connection"])
	require.NotContains(t, found, "backend create", "the backend is the database")
	c.check(t)
}

// TestPrintedPolicySuffices: the whole life of a provider, and the sweep, need nothing
// but the policy that doctor prints.
func TestPrintedPolicySuffices(t *testing.T) {
	t.Parallel()
	v := servers.Vault(t)
	v.MountKV("kv1", 1)
	for mount, version := range map[string]int{"secret": 2, "kv1": 1} {
		t.Run(mount, func(t *testing.T) {
			t.Parallel()
			c := newCanary()
			client := confidentialClient(c)
			op := servers.OIDC(t, servers.OIDCOptions{Clients: []servers.OIDCClient{client}})
			proxy := servers.NewFaultProxy(t, v.Addr)
			w := vaultWorld(sqliteWorld(t), "", v, mount, version, env{"VAULT_ADDR": proxy.URL, "VAULT_KV_VERSION": string(rune('0' + version)), "SECRET_CACHE_TTL": "0"})
			w = underPrintedPolicy(t, w, v, "least-"+mount, func(policy string) env {
				return env{"VAULT_TOKEN": v.Token([]string{policy}, map[string]any{"period": "1h"})}
			})
			c.protect("Vault token", w.env["VAULT_TOKEN"])
			b := start(t, w.env)
			b.waitReady(t, "ready", "ok")

			p := b.register(op, "flow", client)
			connection := b.connect(p.id)
			b.token(connection).want(200)
			b.refresh(connection).want(200)
			const rotated = "CANARY-rotated-secret"
			c.protect("rotated secret", rotated)
			op.SetSecret(t, client.ID, rotated)
			b.call("PATCH", "/providers/"+p.id, map[string]any{"client_secret": rotated}).want(200)
			b.refresh(connection).want(200)
			b.call("PATCH", "/providers/"+p.id, map[string]any{"name": "renamed"}).want(200)
			b.refresh(connection).want(200)
			w.gone(t, "flow/client_secret")
			b.call("DELETE", "/providers/"+p.id, nil).want(200)
			w.gone(t, "renamed/client_id")
			w.gone(t, "renamed/client_secret")

			// What an outage leaves, the sweep deletes.
			client.Secret = rotated
			swept := b.register(op, "swept", client)
			proxy.Down()
			b.call("DELETE", "/providers/"+swept.id, nil).want(200)
			require.NotEmpty(t, w.look(t, "swept/client_secret"))
			proxy.Up()
			require.Eventually(t, func() bool {
				return w.look(t, "swept/client_id") == "" && w.look(t, "swept/client_secret") == ""
			}, 3*time.Minute, 500*time.Millisecond)
			w.gone(t, "swept/client_secret")
			b.stop()
			require.NotContains(t, b.log.String(), "denies access")
			require.NotContains(t, b.log.String(), "has left something")
			c.checkBroker(t, b)
		})
	}
}
