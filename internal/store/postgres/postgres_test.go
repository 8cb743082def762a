package postgres_test

import (
	"os"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/broker/storetest"
	"github.com/nexus-broker/nexus-broker/internal/store/postgres"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

func TestMain(m *testing.M) { os.Exit(servers.Main(m)) }

func TestConformance(t *testing.T) {
	database := servers.PostgresCluster(t, "fsync=off").Database(t)
	storetest.Run(t, func(t *testing.T) broker.Store {
		s := open(t, database)
		execute(t, database, `DELETE FROM audit_events; DELETE FROM tokens; DELETE FROM connections;
			DELETE FROM provider_profiles; DELETE FROM credential_cleanups; DELETE FROM leases`)
		return s
	})
}

// open opens and migrates a database.
func open(t testing.TB, databaseURL string) *postgres.Store {
	t.Helper()
	s, err := postgres.Open(t.Context(), postgres.Config{URL: databaseURL})
	require.NoError(t, err)
	m, err := s.Migrator()
	require.NoError(t, err)
	_, err = m.Up(t.Context())
	require.NoError(t, err)
	return s
}

// execute runs statements on a connection of their own.
func execute(t testing.TB, databaseURL, statements string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), databaseURL)
	require.NoError(t, err)
	defer func() { _ = conn.Close(t.Context()) }()
	_, err = conn.Exec(t.Context(), statements)
	require.NoError(t, err)
}
