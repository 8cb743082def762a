package migrations_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/store/migrations"
	"github.com/nexus-broker/nexus-broker/internal/store/postgres"
	"github.com/nexus-broker/nexus-broker/internal/store/sqlite"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

func TestMain(m *testing.M) { os.Exit(servers.Main(m)) }

// store is what both stores are to these tests.
type store interface {
	broker.Store
	Migrator() (*migrations.Migrator, error)
}

// database is an empty database that can be opened more than once.
type database struct {
	folder string                         // of the populations in testdata
	open   func(t *testing.T) store       // as a broker does
	exec   func(t *testing.T, sql string) // as somebody else does
	dump   func(t *testing.T) string      // the tables with their columns
}

// onBoth runs a test on an empty database of each kind.
func onBoth(t *testing.T, test func(*testing.T, database)) {
	t.Run("sqlite", func(t *testing.T) { test(t, sqliteDatabase(t)) })
	t.Run("postgres", func(t *testing.T) { test(t, postgresDatabase(t)) })
}

func sqliteDatabase(t *testing.T) database {
	path := filepath.Join(t.TempDir(), "nexus.db")
	return database{
		folder: "sqlite",
		open: func(t *testing.T) store {
			s, err := sqlite.Open(context.WithoutCancel(t.Context()), path)
			require.NoError(t, err)
			return s
		},
		exec: func(t *testing.T, statements string) { execute(t, "sqlite", path, statements) },
		dump: func(t *testing.T) string {
			return list(t, "sqlite", path, `SELECT m.name || ' ' || COALESCE(c.name, '') FROM sqlite_schema m
				LEFT JOIN pragma_table_info(m.name) c ORDER BY 1`)
		},
	}
}

func postgresDatabase(t *testing.T) database { return postgresAt(servers.Postgres(t)) }

func postgresAt(url string) database {
	return database{
		folder: "postgres",
		open: func(t *testing.T) store {
			s, err := postgres.Open(context.WithoutCancel(t.Context()), postgres.Config{URL: url})
			require.NoError(t, err)
			return s
		},
		exec: func(t *testing.T, statements string) { execute(t, "pgx", url, statements) },
		dump: func(t *testing.T) string {
			return list(t, "pgx", url, `SELECT table_name || ' ' || column_name FROM information_schema.columns
				WHERE table_schema = 'public' ORDER BY 1`)
		},
	}
}

func execute(t *testing.T, driver, source, statements string) {
	t.Helper()
	db, err := sql.Open(driver, source)
	require.NoError(t, err)
	defer func() { _ = db.Close() }()
	_, err = db.ExecContext(t.Context(), statements)
	require.NoError(t, err)
}

func list(t *testing.T, driver, source, query string) string {
	t.Helper()
	db, err := sql.Open(driver, source)
	require.NoError(t, err)
	defer func() { _ = db.Close() }()
	rows, err := db.QueryContext(t.Context(), query)
	require.NoError(t, err)
	defer func() { _ = rows.Close() }()
	var lines []string
	for rows.Next() {
		var line string
		require.NoError(t, rows.Scan(&line))
		lines = append(lines, line)
	}
	require.NoError(t, rows.Err())
	return strings.Join(lines, "\n")
}

// opened opens the database for as long as the test runs.
func (d database) opened(t *testing.T) (store, *migrations.Migrator) {
	t.Helper()
	s := d.open(t)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	m, err := s.Migrator()
	require.NoError(t, err)
	return s, m
}

func TestAnEmptyDatabaseIsBroughtUpToDate(t *testing.T) {
	onBoth(t, func(t *testing.T, d database) {
		s, m := d.opened(t)
		status, err := m.Status(t.Context())
		require.NoError(t, err)
		require.Zero(t, status.Version)
		require.NotEmpty(t, status.Pending)
		require.Equal(t, status.Latest, status.Pending[len(status.Pending)-1].Version)
		require.NotEmpty(t, status.Pending[0].Name)
		require.Empty(t, d.dump(t), "looking changes nothing")
		require.ErrorIs(t, m.Check(t.Context()), migrations.ErrBehind)
		require.ErrorContains(t, m.Check(t.Context()), "nexus-broker migrate up")
		require.Empty(t, d.dump(t))

		applied, err := m.Up(t.Context())
		require.NoError(t, err)
		require.Equal(t, status.Pending, applied)
		require.NoError(t, m.Check(t.Context()))
		applied, err = m.Up(t.Context())
		require.NoError(t, err)
		require.Empty(t, applied)
		_, err = broker.All(s.Providers(t.Context(), broker.Page{}))
		require.NoError(t, err)
	})
}

// TestEachMigrationOnAPopulatedDatabase applies every migration to a database that
// was in use at the version before.
func TestEachMigrationOnAPopulatedDatabase(t *testing.T) {
	onBoth(t, func(t *testing.T, d database) {
		s, m := d.opened(t)
		status, err := m.Status(t.Context())
		require.NoError(t, err)
		for _, step := range status.Pending {
			require.NoError(t, m.UpTo(t.Context(), step.Version))
			rows, err := os.ReadFile(fmt.Sprintf("testdata/%s/%05d.sql", d.folder, step.Version))
			if step.Version != status.Latest {
				require.NoError(t, err, "every version but the latest needs its population")
				d.exec(t, string(rows))
			}
		}
		require.NoError(t, m.Check(t.Context()))
		providers, err := broker.All(s.Providers(t.Context(), broker.Page{}))
		require.NoError(t, err)
		keys := map[string]string{}
		for _, p := range providers {
			keys[p.Profile.Name] = p.Credentials.Key
			require.Equal(t, p.Profile.Name == "referenced", p.Credentials.Referenced(), "what had a reference has it still, and nothing else has one")
		}
		require.Equal(t, "managed", keys["managed"])
		require.Equal(t, "external", keys["external"])
		require.Equal(t, "referenced", keys["referenced"])
		require.NotContains(t, keys, "reserved")
	})
}

// TestRowsOfTheExistingBrokerAreValid: what a program writes that knows only the
// existing broker's columns is a published provider and its connection.
func TestRowsOfTheExistingBrokerAreValid(t *testing.T) {
	d := postgresDatabase(t)
	s, m := d.opened(t)
	require.NoError(t, m.UpTo(t.Context(), 1))
	rows, err := os.ReadFile("testdata/postgres/00001.sql")
	require.NoError(t, err)
	d.exec(t, string(rows))
	_, err = m.Up(t.Context())
	require.NoError(t, err)
	d.exec(t, `INSERT INTO provider_profiles (name, auth_url) VALUES ('written-later', 'https://x')`)
	d.exec(t, `UPDATE provider_profiles SET updated_at = '2001-01-01'`)
	d.exec(t, `UPDATE provider_profiles SET description = 'changed' WHERE name = 'google' AND deleted_at IS NULL`)

	providers, err := broker.All(s.Providers(t.Context(), broker.Page{}))
	require.NoError(t, err)
	byName := map[string]broker.Provider{}
	for _, p := range providers {
		byName[p.Profile.Name] = p
	}
	require.Len(t, byName, 3)
	google := byName["google"]
	require.Equal(t, []string{"openid", "email"}, google.Profile.Scopes)
	require.True(t, google.Credentials.InRow())
	require.Equal(t, int64(0), google.Credentials.Generation)
	d.exec(t, `UPDATE provider_profiles SET client_secret = 'another' WHERE name = 'google' AND deleted_at IS NULL`)
	changed, err := s.Provider(t.Context(), google.ID)
	require.NoError(t, err)
	require.Equal(t, int64(1), changed.Credentials.Generation, "caches notice")
	require.Equal(t, broker.HealthUnknown, google.Health.Status)
	require.Greater(t, google.UpdatedAt.Year(), 2001, "a change without a time gets the server's")
	require.Equal(t, 2001, byName["written-later"].UpdatedAt.Year())
	require.Equal(t, broker.AuthOAuth2, byName["New Provider Name"].Profile.AuthType)

	connection := uuid.MustParse("00000000-0000-4000-8000-000000000011")
	view, err := s.ReadToken(t.Context(), connection, audit.New(t.Context(), audit.TokenRetrieved, connection, nil))
	require.NoError(t, err)
	require.Equal(t, "X+zr", view.Token.Sealed)
	events, err := broker.All(s.AuditEvents(t.Context(), audit.Filter{}))
	require.NoError(t, err)
	require.Len(t, events, 3)
}

func TestManyReplicasMigrateAtOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, d database) {
		var wg sync.WaitGroup
		errs := make([]error, 8)
		applied := make([]int, len(errs))
		for i := range errs {
			wg.Go(func() {
				s := d.open(t)
				defer func() { _ = s.Close() }()
				m, err := s.Migrator()
				if err == nil {
					var steps []migrations.Migration
					steps, err = m.Up(t.Context())
					applied[i] = len(steps)
				}
				errs[i] = err
			})
		}
		wg.Wait()
		workers := 0
		for i, err := range errs {
			require.NoError(t, err)
			if applied[i] > 0 {
				workers++
			}
		}
		require.Equal(t, 1, workers, "one does the work")
		_, m := d.opened(t)
		require.NoError(t, m.Check(t.Context()))
	})
}

func TestADatabaseThatIsNotOursIsLeftAlone(t *testing.T) {
	for name, c := range map[string]struct {
		tables string
		want   error
		say    string
	}{
		"the existing broker's": {
			`CREATE TABLE provider_profiles (id text, name text, client_secret text);
			 CREATE TABLE connections (id text); CREATE TABLE tokens (id text)`,
			migrations.ErrExistingBroker, "untouched",
		},
		"another program's with a name of ours": {
			`CREATE TABLE tokens (id text); CREATE TABLE users (id text)`, migrations.ErrOccupied, "(tokens)",
		},
		"a newer broker's": {
			`CREATE TABLE nexus_broker_migrations (version_id integer, is_applied boolean);
			 INSERT INTO nexus_broker_migrations VALUES (0, true), (999, true)`,
			migrations.ErrNewer, "schema 999",
		},
	} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, d database) {
				d.exec(t, c.tables)
				before := d.dump(t)
				_, m := d.opened(t)
				_, err := m.Status(t.Context())
				require.ErrorIs(t, err, c.want)
				require.ErrorIs(t, m.Check(t.Context()), c.want)
				_, err = m.Up(t.Context())
				require.ErrorIs(t, err, c.want)
				require.ErrorContains(t, err, c.say)
				require.Equal(t, before, d.dump(t))
			})
		})
	}
}

func TestUnrelatedTablesAreNoObstacle(t *testing.T) {
	onBoth(t, func(t *testing.T, d database) {
		d.exec(t, `CREATE TABLE users (id text); CREATE TABLE goose_db_version (id text)`)
		_, m := d.opened(t)
		_, err := m.Up(t.Context())
		require.NoError(t, err)
		require.Contains(t, d.dump(t), "users id")
		require.Contains(t, d.dump(t), "provider_profiles credentials_generation")
	})
}

func TestWaitingForAnotherProcessEndsWithTheContext(t *testing.T) {
	onBoth(t, func(t *testing.T, d database) {
		_, m := d.opened(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := m.Up(ctx)
		require.ErrorIs(t, err, context.Canceled)
		_, err = m.Up(t.Context())
		require.NoError(t, err)
	})
}
