package e2e_test

import (
	"database/sql"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

// TestDoctorOnFurtherBackends: while credentials are moved, doctor examines every backend
// that the database names like the selected one, and says what it is needed for.
func TestDoctorOnFurtherBackends(t *testing.T) {
	t.Parallel()
	c := newCanary()
	for name, key := range map[string]string{"API key": apiKey, "encryption key": encryptionKey, "state key": stateKey} {
		c.protect(name, key)
	}
	v := servers.Vault(t)
	w := underPrintedPolicy(t, vaultWorld(sqliteWorld(t), "", v, "secret", 2, nil), v, "further", func(policy string) env {
		return env{"VAULT_TOKEN": v.Token([]string{policy}, map[string]any{"period": "1h"})}
	})
	c.protect("Vault token", w.env["VAULT_TOKEN"])
	inVault, inDatabase := w.env, w.env.with(env{"SECRET_BACKEND": "internal"})
	b := start(t, inDatabase)
	for _, name := range []string{"one", "two"} {
		c.protect("secret of "+name, "CANARY-"+name+"-secret")
		b.call("POST", "/providers", map[string]any{"profile": profilePair(name, "CANARY-"+name)}).want(201)
	}
	b.stop()
	migrate := func(from, to string) {
		t.Helper()
		code, output := exits(t, inVault, "secrets", "migrate", "--from", from, "--to", to)
		require.Zero(t, code, output)
	}
	const internal, vault = "backend/internal ", "backend/hashicorp-vault "
	of := func(area string, found map[string]string) (checks []string) {
		for check := range found {
			if rest, ok := strings.CutPrefix(check, area); ok {
				checks = append(checks, rest)
			}
		}
		slices.Sort(checks)
		return checks
	}

	// The selected backend alone: there is no further one.
	require.NotContains(t, strings.Join(slices.Collect(maps.Keys(doctor(t, c, inDatabase, 0))), "\n"), "backend/")
	// Before the move the database is the further one, during it Vault is.
	found := doctor(t, c, inVault, 0)
	require.Equal(t, "ok: holds the credentials of 2 providers: ", found[internal+"rows"])
	require.Equal(t, []string{"create", "delete", "probe", "read", "rows", "update"}, of(internal, found))
	migrate("internal", "hashicorp-vault")
	found = doctor(t, c, inDatabase, 0)
	require.Equal(t, "ok: holds the credentials of 2 providers: ", found[vault+"rows"])
	require.Equal(t, []string{"clock", "connection", "create", "delete", "engine", "login", "read", "rows", "tls", "token", "update"}, of(vault, found))
	doctorLines(t, c, inDatabase, 0, found)
	// What is left behind is named too.
	require.Equal(t, `ok: 2 pairs wait there for "secrets scrub": `, doctor(t, c, inVault, 0)[internal+"rows"])

	// Not configured, refused, and away.
	found = doctor(t, c, inDatabase.with(env{"VAULT_ADDR": "", "VAULT_TOKEN": ""}), 1)
	require.Regexp(t, "^fail: is not set: ", found[vault+"VAULT_ADDR"])
	require.Regexp(t, "^ok: ", found["backend delete"], "the selected one is as it was")
	doctorLines(t, c, inDatabase.with(env{"VAULT_ADDR": "", "VAULT_TOKEN": ""}), 1, found)
	found = doctor(t, c, inDatabase.with(env{"VAULT_TOKEN": "hvs.CANARY"}), 1)
	require.Regexp(t, "^fail: the token is not valid: ", found[vault+"login"])
	readOnly := v.Token([]string{"further-reader"}, map[string]any{"period": "1h"})
	v.Policy("further-reader", printedPolicy(t, inVault.with(env{"SECRET_READ_ONLY": "true"})))
	found = doctor(t, c, inDatabase.with(env{"VAULT_TOKEN": readOnly}), 1)
	require.Regexp(t, "^fail: .*delete", found[vault+"delete"], "the broker deletes what it has written")
	v.Seal()
	found = doctor(t, c, inDatabase, 1)
	require.Regexp(t, "^fail: .* is sealed: unseal it$", found[vault+"connection"])
	v.Unseal()

	// Back again: nothing but copies is in Vault, which no flow needs.
	migrate("hashicorp-vault", "internal")
	found = doctor(t, c, inDatabase.with(env{"VAULT_ADDR": "", "VAULT_TOKEN": ""}), 0)
	require.Equal(t, `ok: 2 pairs wait there for "secrets scrub": `, found[vault+"rows"])
	require.Regexp(t, "^warn: is not set: ", found[vault+"VAULT_ADDR"])
	code, output := exits(t, inVault, "secrets", "scrub", "--from", "hashicorp-vault", "--yes")
	require.Zero(t, code, output)

	// What somebody else keeps in Vault needs no right to write.
	w.set(t, "theirs/client_id", "an-id")
	w.set(t, "theirs/client_secret", "CANARY-theirs")
	c.protect("their secret", "CANARY-theirs")
	b = start(t, inVault)
	b.call("POST", "/providers", map[string]any{"profile": map[string]any{
		"name": "theirs", "auth_url": "https://op.test/a", "token_url": "https://op.test/t"}}).want(201)
	b.stop()
	found = doctor(t, c, inDatabase.with(env{"VAULT_TOKEN": readOnly}), 0)
	require.Equal(t, "ok: holds the credentials of 1 provider: ", found[vault+"rows"])
	require.NotContains(t, found, vault+"delete")

	// A backend of a newer broker.
	db, err := sql.Open("sqlite", strings.TrimPrefix(w.env["DATABASE_URL"], "sqlite:"))
	require.NoError(t, err)
	_, err = db.Exec(`UPDATE provider_profiles SET secret_backend = 'punched-cards' WHERE name = 'theirs'`)
	require.NoError(t, err)
	require.NoError(t, db.Close())
	found = doctor(t, c, inDatabase, 1)
	require.Equal(t, "fail: there is no such secret backend: use a version of the broker that has it",
		found["backend/punched-cards configuration"])
	c.check(t)
}
