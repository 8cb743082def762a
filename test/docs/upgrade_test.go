package docs_test

import (
	"database/sql"
	"encoding/base64"
	"os"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

// TestUpgradeOfADatabase follows docs/upgrading.md with a database of the existing broker.
func TestUpgradeOfADatabase(t *testing.T) {
	t.Parallel()
	needsPrograms(t, "pg_dump", "psql")
	dsn := servers.Postgres(t)
	db, err := sql.Open("pgx", dsn)
	require.NoError(t, err)
	defer db.Close()
	tables, err := os.ReadFile("../../internal/store/migrations/postgres/00001_tables_of_the_existing_broker.sql")
	require.NoError(t, err)
	_, err = db.Exec(string(tables) + `;INSERT INTO provider_profiles (name, client_id, client_secret) VALUES ('google', 'an-id', 'a-secret')`)
	require.NoError(t, err)
	key := func(c string) string { return base64.StdEncoding.EncodeToString([]byte(strings.Repeat(c, 32))) }
	s := newShell(t, map[string]string{
		"DATABASE_URL": dsn, "ENCRYPTION_KEY": key("e"), "STATE_KEY": key("s"), "BASE_URL": "https://broker.example.com",
	})
	s.run(scenario(t, "upgrade"))
	var plaintext, sealed int
	require.NoError(t, db.QueryRow(`SELECT (SELECT count(*) FROM provider_profiles WHERE client_id <> ''), (SELECT count(*) FROM sealed_secrets)`).
		Scan(&plaintext, &sealed))
	require.Equal(t, []int{0, 2}, []int{plaintext, sealed})
}
