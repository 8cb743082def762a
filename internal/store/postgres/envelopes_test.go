package postgres_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker/storetest"
	"github.com/nexus-broker/nexus-broker/internal/store/relational"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

func TestEnvelopeConformance(t *testing.T) {
	database := servers.PostgresCluster(t, "fsync=off").Database(t)
	storetest.RunEnvelopes(t, func(t *testing.T) storetest.EnvelopeStore {
		s := open(t, database)
		execute(t, database, `DELETE FROM sealed_secrets; DELETE FROM audit_events; DELETE FROM tokens; DELETE FROM connections;
			DELETE FROM provider_profiles`)
		return s
	})
}

func TestNoColumnHoldsEnvelopesThatARotationMisses(t *testing.T) {
	database := servers.Postgres(t)
	require.NoError(t, open(t, database).Close())
	conn, err := pgx.Connect(t.Context(), database)
	require.NoError(t, err)
	defer func() { _ = conn.Close(t.Context()) }()
	rows, err := conn.Query(t.Context(), `SELECT table_name || '.' || column_name FROM information_schema.columns
		WHERE table_schema = 'public' AND data_type IN ('text', 'character varying', 'character', 'bytea', 'json', 'jsonb', 'ARRAY')`)
	require.NoError(t, err)
	columns, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	storetest.RequireKnownColumns(t, columns, relational.SealedColumns())
}
