package e2e_test

import (
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// TestFinishSaysWhatItCouldCheck: only tokens tell whether ENCRYPTION_KEY is the earlier
// broker's. Where there is none, both steps of an upgrade say so, and finish says under
// which key the credentials are from now on.
func TestFinishSaysWhatItCouldCheck(t *testing.T) {
	t.Parallel()
	dsn := servers.Postgres(t)
	old := newExistingBroker(t, dsn, oauthtest.Start(t, oauthtest.Options{}))
	old.exec(existingTables)
	provider := old.create("google", "an-id", "CANARY-secret")
	e := base().with(env{"DATABASE_URL": dsn})
	const unchecked = "warning: there is no token in the database, so it could not be checked whether ENCRYPTION_KEY is the earlier broker's\n"
	run := func(args ...string) string {
		t.Helper()
		code, output := exits(t, e, args...)
		require.Zero(t, code, output)
		require.NotContains(t, output, "CANARY")
		return output
	}
	require.Contains(t, run("migrate", "up", "--dry-run"), unchecked)
	require.NotContains(t, run("migrate", "up"), "warning")
	require.Contains(t, run("migrate", "status"), "not finished: 1 provider has client credentials in plaintext there")

	// With a token, which only the right key opens, there is something to say.
	connection := "00000000-0000-4000-8000-000000000011"
	old.exec(`INSERT INTO connections (id, workspace_id, provider_id, status) VALUES ($1, 'ws', $2, 'active')`, connection, provider)
	old.exec(`INSERT INTO tokens (connection_id, encrypted_data) VALUES ($1, $2)`, connection, old.seal("{}"))
	output := run("migrate", "finish", "--dry-run")
	require.Contains(t, output, "ENCRYPTION_KEY opens the 1 token that was looked at\n     1 pair of client credentials sealed\n")
	require.Contains(t, output, "     1 token in the earlier broker's format: it opens, and is rewritten when it is refreshed\n")
	require.NotContains(t, output, "every replica")
	old.exec(`DELETE FROM tokens`)

	finished := regexp.MustCompile(`^` + regexp.QuoteMeta(unchecked) +
		`what was sealed now is under the key ([0-9a-f]+): every replica must have it first in ENCRYPTION_KEY\n` +
		` {5}1 pair of client credentials sealed\n`).FindStringSubmatch(run("migrate", "finish"))
	require.NotNil(t, finished)
	require.Regexp(t, `(?m)^sealed_secrets +2 +`+finished[1]+` +the first key$`, run("keys", "rotate", "--check"), "by this id the key is known elsewhere")
}
