package sqlite_test

import (
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker/storetest"
	"github.com/nexus-broker/nexus-broker/internal/store/relational"
)

func TestEnvelopeConformance(t *testing.T) {
	storetest.RunEnvelopes(t, func(t *testing.T) storetest.EnvelopeStore {
		return open(t, filepath.Join(t.TempDir(), "nexus.db"))
	})
}

func TestNoColumnHoldsEnvelopesThatARotationMisses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nexus.db")
	require.NoError(t, open(t, path).Close())
	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	defer func() { _ = db.Close() }()
	rows, err := db.QueryContext(t.Context(), `SELECT m.name || '.' || c.name FROM sqlite_schema m JOIN pragma_table_info(m.name) c
		WHERE m.type = 'table' AND upper(c.type) NOT IN ('INTEGER', 'TIMESTAMP')`)
	require.NoError(t, err)
	defer func() { _ = rows.Close() }()
	var columns []string
	for rows.Next() {
		var column string
		require.NoError(t, rows.Scan(&column))
		columns = append(columns, column)
	}
	require.NoError(t, rows.Err())
	storetest.RequireKnownColumns(t, columns, relational.SealedColumns())
}
