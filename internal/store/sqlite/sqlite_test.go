package sqlite_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/broker/storetest"
	"github.com/nexus-broker/nexus-broker/internal/store/sqlite"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) broker.Store {
		return open(t, filepath.Join(t.TempDir(), "nexus.db"))
	})
}

// open opens and migrates the database at path.
func open(t testing.TB, path string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), path)
	require.NoError(t, err)
	m, err := s.Migrator()
	require.NoError(t, err)
	_, err = m.Up(t.Context())
	require.NoError(t, err)
	return s
}
