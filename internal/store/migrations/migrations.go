// Package migrations brings a database to the schema that this broker needs. The
// migrations are embedded, numbered for each dialect, and applied under a lock, so
// that replicas may start at the same time.
//
// It works on the current schema of the connection (PostgreSQL) or the main database
// (SQLite). Tables of other programs there are left alone, unless they have the name
// of one of ours: then nothing is done.
package migrations

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/pressly/goose/v3"

	"github.com/nexus-broker/nexus-broker/internal/seal"
)

// Why a database cannot be used, tested with errors.Is.
var (
	// ErrBehind: migrations are pending.
	ErrBehind = errors.New(`the database schema is not up to date: run "nexus-broker migrate up"`)
	// ErrNewer: a newer broker has migrated the database.
	ErrNewer = errors.New("the database schema is newer than this broker: use the newer version")
	// ErrExistingBroker: the database looks like one of the existing broker, which keeps no
	// record of migrations, and is not quite as that makes them; or it is an SQLite database,
	// which that broker never makes.
	ErrExistingBroker = errors.New("the database was created by an earlier broker and cannot be upgraded; it was left untouched")
	// ErrNoKey: the existing broker's tokens have to be opened, or its credentials sealed.
	ErrNoKey = errors.New("ENCRYPTION_KEY is needed, the one that the earlier broker has used")
	// ErrWrongKey: the existing broker's tokens do not open.
	ErrWrongKey = errors.New("ENCRYPTION_KEY does not open the tokens of the earlier broker, so the database was left untouched; " +
		"configure the key that they were sealed with")
	// ErrKeyOrder: they open, but not with the key that seals.
	ErrKeyOrder = errors.New("the first key of ENCRYPTION_KEY is not the one of the earlier broker, so the database was left untouched; " +
		"put that key first until the upgrade is finished")
	// ErrOccupied: tables that are not ours have the names that ours need.
	ErrOccupied = errors.New("the database holds tables of another program; it was left untouched: use a database or schema of its own")
)

//go:embed postgres/*.sql sqlite/*.sql
var files embed.FS

// versionTable is where the applied migrations are noted. It is not goose's usual
// one, so that another program in the same schema may use goose as well.
const versionTable = "nexus_broker_migrations"

// ourTables are the names that an unrelated program must not have taken.
var ourTables = []string{
	"provider_profiles", "connections", "tokens", "audit_events", "provider_aliases",
	"credential_cleanups", "sealed_secrets", "leases", "connection_refreshes", "reconsents", "existing_broker",
}

// Migration is one step of the schema.
type Migration struct {
	Version int64
	Name    string // of its file, without the number and extension

	file string
}

// Status is where a database stands.
type Status struct {
	Version int64 // the newest migration applied, 0 if none
	Latest  int64 // the newest that this broker has
	Pending []Migration
	// Existing: the database is one of the existing broker, as yet untouched.
	Existing bool
	// Upgraded: it was one. Unfinished: and that broker may use it still. Plaintext is how
	// many providers then have credentials in plaintext.
	Upgraded, Unfinished bool
	Plaintext            int
}

// Migrator applies the migrations of one dialect to one database. It is safe for
// concurrent use.
type Migrator struct {
	db      *sql.DB
	dialect dialect
	steps   []Migration
	keys    *seal.Keyring
}

// dialect is what differs between the databases.
type dialect struct {
	goose  goose.Dialect
	folder string
	tables string // a query for the names of all tables and views
	// locked runs f while no other process migrates this database.
	locked func(ctx context.Context, f func() error) error
}

func newMigrator(db *sql.DB, d dialect) (*Migrator, error) {
	m := &Migrator{db: db, dialect: d}
	entries, err := files.ReadDir(d.folder)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		version, err := goose.NumericComponent(e.Name())
		if err != nil {
			return nil, err
		}
		_, name, _ := strings.Cut(strings.TrimSuffix(e.Name(), path.Ext(e.Name())), "_")
		m.steps = append(m.steps, Migration{Version: version, Name: strings.ReplaceAll(name, "_", " "), file: d.folder + "/" + e.Name()})
	}
	return m, nil
}

// WithKeys returns the Migrator with the keys that a database of the existing broker needs:
// to open its tokens, and to seal its credentials.
func (m *Migrator) WithKeys(keys *seal.Keyring) *Migrator {
	with := *m
	with.keys = keys
	return &with
}

// Status tells where the database stands and changes nothing. It returns an error
// wrapping ErrNewer, ErrExistingBroker or ErrOccupied where it cannot be used.
func (m *Migrator) Status(ctx context.Context) (Status, error) {
	s := Status{Latest: m.steps[len(m.steps)-1].Version}
	tables, err := m.tables(ctx)
	if err != nil {
		return s, err
	}
	if slices.Contains(tables, versionTable) {
		query := "SELECT COALESCE(MAX(version_id), 0) FROM " + versionTable
		if err := m.db.QueryRowContext(ctx, query).Scan(&s.Version); err != nil {
			return s, fmt.Errorf("reading the version of the schema: %w", err)
		}
		if err := m.readUpgrade(ctx, &s, tables); err != nil {
			return s, err
		}
	} else if err := m.unknown(ctx, &s, tables); err != nil {
		return s, err
	}
	if s.Version > s.Latest {
		return s, fmt.Errorf("%w (schema %d, this broker knows %d)", ErrNewer, s.Version, s.Latest)
	}
	for _, step := range m.steps {
		if step.Version > s.Version {
			s.Pending = append(s.Pending, step)
		}
	}
	return s, nil
}

// Check returns nil if the schema is what this broker needs. Else its error wraps
// ErrBehind or one of Status.
func (m *Migrator) Check(ctx context.Context) error {
	s, err := m.Status(ctx)
	if err != nil {
		return err
	}
	if len(s.Pending) > 0 {
		return fmt.Errorf("%w (schema %d, this broker needs %d)", ErrBehind, s.Version, s.Latest)
	}
	return nil
}

// Up applies what is pending and returns it, each migration in a transaction of its
// own. Of several processes that call it at once one does the work and the others
// wait for it. Its errors are those of Status.
func (m *Migrator) Up(ctx context.Context) ([]Migration, error) {
	return m.upTo(ctx, m.steps[len(m.steps)-1].Version)
}

func (m *Migrator) upTo(ctx context.Context, version int64) (applied []Migration, err error) {
	err = m.dialect.locked(ctx, func() error {
		s, err := m.Status(ctx)
		if err != nil || len(s.Pending) == 0 {
			return err
		}
		if s.Existing {
			applied = s.Pending
			_, err := m.adopt(ctx, true)
			return err
		}
		folder, err := fs.Sub(files, m.dialect.folder)
		if err != nil {
			return err
		}
		provider, err := goose.NewProvider(m.dialect.goose, m.db, folder,
			goose.WithTableName(versionTable), goose.WithDisableGlobalRegistry(true))
		if err != nil {
			return err
		}
		if _, err := provider.UpTo(ctx, version); err != nil {
			return fmt.Errorf("migrating the database: %w", err)
		}
		applied = slices.DeleteFunc(s.Pending, func(p Migration) bool { return p.Version > version })
		return nil
	})
	if err != nil {
		return nil, err
	}
	return applied, nil
}

// Rehearse does to a database of the existing broker what Up does, in a transaction that
// it rolls back, and returns what it has found. As long as that takes, nobody else uses
// its tables. Its errors are those of Up.
func (m *Migrator) Rehearse(ctx context.Context) (found Existing, err error) {
	err = m.dialect.locked(ctx, func() error {
		found, err = m.adopt(ctx, false)
		return err
	})
	return found, err
}

func (m *Migrator) tables(ctx context.Context) (names []string, err error) {
	rows, err := m.db.QueryContext(ctx, m.dialect.tables)
	if err != nil {
		return nil, fmt.Errorf("listing the tables of the database: %w", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

const unfinishedQuery = "SELECT EXISTS (SELECT 1 FROM existing_broker WHERE finished_at IS NULL)"

// readUpgrade reads how far the upgrade of an existing broker's database has come.
func (m *Migrator) readUpgrade(ctx context.Context, s *Status, tables []string) error {
	if !slices.Contains(tables, "existing_broker") {
		return nil
	}
	err := m.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM existing_broker),
		EXISTS (SELECT 1 FROM existing_broker WHERE finished_at IS NULL),
		(SELECT count(*) FROM provider_profiles WHERE `+plaintextPair+")").Scan(&s.Upgraded, &s.Unfinished, &s.Plaintext)
	if err != nil {
		return fmt.Errorf("reading how far the upgrade of the database has come: %w", err)
	}
	return nil
}

// unknown looks at a database that we have not migrated.
func (m *Migrator) unknown(ctx context.Context, s *Status, tables []string) error {
	err := foreign(tables)
	if !errors.Is(err, ErrExistingBroker) || m.dialect.goose != goose.DialectPostgres {
		return err
	}
	for _, name := range ourTables { // what only this broker makes would be in the way
		if _, its := existingColumns[name]; !its && name != "provider_aliases" && slices.Contains(tables, name) {
			return fmt.Errorf("%w: it has a table %s of somebody else's", ErrExistingBroker, name)
		}
	}
	if _, err := recognise(ctx, m.db); err != nil {
		return err
	}
	s.Existing = true
	return nil
}

// foreign tells why the tables of a database that we have not migrated keep us from
// doing so; nil if they do not.
func foreign(tables []string) error {
	taken := slices.DeleteFunc(slices.Clone(ourTables), func(name string) bool { return !slices.Contains(tables, name) })
	switch {
	case len(taken) == 0:
		return nil
	case slices.Contains(taken, "provider_profiles"):
		return ErrExistingBroker
	}
	return fmt.Errorf("%w (%s)", ErrOccupied, strings.Join(taken, ", "))
}
