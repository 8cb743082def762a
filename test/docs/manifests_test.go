package docs_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// The commands of docs/manifests.md work on a broker as they stand there, and none of
// them prints a credential.
func TestManifests(t *testing.T) {
	t.Parallel()
	needsPrograms(t)
	b := start(t, nil)
	key := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(key, []byte("agent:other\nadmin:"+apiKey+"\n"), 0o600))
	s := newShell(t, map[string]string{
		"BROKER_BASE_URL": b.URL, "API_KEY_FILE": key,
		"GOOGLE_CLIENT_ID": "canary-id", "GOOGLE_CLIENT_SECRET": `canary "secret": ${x}`,
	})
	for _, step := range scenario(t, "manifests") {
		s.step(step)
		require.NotContains(t, s.last+s.errors.String(), "canary", "%s", step)
	}
	exported, err := os.ReadFile(filepath.Join(s.dir, "exported.yaml"))
	require.NoError(t, err)
	require.NotContains(t, string(exported), "canary")
	require.Contains(t, string(exported), "${GOOGLE_CLIENT_SECRET}")
}
