package httpapi

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

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
	require.False(t, keys.reload(false))
	require.True(t, known("one"))
	write("two")
	require.True(t, keys.reload(false))
	require.False(t, keys.reload(true))
	require.True(t, known("two"))
	require.False(t, known("one"))

	require.NoError(t, os.Remove(file))
	keys.reload(false)
	require.True(t, known("two"))
	keys.reload(false)
	require.False(t, known("two"))
}

// A look in the middle of writing sees the beginning of the file: it withdraws no key that
// stands in the rest, and lets nobody in with half of one.
func TestAFileThatIsHalfWrittenChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "keys")
		write := func(content string) { require.NoError(t, os.WriteFile(file, []byte(content), 0o600)) }
		write("first\nagent:second\n")
		keys, err := NewKeys(KeysOptions{APIKeysFile: file, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		role := func(key string) Role { c, _ := keys.find(key); return c.role }
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go keys.Watch(ctx, 30*time.Second)

		time.Sleep(30900 * time.Millisecond)
		write("first\nage")
		time.Sleep(200 * time.Millisecond)
		synctest.Wait() // it has been looked at
		require.Equal(t, Agent, role("second"))
		require.Empty(t, role("age"))
		write("first\nagent:third\n")
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, Agent, role("second"), "a second ago it was another file")
		require.Empty(t, role("age"))
		time.Sleep(30 * time.Second)
		synctest.Wait()
		require.Equal(t, Agent, role("third"))
		require.Empty(t, role("second"))
		require.Equal(t, Admin, role("first"))

		// Whoever withdraws a key need not wait for two intervals.
		write("first\n")
		time.Sleep(30*time.Second + settleTime)
		synctest.Wait()
		require.Empty(t, role("third"))
	})
}

// A file that is half written when the broker starts is read wholly soon afterwards, and
// not only after an interval.
func TestAFileThatIsHalfWrittenAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "keys")
		require.NoError(t, os.WriteFile(file, []byte("first\nage"), 0o600))
		keys, err := NewKeys(KeysOptions{APIKeysFile: file, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go keys.Watch(ctx, 30*time.Second)
		require.NoError(t, os.WriteFile(file, []byte("first\nagent:second\n"), 0o600))
		time.Sleep(3 * time.Second)
		synctest.Wait()
		c, _ := keys.find("second")
		require.Equal(t, Agent, c.role)
		_, known := keys.find("age")
		require.False(t, known)
	})
}
