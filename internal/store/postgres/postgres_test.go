package postgres_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/broker/storetest"
	"github.com/nexus-broker/nexus-broker/internal/store/postgres"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

func TestMain(m *testing.M) { os.Exit(servers.Main(m)) }

func TestConformance(t *testing.T) {
	cluster := servers.PostgresCluster(t, "fsync=off")
	template := cluster.Database(t)
	require.NoError(t, open(t, template).Close())
	storetest.Run(t, func(t *testing.T) broker.Store {
		return open(t, cluster.Copy(t, template))
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
