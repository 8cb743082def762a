package migrations

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/pressly/goose/v3"
)

// advisoryLock is the key of the lock that migrating processes of one PostgreSQL
// database share; any number that other programs do not use.
const advisoryLock int64 = 0x6e65787573_0001

// ForPostgres returns the Migrator of a PostgreSQL database. db needs room for two
// connections at a time.
func ForPostgres(db *sql.DB) (*Migrator, error) {
	return newMigrator(db, dialect{
		goose:  goose.DialectPostgres,
		folder: "postgres",
		tables: `SELECT relname FROM pg_catalog.pg_class
			WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')`,
		locked: func(ctx context.Context, f func() error) error { return withAdvisoryLock(ctx, db, f) },
	})
}

// withAdvisoryLock holds a session-level advisory lock while f runs. It goes with
// the session, so that a process that dies leaves nothing behind.
func withAdvisoryLock(ctx context.Context, db *sql.DB, f func() error) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("connecting to migrate: %w", err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.ExecContext(ctx, "SELECT pg_advisory_lock($1)", advisoryLock); err != nil {
		return fmt.Errorf("waiting for another process that migrates: %w", err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_, _ = conn.ExecContext(ctx, "SELECT pg_advisory_unlock($1)", advisoryLock)
	}()
	return f()
}
