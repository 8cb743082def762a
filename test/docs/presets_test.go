package docs_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// The commands of docs/presets.md work on a broker as they stand there, none of them
// prints a credential, and what they register is there.
func TestPresets(t *testing.T) {
	t.Parallel()
	needsPrograms(t)
	b := start(t, nil)
	key := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(key, []byte("admin:"+apiKey+"\n"), 0o600))
	const awkward = `canary "secret": ${x}`
	s := newShell(t, map[string]string{
		"BROKER_BASE_URL": b.URL, "API_KEY_FILE": key,
		"GITHUB_CLIENT_ID": "canary-id", "GITHUB_CLIENT_SECRET": awkward,
	})
	for _, step := range scenario(t, "presets") {
		s.step(step)
		require.NotContains(t, s.last+s.errors.String(), "canary", "%s", step)
	}
	for name, clientSecret := range map[string]string{"github": awkward, "google": awkward, "entra": awkward, "slack": "a-secret"} {
		found := b.call("GET", "/providers/by-name/"+name, nil)
		require.Equal(t, 200, found.Status, name)
		shown := b.call("GET", "/providers/"+found.text("id"), nil)
		require.Equal(t, clientSecret, shown.text("client_secret"), name)
	}
	for _, name := range []string{"okta", "zoom"} {
		require.Equal(t, 404, b.call("GET", "/providers/by-name/"+name, nil).Status, name)
	}
}
