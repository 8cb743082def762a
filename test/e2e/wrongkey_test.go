package e2e_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// TestStartWithAnotherEncryptionKey: a key that opens nothing of what is in the database
// ends the start, before anything is sealed that no other replica can open; one that opens
// only some of it is worth a warning.
func TestStartWithAnotherEncryptionKey(t *testing.T) {
	t.Parallel()
	another := randomKey("another-key.")
	op := oauthtest.Start(t, oauthtest.Options{})
	for name, e := range map[string]env{
		"SQLite": sqliteWorld(t).env, "PostgreSQL": base().with(env{"DATABASE_URL": servers.Postgres(t)}),
	} {
		t.Run(name, func(t *testing.T) {
			e = e.with(env{"SECRET_BACKEND": "internal"})
			b := start(t, e)
			connection := b.connect(b.registerAt(op, "first"))
			b.stop()

			code, output := exits(t, e.with(env{"ENCRYPTION_KEY": another}))
			require.Equal(t, 2, code, output)
			require.Contains(t, output, "ENCRYPTION_KEY does not open 3 of 3 sealed values")
			require.NotContains(t, output, another)
			require.NotContains(t, output, "listening")

			b = start(t, e.with(env{"ENCRYPTION_KEY": another + "," + encryptionKey}))
			b.token(connection).want(200)
			second := b.registerAt(op, "second")
			theirs := b.connect(second)
			b.waitReady(t, "ready", "ok")
			b.stop()

			b = start(t, e)
			require.Contains(t, b.log.String(), "ENCRYPTION_KEY does not open 3 of 6 sealed values")
			ready := b.send("GET", "/health/ready", nil, nil).want(200).object()
			require.Equal(t, "degraded", ready["status"])
			require.Contains(t, ready["components"].(map[string]any)["encryption_key"].(map[string]any)["message"], "does not open 3 of 6")
			b.token(connection).want(200)
			require.Contains(t, b.token(theirs).want(500, "internal_error").text("message"), "ENCRYPTION_KEY")
			require.Contains(t, b.call("GET", "/providers/"+second, nil).want(502, "credentials_invalid").text("message"), "ENCRYPTION_KEY")
		})
	}
}
