package httpapi

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/secret"
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

// A role that is misspelt makes an admin key of the whole entry, as the contract has it:
// the log says where, at the start and when the file is read again, and never the key.
func TestMisspeltRolesAreWarnedOf(t *testing.T) {
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	file := filepath.Join(t.TempDir(), "keys")
	require.NoError(t, os.WriteFile(file, []byte("# one\r\nagent:fine-canary\r\n\r\nagnt:canary-4,x:canary\nAdmin:canary-5\n agent : canary-6\naudiotr:canary-7\nagents:canary-8\nzagentz:canary-9\nhttp://canary\n"), 0o600))
	_, err := NewKeys(KeysOptions{APIKeys: []secret.Value{secret.NewValue("agent:canary"), secret.NewValue("ADMIN:canary")}, APIKeysFile: file, Logger: logger})
	require.NoError(t, err)
	lines := func() (found []string) {
		for line := range strings.Lines(log.String()) {
			require.Contains(t, line, "level=WARN")
			require.NotContains(t, line, "canary")
			_, where, _ := strings.Cut(strings.TrimSpace(line), " variable=")
			found = append(found, where)
		}
		log.Reset()
		return found
	}
	require.Equal(t, []string{
		"API_KEYS entry=2 role=admin", "API_KEYS_FILE line=4 role=agent", "API_KEYS_FILE line=5 role=admin",
		"API_KEYS_FILE line=6 role=agent", "API_KEYS_FILE line=7 role=auditor", "API_KEYS_FILE line=8 role=agent",
	}, lines())

	require.NoError(t, os.WriteFile(file, []byte("agent:fine-canary\n"), 0o600))
	keys, err := NewKeys(KeysOptions{APIKeysFile: file, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	require.NoError(t, err)
	require.Empty(t, lines())
	require.NoError(t, os.WriteFile(file, []byte("agent:fine-canary\naget:canary\n"), 0o600))
	require.True(t, keys.reload(false))
	require.Empty(t, lines(), "it may be half written")
	require.False(t, keys.reload(true))
	require.Equal(t, []string{"API_KEYS_FILE line=2 role=agent"}, lines())
	require.False(t, keys.reload(false))
	require.Empty(t, lines(), "said once")
}
