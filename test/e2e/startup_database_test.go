package e2e_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

const (
	existingTables = servers.ExistingTables
	newerColumns   = servers.NewerColumns
)

// existingRows is a row in each table, with a token that no key opens.
const existingRows = `
INSERT INTO provider_profiles (name, client_id, client_secret, auth_url, token_url, scopes, params)
	VALUES ('New Provider Name', 'CANARY-id', 'CANARY-secret', 'https://op.test/a', 'https://op.test/t', '{a,b}', '{"k":"v"}');
INSERT INTO connections (workspace_id, provider_id, status) SELECT 'ws', id, 'active' FROM provider_profiles;
INSERT INTO tokens (connection_id, encrypted_data) SELECT id, 'CANARY-sealed' FROM connections;
INSERT INTO audit_events (connection_id, event_type, event_data, ip_address) SELECT id, 'token_retrieved', '{"a":1}', '10.0.0.1' FROM connections;
INSERT INTO provider_aliases (provider_id, alias, alias_norm) SELECT id, 'Alias', 'alias' FROM provider_profiles;`

// everything lists what a PostgreSQL database holds: schema and rows.
func everything(t *testing.T, dsn string) string {
	t.Helper()
	db, err := sql.Open("pgx", dsn)
	require.NoError(t, err)
	defer db.Close()
	var out strings.Builder
	list := func(query string) (values []string) {
		rows, err := db.Query(query)
		require.NoError(t, err)
		defer rows.Close()
		for rows.Next() {
			var s string
			require.NoError(t, rows.Scan(&s))
			values = append(values, s)
		}
		require.NoError(t, rows.Err())
		out.WriteString(strings.Join(values, "\n") + "\n")
		return values
	}
	list(`SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' ORDER BY 1`)
	list(`SELECT relkind::text || ' ' || relname || ' ' || pg_relation_filenode(oid) FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY relname`)
	list(`SELECT table_name || '.' || column_name || ' ' || data_type || ' ' || coalesce(column_default, '') || ' ' || is_nullable
		FROM information_schema.columns WHERE table_schema = 'public' ORDER BY table_name, ordinal_position`)
	list(`SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1`)
	list(`SELECT proname::text || prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1`)
	list(`SELECT tgname::text || pg_get_triggerdef(oid) FROM pg_trigger ORDER BY 1`)
	for _, table := range list(`SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1`) {
		list(`SELECT xmin::text || ' ' || row_to_json(t)::text FROM ` + table + ` t ORDER BY 1`)
	}
	return out.String()
}

// TestStartRefusesWhatItCannotUpgrade: the database of the broker that came before is
// refused, and not a byte of it changed, where ENCRYPTION_KEY does not open its tokens, or
// where its tables are not what that broker makes.
func TestStartRefusesWhatItCannotUpgrade(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ tables, says string }{
		"older, wrong key": {existingTables + existingRows, "does not open the tokens"},
		"newer, wrong key": {existingTables + newerColumns + existingRows, "does not open the tokens"},
		"a column missing": {existingTables + existingRows + "ALTER TABLE connections DROP return_url", "connections has no column return_url"},
		"of another kind":  {existingTables + existingRows + "ALTER TABLE tokens ALTER expires_at TYPE timestamp", "tokens.expires_at is of the type"},
	} {
		t.Run(name, func(t *testing.T) {
			dsn := servers.Postgres(t)
			db, err := sql.Open("pgx", dsn)
			require.NoError(t, err)
			defer db.Close()
			_, err = db.Exec(c.tables)
			require.NoError(t, err)
			before := everything(t, dsn)
			require.Contains(t, before, "CANARY-secret")
			e := base().with(env{"DATABASE_URL": dsn})
			for _, args := range [][]string{{"serve"}, {"migrate", "up"}, {"migrate", "up", "--dry-run"}} {
				code, output := exits(t, e, args...)
				require.Equal(t, 1, code, "%v: %s", args, output)
				require.Contains(t, output, c.says)
				require.Contains(t, output, "left untouched")
				require.NotContains(t, output, "CANARY")
			}
			code, output := exits(t, e.with(env{"AUTO_MIGRATE": "false"}))
			require.Equal(t, 1, code, output)
			code, output = exits(t, e, "migrate", "finish")
			require.Equal(t, 1, code, output)
			require.Equal(t, before, everything(t, dsn))
		})
	}
}

// TestStartOnAnotherProgramsDatabase: tables of somebody else with our names stay as
// they are; with other names they are no hindrance.
func TestStartOnAnotherProgramsDatabase(t *testing.T) {
	t.Parallel()
	for name, table := range map[string]string{"same name": "tokens", "other name": "invoices"} {
		t.Run(name, func(t *testing.T) {
			dsn := servers.Postgres(t)
			db, err := sql.Open("pgx", dsn)
			require.NoError(t, err)
			defer db.Close()
			_, err = db.Exec("CREATE TABLE " + table + " (id int); INSERT INTO " + table + " VALUES (1)")
			require.NoError(t, err)
			before := everything(t, dsn)
			e := base().with(env{"DATABASE_URL": dsn})
			if table == "invoices" {
				start(t, e).call("GET", "/providers", nil).want(200)
				return
			}
			code, output := exits(t, e)
			require.Equal(t, 1, code, output)
			require.Contains(t, output, "another program")
			require.Equal(t, before, everything(t, dsn))
		})
	}
}

// TestStartWithoutMigrating: AUTO_MIGRATE=false leaves the schema to the operator and
// says which command to run.
func TestStartWithoutMigrating(t *testing.T) {
	t.Parallel()
	for name, dsn := range map[string]string{"PostgreSQL": servers.Postgres(t), "SQLite": "sqlite:" + filepath.Join(t.TempDir(), "broker.db")} {
		t.Run(name, func(t *testing.T) {
			e := base().with(env{"DATABASE_URL": dsn, "AUTO_MIGRATE": "false"})
			code, output := exits(t, e)
			require.Equal(t, 1, code, output)
			require.Contains(t, output, "nexus-broker migrate up")
			if name == "PostgreSQL" {
				require.NotContains(t, everything(t, dsn), "provider_profiles")
			}
			code, output = exits(t, env{"DATABASE_URL": dsn}, "migrate", "up")
			require.Equal(t, 0, code, output)
			b := start(t, e)
			b.call("GET", "/providers", nil).want(200)
		})
	}
}

// TestStartWithoutDatabase: a database that cannot be reached, or opened, ends the
// start; no password is shown.
func TestStartWithoutDatabase(t *testing.T) {
	t.Parallel()
	servers.Postgres(t)
	folder := filepath.Join(t.TempDir(), "is-a-folder.db")
	require.NoError(t, os.Mkdir(folder, 0o700))
	noDatabase := filepath.Join(t.TempDir(), "text.db")
	require.NoError(t, os.WriteFile(noDatabase, []byte(strings.Repeat("this is no database\n", 100)), 0o600))
	for _, dsn := range []string{
		"postgres://user:CANARY-password@127.0.0.1:9/db?sslmode=disable", "sqlite:" + folder, "sqlite:" + noDatabase,
	} {
		code, output := exits(t, base().with(env{"DATABASE_URL": dsn}))
		require.Equal(t, 1, code, output)
		require.NotContains(t, output, "CANARY-password")
	}
	left, err := os.ReadFile(noDatabase)
	require.NoError(t, err)
	require.Equal(t, strings.Repeat("this is no database\n", 100), string(left))
}
