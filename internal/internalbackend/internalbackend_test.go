package internalbackend_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/internalbackend"
	"github.com/nexus-broker/nexus-broker/internal/seal"
	"github.com/nexus-broker/nexus-broker/internal/store/migrations"
	"github.com/nexus-broker/nexus-broker/internal/store/postgres"
	"github.com/nexus-broker/nexus-broker/internal/store/sqlite"
	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/secrettest"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

func TestMain(m *testing.M) { os.Exit(servers.Main(m)) }

// database is what a store is to these tests.
type database interface {
	internalbackend.Rows
	Migrator() (*migrations.Migrator, error)
	Close() error
}

func ring(t *testing.T, fill byte) *seal.Keyring {
	t.Helper()
	r, err := seal.NewKeyring(bytes.Repeat([]byte{fill}, seal.KeyBytes))
	require.NoError(t, err)
	return r
}

func migrated(t *testing.T, db database, err error) database {
	t.Helper()
	require.NoError(t, err)
	m, err := db.Migrator()
	require.NoError(t, err)
	_, err = m.Up(t.Context())
	require.NoError(t, err)
	return db
}

func openSQLite(t *testing.T, path string) database {
	t.Helper()
	db, err := sqlite.Open(t.Context(), path)
	return migrated(t, db, err)
}

// onBoth runs a test on an empty database of each kind, open as long as the test runs.
func onBoth(t *testing.T, test func(*testing.T, database)) {
	run := func(t *testing.T, db database) {
		t.Cleanup(func() { require.NoError(t, db.Close()) })
		test(t, db)
	}
	t.Run("sqlite", func(t *testing.T) { run(t, openSQLite(t, filepath.Join(t.TempDir(), "nexus.db"))) })
	t.Run("postgres", func(t *testing.T) {
		db, err := postgres.Open(t.Context(), postgres.Config{URL: servers.Postgres(t)})
		run(t, migrated(t, db, err))
	})
}

func TestConformance(t *testing.T) {
	onBoth(t, func(t *testing.T, db database) {
		open := func(t *testing.T) secret.SecretBackend { return internalbackend.New(db, ring(t, 1)) }
		secrettest.Run(t, open, secrettest.WithName("internal"), secrettest.WithUnreachable(closed))
	})
}

// closed returns a backend whose database does not answer.
func closed(t *testing.T) secret.SecretBackend {
	db := openSQLite(t, filepath.Join(t.TempDir(), "nexus.db"))
	require.NoError(t, db.Close())
	return internalbackend.New(db, ring(t, 1))
}

func TestARowIsBoundToItsKey(t *testing.T) {
	onBoth(t, func(t *testing.T, db database) {
		b := internalbackend.New(db, ring(t, 1))
		require.NoError(t, b.Set(t.Context(), "google/client_secret", "hunter2"))
		row, found, err := db.SealedRow(t.Context(), "google/client_secret")
		require.NoError(t, err)
		require.True(t, found)
		_, err = db.UpsertSealedRow(t.Context(), "evil/client_secret", row.Sealed, row.Owner, 1, time.Now())
		require.NoError(t, err)
		_, err = b.Get(t.Context(), "evil/client_secret")
		require.ErrorIs(t, err, secret.ErrInvalid)
		require.NotErrorIs(t, err, secret.ErrNotFound)
		require.NotContains(t, err.Error(), row.Sealed)
	})
}

func TestAValueUnderAnotherKeyIsInvalidAndCanBeReplaced(t *testing.T) {
	onBoth(t, func(t *testing.T, db database) {
		before, after := internalbackend.New(db, ring(t, 1)), internalbackend.New(db, ring(t, 2))
		for _, key := range []string{"a/client_id", "b/client_id"} {
			require.NoError(t, before.Set(t.Context(), key, "value"))
			_, err := after.Get(t.Context(), key)
			require.ErrorIs(t, err, secret.ErrInvalid)
			require.ErrorContains(t, err, "ENCRYPTION_KEY")
		}
		_, err := after.Create(t.Context(), "a/client_id", "value", "owner")
		require.ErrorIs(t, err, secret.ErrExists, "what cannot be read is not missing")
		require.NoError(t, after.Set(t.Context(), "a/client_id", "new"))
		value, err := after.Get(t.Context(), "a/client_id")
		require.NoError(t, err)
		require.Equal(t, "new", value)
		require.NoError(t, after.Delete(t.Context(), "b/client_id"))
		_, err = after.Get(t.Context(), "b/client_id")
		require.ErrorIs(t, err, secret.ErrNotFound)
	})
}

func TestVersionsCountTheChangesOfAValue(t *testing.T) {
	onBoth(t, func(t *testing.T, db database) {
		b := internalbackend.New(db, ring(t, 1))
		first, err := b.Create(t.Context(), "p/client_id", "a", "provider/1")
		require.NoError(t, err)
		second, err := b.Replace(t.Context(), "p/client_id", "b", "provider/2", "")
		require.NoError(t, err)
		n, err := strconv.ParseInt(first, 10, 64)
		require.NoError(t, err)
		require.Equal(t, strconv.FormatInt(n+1, 10), second)
		require.NoError(t, b.Set(t.Context(), "p/client_id", "c"))
		item, err := b.Read(t.Context(), "p/client_id")
		require.NoError(t, err)
		require.Equal(t, strconv.FormatInt(n+2, 10), item.Version)
		require.Empty(t, item.Owner, "a Set leaves no owner behind")
	})
}

// Who has read a value that was deleted, and comes late, does not write over its successor.
func TestASuccessorHasOtherVersions(t *testing.T) {
	onBoth(t, func(t *testing.T, db database) {
		b := internalbackend.New(db, ring(t, 1))
		for _, again := range []func() (string, error){
			func() (string, error) { return b.Create(t.Context(), "p/client_id", "successor", "another/1") },
			func() (string, error) { return b.Replace(t.Context(), "p/client_id", "successor", "another/1", "") },
		} {
			old, err := b.Create(t.Context(), "p/client_id", "a", "provider/1")
			require.NoError(t, err)
			require.NoError(t, b.Delete(t.Context(), "p/client_id"))
			_, err = again()
			require.NoError(t, err)
			_, err = b.Replace(t.Context(), "p/client_id", "late", "provider/2", old)
			require.ErrorIs(t, err, secret.ErrChanged)
			require.NoError(t, b.RemoveVersion(t.Context(), "p/client_id", old))
			v, err := b.Get(t.Context(), "p/client_id")
			require.NoError(t, err)
			require.Equal(t, "successor", v)
			require.NoError(t, b.Delete(t.Context(), "p/client_id"))
		}
	})
}

func TestAFailingDatabaseIsAnOutage(t *testing.T) {
	b := closed(t).(*internalbackend.InternalBackend)
	_, err := b.Get(t.Context(), "p/client_id")
	require.ErrorIs(t, err, secret.ErrUnavailable)
	require.NotErrorIs(t, err, secret.ErrNotFound)
	require.ErrorIs(t, b.Set(t.Context(), "p/client_id", "x"), secret.ErrUnavailable)
	require.ErrorIs(t, b.Delete(t.Context(), "p/client_id"), secret.ErrUnavailable)
	require.ErrorIs(t, b.Probe(t.Context(), secret.ReadWrite), secret.ErrUnavailable)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = b.Get(ctx, "p/client_id")
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, secret.ErrUnavailable, "nobody's outage")
}

// TestNothingIsStoredInPlaintext looks at every byte that the database has on disk.
func TestNothingIsStoredInPlaintext(t *testing.T) {
	const canary = "canary-7f3a-secret"
	folder := t.TempDir()
	db := openSQLite(t, filepath.Join(folder, "nexus.db"))
	b := internalbackend.New(db, ring(t, 1))
	require.NoError(t, b.Set(t.Context(), "p/client_secret", canary))
	_, err := b.Replace(t.Context(), "p/client_secret", canary+"2", "provider/1", "")
	require.NoError(t, err)
	search := func() {
		files, err := filepath.Glob(filepath.Join(folder, "*"))
		require.NoError(t, err)
		require.NotEmpty(t, files)
		for _, name := range files {
			content, err := os.ReadFile(name)
			require.NoError(t, err)
			for _, form := range []string{canary, hex.EncodeToString([]byte(canary)), base64.StdEncoding.EncodeToString([]byte(canary))[:20]} {
				require.NotContains(t, string(content), form, name)
			}
		}
	}
	search() // with the write-ahead log
	require.NoError(t, db.Close())
	search()
}
