package e2e_test

import (
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// awkwardSecret has every kind of character that a secret may have.
const awkwardSecret = "CANARY-quotes'\"`\\ \t\r\n {\"json\":[1]} é🙂%s$1;--/+:%25 end"

// manyRows is how many providers and how many connections the existing broker has
// beside those that take part.
const manyRows = 2000

// populate fills the existing broker's tables with what is allowed there.
func (x existingBroker) populate() {
	x.t.Helper()
	x.exec(`INSERT INTO provider_profiles (name, client_id, client_secret, auth_url, token_url, auth_type)
		SELECT 'many-' || n, 'CANARY-id-' || n, 'CANARY-secret-' || n, 'https://op.test/a', 'https://op.test/t',
			(ARRAY['oauth2', '', 'api_key', 'basic_auth', 'header', 'query_param', 'hmac_payload', 'aws_sigv4'])[1 + n % 8]
		FROM generate_series(1, $1) n`, manyRows)
	x.exec(`INSERT INTO connections (workspace_id, provider_id, status) SELECT 'many', id, 'active' FROM provider_profiles`)
	sealed := make([]string, manyRows)
	for i := range sealed {
		sealed[i] = x.seal(fmt.Sprintf(`{"access_token":"CANARY-token-%d"}`, i))
	}
	x.exec(`INSERT INTO tokens (connection_id, encrypted_data) SELECT c.id, s.sealed FROM
		(SELECT id, row_number() OVER () n FROM connections) c JOIN unnest($1::text[]) WITH ORDINALITY s (sealed, n) USING (n)`, sealed)
	for _, statement := range []string{
		`INSERT INTO provider_profiles (name, client_id, client_secret) VALUES ('New Provider Name', 'CANARY-unchecked', repeat('CANARY', 700)), ('id.taken', 'CANARY-x', NULL)`,
		`INSERT INTO provider_profiles (name, client_id, client_secret, deleted_at) VALUES ('many-1', 'CANARY-a', 'CANARY-b', now()), ('many-1', '', NULL, now()), ('many-1', NULL, 'CANARY-c', now())`,
		`INSERT INTO provider_profiles (name) VALUES ('nothing')`,
		`INSERT INTO provider_profiles (name, client_id, client_secret) VALUES ('empty', '', '')`,
		`INSERT INTO connections (workspace_id, provider_id, status, code_verifier, expires_at)
			SELECT 'ws', id, 'pending', 'CANARY-expired', now() - interval '1 day' FROM provider_profiles WHERE name = 'nothing'`,
		`INSERT INTO connections (workspace_id, provider_id, status, code_verifier)
			SELECT 'ws', id, s, 'CANARY-old' FROM provider_profiles, unnest(ARRAY['failed', 'attention', NULL]) s WHERE name = 'nothing'`,
		`INSERT INTO audit_events (event_type, event_data) SELECT 'token_retrieved', d::jsonb FROM unnest(ARRAY['{"a":1}', '{"a":1}', '"text"', 'null', NULL]) d`,
	} {
		x.exec(statement)
	}
}

// dumped returns every row of every table.
func dumped(t *testing.T, dsn string) string {
	t.Helper()
	out, err := exec.Command("pg_dump", "--data-only", "--dbname", dsn).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

// TestUpgrade takes databases of the existing broker, of both shapes, through the
// whole upgrade: rehearsal, expand by two replicas at once, both brokers on the same rows,
// rehearsal of finish, finish.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	for name, tables := range map[string]string{"older": existingTables, "newer": existingTables + newerColumns} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := servers.Postgres(t)
			op := oauthtest.Start(t, oauthtest.Options{Clients: []oauthtest.Client{
				{ID: "CANARY-old-client", Secret: awkwardSecret, RedirectURIs: []string{publicURL + "/auth/callback"}},
				{ID: "CANARY-new-client", Secret: "CANARY-new-secret", RedirectURIs: []string{publicURL + "/auth/callback"}},
			}})
			old := newExistingBroker(t, dsn, op)
			old.exec(tables)
			old.populate()
			e := base().with(env{"DATABASE_URL": dsn})
			provider := old.create("google", "CANARY-old-client", awkwardSecret)
			browser := &process{t: t}
			connection := old.callback(browser.authorize(old.begin(provider)))
			gone := old.create("google-old", "CANARY-old-client", awkwardSecret)
			ofGone := old.callback(browser.authorize(old.begin(gone)))
			old.exec("UPDATE provider_profiles SET deleted_at = now() WHERE id = $1", gone)

			before := everything(t, dsn)
			code, output := exits(t, e, "migrate", "up", "--dry-run")
			require.Equal(t, 0, code, output)
			require.Contains(t, output, "opens all of 200 tokens")
			require.NotContains(t, output, "CANARY")
			require.Equal(t, before, everything(t, dsn), "a rehearsal changes nothing")
			code, output = exits(t, e.with(env{"ENCRYPTION_KEY": randomKey("another key")}), "migrate", "up")
			require.Equal(t, 1, code, output)
			require.Equal(t, before, everything(t, dsn), "a wrong key changes nothing")

			var both sync.WaitGroup
			brokers := make([]*process, 2)
			for i := range brokers {
				brokers[i] = launch(t, e, "serve")
			}
			for _, b := range brokers {
				both.Go(func() { b.URL = <-b.listening() })
			}
			both.Wait()
			b := brokers[0]
			require.Contains(t, b.log.String(), "client credentials in plaintext")
			code, output = exits(t, e, "migrate", "status")
			require.Equal(t, 0, code, output)
			require.Contains(t, output, "the upgrade of the database is not finished")
			_, output = exits(t, e, "doctor")
			require.Contains(t, output, "migrate finish")
			require.Contains(t, output, "ENCRYPTION_KEY opens what is in the database", "the earlier format is no foreign key")
			_, output = exits(t, e.with(env{"ENCRYPTION_KEY": randomKey("a new key") + "," + encryptionKey}), "doctor")
			require.Contains(t, output, "put that key first until the upgrade is finished")

			sideBySide(t, b, brokers[1], old, provider, connection)
			b.refresh(ofGone).want(200)
			old.refresh(ofGone)
			require.Equal(t, "CANARY-unchecked", func() string { id, _ := old.pair(idOf(t, old, "New Provider Name")); return id }())

			pending := browser.authorize(old.begin(provider)) // across finish
			before = everything(t, dsn)
			code, output = exits(t, e, "migrate", "finish", "--dry-run")
			require.Equal(t, 0, code, output)
			require.Equal(t, before, everything(t, dsn), "a rehearsal changes nothing")

			for _, wrong := range []string{randomKey("another key"), randomKey("another key") + "," + encryptionKey} {
				for _, command := range [][]string{{"migrate", "finish"}, {"serve"}} {
					code, output = exits(t, e.with(env{"ENCRYPTION_KEY": wrong}), command...)
					require.Equal(t, 1, code, output)
				}
				require.Equal(t, before, everything(t, dsn), "a wrong key loses nothing")
			}
			code, output = exits(t, e, "migrate", "finish")
			require.Equal(t, 0, code, output)
			require.Contains(t, output, "VACUUM FULL")
			_, output = exits(t, e, "doctor")
			require.Contains(t, output, "ENCRYPTION_KEY opens what is in the database")
			code, output = exits(t, e, "migrate", "finish")
			require.Equal(t, 0, code, output)
			require.Contains(t, output, "finished already")

			// The brokers that were running go on, and learn of it.
			for _, b := range brokers {
				b.refresh(connection).want(200)
				b.token(connection).want(200)
			}
			b.refresh(ofGone).want(200)
			require.Equal(t, "success", b.callback(pending).Get("status"))
			made := b.call("POST", "/providers", map[string]any{"profile": profilePair("after", "CANARY-after")}).want(201).text("id")
			require.Equal(t, "CANARY-after-secret", b.call("GET", "/providers/"+made, nil).want(200).object()["client_secret"])
			authURL, _ := b.begin(provider)
			require.Equal(t, "success", b.callback(b.authorize(authURL)).Get("status"))
			require.Equal(t, awkwardSecret, b.call("GET", "/providers/"+provider, nil).want(200).object()["client_secret"])
			for _, id := range connectionsOf(t, old, "many")[:20] {
				require.Contains(t, string(b.token(id).want(200).Body), "CANARY-token-")
			}
			dump := dumped(t, dsn)
			at := strings.Index(dump, "CANARY")
			require.Equal(t, -1, at, "plaintext is left: %.200s", dump[max(0, at-100):])
			require.Len(t, connectionsOf(t, old, "many"), manyRows)
		})
	}
}

func idOf(t *testing.T, x existingBroker, name string) (id string) {
	t.Helper()
	require.NoError(t, x.db.QueryRow("SELECT id::text FROM provider_profiles WHERE name = $1 AND deleted_at IS NULL", name).Scan(&id))
	return id
}

func connectionsOf(t *testing.T, x existingBroker, workspace string) (ids []string) {
	t.Helper()
	rows, err := x.db.Query("SELECT id::text FROM connections WHERE workspace_id = $1", workspace)
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var id string
		require.NoError(t, rows.Scan(&id))
		ids = append(ids, id)
	}
	require.NoError(t, rows.Err())
	return ids
}

// sideBySide has both brokers work on the same rows, in both directions.
func sideBySide(t *testing.T, b, other *process, old existingBroker, provider, connection string) {
	t.Helper()
	// Tokens: each reads and refreshes what the other has stored.
	require.Equal(t, old.token(connection)["access_token"], b.token(connection).want(200).text("access_token"))
	b.refresh(connection).want(200)
	require.Equal(t, b.token(connection).want(200).text("access_token"), old.token(connection)["access_token"])
	old.refresh(connection)
	require.Equal(t, old.token(connection)["access_token"], other.token(connection).want(200).text("access_token"))
	// Consents: each completes what the other has begun.
	authURL, _ := b.begin(provider)
	old.token(old.callback(b.authorize(authURL)))
	require.Equal(t, "success", b.callback(b.authorize(old.begin(provider))).Get("status"))
	// Providers: each sees, uses and changes what the other has registered.
	view := b.call("GET", "/providers/"+provider, nil).want(200).object()
	require.Equal(t, "CANARY-old-client", view["client_id"])
	require.Equal(t, awkwardSecret, view["client_secret"])
	ours := b.call("POST", "/providers", map[string]any{"profile": map[string]any{
		"name": "ours", "auth_url": old.op.URL(oauthtest.Authorization), "token_url": old.op.URL(oauthtest.Token),
		"auth_header": "client_secret_basic", "client_id": "CANARY-new-client", "client_secret": "CANARY-new-secret"}}).want(201).text("id")
	require.Contains(t, old.listed(), "ours")
	old.token(old.callback(b.authorize(old.begin(ours))))
	b.call("PATCH", "/providers/"+ours, map[string]any{"description": "by ours"}).want(200)
	id, secret := old.pair(ours)
	require.Equal(t, []string{"CANARY-new-client", "CANARY-new-secret"}, []string{id, secret}, "a change of something else leaves the pair")
	b.call("PATCH", "/providers/"+ours, map[string]any{"client_secret": "CANARY-newer"}).want(200)
	_, secret = old.pair(ours)
	require.Equal(t, "CANARY-newer", secret)
	_, _ = other.begin(ours) // its cache has the pair now
	old.exec("UPDATE provider_profiles SET client_id = 'CANARY-old-client', client_secret = $2 WHERE id = $1", ours, awkwardSecret)
	for _, replica := range []*process{b, other} {
		authURL, _ = replica.begin(ours)
		require.Equal(t, "CANARY-old-client", mustURL(t, authURL).Query().Get("client_id"), "a change by the existing broker is noticed at the next flow")
	}
	b.call("DELETE", "/providers/"+ours, nil)
	require.NotContains(t, old.listed(), "ours")
	old.exec("UPDATE provider_profiles SET deleted_at = now() WHERE name = 'empty' AND deleted_at IS NULL")
	require.NotContains(t, string(b.call("GET", "/providers", nil).want(200).Body), `"empty"`)
}

// TestFinishIsKilled: a process that is killed while it finishes an upgrade leaves a
// database that is wholly unfinished, and the next one finishes it.
func TestFinishIsKilled(t *testing.T) {
	t.Parallel()
	dsn := servers.Postgres(t)
	old := newExistingBroker(t, dsn, oauthtest.Start(t, oauthtest.Options{}))
	old.exec(existingTables)
	old.populate()
	e := base().with(env{"DATABASE_URL": dsn})
	code, output := exits(t, e, "migrate", "up")
	require.Equal(t, 0, code, output)
	before := everything(t, dsn)
	for range 3 {
		p := launch(t, e, "migrate", "finish")
		eventually(t, "it has the tables for itself, or is through", func() bool {
			var holds bool
			require.NoError(t, old.db.QueryRow(`SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'sealed_secrets'::regclass AND mode = 'RowExclusiveLock' AND granted)`).Scan(&holds))
			select {
			case <-p.done:
				return true
			default:
				return holds // it is sealing
			}
		})
		p.kill()
		eventually(t, "the server has noticed", func() bool {
			var sessions int
			require.NoError(t, old.db.QueryRow(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'nexus-broker'`).Scan(&sessions))
			return sessions == 0
		})
		require.NotEqual(t, 0, p.cmd.ProcessState.ExitCode(), "killed before its end")
		require.Equal(t, before, everything(t, dsn))
	}
	code, output = exits(t, e, "migrate", "finish")
	require.Equal(t, 0, code, output)
	require.NotContains(t, dumped(t, dsn), "CANARY")
}
