package postgres

import (
	"context"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// recorder is a tracer that keeps the statements that reach the server.
type recorder struct {
	mu         sync.Mutex
	statements []pgx.TraceQueryStartData
}

func (r *recorder) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.statements = append(r.statements, d)
	return ctx
}

func (r *recorder) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// take returns the statements since the last call.
func (r *recorder) take() []pgx.TraceQueryStartData {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.statements
	r.statements = nil
	return taken
}

// recorded opens a migrated database whose statements are recorded.
func recorded(t *testing.T) (*Store, *recorder) {
	t.Helper()
	config, err := Config{URL: servers.Postgres(t)}.pool()
	require.NoError(t, err)
	r := &recorder{}
	config.ConnConfig.Tracer = r
	s, err := open(t.Context(), config, DefaultCallTimeout)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	m, err := s.Migrator()
	require.NoError(t, err)
	_, err = m.Up(t.Context())
	require.NoError(t, err)
	return s, r
}

// populate fills the tables as a broker in use for years would, in which rows of the
// same kind are the many.
const populate = `
INSERT INTO provider_profiles (id, name, created_at, deleted_at, secret_managed, secret_backend)
	SELECT ('00000000-0000-4000-8000-' || lpad(i::text, 12, '0'))::uuid, 'provider-' || i, now() - i * interval '1 minute',
		CASE WHEN i % 50 = 0 THEN now() END, true, 'internal' FROM generate_series(1, 5000) i;
INSERT INTO connections (id, workspace_id, provider_id, status)
	SELECT ('00000000-0000-4000-9000-' || lpad(i::text, 12, '0'))::uuid, 'ws',
		('00000000-0000-4000-8000-' || lpad((i % 5000 + 1)::text, 12, '0'))::uuid, 'active' FROM generate_series(1, 50000) i;
INSERT INTO tokens (connection_id, encrypted_data) SELECT id, 'sealed' FROM connections;
INSERT INTO audit_events (connection_id, event_type, created_at)
	SELECT ('00000000-0000-4000-9000-' || lpad((i % 50000 + 1)::text, 12, '0'))::uuid,
		CASE WHEN i % 10000 = 0 THEN 'provider.created' ELSE 'token_retrieved' END, now() - i * interval '1 second'
	FROM generate_series(1, 100000) i;
INSERT INTO credential_cleanups (id, backend, secret_key, provider_id, generation, published, due_at, created_at)
	SELECT gen_random_uuid(), 'vault', 'key-' || i, gen_random_uuid(), 1, true, now() + i * interval '1 minute', now()
	FROM generate_series(1, 10000) i;
ANALYZE;`

// TestNothingIsScannedWhole: what a request or the sweep runs does not grow with the
// number of rows. The plans are those of the statements that the store really sends.
func TestNothingIsScannedWhole(t *testing.T) {
	s, r := recorded(t)
	ctx, now := t.Context(), time.Now()
	_, err := s.db.pool.Exec(ctx, populate, pgx.QueryExecModeSimpleProtocol)
	require.NoError(t, err)
	provider, connection := uuid.MustParse("00000000-0000-4000-8000-000000000001"), uuid.MustParse("00000000-0000-4000-9000-000000000777")
	events, err := broker.All(s.AuditEvents(ctx, audit.Filter{Limit: 10}))
	require.NoError(t, err)
	after := events[9].ID
	r.take()

	audits := func(f audit.Filter) func() error {
		f.Limit = 50
		return func() error { _, err := broker.All(s.AuditEvents(ctx, f)); return err }
	}
	pending := broker.Connection{ID: uuid.New(), ProviderID: provider, Status: broker.StatusPending, CreatedAt: now, UpdatedAt: now}
	op := broker.Op{ID: uuid.New(), Kind: broker.OpUpdate, TTL: time.Minute}
	for name, call := range map[string]func() error{
		"ReadToken": func() error {
			_, err := s.ReadToken(ctx, connection, audit.New(ctx, audit.TokenRetrieved, connection, nil))
			return err
		},
		"Token": func() error { _, err := s.Token(ctx, connection); return err },
		"ReplaceToken": func() error {
			return s.ReplaceToken(ctx, connection, "sealed", broker.StoredToken{Sealed: "sealed"}, now)
		},
		"Connection":       func() error { _, err := s.Connection(ctx, connection); return err },
		"CreateConnection": func() error { return s.CreateConnection(ctx, pending, audit.New(ctx, "x", pending.ID, nil)) },
		"ClaimRefresh": func() error {
			_, err := s.ClaimRefresh(ctx, connection, broker.RefreshSeen{Sealed: "sealed"}, time.Minute)
			return err
		},
		"RefreshState": func() error { _, err := s.RefreshState(ctx, connection); return err },
		"Connections, a page": func() error {
			_, err := broker.All(s.Connections(ctx, "ws", broker.Page{Limit: 20, After: connection}))
			return err
		},
		"Provider":        func() error { _, err := s.Provider(ctx, provider); return err },
		"ProvidersByName": func() error { _, err := s.ProvidersByName(ctx, "Provider-7"); return err },
		"Providers, a page": func() error {
			_, err := broker.All(s.Providers(ctx, broker.Page{Limit: 20, After: provider}))
			return err
		},
		"BeginOp":            func() error { _, err := s.BeginOp(ctx, provider, op, false); return err },
		"ExpiredOps":         func() error { _, err := s.ExpiredOps(ctx, 10); return err },
		"Orphans":            func() error { _, err := s.Orphans(ctx, "internal", 10); return err },
		"ClaimCleanups":      func() error { _, err := s.ClaimCleanups(ctx, time.Minute, 10); return err },
		"ClaimCleanupsAt":    func() error { _, err := s.ClaimCleanupsAt(ctx, "vault", "key-7", time.Minute); return err },
		"PruneAudit":         func() error { _, err := s.PruneAudit(ctx, now.AddDate(-1, 0, 0), 100); return err },
		"audit":              audits(audit.Filter{}),
		"audit, a rare type": audits(audit.Filter{Type: audit.ProviderCreated}),
		"audit, a type":      audits(audit.Filter{Type: audit.TokenRetrieved, After: after}),
		"audit, connection":  audits(audit.Filter{ConnectionID: connection}),
		"audit, since":       audits(audit.Filter{Since: now.Add(-time.Hour), Until: now}),
		"audit, after":       audits(audit.Filter{After: after}),
	} {
		require.NoError(t, call(), name)
		sent := r.take()
		require.NotEmpty(t, sent)
		for _, d := range sent {
			if d.SQL == "begin" || d.SQL == "commit" {
				continue
			}
			plan := explain(t, s, d)
			require.NotRegexp(t, wholeTable, plan, "%s: %s", name, d.SQL)
			require.NotRegexp(t, sorted, plan, "%s: %s", name, d.SQL)
		}
		r.take()
	}
}

var (
	wholeTable = regexp.MustCompile(`Seq Scan on (provider_profiles|connections|tokens|audit_events|credential_cleanups)`)
	sorted     = regexp.MustCompile(`Sort .*rows=\d{4,}`)
)

func explain(t *testing.T, s *Store, d pgx.TraceQueryStartData) string {
	t.Helper()
	rows, err := s.db.pool.Query(t.Context(), "EXPLAIN "+d.SQL, d.Args...)
	require.NoError(t, err)
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err, d.SQL)
	return strings.Join(lines, "\n")
}

// TestOneRoundTrip: the paths of the agents are one statement each.
func TestOneRoundTrip(t *testing.T) {
	s, r := recorded(t)
	ctx, now := t.Context(), time.Now()
	p := broker.Provider{ID: uuid.New(), Profile: broker.Profile{Name: "p"}, CreatedAt: now, UpdatedAt: now}
	op := broker.Op{ID: uuid.New(), Kind: broker.OpRegister, TTL: time.Minute}
	require.NoError(t, s.ReserveProvider(ctx, p, op))
	require.NoError(t, s.PublishProvider(ctx, p, op))
	c := broker.Connection{ID: uuid.New(), ProviderID: p.ID, Status: broker.StatusPending, CreatedAt: now, UpdatedAt: now, ExpiresAt: now.Add(time.Minute)}
	event := audit.New(ctx, audit.TokenRetrieved, c.ID, nil)
	r.take()
	for name, call := range map[string]func() error{
		"CreateConnection": func() error { return s.CreateConnection(ctx, c, audit.New(ctx, "x", c.ID, nil), event) },
		"Provider":         func() error { _, err := s.Provider(ctx, p.ID); return err },
		"Record":           func() error { return s.Record(ctx, audit.New(ctx, "x", uuid.Nil, nil)) },
	} {
		require.NoError(t, call(), name)
		require.Len(t, r.take(), 1, name)
	}
	require.NoError(t, s.CompleteConnection(ctx, c, broker.StoredToken{Sealed: "x"}, now))
	r.take()
	_, err := s.ReadToken(ctx, c.ID, audit.New(ctx, audit.TokenRetrieved, c.ID, nil))
	require.NoError(t, err)
	require.Len(t, r.take(), 1)
}
