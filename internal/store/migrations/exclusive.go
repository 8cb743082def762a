package migrations

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// lockWait is how long a request of ours for the tables may queue, and everybody else
	// behind it. It is shorter than PostgreSQL's deadlock_timeout, so that of two who wait
	// for each other it is we who begin anew.
	lockWait = "500ms"
	// lockTries bounds how often, lockPause apart.
	lockTries = 60
	lockPause = 500 * time.Millisecond
)

// errBusy: the tables, or a row, are in somebody else's hands just now.
var errBusy = errors.New("busy")

// exclusively runs f in one transaction in which nobody else uses the tables of the
// existing broker, and commits it if f returns nil and keep is true. While f returns
// errBusy it is tried again, for about a minute.
func exclusively(ctx context.Context, db *sql.DB, keep bool, f func(*sql.Tx) error) error {
	for try := 1; ; try++ {
		err := once(ctx, db, keep, f)
		var pg *pgconn.PgError
		waits := errors.Is(err, errBusy) || errors.As(err, &pg) && (pg.Code == "55P03" || pg.Code == "40P01") // lock_not_available, deadlock_detected
		switch {
		case !waits:
			return err
		case try == lockTries:
			return fmt.Errorf("the tables of the database were in use all the time, so nothing was changed; try again: %w", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lockPause):
		}
	}
}

func once(ctx context.Context, db *sql.DB, keep bool, f func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // of no effect after a commit
	// Connections come first wherever this broker takes both.
	for _, statement := range []string{
		"SET LOCAL lock_timeout = '" + lockWait + "'",
		"LOCK TABLE connections, provider_profiles, tokens, audit_events IN ACCESS EXCLUSIVE MODE",
	} {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	if err := f(tx); err != nil {
		return err
	}
	if !keep {
		return nil
	}
	return tx.Commit()
}
