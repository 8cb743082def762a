package httpapi

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A tool that writes a file in place empties it first. One look at such a moment
// must not lock everybody out.
func TestOneLookAtAnEmptyFileChangesNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys")
	write := func(content string) { require.NoError(t, os.WriteFile(file, []byte(content), 0o600)) }
	write("one")
	keys, err := NewKeys(KeysOptions{APIKeysFile: file, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	known := func(key string) bool { _, ok := keys.find(key); return ok }

	write("")
	keys.reload()
	require.True(t, known("one"))
	write("two")
	keys.reload()
	require.True(t, known("two"))
	require.False(t, known("one"))

	require.NoError(t, os.Remove(file))
	keys.reload()
	require.True(t, known("two"))
	keys.reload()
	require.False(t, known("two"))
}
