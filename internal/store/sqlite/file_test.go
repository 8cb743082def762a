package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/store/sqlite"
)

func event(t *testing.T) audit.Event {
	return audit.New(t.Context(), audit.ProviderNotFound, uuid.Nil, map[string]any{"filler": strings.Repeat("x", 1000)})
}

func TestFilesAreForTheirOwnerOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "folder", "nexus.db")
	s := open(t, path)
	require.NoError(t, s.Record(t.Context(), event(t)))
	files, err := filepath.Glob(path + "*")
	require.NoError(t, err)
	require.Greater(t, len(files), 2, "the log and its index lie beside it")
	for _, name := range append(files, filepath.Dir(path)) {
		info, err := os.Stat(name)
		require.NoError(t, err)
		require.Zero(t, info.Mode().Perm()&0o077, "%s has mode %s", name, info.Mode())
	}
	require.NoError(t, s.Close())
}

func TestPathsThatLookLikeSettings(t *testing.T) {
	folder := t.TempDir()
	for _, name := range []string{"a b.db", "a?mode=memory", "a#b", "100%25.db", "ü.db", ":memory:"} {
		path := filepath.Join(folder, name)
		s := open(t, path)
		require.NoError(t, s.Record(t.Context(), event(t)), name)
		require.NoError(t, s.Close())
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Positive(t, info.Size(), name)
	}
	t.Chdir(folder)
	s := open(t, "relative.db")
	require.NoError(t, s.Close())
	require.FileExists(t, filepath.Join(folder, "relative.db"))
}

func TestAFileThatIsNoDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nexus.db")
	require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("this is no database ", 100)), 0o600))
	_, err := sqlite.Open(t.Context(), path)
	require.ErrorContains(t, err, path)
	_, err = sqlite.Open(t.Context(), t.TempDir())
	require.Error(t, err)
}

// TestDurability: what is reported as done is on the disk, and foreign keys hold, on
// the connections of the store itself.
func TestDurability(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nexus.db")
	s := open(t, path)
	require.NoError(t, s.Record(t.Context(), event(t)))
	settings, err := s.Settings(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1"}, settings)

	// What a process leaves behind that is killed now: the files as they are.
	copied := filepath.Join(t.TempDir(), "nexus.db")
	for _, suffix := range []string{"", "-wal"} {
		content, err := os.ReadFile(path + suffix)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(copied+suffix, content, 0o600))
	}
	require.NoError(t, s.Close())
	after := open(t, copied)
	defer func() { _ = after.Close() }()
	events, err := broker.All(after.AuditEvents(t.Context(), audit.Filter{}))
	require.NoError(t, err)
	require.Len(t, events, 1)
}

func TestTwoProcessesShareAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nexus.db")
	stores := []*sqlite.Store{open(t, path), open(t, path)}
	var wg sync.WaitGroup
	errs := make([]error, 2)
	for i, s := range stores {
		wg.Go(func() {
			for range 50 {
				errs[i] = errors.Join(errs[i], s.Record(t.Context(), event(t)))
			}
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	for _, s := range stores {
		events, err := broker.All(s.AuditEvents(t.Context(), audit.Filter{}))
		require.NoError(t, err)
		require.Len(t, events, 100)
		require.NoError(t, s.Close())
	}
}

// Replicas that start at once on a new file all open it. Without its defence a few of
// these openings fail.
func TestManyOpenANewFileAtOnce(t *testing.T) {
	t.Parallel()
	for i := range 200 {
		path := filepath.Join(t.TempDir(), strconv.Itoa(i)+".db")
		var replicas sync.WaitGroup
		for range 8 {
			replicas.Go(func() {
				s, err := sqlite.Open(t.Context(), path)
				if assert.NoError(t, err) {
					assert.NoError(t, s.Close())
				}
			})
		}
		replicas.Wait()
	}
}

func TestWaitingForTheWriterEndsWithTheContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nexus.db")
	s := open(t, path)
	defer func() { _ = s.Close() }()
	other, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	defer func() { _ = other.Close() }()
	conn, err := other.Conn(t.Context())
	require.NoError(t, err)
	_, err = conn.ExecContext(t.Context(), "BEGIN IMMEDIATE")
	require.NoError(t, err)

	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err = s.Record(ctx, event(t))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorIs(t, err, broker.ErrDatabaseDown)
	_, err = broker.All(s.AuditEvents(t.Context(), audit.Filter{})) // readers do not wait
	require.NoError(t, err)
	_, err = conn.ExecContext(t.Context(), "ROLLBACK")
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	require.NoError(t, s.Record(t.Context(), event(t)))
}

func TestAFullDiskIsAnErrorAndPasses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nexus.db")
	s := open(t, path)
	defer func() { _ = s.Close() }()
	lift := s.LimitPages(t, 5)
	stored := 0
	var full error
	for full == nil {
		together := make([]audit.Event, 30) // of some pages: the limit is met in the middle
		for i := range together {
			together[i] = event(t)
		}
		if full = s.Record(t.Context(), together...); full == nil {
			stored += len(together)
		}
		require.Less(t, stored, 10_000, "the limit is never met")
	}
	require.ErrorContains(t, full, "full")
	require.ErrorIs(t, full, broker.ErrDatabaseDown)
	events, err := broker.All(s.AuditEvents(t.Context(), audit.Filter{}))
	require.NoError(t, err)
	require.Len(t, events, stored, "all or none")
	lift()
	require.NoError(t, s.Record(t.Context(), event(t)))
}

func TestOtherDriversReadTheTimes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nexus.db")
	s := open(t, path)
	at := time.Date(2031, 5, 6, 7, 8, 9, 123456000, time.UTC)
	e := event(t)
	e.CreatedAt = at
	require.NoError(t, s.Record(t.Context(), e))
	before := time.Now().Truncate(time.Second)
	ok, err := s.Lease(t.Context(), "sweep", "me", time.Hour)
	require.NoError(t, err)
	require.True(t, ok)
	after := time.Now()
	require.NoError(t, s.Close())
	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	defer func() { _ = db.Close() }()
	var text string
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT datetime(created_at / 1000000, 'unixepoch') FROM audit_events").Scan(&text))
	require.Equal(t, "2031-05-06 07:08:09", text)
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT datetime(held_until / 1000000, 'unixepoch') FROM leases").Scan(&text))
	held, err := time.Parse(time.DateTime, text)
	require.NoError(t, err)
	require.WithinRange(t, held, before.Add(time.Hour), after.Add(time.Hour))
}

// BenchmarkReadToken measures handing out a stored token, the event durable.
func BenchmarkReadToken(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "nexus.db"))
	defer func() { _ = s.Close() }()
	ctx, now := b.Context(), time.Now()
	p := broker.Provider{ID: uuid.New(), Profile: broker.Profile{Name: "p"}, CreatedAt: now, UpdatedAt: now}
	op := broker.Op{ID: uuid.New(), Kind: broker.OpRegister, TTL: time.Minute}
	require.NoError(b, s.ReserveProvider(ctx, p, op))
	require.NoError(b, s.PublishProvider(ctx, p, op))
	c := broker.Connection{ID: uuid.New(), ProviderID: p.ID, Status: broker.StatusPending, CreatedAt: now, UpdatedAt: now, ExpiresAt: now.Add(time.Minute)}
	require.NoError(b, s.CreateConnection(ctx, c))
	require.NoError(b, s.CompleteConnection(ctx, c, broker.StoredToken{Sealed: strings.Repeat("x", 2000)}, now))
	b.ResetTimer()
	for range b.N {
		if _, err := s.ReadToken(ctx, c.ID, audit.New(ctx, audit.TokenRetrieved, c.ID, nil)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
}
