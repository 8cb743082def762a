package postgres_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/store/postgres"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// vanishing opens a store with so many connections, which are all idle, through a proxy.
func vanishing(t *testing.T, connections string) (*postgres.Store, *servers.PostgresProxy) {
	t.Helper()
	direct := servers.Postgres(t)
	proxy := servers.NewPostgresProxy(t, direct)
	s := open(t, proxy.URL+"&application_name=vanishing&pool_min_conns="+connections)
	t.Cleanup(func() {
		proxy.Down() // else the end waits for an answer
		_ = s.Close()
	})
	other, err := pgx.Connect(t.Context(), direct)
	require.NoError(t, err)
	defer func() { _ = other.Close(context.Background()) }()
	require.Eventually(t, func() (all bool) {
		err := other.QueryRow(t.Context(), `SELECT count(*) >= $1::text::int FROM pg_stat_activity
			WHERE application_name = 'vanishing' AND state = 'idle'`, connections).Scan(&all)
		return err == nil && all
	}, 30*time.Second, 20*time.Millisecond)
	return s, proxy
}

// Of connections that have vanished without a word one call finds out; the next uses none
// of the others.
func TestConnectionsThatHaveVanishedAreNotUsedAgain(t *testing.T) {
	s, proxy := vanishing(t, "18")
	proxy.Vanish()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	require.ErrorIs(t, s.Ping(ctx), context.DeadlineExceeded)
	ctx, cancel = context.WithTimeout(t.Context(), 10*time.Second) // less than a second for each of them
	defer cancel()
	require.NoError(t, s.Ping(ctx))
}

// A connection that has vanished while it was idle fails no call.
func TestAnIdleConnectionThatHasVanishedIsNoFailure(t *testing.T) {
	s, proxy := vanishing(t, "1")
	proxy.Vanish()
	time.Sleep(1500 * time.Millisecond) // idle
	require.NoError(t, s.Ping(t.Context()))
}
