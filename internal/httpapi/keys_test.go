package httpapi_test

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/httpapi"
	"github.com/nexus-broker/nexus-broker/secret"
)

func values(entries ...string) []secret.Value {
	var list []secret.Value
	for _, e := range entries {
		list = append(list, secret.NewValue(e))
	}
	return list
}

// roleOf returns what a key may do: "admin", "agent", "auditor", or "" if it is not
// known.
func roleOf(t *testing.T, c *client, key string) string {
	t.Helper()
	c = c.as(key)
	register := c.do("POST", "/providers", `{"profile":{}}`).StatusCode == 201
	token := c.do("POST", "/connections/"+someID+"/refresh", "").StatusCode == 200
	audit := c.get("/audit").StatusCode == 200
	switch {
	case register && token && audit:
		return "admin"
	case token && !register && !audit:
		return "agent"
	case audit && !register && !token:
		return "auditor"
	}
	require.False(t, register || token || audit)
	return ""
}

func TestKeysFromEverySource(t *testing.T) {
	dir := t.TempDir()
	keyFile, keysFile := filepath.Join(dir, "key"), filepath.Join(dir, "keys")
	writeFile(t, keyFile, "agent:from-file,with-comma\n")
	writeFile(t, keysFile, "\nfile-admin, auditor:file-auditor ,\r\nagent: file-agent\nroot:file-root\n")
	keys, err := httpapi.NewKeys(httpapi.KeysOptions{
		APIKey:     secret.NewValue("agent:verbatim"),
		APIKeys:    values("plain", "admin:boss", "agent:worker", "auditor:eye", "Agent:Upper", "agents:many", "agent:with:colon"),
		APIKeyFile: keyFile, APIKeysFile: keysFile, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	c := newClient(t, httpapi.Options{Broker: &stub{}, Keys: keys})
	for key, want := range map[string]string{
		"agent:verbatim": "admin", "verbatim": "",
		"plain": "admin", "boss": "admin", "admin:boss": "", "worker": "agent", "agent:worker": "", "eye": "auditor",
		"Agent:Upper": "admin", "Upper": "", "agents:many": "admin", "with:colon": "agent",
		"from-file,with-comma": "agent", "from-file": "",
		"file-admin": "admin", "file-auditor": "auditor", "file-agent": "agent", "root:file-root": "admin",
		"plai": "", "plain ": "admin", "PLAIN": "",
	} {
		require.Equal(t, want, roleOf(t, c, key), key)
	}
	require.NotContains(t, fmt.Sprintf("%v %+v %#v", keys, keys, keys), "worker")
}

func TestKeysThatCannotBeUsed(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	writeFile(t, empty, "\n,\n")
	for name, o := range map[string]httpapi.KeysOptions{
		"no source":          {},
		"an empty file":      {APIKeysFile: empty},
		"a role without key": {APIKeys: values("agent:")},
		"a missing file":     {APIKey: secret.NewValue("k"), APIKeyFile: empty + "x"},
	} {
		o.Logger = slog.New(slog.DiscardHandler)
		_, err := httpapi.NewKeys(o)
		require.Error(t, err, name)
		switch name {
		case "no source", "an empty file":
			require.ErrorIs(t, err, httpapi.ErrNoKeys)
		case "a missing file":
			require.ErrorIs(t, err, fs.ErrNotExist)
			require.ErrorContains(t, err, "API_KEY_FILE")
		}
	}
}

// A key with two roles has the lesser one, wherever it stands.
func TestAKeyWithTwoRoles(t *testing.T) {
	for _, entries := range [][]secret.Value{values("k", "agent:k"), values("agent:k", "k"), values("admin:k", "agent:k", "k")} {
		log := &logBuffer{}
		keys, err := httpapi.NewKeys(httpapi.KeysOptions{APIKeys: entries, Logger: slog.New(slog.NewJSONHandler(log, nil))})
		require.NoError(t, err)
		require.Equal(t, "agent", roleOf(t, newClient(t, httpapi.Options{Broker: &stub{}, Keys: keys}), "k"))
		require.Contains(t, log.String(), "two roles")
	}
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	next := path + ".next"
	require.NoError(t, os.WriteFile(next, []byte(content), 0o600))
	require.NoError(t, os.Rename(next, path))
}

// watched returns a client whose keys come from a file that is read all the time.
func watched(t *testing.T, content string) (c *client, file string, log *logBuffer) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "keys")
	writeFile(t, file, content)
	log = &logBuffer{}
	keys, err := httpapi.NewKeys(httpapi.KeysOptions{APIKeysFile: file, Logger: slog.New(slog.NewJSONHandler(log, nil))})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { keys.Watch(ctx, 5*time.Millisecond); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	well := broker.Component{Status: "ok"}
	domain := &stub{ready: broker.Readiness{Status: broker.Ready, Database: well, Secrets: well}}
	return newClient(t, httpapi.Options{Broker: domain, Keys: keys}), file, log
}

func (c *client) eventually(key string, status int) {
	c.t.Helper()
	require.Eventually(c.t, func() bool { return c.as(key).get("/providers").StatusCode == status },
		10*time.Second, 5*time.Millisecond, "key %s", key)
}

func TestKeyFilesAreReadAgain(t *testing.T) {
	c, file, log := watched(t, "one\ntwo\n")
	require.Equal(t, 200, c.as("one").get("/providers").StatusCode)

	writeFile(t, file, "two\nthree\n")
	c.eventually("one", 403) // withdrawn
	c.eventually("three", 200)
	c.eventually("two", 200)

	writeFile(t, file, "agent:two\n")
	c.eventually("two", 403) // demoted
	require.NotContains(t, log.String(), "three")
}

// A file that cannot be used says nothing about its keys, and the log says so once.
func TestKeyFileThatCannotBeUnderstood(t *testing.T) {
	c, file, log := watched(t, "one\n")
	writeFile(t, file, "two\nagent:\n")
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "cannot be read again") }, 10*time.Second, 5*time.Millisecond)
	require.Equal(t, 200, c.as("one").get("/providers").StatusCode)
	require.Equal(t, 403, c.as("two").get("/providers").StatusCode)

	// Reading a folder fails. It takes the file's place in one step: a file that is gone
	// withdraws its keys.
	link := file + ".link"
	require.NoError(t, os.Symlink(t.TempDir(), link))
	require.NoError(t, os.Rename(link, file))
	time.Sleep(50 * time.Millisecond)
	require.Equal(t, 200, c.as("one").get("/providers").StatusCode)
	require.LessOrEqual(t, strings.Count(log.String(), "cannot be read again"), 3)

	require.NoError(t, os.Remove(file))
	writeFile(t, file, "two\n")
	c.eventually("two", 200)
	c.eventually("one", 403)
}

// A file that is gone or empty withdraws its keys: nobody is let in by a key that
// stands nowhere any more, and nobody without one.
func TestKeyFileThatIsGone(t *testing.T) {
	for name, remove := range map[string]func(string){
		"removed": func(f string) { require.NoError(t, os.Remove(f)) },
		"emptied": func(f string) { writeFile(t, f, "\n") },
	} {
		t.Run(name, func(t *testing.T) {
			c, file, log := watched(t, "one\n")
			remove(file)
			c.eventually("one", 403)
			require.Equal(t, 401, c.as("").get("/providers").StatusCode)
			require.Contains(t, log.String(), "no API key is left")
			ready := c.as("").get("/health/ready")
			require.Equal(t, 200, ready.StatusCode)
			require.Contains(t, ready.body, `"status":"degraded"`)
			require.Contains(t, ready.body, `"api_keys":{"status":"unavailable"`)
			writeFile(t, file, "one\n")
			c.eventually("one", 200)
			require.NotContains(t, c.as("").get("/health/ready").body, "api_keys")
		})
	}
}
