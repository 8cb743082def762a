package postgres_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// A database whose sessions are read-only, as those of a standby are, is not one that a
// broker can work with; and when it can be written to again, sessions from before are not
// what the broker goes on with.
func TestReadOnlySessions(t *testing.T) {
	database := servers.Postgres(t)
	s := open(t, database)
	_, connection := addActive(t, s)
	require.NoError(t, s.Ping(t.Context()))
	require.NoError(t, s.Close())

	setDefault(t, database, "on")
	s = open(t, database)
	defer func() { _ = s.Close() }()
	require.ErrorIs(t, s.Ping(t.Context()), broker.ErrReadOnly)
	_, err := s.ReadToken(t.Context(), connection, retrieved(t.Context(), connection))
	require.ErrorIs(t, err, broker.ErrReadOnly)
	op := broker.Op{ID: uuid.New(), Kind: broker.OpUpdate, TTL: time.Minute}
	_, err = s.BeginOp(t.Context(), uuid.New(), op, false)
	require.ErrorIs(t, err, broker.ErrReadOnly)
	_, err = s.Connection(t.Context(), connection)
	require.NoError(t, err, "what only reads goes on")

	setDefault(t, database, "off")
	require.Eventually(t, func() bool { return s.Ping(t.Context()) == nil }, 30*time.Second, 50*time.Millisecond)
	_, err = s.ReadToken(t.Context(), connection, retrieved(t.Context(), connection))
	require.NoError(t, err)

	// A call that writes finds that out by itself too, and repeats what was refused.
	require.NoError(t, s.Close())
	setDefault(t, database, "on")
	s = open(t, database)
	defer func() { _ = s.Close() }()
	setDefault(t, database, "off")
	_, err = s.ReadToken(t.Context(), connection, retrieved(t.Context(), connection))
	require.NoError(t, err)
	events, err := broker.All(s.AuditEvents(t.Context(), audit.Filter{}))
	require.NoError(t, err)
	require.Len(t, events, 2)
}

// setDefault sets whether new sessions only read.
func setDefault(t *testing.T, database, readOnly string) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), database)
	require.NoError(t, err)
	defer func() { _ = c.Close(context.WithoutCancel(t.Context())) }()
	_, err = c.Exec(t.Context(), "SET default_transaction_read_only = off")
	require.NoError(t, err)
	var name string
	require.NoError(t, c.QueryRow(t.Context(), "SELECT quote_ident(current_database())").Scan(&name))
	_, err = c.Exec(t.Context(), "ALTER DATABASE "+name+" SET default_transaction_read_only = "+readOnly)
	require.NoError(t, err)
}
