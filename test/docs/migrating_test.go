package docs_test

import (
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

// The commands of docs/migrating.md, beside a broker that serves. It writes to its own
// database and opens the Vault when the first row names it.
func TestMigratingAsDocumented(t *testing.T) {
	t.Parallel()
	needsPrograms(t)
	v := servers.Vault(t)
	b := start(t, env{"VAULT_ADDR": v.Addr, "VAULT_TOKEN": v.RootToken})
	const value = "CANARY-of-the-migration"
	registered := b.call("POST", "/providers", map[string]any{"profile": map[string]any{
		"name": "google", "client_id": "CANARY-id", "client_secret": value,
		"auth_url": "https://op.example/authorize", "token_url": "https://op.example/token",
	}})
	require.Equal(t, 201, registered.Status, registered.Body)
	id := registered.text("id")
	flow := func() {
		a := b.call("POST", "/auth/consent-spec", map[string]any{
			"workspace_id": "ws", "provider_id": id, "scopes": []string{"a"}, "return_url": "https://app.example/"})
		require.Equal(t, 200, a.Status, a.Body)
		require.Contains(t, a.text("authUrl"), "CANARY-id")
	}
	flow()

	s := newShell(t, map[string]string{})
	data := filepath.Join(b.Dir, "nexus-data")
	s.send("export VAULT_ADDR=" + v.Addr + " VAULT_TOKEN=" + v.RootToken + " DATABASE_URL=sqlite:" + filepath.Join(data, "nexus.db") +
		" ENCRYPTION_KEY_FILE=" + filepath.Join(data, "encryption.key") + " STATE_KEY_FILE=" + filepath.Join(data, "state.key"))
	for i, step := range scenario(t, "migrating") {
		s.step(step)
		require.NotContains(t, s.last+s.errors.String(), "CANARY", "no value is printed")
		flow()
		if i == 1 {
			require.Contains(t, s.last, "1 copied")
			stored := v.Read("secret/data/nexus/providers/google/client_secret")["data"].(map[string]any)["data"].(map[string]any)
			require.Equal(t, value, stored["value"])
		}
	}
	var report struct {
		Providers []struct{ ID, Outcome string }
		Result    string
	}
	require.NoError(t, json.Unmarshal([]byte(s.last), &report), s.last)
	require.Equal(t, "ok", report.Result)
	require.Len(t, report.Providers, 1)
	require.Equal(t, "copied", report.Providers[0].Outcome)
}
