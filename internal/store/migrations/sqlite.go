package migrations

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/pressly/goose/v3"
)

// ForSQLite returns the Migrator of an SQLite database. lock is another SQLite
// database, a file beside it that stays empty: SQLite has no lock that would outlive
// the transaction of one migration, so the file's own lock serves.
func ForSQLite(db, lock *sql.DB) (*Migrator, error) {
	return newMigrator(db, dialect{
		goose:  goose.DialectSQLite3,
		folder: "sqlite",
		tables: `SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')`,
		locked: func(ctx context.Context, f func() error) error { return withExclusive(ctx, lock, f) },
	})
}

// withExclusive holds the lock of a database file while f runs. It goes with the
// connection, so that a process that dies leaves nothing behind.
func withExclusive(ctx context.Context, lock *sql.DB, f func() error) error {
	conn, err := lock.Conn(ctx)
	if err != nil {
		return fmt.Errorf("opening the lock of the migrations: %w", err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.ExecContext(ctx, "BEGIN EXCLUSIVE"); err != nil {
		return fmt.Errorf("waiting for another process that migrates: %w", err)
	}
	defer func() { _, _ = conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK") }()
	return f()
}
