package postgres_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/store/postgres"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// addActive stores a provider and an active connection with a token.
func addActive(t testing.TB, s broker.Store) (provider, connection uuid.UUID) {
	t.Helper()
	ctx, now := t.Context(), time.Now()
	p := broker.Provider{ID: uuid.New(), Profile: broker.Profile{Name: uuid.NewString()}, CreatedAt: now, UpdatedAt: now}
	op := broker.Op{ID: uuid.New(), Kind: broker.OpRegister, TTL: time.Minute}
	require.NoError(t, s.ReserveProvider(ctx, p, op))
	require.NoError(t, s.PublishProvider(ctx, p, op))
	c := broker.Connection{
		ID: uuid.New(), WorkspaceID: "ws", ProviderID: p.ID, Status: broker.StatusPending,
		CreatedAt: now, UpdatedAt: now, ExpiresAt: now.Add(time.Minute),
	}
	require.NoError(t, s.CreateConnection(ctx, c))
	require.NoError(t, s.CompleteConnection(ctx, c, broker.StoredToken{Sealed: strings.Repeat("x", 2000)}, now))
	return p.ID, c.ID
}

func retrieved(ctx context.Context, connection uuid.UUID) audit.Event {
	return audit.New(ctx, audit.TokenRetrieved, connection, map[string]any{"provider": "google"})
}

func TestARestartOfTheServerIsSurvived(t *testing.T) {
	cluster := servers.PostgresCluster(t, "fsync=off")
	s := open(t, cluster.Database(t))
	defer func() { _ = s.Close() }()
	provider, connection := addActive(t, s)
	now := time.Now()
	op := broker.Op{ID: uuid.New(), Kind: broker.OpUpdate, TTL: time.Minute}
	for name, call := range map[string]func() error{
		"ReadToken": func() error {
			_, err := s.ReadToken(t.Context(), connection, retrieved(t.Context(), connection))
			return err
		},
		"Provider": func() error { _, err := s.Provider(t.Context(), provider); return err },
		"Record":   func() error { return s.Record(t.Context(), retrieved(t.Context(), connection)) },
		"SetStatus": func() error {
			return s.SetStatus(t.Context(), connection, broker.StatusActive, broker.StatusActive, now, retrieved(t.Context(), connection))
		},
		"BeginOp": func() error { _, err := s.BeginOp(t.Context(), provider, op, false); return err },
	} {
		busy(t, s)
		cluster.Restart(t)
		require.NoError(t, call(), "%s, the first call after a restart", name)
	}
	events, err := broker.All(s.AuditEvents(t.Context(), audit.Filter{}))
	require.NoError(t, err)
	require.Len(t, events, 3, "nothing was recorded twice")
}

// busy puts several connections into the pool.
func busy(t *testing.T, s *postgres.Store) {
	t.Helper()
	done := make(chan error)
	for range 8 {
		go func() { done <- s.Ping(t.Context()) }()
	}
	for range 8 {
		require.NoError(t, <-done)
	}
}

func TestAnOutageEndsWithTheServersReturn(t *testing.T) {
	cluster := servers.PostgresCluster(t, "fsync=off")
	s := open(t, cluster.Database(t))
	defer func() { _ = s.Close() }()
	_, connection := addActive(t, s)
	cluster.Stop()
	_, err := s.ReadToken(t.Context(), connection, retrieved(t.Context(), connection))
	require.Error(t, err)
	require.NotErrorIs(t, err, broker.ErrNoRow)
	require.ErrorIs(t, err, broker.ErrDatabaseDown)
	require.ErrorIs(t, s.Ping(t.Context()), broker.ErrDatabaseDown)
	cluster.Start(t)
	require.NoError(t, s.Ping(t.Context()))
	_, err = s.ReadToken(t.Context(), connection, retrieved(t.Context(), connection))
	require.NoError(t, err)
}

func TestWaitingForALockEndsWithTheContextOrTheCallTimeout(t *testing.T) {
	database := servers.Postgres(t)
	require.NoError(t, open(t, database).Close())
	s, err := postgres.Open(t.Context(), postgres.Config{URL: database, CallTimeout: 2 * time.Second})
	require.NoError(t, err)
	defer func() { _ = s.Close() }()
	provider, _ := addActive(t, s)

	other, err := pgx.Connect(t.Context(), database)
	require.NoError(t, err)
	defer func() { _ = other.Close(context.Background()) }()
	_, err = other.Exec(t.Context(), "BEGIN")
	require.NoError(t, err)
	_, err = other.Exec(t.Context(), fmt.Sprintf("SELECT 1 FROM provider_profiles WHERE id = '%s' FOR UPDATE", provider))
	require.NoError(t, err)

	op := broker.Op{ID: uuid.New(), Kind: broker.OpUpdate, TTL: time.Minute}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = s.BeginOp(ctx, provider, op, false)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = s.BeginOp(t.Context(), provider, op, false)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorIs(t, err, broker.ErrDatabaseDown)
	_, err = other.Exec(t.Context(), "ROLLBACK")
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, err := s.BeginOp(t.Context(), provider, op, false)
		return err == nil
	}, 10*time.Second, 20*time.Millisecond)
}

func TestWithoutAnSSLModeTheServerMustSpeakTLS(t *testing.T) {
	database := servers.Postgres(t) // which does not
	plain, _, found := strings.Cut(database, "?sslmode=disable")
	require.True(t, found)
	for _, url := range []string{plain, plain + "?sslmode=require"} {
		_, err := postgres.Open(t.Context(), postgres.Config{URL: url})
		require.ErrorContains(t, err, "TLS")
	}
}

func TestAnUnreachableServerIsAnErrorAtOnce(t *testing.T) {
	_, err := postgres.Open(t.Context(), postgres.Config{URL: "postgres://u:canary@127.0.0.1:1/db"})
	require.Error(t, err)
	require.NotContains(t, err.Error(), "canary")
}

// BenchmarkReadToken measures handing out a stored token with 64 callers, the event
// durable, on a server with fsync on, as it is by default.
func BenchmarkReadToken(b *testing.B) {
	s := open(b, servers.PostgresCluster(b, "fsync=on").Database(b))
	defer func() { _ = s.Close() }()
	var connections []uuid.UUID
	for range 100 {
		_, id := addActive(b, s)
		connections = append(connections, id)
	}
	b.SetParallelism(32)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			id := connections[i%len(connections)]
			if _, err := s.ReadToken(b.Context(), id, retrieved(b.Context(), id)); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
}
