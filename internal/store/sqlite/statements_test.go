package sqlite

import (
	"context"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/store/relational"
)

// recorder keeps the statements that reach the database.
type recorder struct {
	relational.DB
	statements []statement
}

type statement struct {
	sql  string
	args []any
}

func (r *recorder) record(sql string, args []any) {
	r.statements = append(r.statements, statement{sql, args})
}

func (r *recorder) Exec(ctx context.Context, sql string, args ...any) (int64, error) {
	r.record(sql, args)
	return r.DB.Exec(ctx, sql, args...)
}

func (r *recorder) Query(ctx context.Context, sql string, args []any, each func(relational.Scan) error) error {
	r.record(sql, args)
	return r.DB.Query(ctx, sql, args, each)
}

func (r *recorder) Change(ctx context.Context, sql string, args []any, events []audit.Event) (int64, error) {
	r.record(sql, args)
	return r.DB.Change(ctx, sql, args, events)
}

func (r *recorder) Atomically(ctx context.Context, f func(context.Context, relational.Tx) error) error {
	return r.DB.Atomically(ctx, func(ctx context.Context, tx relational.Tx) error { return f(ctx, recorderTx{tx, r}) })
}

type recorderTx struct {
	relational.Tx
	r *recorder
}

func (t recorderTx) Exec(ctx context.Context, sql string, args ...any) (int64, error) {
	t.r.record(sql, args)
	return t.Tx.Exec(ctx, sql, args...)
}

func (t recorderTx) Query(ctx context.Context, sql string, args []any, each func(relational.Scan) error) error {
	t.r.record(sql, args)
	return t.Tx.Query(ctx, sql, args, each)
}

var (
	wholeTable = regexp.MustCompile(`^SCAN (\w+)$`)
	sorted     = regexp.MustCompile(`USE TEMP B-TREE FOR ORDER BY`)
)

// TestNothingIsScannedWhole: what a request or the sweep runs does not grow with the
// number of rows. SQLite plans without looking at them, so an empty database will do.
func TestNothingIsScannedWhole(t *testing.T) {
	opened, err := Open(t.Context(), filepath.Join(t.TempDir(), "nexus.db"))
	require.NoError(t, err)
	defer func() { _ = opened.Close() }()
	m, err := opened.Migrator()
	require.NoError(t, err)
	_, err = m.Up(t.Context())
	require.NoError(t, err)
	r := &recorder{DB: opened.db}
	s, ctx, now, id := relational.New(r, dialect), t.Context(), time.Now(), uuid.New()

	_, _ = s.ReadToken(ctx, id, audit.Event{})
	_, _ = s.Connection(ctx, id)
	_ = s.CreateConnection(ctx, broker.Connection{ID: uuid.New(), ProviderID: id, CreatedAt: now})
	_, _ = broker.All(s.Connections(ctx, "ws", broker.Page{Limit: 20}))
	_, _ = broker.All(s.Connections(ctx, "ws", broker.Page{Limit: 20, After: id}))
	_, _ = s.RefreshState(ctx, id)
	_, _ = s.Provider(ctx, id)
	_, _ = s.ProvidersByName(ctx, "Name")
	_, _ = broker.All(s.Providers(ctx, broker.Page{Limit: 20}))
	_, _ = broker.All(s.Providers(ctx, broker.Page{Limit: 20, After: id}))
	_, _ = s.BeginOp(ctx, id, broker.Op{ID: id, Kind: broker.OpUpdate}, false)
	_, _ = s.ExpiredOps(ctx, 10)
	_, _ = s.Orphans(ctx, "internal", 10)
	_, _ = s.ClaimCleanups(ctx, time.Minute, 10)
	_, _ = s.ClaimCleanupsAt(ctx, "vault", "key", time.Minute)
	_, _ = s.PruneAudit(ctx, now, 10)
	for _, f := range []audit.Filter{
		{}, {Type: "x"}, {Type: "x", After: id}, {ConnectionID: id}, {Since: now, Until: now}, {After: id}, {ConnectionID: id, Since: now},
	} {
		f.Limit = 50
		_, err := broker.All(s.AuditEvents(ctx, f))
		require.NoError(t, err)
	}
	require.Len(t, r.statements, 23, "one of every call")
	for _, st := range r.statements {
		for _, line := range explain(t, opened, st) {
			require.NotRegexp(t, wholeTable, line, st.sql)
			if strings.Contains(st.sql, "LIMIT") { // else it sorts the few rows of one name or place
				require.NotRegexp(t, sorted, line, st.sql)
			}
		}
	}
}

func explain(t *testing.T, s *Store, st statement) (plan []string) {
	t.Helper()
	args, err := encode(st.args)
	require.NoError(t, err)
	rows, err := s.db.writer.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+st.sql, args...)
	require.NoError(t, err, st.sql)
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var id, parent, unused int
		var line string
		require.NoError(t, rows.Scan(&id, &parent, &unused, &line))
		plan = append(plan, line)
	}
	require.NoError(t, rows.Err())
	return plan
}
