package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/config"
)

func TestDev(t *testing.T) {
	t.Chdir(t.TempDir())
	c, err := config.Load(nil, config.Options{Dev: true})
	require.NoError(t, err)
	require.Equal(t, "./nexus-data/nexus.db", c.Database.Path)
	require.Equal(t, "http://localhost:8080", c.Server.BaseURL.String())
	require.Equal(t, "127.0.0.1:8080", c.Server.ListenAddr)
	require.Equal(t, "text", c.Log.Format)
	require.True(t, c.Access.RequireAPIKey)
	require.True(t, c.Access.APIKey.Equal(c.Dev.APIKey))
	require.Len(t, c.Dev.APIKey.Reveal(), 43)
	require.Empty(t, c.Warnings)

	info, err := os.Stat("nexus-data")
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	entries, err := os.ReadDir("nexus-data")
	require.NoError(t, err)
	require.Len(t, entries, 3, "three keys and no temporary file")
	for _, e := range entries {
		info, err := e.Info()
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), e.Name())
	}

	again, err := config.Load(nil, config.Options{Dev: true})
	require.NoError(t, err)
	require.True(t, again.Dev.APIKey.Equal(c.Dev.APIKey), "the keys are kept")
	require.True(t, again.Keys.State.Equal(c.Keys.State))
	sealed := c.Keys.Encryption.Seal("p", []byte("x"))
	_, err = again.Keys.Encryption.Open("p", sealed)
	require.NoError(t, err)
}

func TestDevPort(t *testing.T) {
	dir := t.TempDir()
	c, err := config.Load([]string{"PORT=0"}, config.Options{Dev: true, DataDir: dir})
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:0", c.Server.ListenAddr)
	require.Equal(t, "http://localhost:4711", c.Server.PublicURL(4711).String())
	require.Equal(t, filepath.Join(dir, "nexus.db"), c.Database.Path)

	c, err = config.Load([]string{"LISTEN_ADDR=127.0.0.1:9090"}, config.Options{Dev: true, DataDir: dir})
	require.NoError(t, err)
	require.Equal(t, "http://localhost:9090", c.Server.BaseURL.String(), "with the real port")

	c, err = config.Load([]string{"PORT=9090", "BASE_URL=https://tunnel.example"}, config.Options{Dev: true, DataDir: dir})
	require.NoError(t, err)
	require.Equal(t, "https://tunnel.example", c.Server.PublicURL(9090).String())
}

func TestDevIsLoopbackOnly(t *testing.T) {
	for _, addr := range []string{":8080", "0.0.0.0:8080", "192.0.2.1:80"} {
		_, err := config.Load([]string{"LISTEN_ADDR=" + addr}, config.Options{Dev: true, DataDir: t.TempDir()})
		require.ErrorContains(t, err, "LISTEN_ADDR is not a loopback address, which --dev needs")
	}
}

func TestDevKeepsWhatIsGiven(t *testing.T) {
	dir := t.TempDir()
	c, err := config.Load(environ(valid(), "API_KEYS=agent:a"), config.Options{Dev: true, DataDir: dir})
	require.NoError(t, err)
	require.Equal(t, config.Postgres, c.Database.Driver)
	require.True(t, c.Dev.APIKey.IsZero())
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries, "no key is made that nobody needs")
}

func TestDevInspectMakesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	_, err := config.Load(nil, config.Options{Dev: true, DataDir: dir, Inspect: true})
	require.NoError(t, err)
	require.NoDirExists(t, dir)
}

func TestDevRefusesUnsafeKeys(t *testing.T) {
	for content, mode := range map[string]os.FileMode{"canary": 0o644, "": 0o600} {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "state.key"), []byte(content), 0o600))
		require.NoError(t, os.Chmod(filepath.Join(dir, "state.key"), mode))
		_, err := config.Load(nil, config.Options{Dev: true, DataDir: dir})
		require.ErrorContains(t, err, "STATE_KEY cannot be kept for --dev (state.key ")
		require.False(t, strings.Contains(err.Error(), "canary"))
	}
}

// What is wrong with the key of --dev is one problem, and not that there is none too.
func TestDevKeyThatCannotBeUsed(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "api.key"), nil, 0o600))
	_, err := config.Load(nil, config.Options{Dev: true, DataDir: dir})
	require.ErrorContains(t, err, "api.key is empty: delete it")
	require.NotContains(t, err.Error(), "REQUIRE_API_KEY")

	_, err = config.Load(nil, config.Options{Dev: true, DataDir: filepath.Join(dir, "api.key")})
	require.ErrorContains(t, err, "API_KEY")
	require.NotContains(t, err.Error(), "REQUIRE_API_KEY")
}
